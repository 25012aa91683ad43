"""The views beside the boards, as the HTML page shows them: methods across boards, and the best under a budget."""

from collections.abc import Sequence
from dataclasses import dataclass

from cl_ext.report.rows.across_boards import Across
from cl_ext.report.rows.budgets import UNKNOWN, budget_text, tied_text
from cl_ext.report.rows.cells import BOARD
from cl_ext.report.rows.columns import COLUMNS, percent
from cl_ext.report.tables.texts import board_title, scenario_name
from cl_ext.report.web.tables import Cell, Head, Row, WebTable, interval_cells, number_cell, plain_table, text_cell

import pandas as pd

_ACROSS = (
    Head("tier", "Tier", "rows whose interval reaches the first row's of the tier share it"),
    Head("iqm", "IQM [%]", "interquartile mean of normalised ACC over runs and boards; 0 is naive, 100 joint", True),
    Head("iqm_interval", "95 % interval", "stratified bootstrap, on this table's own scale", True),
    Head("rank", "Rank", "mean over seeds and boards; 1 is the best", False),
    Head("over_naive", "P(> naive) [%]", "probability that a run is above one of naive", True),
    Head("over_best", "P(> first) [%]", "probability that a run is above one of the first row", True),
    Head("boards", "Boards", "on which the row is complete", True),
    Head("runs", "Runs"),
)
_BUDGET = (
    Head("limit", "Budget"),
    Head("best", "Best", number=False),
    Head("accuracy", "ACC [%]", "", True),
    Head("used", "Uses"),
    Head(
        "tied",
        "Not told from it",
        f"rows that keep to the budget, too, and share its tier; {UNKNOWN}: too few seeds to say",
        number=False,
    ),
    Head("fitting", "Rows that fit", "of all complete ones"),
)


@dataclass(frozen=True)
class Section:
    """A part of the page: id, title, paragraphs, tables."""

    id: str
    title: str
    paragraphs: Sequence[str]
    tables: Sequence[WebTable]


def across_section(views: Sequence[Across]) -> list[Section]:
    """Methods over boards; nothing where there are not two boards."""
    if not views or len(views[0].boards) + len(views[0].left_out) < 2:
        return []
    paragraphs = [
        "Accuracies are normalised at each seed, (ACC - naive) / (joint - naive): 0 is plain fine-tuning, 100 % joint "
        "training. Rows that are complete on every board come first; the others follow, and are compared with none."
    ]
    tables = []
    for number, view in enumerate(views):
        if len(view.boards) < 2:
            continue  # one board alone says what its own table says
        what = f"{scenario_name(view.scenario)} boards" if view.scenario else "all boards"
        if len(view.table):
            tables.append(_across(f"across-{number}", f"{what} ({len(view.boards)})".capitalize(), view))
        if view.friedman is not None:
            paragraphs.append(f"{what.capitalize()}: {view.friedman.sentence}")
    left_out = views[0].left_out
    if len(left_out):
        tables.append(plain_table("across-left-out", "Boards that are left out", left_out))
    return [Section("across", "Across boards", paragraphs, tables)]


def _across(name: str, title: str, view: Across) -> WebTable:
    table = pd.concat([view.ranked, view.partial])
    drawn = interval_cells(table["iqm"], table["iqm_low"], table["iqm_high"])
    rows = []
    for interval, (_, row) in zip(drawn, table.iterrows(), strict=True):
        cells = [
            number_cell(row["tier"]),
            _with_ends(row, "iqm"),
            interval,
            number_cell(row["rank"], f"{row['rank']:.2f}"),
            _with_ends(row, "over_naive"),
            _with_ends(row, "over_best"),
            number_cell(row["boards"], f"{row['boards']} of {row['of']}"),
            number_cell(row["runs"]),
        ]
        rows.append(Row(text_cell(row["label"]), cells))
    return WebTable(name, title, _ACROSS, rows)


def _with_ends(row: pd.Series, key: str) -> Cell:
    ends = "" if pd.isna(row[key]) else f"{percent(row[f'{key}_low'])} to {percent(row[f'{key}_high'])}"
    return number_cell(row[key], percent(row[key]), ends)


def budget_section(ladder: pd.DataFrame) -> list[Section]:
    """The best row of each board under each budget; nothing where no row has a cost."""
    if ladder.empty:
        return []
    titles = {column.key: column.title for column in COLUMNS}
    tables = []
    for number, (budget, part) in enumerate(ladder.groupby("budget", sort=False)):
        rows = []
        for _, steps in part.groupby(BOARD):
            title = board_title(steps)
            rows += [_step(title, str(budget), row) for _, row in steps.iterrows()]
        tables.append(WebTable(f"budget-{number}", f"Equal {titles[str(budget)].lower()}", _BUDGET, rows, "Board"))
    paragraph = (
        "The best complete row among those whose mean keeps to a budget: bytes beside the network, and CPU seconds of "
        "training relative to naive. A budget is listed where it changes which row that is."
    )
    return [Section("budgets", "Equal budgets", [paragraph], tables)]


def _step(title: str, budget: str, row: pd.Series) -> Row:
    width = row["accuracy_half_width"]
    told = tied_text(row["tied"])
    tied = Cell(told, None) if told == UNKNOWN else text_cell(told)
    cells = [
        number_cell(row["limit"], f"≤ {budget_text(budget, row['limit'])}"),
        text_cell(row["label"]),
        number_cell(row["accuracy"], percent(row["accuracy"]), "" if pd.isna(width) else f"± {percent(width)}"),
        number_cell(row["used"], budget_text(budget, row["used"])),
        tied,
        number_cell(row["fitting"], f"{row['fitting']} of {row['of']}"),
    ]
    return Row(text_cell(title), cells)
