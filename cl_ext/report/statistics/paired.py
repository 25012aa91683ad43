"""Rows compared seed by seed: the same seed gives every row the same stream, first weights and order of batches."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from cl_ext.report.statistics.signed_rank import differences, signed_rank
from cl_ext.report.statistics.summaries import FEW_SEEDS, summarize

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.05
Verdict = Literal["better", "worse", "no difference shown", "underpowered", "equal"]
Label = TypeVar("Label", bound=Hashable)


@dataclass(frozen=True)
class Difference:
    """A method against a reference, seed by seed.

    Attributes:
        mean: the mean of the differences; NaN for no pairs.
        half_width: half the width of their 95 % Student-t interval; NaN for n < 2.
        n: how many seeds both have.
        better: at how many of them the method is above the reference; a tie counts a half.
        p: of the two-sided exact Wilcoxon signed-rank test, ties of zero left out; NaN without a difference.
        least_p: the smallest p that these pairs could have given, whatever their signs: `2^(1 - m)` where m of them
            differ. Above the level asked for, the test says nothing.
        direction: 1 where the signed ranks say that the method is above the reference, -1 for below, 0 for neither.
    """

    mean: float
    half_width: float
    n: int
    better: float
    p: float
    least_p: float
    direction: int = 0


def paired_difference(values: Mapping[int, float], reference: Mapping[int, float]) -> Difference:
    """The differences of the seeds that both have, which share stream, first weights and order of batches.

    Args:
        values: by seed; a seed with NaN counts as missing.
        reference: likewise.
    """
    pairs = [(values[seed], reference[seed]) for seed in sorted(values.keys() & reference.keys())]
    complete = np.array([pair for pair in pairs if not np.isnan(pair).any()], dtype=np.float64).reshape(-1, 2)
    found = differences(complete[:, 0], complete[:, 1])
    summary, test = summarize(found), signed_rank(found)
    better = float((found > 0.0).sum() + 0.5 * (found == 0.0).sum())
    return Difference(
        summary.mean,
        summary.half_width,
        summary.n,
        better,
        float(test.p),
        float(test.least_p),
        int(test.direction),
    )


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """P-values corrected for their number by Holm's step-down procedure (1979).

    The k-th smallest of m is multiplied by m - k + 1, made no smaller than the one before, and cut at 1.

    Args:
        p: (m,), in any order; NaN is no test and is not counted.

    Returns:
        (m,), in the order given.
    """
    given = np.asarray(p, dtype=np.float64)
    corrected = np.full(given.shape, np.nan)
    order = np.argsort(given, kind="stable")[: int((~np.isnan(given)).sum())]  # NaN comes last
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(given[order] * factors))
    return corrected


@dataclass(frozen=True)
class Comparison:
    """A row against the reference, one of several that are compared with it.

    Attributes:
        difference: the paired differences; their `n` says how many seeds stand behind all that follows.
        p_holm: the exact p-value after Holm's correction over the rows compared; NaN where there is no test.
        reachable: the smallest `p_holm` that could have come out; NaN where there is no test.
        verdict: "better" or "worse" where `p_holm` is at most the level, and the mean points the way the ranks do;
            "equal" where no seed differs; "underpowered" with fewer than 5 pairs, or where `reachable` is above the
            level: no outcome could have shown anything; else "no difference shown", which is not "no difference".
    """

    difference: Difference
    p_holm: float
    reachable: float
    verdict: Verdict


def compare(
    scores: Mapping[Label, Mapping[int, float]], reference: Label, level: float = LEVEL, *, named: bool = True
) -> dict[Label, Comparison]:
    """Every other row against the reference by exact paired tests, corrected for their number.

    Two rows that are equal at all seeds have no test, and the correction does not count them: given their differences
    they could not have rejected anything.

    Args:
        scores: label -> seed -> score, more is better; NaN counts as missing.
        reference: one of the labels.
        level: the chance, over all rows together, of a "better" or "worse" where there is no difference.
        named: whether the reference was named without a look at the scores, as a baseline is. The best row is not: of
            many equal rows the one that came out best seems better than others far too often. With False the
            correction counts all pairs of rows, any of which might have been looked at.

    Returns:
        Label -> comparison, without the reference, in the order given.

    Raises:
        ValueError: there is no such reference, or the level is not in (0, 1).
    """
    if reference not in scores:
        raise ValueError(f"no row {reference!r} to compare with; there are {', '.join(map(repr, scores)) or 'none'}")
    check_level(level)
    found = {
        label: paired_difference(values, scores[reference]) for label, values in scores.items() if label != reference
    }
    others = {} if named else {label: row for label, row in scores.items() if label != reference}
    other_p, other_least_p = _pairs(others)
    p = np.concatenate([[each.p for each in found.values()], other_p])
    corrected = holm(p)[: len(found)]
    # Holm's corrected p falls with every p that goes into it, so this is the least that could have come out.
    least_p = np.concatenate([[each.least_p for each in found.values()], other_least_p])
    reachable = holm(np.where(np.isnan(p), np.nan, least_p))[: len(found)]
    return {
        label: Comparison(each, float(own), float(least), _verdict(each, own, least, level))
        for (label, each), own, least in zip(found.items(), corrected, reachable, strict=True)
    }


def _pairs(scores: Mapping[Label, Mapping[int, float]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """p and the least p of all pairs of rows."""
    seeds = sorted(set().union(*scores.values()))
    rows = [[row.get(seed, np.nan) for seed in seeds] for row in scores.values()]
    table = np.array(rows, dtype=np.float64).reshape(len(rows), len(seeds))
    i, j = np.triu_indices(len(table), k=1)
    first, second = table[i], table[j]
    # A pair that lacks a seed is tested without it, and so it is with a difference of 0 there.
    both = ~np.isnan(first - second)
    test = signed_rank(differences(np.where(both, first, 0.0), np.where(both, second, 0.0)))
    return test.p, test.least_p


def check_level(level: float) -> None:
    """Raises a ValueError unless the level is in (0, 1)."""
    if not 0.0 < level < 1.0:
        raise ValueError(f"the level is {level}; it has to lie between 0 and 1, as 0.05 does")


def _verdict(difference: Difference, p_holm: float, reachable: float, level: float) -> Verdict:
    if difference.n < FEW_SEEDS:
        return "underpowered"
    if np.isnan(p_holm):
        return "equal"
    if reachable > level:
        return "underpowered"
    if p_holm > level or np.sign(difference.mean) != difference.direction:
        return "no difference shown"
    return "better" if difference.direction > 0 else "worse"
