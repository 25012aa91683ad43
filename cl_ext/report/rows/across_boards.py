"""Methods across boards: accuracies put on one scale between `naive` and `joint`, and what several boards say together.

A run's normalised accuracy is ``(ACC - ACC_naive) / (ACC_joint - ACC_naive)``, all three at the same seed: 0 is plain
fine-tuning and 1 joint training, the analogue of human-normalised scores (Agarwal et al. 2021). Only complete rows of
boards that have both bounds are put on it.
"""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass

from cl_ext.report.rows.aggregate import leaderboard
from cl_ext.report.rows.cells import BOARD, prepare
from cl_ext.report.rows.verdicts import Scores, scores
from cl_ext.report.statistics import (
    FEW_SEEDS,
    Friedman,
    Interval,
    friedman,
    iqm,
    probability_of_improvement,
    stratified_bootstrap,
)

import numpy as np
import pandas as pd
from scipy import stats

Place = tuple[str, str, str]
Runs = dict[Hashable, np.ndarray]
"""Board -> (runs,) accuracies."""
LOWER, UPPER = "naive", "joint"
LEFT_OUT_COLUMNS = [*BOARD, "reason"]
_COLUMNS = [
    "label", "boards", "of", "runs", "tier", "iqm", "iqm_low", "iqm_high", "rank", "over_naive", "over_naive_low",
    "over_naive_high", "over_best", "over_best_low", "over_best_high",
]  # fmt: skip


@dataclass(frozen=True)
class Across:
    """What several boards say together.

    Attributes:
        scenario: the scenario whose boards these are; "" for all.
        boards: study, stream, scenario of each board that is used.
        table: a row a method and variant: `label`; on how many `boards` it is complete, `of` all used; `runs` in all;
            and, where it is complete on all of them, `tier` (by overlap of intervals; NaN where a board has fewer than
            5 seeds, which give intervals that are too narrow), `iqm` of the normalised accuracy
            with its stratified bootstrap interval `iqm_low`, `iqm_high`, mean `rank` (1 is the best), and the
            probability that a run of it is above one of `naive` (`over_naive`) and of the first row (`over_best`), with
            intervals. Rows on fewer boards follow, with NaN. References are left out.
        left_out: study, stream, scenario and the reason of each board that can't be normalised.
        friedman: ranks over streams with their test; None where fewer than two rows are complete on all boards. Boards
            of one stream share its data, so that their mean counts once.
        runs: label -> board -> normalised accuracies in the order of seeds, of the rows complete on all boards.
    """

    scenario: str
    boards: list[Place]
    table: pd.DataFrame
    left_out: pd.DataFrame
    friedman: Friedman | None
    runs: dict[str, Runs]

    @property
    def ranked(self) -> pd.DataFrame:
        """The rows that are complete on all boards."""
        return self.table[self.table["boards"].eq(self.table["of"])]

    @property
    def partial(self) -> pd.DataFrame:
        """The rows that some board lacks: never compared with the ranked ones."""
        return self.table[self.table["boards"].lt(self.table["of"])]


def across(frame: pd.DataFrame, scenario: str = "") -> Across:
    """Compares methods over all boards of a frame that have both bounds.

    Args:
        frame: the tidy frame, a row a cell.
        scenario: only boards of this scenario; all by default.

    Raises:
        ValueError: there is no board of this scenario.
    """
    table = leaderboard(frame)
    if scenario and scenario not in set(table["scenario"]):
        raise ValueError(
            f"there is no board of the scenario {scenario!r}; there are {', '.join(sorted(set(table['scenario'])))}"
        )
    return across_rows(table, prepare(frame), scenario)


def across_rows(table: pd.DataFrame, cells: pd.DataFrame, scenario: str = "") -> Across:
    """As `across`, from a leaderboard and its prepared cells."""
    own = table[table["outside"].eq("")]
    own = own[own["scenario"].eq(scenario)] if scenario else own
    raw: dict[Place, Scores] = {}
    normalised: dict[Place, Scores] = {}
    left_out = []
    for (study, stream, kind), board in own.groupby(BOARD):
        place = (str(study), str(stream), str(kind))
        made = str(board["kind"].iloc[0]) if "kind" in board else "study"
        scale, reason = _scale(board, cells) if made == "study" else (None, f"it is a {made}, not a study")
        if scale is None:
            left_out.append((*place, reason))
        else:
            competing = board[board["complete"] & ~board["reference"] & board["accuracy"].notna()]
            normalised[place] = dict(_normalised(scores(cells, competing), scale))
            raw[place] = scores(cells, board[board["complete"]])
    held: dict[str, list[Place]] = {}
    for place, found in normalised.items():
        for label in found:
            held.setdefault(label, []).append(place)
    runs = {label: _runs(normalised, label) for label, at in held.items() if len(at) == len(normalised)}
    rows = _rows(raw, held, runs, _mean_ranks(normalised, list(runs)))
    return Across(
        scenario,
        list(normalised),
        pd.DataFrame(rows, columns=_COLUMNS),
        pd.DataFrame(left_out, columns=LEFT_OUT_COLUMNS),
        friedman(_by_stream(runs, list(normalised))) if len(runs) > 1 else None,
        runs,
    )


