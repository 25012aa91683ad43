"""Follows a cell while it runs and hands what it sees to a tracker; nothing that a tracker does reaches the cell."""

import math
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from cl_ext.metrics import METRICS
from cl_ext.study.cellspec import CellSpec, criterion
from cl_ext.study.tracking import Tracking

import numpy as np
import torch

EVERY = 20  # training steps between two losses
_COSTS = ("train_seconds", "train_cpu_seconds", "steps", "flops_per_step", "parameters", "extra_bytes", "seconds")


class Follower:
    """What the recorder tells how a cell goes; does nothing where there is no tracker.

    Random states are as before after every call, and an error of the tracker's is printed once, into the cell's log,
    and ends the tracking.

    Args:
        tracking: The fields of a `Tracking`, or None.
        cell: The cell.

    Attributes:
        spent: Wall and CPU seconds in here, which are no part of training.
    """

    def __init__(self, tracking: Mapping[str, Any] | None, cell: CellSpec) -> None:
        self.spent = (0.0, 0.0)
        self._cell = cell
        self._tracker: Any = None
        self._strategy: Any = None
        self._read: dict[str, int] = {}
        self._pending: list[tuple[int, str, float]] = []
        if tracking is not None:
            self._guarded(lambda: self._open(Tracking(**tracking)))

    @property
    def active(self) -> bool:
        """Whether there is a tracker, and it has not failed."""
        return self._tracker is not None

    def watch(self, strategy: Any) -> None:
        """Says whose plugins' quantities are followed: those that they publish to the strategy's evaluator."""
        self._strategy = strategy

    def loss(self, step: int, value: torch.Tensor) -> None:
        """A training step is over; its loss is shown now and then."""
        if self.active and step % EVERY == 0:
            self._guarded(lambda: self._show(step, {"train/loss": float(value.detach())}))

    def epoch(self, step: int, mean: float) -> None:
        """An epoch is over."""
        if self.active:
            self._guarded(lambda: self._show(step, {"train/epoch_loss": mean}))

    def accuracies(self, step: int, experience: int, aware: Sequence[float], agnostic: Sequence[float]) -> None:
        """Test accuracies in [0, 1] on every experience, while or after training on one (from 1; 0 before training)."""
        if self.active:
            self._guarded(lambda: self._show(step, _named(experience, aware, agnostic)))

    def end(self, record: Mapping[str, Any]) -> None:
        """The cell is over, however it ended."""
        if self.active:
            self._guarded(lambda: self._close(record))

    def _open(self, tracking: Tracking) -> None:
        self._tracker = import_module(f"cl_ext.study.track_{tracking.kind}").Tracker(tracking, self._cell)

    def _show(self, step: int, values: Mapping[str, float]) -> None:
        self._pending += [(step, name, value) for name, value in values.items()]
        self._pending += self._quantities()
        points = sorted((point for point in self._pending if math.isfinite(point[2])), key=lambda point: point[0])
        self._pending = []
        self._tracker.log(points)

    def _quantities(self) -> list[tuple[int, str, float]]:
        """What the plugins have published since the last time."""
        evaluator = getattr(self._strategy, "evaluator", None)
        new = []
        for name, (steps, values) in (evaluator.get_all_metrics() if evaluator is not None else {}).items():
            seen = self._read.get(name, 0)
            for step, value in zip(steps[seen:], values[seen:], strict=True):
                if isinstance(value, (int, float)):
                    new.append((int(step), name, float(value)))
            self._read[name] = len(values)
        return new

    def _close(self, record: Mapping[str, Any]) -> None:
        measures = final_measures(record, self._cell.scenario)
        points = [point for point in self._quantities() if math.isfinite(point[2])]
        if points:
            self._tracker.log(points)
        self._tracker.end(str(record["status"]), measures)
        self._tracker = None

    def _guarded(self, action: Callable[[], None]) -> None:
        began = time.perf_counter(), time.process_time()
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        try:
            action()
        except Exception as error:
            self._tracker = None
            print(f"tracking stopped: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])
            wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
            self.spent = (self.spent[0] + wall, self.spent[1] + cpu)


def _named(experience: int, aware: Sequence[float], agnostic: Sequence[float]) -> dict[str, float]:
    values: dict[str, float] = {"experience": float(experience)}
    for which, own in (("task_aware", aware), ("task_agnostic", agnostic)):
        values |= {f"accuracy_{which}/experience_{index + 1:02d}": value for index, value in enumerate(own)}
        seen = [value for value in own[:experience] if not math.isnan(value)]
        values |= {f"accuracy_{which}/seen": sum(seen) / len(seen)} if seen else {}
    return values


def final_measures(record: Mapping[str, Any], scenario: str) -> dict[str, float]:
    """What a record says at the end: the measures of its matrix by the scenario's criterion, and its costs."""
    own = criterion(scenario)
    matrices = record.get("matrix")
    found: dict[str, float] = {}
    if matrices is not None:
        R = np.array(matrices[own], dtype=float)
        found = {name: float(metric.function(R)) for name, metric in METRICS.items() if metric.inputs == ("R",)}
    costs = record.get("costs", {})
    found |= {name: float(costs[name]) for name in _COSTS if costs.get(name) is not None}
    return {name: value for name, value in found.items() if math.isfinite(value)}
