"""The leaderboard as Markdown, CSV, LaTeX and on the terminal, written from the one table of columns."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from cl_ext.report.aggregate import BOARD, best, failed_cells, leaderboard, missing_cells
from cl_ext.report.columns import Column, Detail, columns_for
from cl_ext.report.statistics import FEW_SEEDS

import pandas as pd
from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

DASH = "—"
Scenarios = Mapping[str, Collection[str]]
Footnotes = Mapping[str, Sequence[str]]

_TEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "—": "---",
    }
)


def scenario_name(scenario: str) -> str:
    """ "task" as "task-incremental"; a scenario of another name as it is."""
    return f"{scenario}-incremental" if scenario in {"task", "domain", "class"} else scenario


def board_title(board: pd.DataFrame) -> str:
    """Study, scenario and stream of a board, as the head of its table."""
    first = board.iloc[0]
    stream = f" ({first['stream']})" if first["stream"] else ""
    return ", ".join(part for part in (first["study"], scenario_name(first["scenario"])) if part) + stream


def shown_columns(board: pd.DataFrame, detail: Detail) -> list[Column]:
    """The columns of this detail in which at least one row of the board has a number."""
    return [column for column in columns_for(detail) if column.key in board and board[column.key].notna().any()]


def cell_text(row: pd.Series, column: Column) -> str:
    """A measured cell: mean, ± half width where there is one, the number of seeds where it is not the row's."""
    if pd.isna(row[column.key]):
        return DASH
    text = column.format(row[column.key])
    if column.interval and pd.notna(width := row[f"{column.key}_half_width"]):
        text += f" ± {column.format(width)}"
    defined = row[f"{column.key}_n"]
    return text if defined == row["n"] else f"{text} (n = {defined})"


def seeds_text(row: pd.Series) -> str:
    """How many seeds stand behind a row, and what is wrong with them: failures, gaps, too few."""
    if row["absent"]:
        return str(row["absent"])
    parts = [str(row["n"])]
    if failed := row["cells"] - row["n"]:
        kinds = "" if row["failures"] == f"{failed} failed" else f" ({row['failures']})"
        parts.append(f"{failed} failed of {row['cells']}{kinds}")
    if gap := row["seeds"] - row["cells"]:
        parts.append(f"{gap} missing of {row['seeds']}")
    if row["few_seeds"]:
        parts.append(f"n < {FEW_SEEDS}")
    return "; ".join(parts)


def _grid(board: pd.DataFrame, columns: Sequence[Column], strong: Callable[[str], str]) -> list[list[str]]:
    """The measured cells of a board as text, row by row; `strong` marks the best of a column."""
    texts = []
    for column in columns:
        cells = [cell_text(row, column) for _, row in board.iterrows()]
        texts.append([strong(text) if mark else text for text, mark in zip(cells, best(board, column), strict=True)])
    return [list(row) for row in zip(*texts, strict=True)] if texts else [[] for _ in board.index]


