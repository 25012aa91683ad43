"""The boards of a leaderboard as the HTML page shows them, with every column of the CSV that a reader may want."""

from collections.abc import Sequence

from cl_ext.report.rows.aggregate import best
from cl_ext.report.rows.cells import BOARD
from cl_ext.report.rows.columns import COLUMNS, Column, columns_for, percent
from cl_ext.report.tables.texts import (
    board_title,
    cell_text,
    scenario_name,
    seeds_text,
    tuning_lines,
    tuning_notes,
    tuning_text,
)
from cl_ext.report.web.tables import NOTHING, Cell, Head, Row, WebTable, interval_cells, number_cell, text_cell

import pandas as pd

_TIER = Head(
    "tier",
    "Tier",
    "rows of one tier are not ordered; what tiers rest on, exact tests or intervals, stands below the table; a dash "
    "where seeds are too few, for references and for incomplete rows",
)
_INTERVAL = Head("interval", "95 % interval", "of ACC, on this table's own scale", True)
_AGAINST = {"best": "To best [pp]", "naive": "To naive [pp]"}
_TUNING = Head("tuning_configurations", "Tuning", "settings tried for this method, and how (below the table)")
_SEEDS = Head("n", "Seeds", "finished cells; what failed and what is missing", higher_is_better=True)
_Shown = tuple[Head, Sequence[Cell]]


def board_tables(table: pd.DataFrame) -> list[WebTable]:
    """A table a board, with every column in which any row has a number or a word; many hidden until asked for.

    Args:
        table: what `leaderboard` gives.
    """
    return [_board(f"board-{number}", board) for number, (_, board) in enumerate(table.groupby(BOARD))]


def _board(name: str, board: pd.DataFrame) -> WebTable:
    lines = [line for _, line in board.iterrows()]
    seeds = (_SEEDS, [Cell(seeds_text(line), float(line["n"])) for line in lines])
    shown: list[_Shown] = [
        *_tier(board),
        *_accuracy(board, lines),
        seeds,
        *_measures(board, lines),
        *_tuning(board, lines),
    ]
    rows = [
        Row(
            label=text_cell(row["label"]),
            cells=[cells[i] for _, cells in shown],
            tags=_tags(row),
            reference=bool(row["reference"]),
            place=(*map(str, row[BOARD]), str(row["label"])),
        )
        for i, row in enumerate(lines)
    ]
    study, _, scenario = map(str, board[BOARD].iloc[0])
    heads = [head for head, _ in shown]
    notes = [*dict.fromkeys(str(text) for text in board["tier_note"] if text), *tuning_lines(tuning_notes(board))]
    return WebTable(name, board_title(board), heads, rows, study=study, scenario=scenario_name(scenario), notes=notes)


def _tags(row: pd.Series) -> list[Cell]:
    if row["reference"]:
        return [text_cell("reference")]
    if row["outside"]:
        link = str(row["url"]) if str(row["url"]).startswith(("https://", "http://")) else ""
        return [Cell(f"outside: {row['outside']}", None, link=link)]
    return []


def _tier(board: pd.DataFrame) -> list[_Shown]:
    return [(_TIER, [number_cell(tier) for tier in board["tier"]])] if board["tier"].notna().any() else []


def _accuracy(board: pd.DataFrame, lines: Sequence[pd.Series]) -> list[_Shown]:
    """The final accuracy: number, interval drawn, difference from the best row and from `naive` with a verdict."""
    if board["accuracy"].isna().all():
        return []
    accuracy = next(column for column in COLUMNS if column.key == "accuracy")
    shown: list[_Shown] = [(_head(accuracy), _measured(board, lines, accuracy))]
    mean, width = board["accuracy"], board.get("accuracy_half_width", board["accuracy"] * float("nan"))
    if width.notna().any():
        shown.append((_INTERVAL, interval_cells(mean, mean - width, mean + width)))
    for against, title in _AGAINST.items():
        cells = [_difference(line, against) for line in lines]
        if any(cell.value is not None for cell in cells):
            note = (
                f"mean difference of ACC from {'the best complete row' if against == 'best' else 'naive'}, seed by seed"
                " ± 95 % Student-t interval; verdict of the exact Wilcoxon test after Holm's correction"
            )
            shown.append((Head(f"from_{against}", title, note, True, hidden=against == "naive"), cells))
    return shown


def _difference(row: pd.Series, against: str) -> Cell:
    value, verdict = row[f"from_{against}"], str(row[f"from_{against}_verdict"])
    if pd.isna(value):
        return Cell(NOTHING.text, None, verdict)
    width = row[f"from_{against}_half_width"]
    small = ([] if pd.isna(width) else [f"± {percent(width)}"]) + ([verdict] if verdict else [])
    return Cell(percent(value), float(value), ", ".join(small))


def _measures(board: pd.DataFrame, lines: Sequence[pd.Series]) -> list[_Shown]:
    usual = {column.key for column in columns_for("report")}
    return [
        (_head(column, hidden=column.key not in usual), _measured(board, lines, column))
        for column in COLUMNS
        if column.key != "accuracy" and column.key in board and board[column.key].notna().any()
    ]


def _head(column: Column, hidden: bool = False) -> Head:
    note = f"{column.formula} ({column.source})"
    return Head(column.key, column.head, note, column.higher_is_better, hidden=hidden)


def _measured(board: pd.DataFrame, lines: Sequence[pd.Series], column: Column) -> list[Cell]:
    """A column's cells; where a mean is undefined, a dash with no number behind it."""
    cells = []
    for mark, row in zip(best(board, column), lines, strict=True):
        text, _, rest = cell_text(row, column).partition(" ±")
        value = row[column.key]
        small = f"±{rest}" if rest else ""
        cells.append(Cell(text, None if pd.isna(value) else float(value), small, bool(mark)))
    return cells


def _tuning(board: pd.DataFrame, lines: Sequence[pd.Series]) -> list[_Shown]:
    """How many settings were tried, with a letter for the protocol, which the table's note spells out."""
    ways = tuning_notes(board)
    tried = [line.get("tuning_configurations") for line in lines]
    cells = [
        Cell(tuning_text(line, ways), None if number is None or pd.isna(number) else float(number))
        for line, number in zip(lines, tried, strict=True)
    ]
    return [(_TUNING, cells)] if ways else []
