"""The leaderboard for the terminal."""

from cl_ext.report.rows.cells import BOARD
from cl_ext.report.rows.results import Results
from cl_ext.report.tables.texts import Scenarios, board_title, grid, short_seeds_text, shown_columns, tier_text

import pandas as pd
from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text


def terminal_table(frame: pd.DataFrame, methods: Scenarios | None = None) -> Group:
    """The leaderboard for the terminal: a rich table a board with the columns that matter most.

    Args:
        frame: the tidy frame, a row a cell.
        methods: method -> the scenarios it can do (see `leaderboard`).

    Returns:
        A group of `rich.table.Table` for `rich.console.Console.print`.
    """
    return terminal_tables(Results(frame, methods))


def terminal_tables(results: Results) -> Group:
    """As `terminal_table`, from results."""
    tables = []
    for _, board in results.table.groupby(BOARD):
        columns = shown_columns(board, "terminal")
        table = Table(
            title=escape(board_title(board)), box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1)
        )
        table.add_column("Method", no_wrap=True)
        table.add_column("Tier", justify="right")
        for column in columns:
            # The unit below the title, and wrapping where the terminal is narrow: a digit is never cut off.
            table.add_column(escape(column.head.replace(" [", "\n[")), justify="right")
        table.add_column("Seeds", no_wrap=True)
        for cells, (_, row) in zip(grid(board, columns, "\0{}".format), board.iterrows(), strict=True):
            texts = [Text(cell.removeprefix("\0"), style="bold" if cell.startswith("\0") else "") for cell in cells]
            style = "dim" if row["reference"] or row["outside"] else ""
            # Kinds of failure and gaps stand in the files; a narrow table says how many seeds are behind a row.
            seeds = "outside" if row["outside"] else short_seeds_text(row)
            table.add_row(Text(row["label"]), Text(tier_text(row)), *texts, Text(seeds), style=style)
        tables.append(table)
    return Group(*tables)
