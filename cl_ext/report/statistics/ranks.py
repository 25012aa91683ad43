"""Friedman's test and Nemenyi's critical difference over streams (Demsar 2006), only where there are enough."""

import math
from dataclasses import dataclass

from cl_ext.report.statistics.paired import LEVEL, check_level

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEAST_STREAMS = 10
"""With fewer the critical difference is too wide to be of use: 6.8 of 10 ranks with 4 streams, 5.5 with 6."""


@dataclass(frozen=True)
class Friedman:
    """Methods ranked on several streams.

    Attributes:
        statistic: Friedman's chi-squared, corrected for ties; NaN where all methods tie everywhere, or for NaN scores.
        p: its p-value by the chi-squared distribution with K - 1 degrees of freedom; NaN likewise.
        ranks: (K,) mean ranks, 1 the best; NaN for NaN scores.
        critical_difference: two mean ranks closer than this are not shown to differ (Nemenyi).
        carries: whether there are streams enough, and all cells, for the test and its diagram to be shown.
        sentence: what came out, or why nothing is shown.
    """

    statistic: float
    p: float
    ranks: NDArray[np.float64]
    critical_difference: float
    carries: bool
    sentence: str


def friedman(scores: ArrayLike, level: float = LEVEL) -> Friedman:
    """Ranks methods on each stream and tests whether their mean ranks differ.

    A row is a stream. Seeds are no streams: those of one stream share its data, and would make the test see far more
    evidence than there is.

    Args:
        scores: (streams, methods), more is better; each the mean over a stream's seeds.
        level: of the critical difference.

    Returns:
        The ranks, the test and whether it may be shown (at least 10 streams, 2 methods, no cell missing).

    Raises:
        ValueError: the scores are no table, or the level is not in (0, 1).
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"the scores have the shape {table.shape}; they are a table (streams, methods)")
    check_level(level)
    N, K = table.shape
    missing = int(np.isnan(table).sum())
    if missing or N < 1 or K < 2:
        nothing = f"{missing} of {N * K} cells are missing" if missing else f"there are {N} streams and {K} methods"
        sentence = f"No Friedman test: {nothing}; it needs every method on at least {LEAST_STREAMS} streams."
        return Friedman(math.nan, math.nan, np.full(K, np.nan), math.nan, False, sentence)
    ranked = stats.rankdata(-table, axis=1)
    ranks = ranked.mean(axis=0)
    # The sum of squares between methods over the variance of ranks within a stream; ties make the latter smaller.
    within = ((ranked - (K + 1) / 2) ** 2).sum() / (N * (K - 1))
    statistic = float(N * ((ranks - (K + 1) / 2) ** 2).sum() / within) if within > 0 else math.nan
    p = float(stats.chi2.sf(statistic, K - 1))
    critical = critical_difference(K, N, level)
    carries = N >= LEAST_STREAMS
    if not carries:
        sentence = (
            f"No Friedman test and no critical-difference diagram: they need at least {LEAST_STREAMS} streams, "
            f"and there are {N} (two mean ranks would have to lie {critical:.1f} apart)."
        )
    elif math.isnan(p):
        sentence = f"All {K} methods tie on all {N} streams."
    else:
        sentence = (
            f"Friedman's test of {K} methods on {N} streams: chi-squared({K - 1}) = {statistic:.1f}, p = {p:.2g}; mean "
            f"ranks less than {critical:.1f} apart are not shown to differ (Nemenyi, level {level:g})."
        )
    return Friedman(statistic, p, ranks, critical, carries, sentence)


def critical_difference(methods: int, streams: int, level: float = LEVEL) -> float:
    """Nemenyi's critical difference of mean ranks: ``q * sqrt(K (K + 1) / (6 N))``.

    Args:
        methods: K, at least 2.
        streams: N, at least 1.
        level: q is the upper quantile of the studentized range of K normal variables, divided by the root of 2.
    """
    q = stats.studentized_range.ppf(1 - level, methods, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(methods * (methods + 1) / (6 * streams)))