def _scale(board: pd.DataFrame, cells: pd.DataFrame) -> tuple[Mapping[int, tuple[float, float]] | None, str]:
    """Seed -> (naive, joint), or None and why a board can't be put on the common scale."""
    bounds = board[board["method"].isin([LOWER, UPPER]) & board["n"].gt(0)]
    found = scores(cells, bounds) if "accuracy" in cells and len(bounds) else {}
    for name in (LOWER, UPPER):
        if name not in found:
            several = board["method"].eq(name).sum() > 1
            return None, f"{name} has several variants" if several else f"no finished cell of {name}"
    complete = board.set_index("label")["complete"]
    for name in (LOWER, UPPER):
        if not complete[name] or np.isnan(list(found[name].values())).any():
            return None, f"{name} has failed or missing cells"
    scale = {seed: (found[LOWER][seed], found[UPPER][seed]) for seed in found[LOWER]}
    if below := [seed for seed, (low, high) in sorted(scale.items()) if high <= low]:
        return None, f"{UPPER} is not above {LOWER} at seed {', '.join(map(str, below))}"
    return scale, ""


def _normalised(found: Scores, scale: Mapping[int, tuple[float, float]]) -> Iterator[tuple[str, dict[int, float]]]:
    for label, runs in found.items():
        yield (
            label,
            {seed: (value - scale[seed][0]) / (scale[seed][1] - scale[seed][0]) for seed, value in runs.items()},
        )


def _rows(
    raw: Mapping[Place, Scores],
    held: Mapping[str, list[Place]],
    scaled: Mapping[str, Runs],
    ranks: Mapping[str, float],
) -> list[dict[str, object]]:
    """The table's rows, those on all boards by IQM and then the others by name."""
    rows: dict[str, dict[str, object]] = {
        label: {"label": label, "boards": len(at), "of": len(raw), "runs": sum(len(raw[p][label]) for p in at)}
        for label, at in held.items()
    }
    intervals = {label: stratified_bootstrap(runs, iqm) for label, runs in scaled.items()}
    whole = sorted(scaled, key=lambda label: (-intervals[label].estimate, label))
    few = any(len(values) < FEW_SEEDS for runs in scaled.values() for values in runs.values())
    first, step = None, 0
    for label in whole:
        interval = intervals[label]
        if first is None or interval.high < first.low:
            first, step = interval, step + 1
        tier = np.nan if few or np.isnan(interval.low) else step
        rows[label] |= {"tier": tier, "rank": ranks[label], **_ends("iqm", interval)}
        # On the accuracies as they are: within a board, and for one seed beside another, they are on one scale.
        rows[label] |= _ends("over_naive", probability_of_improvement(_runs(raw, label), _runs(raw, LOWER)))
        if label != whole[0]:
            rows[label] |= _ends("over_best", probability_of_improvement(_runs(raw, label), _runs(raw, whole[0])))
    return [rows[label] for label in (*whole, *sorted(held.keys() - scaled.keys()))]


def _runs(found: Mapping[Place, Scores], label: str) -> Runs:
    """A row's runs by board, in the order of seeds."""
    return {place: np.array([rows[label][seed] for seed in sorted(rows[label])]) for place, rows in found.items()}


def _ends(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _by_stream(runs: Mapping[str, Runs], places: list[Place]) -> np.ndarray:
    """Mean normalised accuracies, (streams, labels): first over a board's runs, then over a stream's boards."""
    means = pd.DataFrame({label: [by_board[place].mean() for place in places] for label, by_board in runs.items()})
    return means.groupby([stream for _, stream, _ in places], sort=False).mean().to_numpy()


def _mean_ranks(normalised: Mapping[Place, Scores], labels: list[str]) -> dict[str, float]:
    """Each label's rank (1 is the best, ties share), the mean over the seeds of a board and then over boards."""
    if not labels or not normalised:
        return {}
    boards = []
    for found in normalised.values():
        table = np.array([[found[label][seed] for seed in sorted(found[label])] for label in labels])
        boards.append(stats.rankdata(-table, axis=0).mean(axis=1))
    return dict(zip(labels, np.mean(boards, axis=0).tolist(), strict=True))
