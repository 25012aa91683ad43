"""The area under the ROC curve of a binary decision."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata


def auroc(scores: ArrayLike, positive: ArrayLike) -> float:
    """The probability that a positive sample has a higher score than a negative one; equal scores count half.

    Computed from ranks (the Mann-Whitney statistic), which is the area under the trapezoid ROC curve.

    Args:
        scores: (N,) numbers; the higher, the more positive.
        positive: (N,) booleans.

    Returns:
        A fraction in [0, 1]; NaN without samples of both kinds.

    Raises:
        ValueError: the two are not vectors of one length, or a score is NaN.
    """
    score, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    if score.ndim != 1 or score.shape != truth.shape:
        raise ValueError(f"scores and positive must be vectors of one length, not {score.shape} and {truth.shape}")
    if np.isnan(score).any():
        raise ValueError("a score is NaN")
    count = int(truth.sum())
    others = len(truth) - count
    if not count or not others:
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[truth].sum() - count * (count + 1) / 2) / (count * others))
