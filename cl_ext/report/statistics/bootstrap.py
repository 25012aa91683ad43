"""Aggregates over several tasks (here: streams) with stratified bootstrap intervals, after Agarwal et al. 2021.

"Deep Reinforcement Learning at the Edge of the Statistical Precipice" (NeurIPS 2021, the library rliable). A run is
drawn again only among the runs of its own task. The order of runs and of tasks has no influence on a result.

Intervals are 95 % percentile intervals of 2,000 draws from a generator of their own, seeded with 0; the same draws
serve every method. Undefined stays undefined: a NaN among the scores makes the result NaN, never an average over fewer.
"""

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from cl_ext.report.statistics.summaries import CONFIDENCE

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Scores = Mapping[Hashable, ArrayLike]
Statistic = Callable[[NDArray[np.float64]], ArrayLike]
REPETITIONS = 2000
_AT_ONCE = 2_000_000
"""So many drawn scores are held in memory at once."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval.

    Attributes:
        estimate: of the scores as they are.
        low: the interval's lower end; NaN where a task has fewer than two runs.
        high: the upper end, likewise.
    """

    estimate: float
    low: float
    high: float


def iqm(values: ArrayLike) -> NDArray[np.float64] | float:
    """Interquartile mean: the mean of the scores that are left without the lowest and the highest quarter.

    Of N scores, ``floor(N / 4)`` are left out at each end.

    Args:
        values: (..., runs, tasks) scores.

    Returns:
        (...), a float for one table; NaN where a score is NaN or there is none.
    """
    table = np.asarray(values, dtype=np.float64)
    return _pooled(table, lambda flat: stats.trim_mean(flat, 0.25, axis=-1))


def mean(values: ArrayLike) -> NDArray[np.float64] | float:
    """The mean over runs and tasks of (..., runs, tasks) scores; NaN as for `iqm`."""
    return _pooled(np.asarray(values, dtype=np.float64), lambda flat: flat.mean(axis=-1))


def _pooled(
    table: NDArray[np.float64], statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.float64] | float:
    if table.ndim < 2:
        raise ValueError(f"scores have the shape {table.shape}; they are a table (runs, tasks), or a stack of such")
    flat = table.reshape(*table.shape[:-2], -1)
    if not flat.shape[-1]:
        result = np.full(flat.shape[:-1], np.nan)
    else:
        # A trimmed mean sorts, and would leave a NaN out with the highest.
        result = np.where(np.isnan(flat).any(axis=-1), np.nan, statistic(flat))
    return result if result.ndim else float(result)


