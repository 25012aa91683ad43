"""The exact Wilcoxon signed-rank test (1945) of paired differences, with zeros and ties.

Zeros are left out, as Wilcoxon did; equal sizes share the mean of their ranks. Given the sizes, every sign is + or -
with probability 1/2 where there is no difference, so the distribution of the sum is known exactly, ties or not.
`scipy.stats.wilcoxon(method="exact")` (1.17) uses the distribution without ties for both: of the differences
1, 1, 2, -1, 3, 3 it says p = 0.094, where 8 of the 64 possible signs are as extreme, so that p = 0.125.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

TOLERANCE = 1e-12
"""Relative to the largest score: what lies closer together is equal. Means of equal accuracies differ by rounding."""


class SignedRank(NamedTuple):
    """Results of two-sided tests, each an array of the leading shape of the differences.

    Attributes:
        p: the p-values; NaN where no difference is left.
        least_p: the smallest p-values that these sizes could have given: ``2^(1 - m)`` with m of them not 0.
        direction: the sign of the sum of signed ranks; 0 where both signs weigh the same.
    """

    p: NDArray[np.float64]
    least_p: NDArray[np.float64]
    direction: NDArray[np.int64]


def differences(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Paired differences in which rounding neither breaks a tie nor makes a zero into something.

    Args:
        first: (..., n) scores; none is NaN.
        second: scores of the same shape.

    Returns:
        (..., n) the differences ``first - second``; sizes closer together than rounding can tell are made equal.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    raw = a - b
    if raw.shape[-1] == 0:
        return raw
    tolerance = TOLERANCE * np.maximum(np.abs(a), np.abs(b)).max(axis=-1, keepdims=True)
    size = np.abs(raw)
    order = np.argsort(size, axis=-1, kind="stable")
    ascending = np.take_along_axis(size, order, axis=-1)
    first_of_its_size = np.diff(ascending, axis=-1, prepend=0.0) > tolerance
    level = np.maximum.accumulate(np.where(first_of_its_size, ascending, 0.0), axis=-1)
    snapped = np.empty_like(raw)
    np.put_along_axis(snapped, order, level, axis=-1)
    return np.sign(raw) * snapped


def signed_rank(of: ArrayLike) -> SignedRank:
    """The exact two-sided signed-rank test of each row of differences.

    Args:
        of: (..., n) differences, as `differences` gives them; equal sizes are ties, zeros are left out.

    Returns:
        The p-values with what they could have been at least, and the directions.
    """
    rows = np.asarray(of, dtype=np.float64)
    shape = rows.shape[:-1]
    flat = rows.reshape(int(np.prod(shape)), rows.shape[-1])
    zeros = (flat == 0.0).sum(axis=1, keepdims=True)
    # Twice the mean ranks are whole numbers. Zeros have the lowest ranks: without them all others move down.
    ranks = 2 * (stats.rankdata(np.abs(flat), axis=1) - zeros) if flat.size else np.zeros(flat.shape)
    ranks = np.where(flat == 0.0, 0, ranks).astype(np.int64)
    above, below = (np.where(side, ranks, 0).sum(axis=1) for side in (flat > 0.0, flat < 0.0))
    p = np.full(len(flat), np.nan)
    for row, (own, less) in enumerate(zip(np.sort(ranks, axis=1), np.minimum(above, below), strict=True)):
        moved = own[own > 0]
        if moved.size:
            p[row] = min(1.0, 2 * _cumulative(tuple(moved.tolist()))[less])
    least = np.minimum(1.0, 2.0 ** (1 - (flat != 0.0).sum(axis=1)))
    return SignedRank(p.reshape(shape), least.reshape(shape), np.sign(above - below).reshape(shape))


@lru_cache(maxsize=4096)
def _cumulative(ranks: tuple[int, ...]) -> NDArray[np.float64]:
    """``P(S <= s)`` for s = 0, 1, ..., where S adds up each rank with probability 1/2.

    Rank after rank, the distribution is the mean of itself and itself moved up by the rank: m * m * (m + 1) steps, and
    exact for up to 53 ranks, since all probabilities are multiples of 2^-m.
    """
    probability = np.zeros(sum(ranks) + 1)
    probability[0] = 1.0
    for rank in ranks:
        moved = np.zeros_like(probability)
        moved[rank:] = probability[:-rank]
        probability = (probability + moved) / 2
    return np.cumsum(probability)
