"""Measures on accuracies recorded while the network trains, not only between experiences.

Notation. The record holds ``N`` instants in the order of training. ``curve`` has shape ``(N, T)``: the accuracy on each
experience at each instant, fractions in [0, 1], NaN where undefined; ``experience`` has shape ``(N,)``: the experience
1..T that is being trained at the instant. The experiences seen at an instant are 1..``experience[n]``.
"""

from cl_ext.metrics.matrix import FloatArray

import numpy as np
from numpy.typing import ArrayLike, NDArray


def _as_curve(curve: ArrayLike, experience: ArrayLike) -> tuple[FloatArray, NDArray[np.intp]]:
    """Both inputs as arrays (N, T) and (N,), checked; a ValueError names what does not fit."""
    accuracies, current = np.asarray(curve, dtype=np.float64), np.asarray(experience)
    if accuracies.ndim != 2 or accuracies.shape[0] < 1 or accuracies.shape[1] < 1:
        raise ValueError(f"the curve must have shape (N, T) with N, T >= 1; got {accuracies.shape}")
    if np.any((accuracies < 0) | (accuracies > 1)):
        raise ValueError("accuracies are fractions in [0, 1]; the curve has values outside")
    if current.shape != accuracies.shape[:1]:
        raise ValueError(f"experience must have shape (N,) = ({len(accuracies)},); got {current.shape}")
    experiences = accuracies.shape[1]
    if not np.issubdtype(current.dtype, np.integer) or current.min() < 1 or current.max() > experiences:
        raise ValueError(f"experience must hold whole numbers in 1..T = 1..{experiences}")
    if np.any(np.diff(current) < 0):
        raise ValueError("the instants must be in the order of training: experience decreases")
    return accuracies, current.astype(np.intp)


def accuracy_at_instants(curve: ArrayLike, experience: ArrayLike) -> FloatArray:
    """Mean accuracy on the experiences seen so far, at each instant.

    Args:
        curve: (N, T) fractions, NaN where undefined.
        experience: (N,) whole numbers in 1..T, the experience in training; never decreasing.

    Returns:
        (N,) fractions, NaN where an experience seen so far is undefined.
    """
    accuracies, current = _as_curve(curve, experience)
    seen = np.arange(1, accuracies.shape[1] + 1) <= current[:, None]
    return np.where(seen, accuracies, 0.0).sum(axis=1) / current


def average_anytime_accuracy(curve: ArrayLike, experience: ArrayLike) -> float:
    """Average anytime accuracy AAA of Caccia et al. 2022 (ER-ACE): ``1/N * sum_n (mean_{j seen at n} curve[n, j])``.

    Args:
        curve: (N, T) fractions, NaN where undefined.
        experience: (N,) whole numbers in 1..T, the experience in training; never decreasing.

    Returns:
        A fraction in [0, 1]; NaN if an instant is undefined. It depends on where the instants lie: compare only
        records of one evaluation plan.
    """
    return float(accuracy_at_instants(curve, experience).mean())


def min_accuracy(curve: ArrayLike, experience: ArrayLike) -> float:
    """Average minimum accuracy min-ACC of De Lange et al. 2023, at the end of the record.

    ``1/(k-1) * sum_{j<k} min over instants n after experience j ended of curve[n, j]``, k the last experience trained.

    Args:
        curve: (N, T) fractions, NaN where undefined.
        experience: (N,) whole numbers in 1..T, the experience in training; never decreasing.

    Returns:
        A fraction in [0, 1]; NaN for k = 1, where no experience has ended before the last one.
    """
    accuracies, current = _as_curve(curve, experience)
    last = int(current[-1])
    if last < 2:
        return float("nan")
    # An instant of a later experience is one after j ended; the last experience gives at least one to every j < k.
    return float(np.mean([accuracies[current > j, j - 1].min() for j in range(1, last)]))


def worst_case_accuracy(curve: ArrayLike, experience: ArrayLike) -> float:
    """Worst-case accuracy WC-ACC of De Lange et al. 2023: ``1/k * acc_k(now) + (1 - 1/k) * min-ACC``.

    ``k`` is the last experience trained and "now" the last instant, which has to be the end of its training for the
    number to be the paper's.

    Args:
        curve: (N, T) fractions, NaN where undefined.
        experience: (N,) whole numbers in 1..T, the experience in training; never decreasing.

    Returns:
        A fraction in [0, 1]; for k = 1 the accuracy on experience 1.
    """
    accuracies, current = _as_curve(curve, experience)
    k = int(current[-1])
    now = float(accuracies[-1, k - 1])
    return now if k == 1 else now / k + (1 - 1 / k) * min_accuracy(accuracies, current)