def stratified_bootstrap(
    scores: Scores, statistic: Statistic = iqm, repetitions: int = REPETITIONS, seed: int = 0
) -> Interval:
    """The 95 % percentile interval of a statistic, runs drawn again within each task.

    Where tasks have different numbers of runs, each run is repeated up to the least common multiple, so that every task
    counts the same.

    Args:
        scores: task -> (runs,) scores.
        statistic: from (repetitions, runs, tasks) scores to (repetitions,): `iqm`, `mean`, or another that reduces the
            last two axes. Columns are in the order of `scores`.
        repetitions: how many draws.
        seed: of their generator.

    Returns:
        The estimate and its interval, which is widened to the estimate where that lies outside. All NaN for no tasks,
        a task without runs, or a NaN; ends NaN where a task has one run only, which says nothing of its spread.

    Raises:
        ValueError: a task's scores are no row of numbers, there is no draw, or the statistic reduces other axes.
    """
    columns = [_sorted(task, runs) for task, runs in scores.items()]
    if repetitions < 1:
        raise ValueError(f"there are {repetitions} repetitions; a bootstrap takes at least 1")
    if not _defined(columns):
        return Interval(math.nan, math.nan, math.nan)
    estimate = float(_apply(statistic, _level([column[None] for column in columns]))[0])
    if min(map(len, columns)) < 2:
        return Interval(estimate, math.nan, math.nan)
    slots = _slots(columns)
    draws = [_draws(len(column), repetitions, seed, slot) for column, slot in zip(columns, slots, strict=True)]
    size = math.lcm(*map(len, columns)) * len(columns)
    step = max(1, _AT_ONCE // size)
    drawn = [
        _apply(statistic, _level([column[draw[at : at + step]] for column, draw in zip(columns, draws, strict=True)]))
        for at in range(0, repetitions, step)
    ]
    return _interval(estimate, np.concatenate(drawn))


def probability_of_improvement(x: Scores, y: Scores, repetitions: int = REPETITIONS, seed: int = 0) -> Interval:
    """How probable it is that a run of x is above a run of y on the same task, the mean over tasks.

    Ties count a half (the Mann-Whitney statistic). Runs of x and y are drawn independently: it says how often one
    method wins over another when both get fresh seeds, so it makes no use of pairs.

    Args:
        x: task -> (runs,) scores, more is better.
        y: the same tasks; the numbers of runs may differ.
        repetitions: how many draws; 0 for the estimate without its interval (ends NaN).
        seed: of their generator.

    Returns:
        The probability in [0, 1] and its interval. ``P(x, y) + P(y, x) = 1``, and so for the ends the other way round.
        NaN as for `stratified_bootstrap`.

    Raises:
        ValueError: x and y have different tasks, or scores are no row of numbers.
    """
    if set(x) != set(y):
        only = sorted(map(repr, set(x) ^ set(y)))
        raise ValueError(f"both sides need the same tasks; only one of them has {', '.join(only)}")
    pairs = [(_sorted(task, x[task]), _sorted(task, y[task])) for task in x]
    columns = [column for pair in pairs for column in pair]
    if not _defined(columns):
        return Interval(math.nan, math.nan, math.nan)
    # One order for (x, y) and (y, x), whatever the order of tasks, so that both have the same draws.
    one_way, other_way = (sorted([pair[k].tolist(), pair[1 - k].tolist()] for pair in pairs) for k in (0, 1))
    turned = one_way > other_way
    if turned:
        pairs = [(second, first) for first, second in pairs]
    wins = [(np.sign(first[:, None] - second[None]) + 1) / 2 for first, second in pairs]
    estimate = float(np.mean([win.mean() for win in wins]))
    if repetitions < 1 or min(map(len, columns)) < 2:
        return Interval(1 - estimate if turned else estimate, math.nan, math.nan)
    drawn = np.zeros(repetitions)
    for win, slot in zip(wins, _slots([np.concatenate(pair) for pair in pairs]), strict=True):
        first, second = (_counts(size, repetitions, seed, 2 * slot + side) for side, size in enumerate(win.shape))
        drawn += ((first @ win) * second).sum(axis=1) / win.size
    drawn /= len(wins)
    if one_way == other_way:  # each is as far above the other as below
        drawn = np.concatenate([drawn, 1 - drawn])
    found = _interval(estimate, drawn)
    return Interval(1 - found.estimate, 1 - found.high, 1 - found.low) if turned else found


def performance_profile(
    scores: Scores, thresholds: ArrayLike, repetitions: int = REPETITIONS, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The share of runs above each threshold, the mean over tasks, with a pointwise interval.

    Args:
        scores: task -> (runs,) scores.
        thresholds: (n,) thresholds.
        repetitions: how many draws.
        seed: of their generator.

    Returns:
        (share, low, high), (n,) each, in [0, 1]; NaN as for `stratified_bootstrap`.

    Raises:
        ValueError: scores or thresholds are no row of numbers.
    """
    limits = np.asarray(thresholds, dtype=np.float64)
    if limits.ndim != 1:
        raise ValueError(f"the thresholds have the shape {limits.shape}; they are a row of numbers")
    columns = [_sorted(task, runs) for task, runs in scores.items()]
    undefined = np.full(limits.shape, np.nan)
    if not _defined(columns):
        return undefined, undefined.copy(), undefined.copy()
    above = [(column[:, None] > limits).astype(np.float64) for column in columns]
    share = np.mean([each.mean(axis=0) for each in above], axis=0)
    if repetitions < 1 or min(map(len, columns)) < 2:
        return share, undefined, undefined.copy()
    drawn = np.zeros((repetitions, len(limits)))
    for each, slot in zip(above, _slots(columns), strict=True):
        drawn += _counts(len(each), repetitions, seed, slot) @ each / len(each)
    low, high = np.quantile(drawn / len(above), _ends(), axis=0)
    return share, np.minimum(low, share), np.maximum(high, share)


def _sorted(task: Hashable, runs: ArrayLike) -> NDArray[np.float64]:
    """A task's runs in ascending order: which run is drawn must not depend on the order that they came in."""
    column = np.asarray(runs, dtype=np.float64)
    if column.ndim != 1:
        raise ValueError(f"the scores of task {task!r} have the shape {column.shape}; they are a row, one a run")
    return np.sort(column)


def _defined(columns: list[NDArray[np.float64]]) -> bool:
    return bool(columns) and all(len(column) and not np.isnan(column).any() for column in columns)


def _slots(columns: list[NDArray[np.float64]]) -> list[int]:
    """A number for each task, by its scores: which draws it gets must not depend on the order of tasks."""
    order = sorted(range(len(columns)), key=lambda at: columns[at].tolist())
    return np.argsort(order).tolist()


@lru_cache(maxsize=64)
def _draws(n: int, repetitions: int, seed: int, slot: int) -> NDArray[np.int64]:
    """(repetitions, n) indices below n."""
    return np.random.RandomState([seed, slot]).randint(n, size=(repetitions, n))


@lru_cache(maxsize=64)
def _counts(n: int, repetitions: int, seed: int, slot: int) -> NDArray[np.float64]:
    """(repetitions, n) how often each index was drawn."""
    flat = _draws(n, repetitions, seed, slot) + n * np.arange(repetitions)[:, None]
    return np.bincount(flat.ravel(), minlength=repetitions * n).reshape(repetitions, n).astype(np.float64)


def _level(columns: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(repetitions, runs) of each task to (repetitions, runs, tasks), each run as often as makes the numbers equal."""
    most = math.lcm(*(column.shape[1] for column in columns))
    return np.stack([np.repeat(column, most // column.shape[1], axis=1) for column in columns], axis=-1)


def _apply(statistic: Statistic, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    found = np.asarray(statistic(drawn), dtype=np.float64)
    if found.shape != drawn.shape[:1]:
        raise ValueError(
            f"the statistic made {found.shape} of {drawn.shape}; it has to reduce the last two axes, runs and tasks"
        )
    return found


def _ends() -> tuple[float, float]:
    return (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2


def _interval(estimate: float, drawn: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(drawn, _ends())
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate))
