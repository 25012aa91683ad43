"""Curves of several seeds as arrays: means with their bands, accuracy while training, and the stability gap."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cl_ext.metrics.matrix import FloatArray
from cl_ext.report.statistics import FEW_SEEDS, half_width

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class Curve:
    """Accuracies of one run while it trains.

    Attributes:
        experience: (N,) the experience in training at each instant, from 1, never decreasing.
        time: (N,) experiences trained. Inside an experience instants are evenly spaced and the last stands at its end,
            so that streams whose experiences differ in length line up.
        accuracies: (N, T) fractions, NaN where undefined; of several seeds (seeds, N, T).
    """

    experience: NDArray[np.intp]
    time: FloatArray
    accuracies: FloatArray

    @cached_property
    def seen(self) -> FloatArray:
        """(..., N) the mean accuracy on the experiences seen so far."""
        return self.before(self.experience)

    def before(self, count: NDArray[np.intp]) -> FloatArray:
        """(..., N) the mean accuracy on the first `count` experiences, a number from 1 for each instant."""
        summed = np.cumsum(self.accuracies, axis=-1)
        return summed[..., np.arange(len(count)), count - 1] / count


def curve_of(points: Any, which: str) -> Curve | None:
    """A run's curve from the frame's column `curve`; None where there is none.

    Args:
        points: a row an instant: `experience`, `epoch`, `iteration` and `which`.
        which: `task_aware` or `task_agnostic`.
    """
    if not isinstance(points, pd.DataFrame) or points.empty:
        return None
    experience, epoch, iteration = (points[name].to_numpy() for name in ("experience", "epoch", "iteration"))
    order = np.lexsort((iteration, epoch, experience))
    experience = experience[order]
    _, first, length = np.unique(experience, return_index=True, return_counts=True)
    within = np.arange(1, len(experience) + 1) - np.repeat(first, length)
    time = experience - 1 + within / np.repeat(length, length)
    return Curve(experience, time, np.stack(points[which].to_list())[order])


def mean_and_band(values: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The mean over seeds and the band around it, point by point (see `cl_ext.report.statistics.band`).

    Args:
        values: (seeds, points), NaN where undefined.

    Returns:
        mean, low, high, each (points,): NaN where a seed is undefined; the band also for one seed.
    """
    n = len(values)
    mean = values.mean(axis=0)
    if n < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    if n < FEW_SEEDS:
        return mean, values.min(axis=0), values.max(axis=0)
    half = half_width(values.std(axis=0, ddof=1), np.full(mean.shape, n))
    return mean, mean - half, mean + half


def on_one_grid(curves: Sequence[Curve]) -> Curve:
    """The curves of several seeds at the same instants: those of the seed that has most in an experience.

    Seeds of streams whose experiences differ in length have different instants; their curves are then read off between
    theirs, along straight lines, experience by experience.

    Args:
        curves: a seed's each; every experience that one has an instant of, all have.

    Returns:
        One curve, its accuracies (seeds, N, T).

    Raises:
        ValueError: the seeds have instants of different experiences.
    """
    first = curves[0]
    if all(np.array_equal(curve.time, first.time) for curve in curves):
        return Curve(first.experience, first.time, np.stack([curve.accuracies for curve in curves]))
    present = [np.unique(curve.experience) for curve in curves]
    if any(not np.array_equal(each, present[0]) for each in present):
        raise ValueError("the seeds of one row have curves over different experiences")
    times, experiences, rows = [], [], []
    for k in present[0]:
        parts = [(curve.time[curve.experience == k], curve.accuracies[curve.experience == k]) for curve in curves]
        grid = max((time for time, _ in parts), key=len)
        rows.append(np.stack([_read_off(grid, time, values) for time, values in parts]))
        times.append(grid)
        experiences.append(np.full(len(grid), k))
    return Curve(np.concatenate(experiences), np.concatenate(times), np.concatenate(rows, axis=1))


def _read_off(grid: FloatArray, time: FloatArray, values: FloatArray) -> FloatArray:
    """Accuracies (N, T) of other instants, along straight lines."""
    return np.stack([np.interp(grid, time, column) for column in values.T], axis=1)


def stability_gap(curve: Curve) -> FloatArray:
    """How accuracy on the experiences learned so far drops when the next one begins, and how it comes back.

    For each boundary `k`, where experience k has ended (De Lange et al. 2023 name the drop and recovery the stability
    gap): ``before``, the mean accuracy on experiences 1..k at the last instant of k; ``lowest``, its least value at the
    instants of experience k + 1; ``after``, its value at the last of these.

    Args:
        curve: the run's curve.

    Returns:
        (boundaries, 5): k, before, lowest, after, and the instant of the lowest; a boundary where one of both
        experiences has no instant, or where an accuracy is undefined, is left out.
    """
    rows = []
    for k in range(1, int(curve.experience[-1])):
        old, new = curve.experience == k, curve.experience == k + 1
        if not old.any() or not new.any():
            continue
        accuracy = curve.accuracies[:, :k].mean(axis=1)
        before, during = accuracy[old][-1], accuracy[new]
        if np.isnan(before) or np.isnan(during).any():
            continue
        at = int(during.argmin())
        rows.append((k, before, during[at], during[-1], curve.time[new][at]))
    return np.array(rows, dtype=np.float64).reshape(-1, 5)
