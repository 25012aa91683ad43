"""What the seeds of a board show: tiers instead of a strict order, and differences with an interval and a verdict."""

from collections.abc import Mapping

from cl_ext.report.rows.cells import BOARD
from cl_ext.report.statistics import compare, tiering

import numpy as np
import pandas as pd

Scores = dict[str, dict[int, float]]
AGAINST = ("best", "naive")
FIELDS = ("", "_half_width", "_n", "_better", "_p_holm", "_verdict")
INCOMPLETE = "incomplete"


def scores(cells: pd.DataFrame, board: pd.DataFrame) -> Scores:
    """Label -> seed -> final accuracy of the finished cells of one board.

    Args:
        cells: all cells, as `cl_ext.report.rows.cells.prepare` gives them.
        board: the rows of one board.
    """
    if board.empty:
        return {}
    place = board[BOARD].iloc[0]
    mine = cells["status"].eq("done") & cells[BOARD].eq(place).all(axis=1) & cells["label"].isin(board["label"])
    found: Scores = {}
    for label, seed, value in cells.loc[mine, ["label", "seed", "accuracy"]].itertuples(index=False):
        found.setdefault(str(label), {})[int(seed)] = float(value)
    return found


def judge(rows: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Adds tiers and differences to the rows of a leaderboard.

    Only complete rows are judged: a mean over the seeds that a method survived stands against nothing. References
    compete with none and get neither.

    Args:
        rows: a leaderboard's rows in its order, with `complete`, `reference`, `outside` and `accuracy`.
        cells: the cells behind them, as `cl_ext.report.rows.cells.prepare` gives them.

    Returns:
        The rows with `tier` (1 is the top, <NA> for none), `tier_note` (what the tiers of the board rest on) and, for
        the best complete row (`from_best`) and for `naive` (`from_naive`) of the board: the mean difference of final
        accuracy seed by seed, `_half_width` (95 % Student t of the paired differences), `_n` pairs, `_better` (at how
        many seeds the row is above), `_p_holm` (exact Wilcoxon, Holm-corrected over the rows of the board; against the
        best, which the scores pick, over all their pairs), `_verdict`: better, worse, no difference shown,
        underpowered, equal; "incomplete" for a row with failed or missing cells, "" for the one compared with.
    """
    judged = {"tier": pd.Series(pd.NA, index=rows.index, dtype="Int64")}
    judged["tier_note"] = pd.Series("", index=rows.index, dtype=object)
    for against in AGAINST:
        for field in FIELDS:
            judged[f"from_{against}{field}"] = pd.Series(np.nan, index=rows.index)
        judged[f"from_{against}_verdict"] = pd.Series("", index=rows.index, dtype=object)
    for _, board in rows[rows["outside"].eq("") & rows["n"].gt(0)].groupby(BOARD):
        whole = board[board["complete"] & board["accuracy"].notna()]
        for against in AGAINST:
            judged[f"from_{against}_verdict"][board.index.difference(whole.index)] = INCOMPLETE
        if "accuracy" not in cells or whole.empty:
            continue
        found = scores(cells, whole)
        competing = whole[~whole["reference"]]
        if len(competing):
            steps = tiering({label: found[label] for label in competing["label"]})
            judged["tier"][competing.index] = pd.array([steps.tiers[label] for label in competing["label"]], "Int64")
            judged["tier_note"][board.index] = steps.sentence
            # Rows come in the order of accuracy.
            _write(judged, whole, found, "best", str(competing["label"].iloc[0]))
        if "naive" in found:
            _write(judged, whole, found, "naive", "naive")
    return pd.concat([rows, pd.DataFrame(judged)], axis=1)


def _write(judged: Mapping[str, pd.Series], whole: pd.DataFrame, found: Scores, against: str, reference: str) -> None:
    """Puts one reference's comparisons into the columns `from_<against>...`."""
    others = whole.loc[~whole["reference"] | whole["label"].eq(reference), "label"]
    # The scores say which row is the best: Holm's correction then counts all pairs.
    comparisons = compare({label: found[label] for label in others}, reference, named=against != "best")
    index = pd.Series(whole.index, whole["label"])
    for label, comparison in comparisons.items():
        difference = comparison.difference
        values = (difference.mean, difference.half_width, difference.n, difference.better, comparison.p_holm)
        for field, value in zip(FIELDS, (*values, comparison.verdict), strict=True):
            judged[f"from_{against}{field}"][index[label]] = value
