"""The leaderboard for the terminal."""

from collections.abc import Iterator

from cl_ext.report.rows.cells import BOARD
from cl_ext.report.rows.results import Results
from cl_ext.report.tables.terminal_fit import Fields, fit
from cl_ext.report.tables.texts import Scenarios, board_title, grid, short_seeds_text, shown_columns, tier_text

import pandas as pd
from rich import box
from rich.console import Console, ConsoleOptions, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text


def terminal_table(frame: pd.DataFrame, methods: Scenarios | None = None) -> Group:
    """The leaderboard for the terminal: a rich table a board with the columns that matter most.

    Args:
        frame: the tidy frame, a row a cell.
        methods: method -> the scenarios it can do (see `leaderboard`).

    Returns:
        A group of `BoardTable` for `rich.console.Console.print`, each as wide as the terminal that prints it.
    """
    return terminal_tables(Results(frame, methods))


def terminal_tables(results: Results) -> Group:
    """As `terminal_table`, from results."""
    return Group(*(BoardTable(board) for _, board in results.table.groupby(BOARD)))


class BoardTable:
    """A board that fits any terminal: names are folded and columns left out, but no number is ever cut.

    Args:
        board: the rows of one board.
    """

    def __init__(self, board: pd.DataFrame) -> None:
        columns = shown_columns(board, "terminal")
        rows = grid(board, columns, "\0{}".format)
        # Kinds of failure and gaps stand in the files; a narrow table says how many seeds are behind a row.
        seeds = ["outside" if row["outside"] else short_seeds_text(row) for _, row in board.iterrows()]
        self._title = board_title(board)
        self._fields: Fields = [
            ("Method", [str(label) for label in board["label"]]),
            ("Tier", [tier_text(row) for _, row in board.iterrows()]),
            *((column.head.replace(" [", "\n["), [row[i] for row in rows]) for i, column in enumerate(columns)),
            ("Seeds", seeds),
        ]
        self._dim = [bool(row["reference"] or row["outside"]) for _, row in board.iterrows()]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        fields, widths, left_out = fit(self._fields, options.max_width)
        if not fields:
            yield Text(f"{self._title}: the terminal has {options.max_width} columns, too few for a table.\n")
            return
        table = Table(
            title=escape(self._title),
            box=box.SIMPLE_HEAD,
            title_justify="left",
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for (head, _), width in zip(fields, widths, strict=True):
            words = head in ("Method", "Seeds")
            table.add_column(escape(head), width=width, justify="left" if words else "right", overflow="fold")
        for cells, dim in zip(zip(*(cells for _, cells in fields), strict=True), self._dim, strict=True):
            texts = [Text(cell.removeprefix("\0"), style="bold" if cell.startswith("\0") else "") for cell in cells]
            table.add_row(*texts, style="dim" if dim else "")
        yield table
        if left_out:
            yield Text(f"No room on a terminal of {options.max_width} columns for: {', '.join(left_out)}.")
        yield Text("")
