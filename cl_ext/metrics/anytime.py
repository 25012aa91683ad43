"""Measures on accuracies recorded while the network trains, not only between experiences.

Notation. The record holds ``N`` instants in the order of training. ``curve`` has shape ``(N, T)``: the accuracy on each
experience at each instant, fractions in [0, 1], NaN where undefined; ``experience`` has shape ``(N,)``: the experience
1..T that is being trained at the instant. The experiences seen at an instant are 1..``experience[n]``.
"""

from cl_ext.metrics.matrix import FloatArray, as_matrix

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


WINDOW = 10
"""Evaluations in a window of WF and WP: the smaller of the two sizes that De Lange et al. 2023 report."""
SHOTS = 10
"""The last batch that LCA looks at, beta of Chaudhry et al. 2019."""


def _largest_falls(curves: FloatArray, window: int) -> FloatArray:
    """The largest fall of each column from an instant to a later one of the same window, at least 0; NaN after a NaN.

    Args:
        curves: (N, k); -inf where an instant is left out, which has to be at the beginning.
        window: how many instants a window holds.

    Returns:
        (k,)
    """
    padded = np.concatenate([np.full((window - 1, curves.shape[1]), -np.inf), curves])
    highest = np.lib.stride_tricks.sliding_window_view(padded, window, axis=0).max(axis=-1)
    with np.errstate(invalid="ignore"):  # -inf less -inf
        return np.where(curves == -np.inf, 0.0, highest - curves).max(axis=0)


def _windowed(curve: ArrayLike, experience: ArrayLike, window: int, sign: float) -> float:
    accuracies, current = _as_curve(curve, experience)
    if window < 2:
        raise ValueError(f"window is {window}; it takes a whole number of evaluations of at least 2")
    k = int(current[-1])
    begun = current[:, None] >= np.arange(1, k + 1)
    return float(_largest_falls(np.where(begun, sign * accuracies[:, :k], -np.inf), window).mean())


def windowed_forgetting(curve: ArrayLike, experience: ArrayLike, window: int = WINDOW) -> float:
    """Average windowed forgetting WF^w of De Lange et al. 2023: the largest fall inside `window` evaluations.

    ``1/k * sum_{j<=k} max (curve[n, j] - curve[m, j])`` over instants n <= m < n + w at which experience j has begun, k
    the last experience trained. An instant before j began says nothing about forgetting j and is left out.

    Args:
        curve: (N, T) fractions, NaN where undefined.
        experience: (N,) whole numbers in 1..T, the experience in training; never decreasing.
        window: w, evaluations, at least 2. They are as far apart as the study's evaluation plan says: the paper's are
            one iteration apart.

    Returns:
        A fraction in [0, 1], 0 where no accuracy ever falls; NaN where an instant is undefined.

    Raises:
        ValueError: `window` is below 2, or see `accuracy_at_instants`.
    """
    return _windowed(curve, experience, window, 1.0)


def windowed_plasticity(curve: ArrayLike, experience: ArrayLike, window: int = WINDOW) -> float:
    """Average windowed plasticity WP^w of De Lange et al. 2023: the largest rise inside `window` evaluations.

    ``1/k * sum_{j<=k} max (curve[m, j] - curve[n, j])`` over instants n <= m < n + w at which experience j has begun.

    Args:
        curve: (N, T) fractions, NaN where undefined.
        experience: (N,) whole numbers in 1..T, the experience in training; never decreasing.
        window: w, evaluations, at least 2 (see `windowed_forgetting`).

    Returns:
        A fraction in [0, 1], 0 where no accuracy ever rises; NaN where an instant is undefined.

    Raises:
        ValueError: `window` is below 2, or see `accuracy_at_instants`.
    """
    return _windowed(curve, experience, window, -1.0)


def learning_curve_area(
    R: ArrayLike, curve: ArrayLike, experience: ArrayLike, iteration: ArrayLike, shots: int = SHOTS
) -> float:
    """Learning curve area LCA of Chaudhry et al. 2019 (A-GEM): ``1/(beta+1) * sum_{b=0..beta} (1/T * sum_k a[k, b])``.

    ``a[k, b]`` is the accuracy on experience k after b batches of it; b = 0 is the matrix's row before it. Batches
    1..beta have to be recorded one by one, which takes a study that evaluates after every iteration.

    Args:
        R: accuracy matrix, (T + 1, T), fractions, NaN where undefined.
        curve: (N, T) fractions, NaN where undefined.
        experience: (N,) whole numbers in 1..T, the experience in training; never decreasing.
        iteration: (N,) training steps since the start of the stream at each instant.
        shots: beta, at least 1.

    Returns:
        A fraction in [0, 1]; NaN where one of the batches 1..beta of an experience was not recorded (or never was
        trained), and where accuracies before an experience are undefined (a growing head).

    Raises:
        ValueError: `shots` is below 1, shapes do not fit, or see `accuracy_at_instants`.
    """
    accuracies, current = _as_curve(curve, experience)
    matrix, steps = as_matrix(R), np.asarray(iteration)
    if shots < 1:
        raise ValueError(f"shots is {shots}; it takes a whole number of batches of at least 1")
    if steps.shape != current.shape:
        raise ValueError(f"iteration must have shape (N,) = {current.shape}, as experience has; got {steps.shape}")
    T = matrix.shape[1]
    if accuracies.shape[1] != T:
        raise ValueError(f"the curve must have T = {T} columns, as the accuracy matrix has; got {accuracies.shape[1]}")
    areas, start = [], 0
    for k in range(1, T + 1):
        inside = current == k
        taken = steps[inside][:shots] - start
        if not np.array_equal(taken, np.arange(1, shots + 1)):
            return float("nan")
        areas.append(np.mean([matrix[k - 1, k - 1], *accuracies[inside, k - 1][:shots]]))
        start = int(steps[inside][-1])
    return float(np.mean(areas))