def _pipe_table(heads: Sequence[str], rows: Sequence[Sequence[object]], numbers_from: int) -> str:
    """A Markdown table; columns from `numbers_from` on are aligned to the right."""
    rule = ["---" if i < numbers_from else "---:" for i in range(len(heads))]
    lines = [heads, rule, *([str(cell).replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _note_numbers(table: pd.DataFrame, footnotes: Footnotes) -> dict[str, int]:
    """Method -> number of its footnote, for the methods that stand in the table and have a fault to tell."""
    noted = [method for method in table["method"].drop_duplicates() if footnotes.get(method)]
    return {method: number for number, method in enumerate(noted, start=1)}


_HOW_TO_READ = f"""\
Accuracies and what is computed from them are in per cent (differences in percentage points): the mean over seeds ± half
the width of its 95 % Student-t interval. One seed has no interval; rows marked "n < {FEW_SEEDS}" have too few seeds for
theirs to be relied upon. {DASH} is undefined or not recorded, never 0. Bold is the best mean of a column; no test says
that it differs from the next. References (in italics) and rows with failed or missing cells are never bold. Rows are
ordered by accuracy. Cost is in CPU seconds of training relative to `naive` of the same table. Accuracies use the
scenario's own criterion: task-aware in the task-incremental scenario, else task-agnostic; the CSV has both.
"""


def to_markdown(frame: pd.DataFrame, footnotes: Footnotes | None = None, methods: Scenarios | None = None) -> str:
    """The leaderboard as a Markdown page.

    Args:
        frame: the tidy frame, a row a cell.
        footnotes: method -> sentences on its known faults.
        methods: method -> the scenarios it can do (see `leaderboard`).

    Returns:
        The page: how to read it, a table a board, formulas, known faults, failed cells, missing cells.
    """
    footnotes = footnotes or {}
    table = leaderboard(frame, methods)
    notes = _note_numbers(table, footnotes)
    parts = ["# Leaderboard", _HOW_TO_READ]
    used: dict[str, Column] = {}
    for _, board in table.groupby(BOARD):
        columns = shown_columns(board, "report")
        used.update({column.key: column for column in columns})
        names = [
            (f"*{row['label']}*" if row["reference"] else row["label"])
            + (f"[^{notes[row['method']]}]" if row["method"] in notes else "")
            for _, row in board.iterrows()
        ]
        measured = _grid(board, columns, "**{}**".format)
        seeds = [seeds_text(row) for _, row in board.iterrows()]
        rows = [[name, *cells, seed] for name, cells, seed in zip(names, measured, seeds, strict=True)]
        heads = ["Method", *(column.head for column in columns), "Seeds"]
        parts += [f"## {board_title(board)}", _pipe_table(heads, rows, 1)]
    formulas = [[column.title, f"`{column.formula}`", column.source] for column in used.values()]
    parts += ["## Formulas", _pipe_table(["Column", "Formula", "Source"], formulas, 3)]
    parts += ["`R[i, j]` is the accuracy on experience j after experience i of T, row 0 the untrained network."]
    if notes:
        lines = [f"[^{number}]: **{method}**: {' '.join(footnotes[method])}" for method, number in notes.items()]
        parts += ["## Known faults", "\n".join(lines)]
    for title, cells in (("Failed", failed_cells(frame)), ("Missing", missing_cells(frame, methods))):
        body = _pipe_table([str(name).capitalize() for name in cells], cells.to_numpy().tolist(), len(cells.columns))
        parts += [f"## {title} cells", body if len(cells) else "None."]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def to_csv(frame: pd.DataFrame, methods: Scenarios | None = None) -> str:
    """The leaderboard as CSV: every column of `leaderboard`, at full precision, fractions and plain units."""
    return leaderboard(frame, methods).to_csv(index=False)


def tex(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return text.translate(_TEX)


def _tex_caption(board: pd.DataFrame) -> str:
    """What the table shows, how many seeds stand behind it and what the interval is."""
    finished = board.loc[board["n"] > 0, "n"]
    counts = "no seeds" if finished.empty else f"n = {finished.min()}"
    if not finished.empty and finished.min() != finished.max():
        counts = f"n = {finished.min()} to {finished.max()}"
    failed = int((board["cells"] - board["n"]).sum())
    sentences = [
        f"{board_title(board)}: mean over seeds ({counts}) ± half the width of the 95 % Student-t interval;",
        "measures of accuracy in per cent.",
        "Bold: best mean of a column, references (italics) and incomplete rows aside.",
        f"{failed} of {board['cells'].sum()} cells failed and are left out of the means." if failed else "",
        f"Rows with n < {FEW_SEEDS} have too few seeds for the interval to be relied upon."
        if finished.lt(5).any()
        else "",
    ]
    return tex(" ".join(sentence for sentence in sentences if sentence))


def to_latex(frame: pd.DataFrame, footnotes: Footnotes | None = None, methods: Scenarios | None = None) -> str:
    """The leaderboard as LaTeX: a `table*` a board, which needs the package booktabs and no other.

    Args:
        frame: the tidy frame, a row a cell.
        footnotes: method -> sentences on its known faults, set below each table.
        methods: method -> the scenarios it can do (see `leaderboard`).

    Returns:
        The tables, one after the other.
    """
    footnotes = footnotes or {}
    tables = ["% Needs \\usepackage{booktabs}"]
    for place, board in leaderboard(frame, methods).groupby(BOARD):
        columns = shown_columns(board, "report")
        notes = _note_numbers(board, footnotes)
        grid = _grid(board, columns, "\0{}".format)
        body = pd.DataFrame(
            {
                "Method": [
                    (rf"\textit{{{tex(row['label'])}}}" if row["reference"] else tex(row["label"]))
                    + (rf"\textsuperscript{{{notes[row['method']]}}}" if row["method"] in notes else "")
                    for _, row in board.iterrows()
                ],
                **{tex(c.head.replace(" [%]", "")): [_tex_cell(row[i]) for row in grid] for i, c in enumerate(columns)},
                "Seeds": [tex(seeds_text(row)) for _, row in board.iterrows()],
            }
        )
        tabular = body.style.hide(axis="index").to_latex(hrules=True, column_format="l" + "r" * len(columns) + "l")
        faults = [
            rf"\par\raggedright\textsuperscript{{{number}}}\,{tex(' '.join(footnotes[method]))}"
            for method, number in notes.items()
        ]
        label = "-".join(part for part in map(str, place) if part).replace(" ", "-").replace("_", "-")
        lines = [r"\begin{table*}", r"\centering", rf"\caption{{{_tex_caption(board)}}}", rf"\label{{tab:{label}}}"]
        lines += [r"\scriptsize", r"\setlength{\tabcolsep}{3pt}", tabular.strip(), *faults, r"\end{table*}"]
        tables.append("\n".join(lines))
    return "\n\n".join(tables) + "\n"


def _tex_cell(text: str) -> str:
    """A measured cell in LaTeX: the best, marked by a leading NUL, in bold; minus signs as such."""
    mean, *interval = text.removeprefix("\0").split(" ", maxsplit=1)
    shown = tex(mean).replace("-", "$-$") if mean != DASH else tex(DASH)
    shown = rf"\textbf{{{shown}}}" if text.startswith("\0") else shown
    return " ".join([shown, *map(tex, interval)])


def terminal_table(frame: pd.DataFrame, methods: Scenarios | None = None) -> Group:
    """The leaderboard for the terminal: a rich table a board with the columns that matter most.

    Args:
        frame: the tidy frame, a row a cell.
        methods: method -> the scenarios it can do (see `leaderboard`).

    Returns:
        A group of `rich.table.Table` for `rich.console.Console.print`.
    """
    tables = []
    for _, board in leaderboard(frame, methods).groupby(BOARD):
        columns = shown_columns(board, "terminal")
        table = Table(
            title=escape(board_title(board)), box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 1)
        )
        table.add_column("Method", no_wrap=True)
        for column in columns:
            # The unit below the title, and wrapping where the terminal is narrow: a digit is never cut off.
            table.add_column(escape(column.head.replace(" [", "\n[")), justify="right")
        table.add_column("Seeds", no_wrap=True)
        grid = _grid(board, columns, "\0{}".format)
        for cells, (_, row) in zip(grid, board.iterrows(), strict=True):
            texts = [Text(cell.removeprefix("\0"), style="bold" if cell.startswith("\0") else "") for cell in cells]
            style = "dim" if row["reference"] else ""
            # Kinds of failure and gaps stand in the files; a narrow table says how many seeds are behind a row.
            seeds = row["absent"] or f"{row['n']}/{row['seeds']}"
            table.add_row(Text(row["label"]), *texts, Text(seeds), style=style)
        tables.append(table)
    return Group(*tables)


def write_leaderboard(
    frame: pd.DataFrame,
    out: str | Path,
    footnotes: Footnotes | None = None,
    methods: Scenarios | None = None,
) -> list[Path]:
    """Writes `leaderboard.md`, `leaderboard.csv` and `leaderboard.tex`.

    Args:
        frame: the tidy frame, a row a cell.
        out: the folder, made if it is not there.
        footnotes: method -> sentences on its known faults.
        methods: method -> the scenarios it can do (see `leaderboard`).

    Returns:
        The paths written.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "leaderboard.md": to_markdown(frame, footnotes, methods),
        "leaderboard.csv": to_csv(frame, methods),
        "leaderboard.tex": to_latex(frame, footnotes, methods),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]
