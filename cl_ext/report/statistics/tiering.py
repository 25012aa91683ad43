"""Tiers in the place of a strict order: what differs by less than chance does stands on one step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Literal

from cl_ext.report.statistics.paired import LEVEL, Label, check_level, holm
from cl_ext.report.statistics.signed_rank import TOLERANCE, differences, signed_rank
from cl_ext.report.statistics.summaries import FEW_SEEDS

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Basis = Literal["test", "interval", "none"]


@dataclass(frozen=True)
class Tiering(Generic[Label]):
    """Tiers and what they rest on.

    Attributes:
        tiers: label -> tier, 1 the top; None for a row with missing seeds, for all rows where seeds are too few.
        basis: "test" for exact signed-rank tests, "interval" for paired t-intervals, "none" where there are no tiers.
        sentence: what the tiers mean, for the reader of a table.
    """

    tiers: dict[Label, int | None]
    basis: Basis
    sentence: str


def tiers(scores: Mapping[Label, Mapping[int, float]], level: float = LEVEL) -> dict[Label, int | None]:
    """The tiers alone; see `tiering`."""
    return tiering(scores, level).tiers


def tiering(scores: Mapping[Label, Mapping[int, float]], level: float = LEVEL) -> Tiering[Label]:
    """Sorts rows into tiers by paired comparisons of all of them, corrected for their number.

    From the top: a tier goes from its best row down to the last row, in the order of means, that is not shown worse
    than that best one. So each row of a lower tier is shown worse than the best row of every tier above; rows of one
    tier are not ordered.

    All pairs count in Holm's correction, because the data say which row is the best one: compared as if it had been
    named beforehand, the best of many equal rows differs from others "significantly" far too often. Where exact
    signed-rank tests of so many pairs could reach the level, they decide ("test"). Where they could not, paired
    t-intervals do, as wide as the correction makes them, which take the differences for normal ("interval").

    Args:
        scores: label -> seed -> score, more is better; NaN counts as missing.
        level: the chance that any tier is parted from another where there is no difference.

    Returns:
        The tiers. Rows are compared at the seeds that any row has; a row that lacks one has None. With fewer than 5
        seeds all have None.

    Raises:
        ValueError: the level is not in (0, 1).
    """
    check_level(level)
    present = {label: {seed for seed, value in row.items() if not np.isnan(value)} for label, row in scores.items()}
    seeds = sorted(set().union(*present.values()))
    complete = [label for label in scores if len(present[label]) == len(seeds) > 0]
    found: dict[Label, int | None] = dict.fromkeys(scores)
    if len(seeds) < FEW_SEEDS:
        return Tiering(found, "none", f"No tiers: they need at least {FEW_SEEDS} seeds, and there are {len(seeds)}.")
    if not complete:
        return Tiering(found, "none", f"No tiers: no row has all {len(seeds)} seeds.")
    table = np.array([[scores[label][seed] for seed in seeds] for label in complete])
    worse, basis = _worse(table, level)
    means = table.mean(axis=1)
    found |= dict(zip(complete, _steps(means, worse), strict=True))
    pairs = len(complete) * (len(complete) - 1) // 2
    return Tiering(found, basis, _sentence(basis, pairs, len(seeds), level))


def _worse(table: NDArray[np.float64], level: float) -> tuple[NDArray[np.bool_], Basis]:
    """Which row (K, n) is shown worse than which: (K, K), entry [i, j] for i below j."""
    K, n = table.shape
    i, j = np.triu_indices(K, k=1)
    between = differences(table[i], table[j])
    mean = between.mean(axis=1)
    basis: Basis = "test" if 2.0 ** (1 - n) * len(i) <= level else "interval"
    if basis == "test":
        test = signed_rank(between)
        p, agrees = test.p, test.direction == np.sign(mean)
    else:
        error = between.std(axis=1, ddof=1) / np.sqrt(n)
        moved = between.any(axis=1)
        with np.errstate(divide="ignore"):  # equal differences, none of them 0: an interval of no width
            t = np.divide(np.abs(mean), error, out=np.full(len(i), np.nan), where=moved)
        p, agrees = 2 * stats.t.sf(t, n - 1), np.full(len(i), True)
    shown = (holm(p) <= level) & agrees
    worse = np.zeros((K, K), dtype=bool)
    worse[i, j], worse[j, i] = shown & (mean < 0), shown & (mean > 0)
    return worse, basis


def _steps(means: NDArray[np.float64], worse: NDArray[np.bool_]) -> list[int]:
    """The tier of each row."""
    order = np.argsort(-means, kind="stable")
    equal = TOLERANCE * np.abs(means).max()
    steps = np.zeros(len(means), dtype=int)
    start, step = 0, 0
    while start < len(order):
        step += 1
        rest = order[start:]
        best = rest[means[rest] >= means[rest[0]] - equal]
        held = ~worse[np.ix_(rest, best)].all(axis=1)  # a best row is not worse than itself
        lowest = means[rest[held]].min()
        inside = rest[means[rest] >= lowest - equal]
        steps[inside] = step
        start += len(inside)
    return steps.tolist()


def _sentence(basis: Basis, pairs: int, n: int, level: float) -> str:
    if pairs == 0:
        return "One tier: there is one row with all seeds."
    meaning = (
        "Each row of a lower tier is shown worse than the best of the tier above; rows of one tier are not ordered"
    )
    over = f"{pairs} pair{'s' * (pairs > 1)} of rows over {n} seeds, Holm's correction, level {level:g}"
    if basis == "test":
        return f"{meaning} (exact signed-rank tests of {over})."
    return (
        f"{meaning} (paired t-intervals of {over}, which take differences for normal: an exact test of so many pairs "
        "could show nothing with so few seeds)."
    )
