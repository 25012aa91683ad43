"""Equal memory and equal compute: the best row of each board that keeps to a budget, on a ladder of budgets."""

from collections.abc import Iterator

from cl_ext.report.rows.cells import BOARD
from cl_ext.report.rows.columns import COLUMNS
from cl_ext.report.rows.verdicts import scores
from cl_ext.report.statistics import tiers

import numpy as np
import pandas as pd

BUDGETS = ("extra_bytes", "cost_relative")
"""What is held equal: bytes beside the network, and CPU seconds of training relative to `naive`."""

NONE, UNKNOWN = "none", "unknown"
"""What stands for the rows of a tier where there are no others, and where seeds are too few to say."""

_SLACK = 1.0001
"""A hundredth of a per cent is no reason to stand on the next rung: 1.00001 x naive keeps to 1 x naive."""

LADDER_COLUMNS = [
    *BOARD, "budget", "limit", "fitting", "of", "label", "accuracy", "accuracy_half_width", "n", "used", "tied",
]  # fmt: skip


def rungs(values: "pd.Series[float]") -> list[float]:
    """The ladder that the data give: 0 and 1, 2, 5 times powers of ten, where at least one more row fits.

    Args:
        values: what each row uses, at least 0; NaN where not known.

    Returns:
        Limits in ascending order; the first is one that a row keeps to, the last one that all keep to.
    """
    used = np.sort(values.dropna().to_numpy(dtype=float))
    found: list[float] = []
    for value in used:
        if not found or value > found[-1] * _SLACK:
            found.append(_rung_above(float(value)))
    return found


def _rung_above(value: float) -> float:
    """The least of 0 and 1, 2, 5 times a power of ten that is at least the value."""
    if value <= 0:
        return 0.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(factor * power for factor in (1, 2, 5, 10) if value <= factor * power * _SLACK))


def ladder(table: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """The best row of each board under each budget; a budget is listed where it changes which row that is.

    A row keeps to a budget where its mean does. Only complete rows that are no reference and not from elsewhere stand
    for it, and the best is compared with those that fit and with no other: its tier is that of this smaller field.

    Args:
        table: the leaderboard.
        cells: the cells behind it, as `cl_ext.report.rows.cells.prepare` gives them.

    Returns:
        A row a board, budget and rung: study, stream, scenario, `budget` (the column), `limit`, `fitting` rows `of` all
        that compete, the best one's `label`, `accuracy`, `accuracy_half_width`, `n` and what it `used`, and the other
        labels of its tier, `tied`, which no test tells from it ("" for none; None where seeds are too few to say).
    """
    rows = [
        row
        for _, board in table.groupby(BOARD)
        for budget in BUDGETS
        if budget in table
        for row in _of_board(board[board["complete"] & ~board["reference"]], budget, cells)
    ]
    return pd.DataFrame(rows, columns=LADDER_COLUMNS)


def _of_board(board: pd.DataFrame, budget: str, cells: pd.DataFrame) -> Iterator[dict[str, object]]:
    if board.empty or board["accuracy"].isna().all():
        return
    found = scores(cells, board)
    before = None
    for limit in rungs(board[budget]):
        fitting = board[board[budget].le(limit * _SLACK) & board["accuracy"].notna()]
        if fitting.empty:
            continue
        best = fitting.iloc[0]  # rows come in the order of accuracy
        if best["label"] == before:
            continue
        before = best["label"]
        steps = tiers({label: found[label] for label in fitting["label"]})
        tied = [label for label in fitting["label"] if label != best["label"] and steps[label] == 1]
        yield {
            **{name: best[name] for name in (*BOARD, "label", "accuracy", "accuracy_half_width", "n")},
            "budget": budget,
            "limit": limit,
            "fitting": len(fitting),
            "of": len(board),
            "used": best[budget],
            "tied": ", ".join(tied) if steps[best["label"]] is not None else None,
        }


def budget_text(budget: str, limit: float) -> str:
    """A limit, or what is used of it, as a table shows it."""
    column = next(column for column in COLUMNS if column.key == budget)
    return column.format(limit) + (f" {column.unit}" if column.unit else "")


def tied_text(tied: object) -> str:
    """`tied` of a rung as tables show it: labels, "none", or "unknown" where seeds are too few to say."""
    return UNKNOWN if tied is None or tied != tied else str(tied) or NONE  # NaN alone differs from itself
