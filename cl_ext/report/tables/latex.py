"""The leaderboard as LaTeX tables for a paper."""

from collections.abc import Collection

from cl_ext.report.rows.cells import BOARD
from cl_ext.report.rows.columns import Column
from cl_ext.report.rows.results import Results
from cl_ext.report.statistics import FEW_SEEDS
from cl_ext.report.tables.latex_text import tex
from cl_ext.report.tables.texts import (
    DASH,
    Footnotes,
    Scenarios,
    board_title,
    grid,
    note_numbers,
    note_text,
    short_seeds_text,
    shown_columns,
    tier_text,
    tuning_lines,
    tuning_notes,
    tuning_text,
)

import pandas as pd


def to_latex(
    frame: pd.DataFrame,
    footnotes: Footnotes | None = None,
    methods: Scenarios | None = None,
    columns: Collection[str] | None = None,
) -> str:
    """The leaderboard as LaTeX: a `table*` a board, which needs the package booktabs and no other.

    Args:
        frame: the tidy frame, a row a cell.
        footnotes: method -> sentences on its known faults, set after the tables.
        methods: method -> the scenarios it can do (see `leaderboard`).
        columns: keys of the columns to show, in order; by default those that fit the width of a page.

    Returns:
        The tables, one after the other.

    Raises:
        ValueError: a key is no column's.
    """
    return latex_tables(Results(frame, methods), footnotes, columns)


def latex_tables(results: Results, footnotes: Footnotes | None = None, columns: Collection[str] | None = None) -> str:
    """As `to_latex`, from results."""
    footnotes = footnotes or {}
    notes = note_numbers(results.table, footnotes)
    parts = ["% Needs \\usepackage{booktabs}"]
    parts += [_table(board, notes, columns) for _, board in results.table.groupby(BOARD)]
    faults = [rf"\textsuperscript{{{number}}}\,{tex(note_text(footnotes[method]))}" for method, number in notes.items()]
    if faults:
        parts.append("\n\n".join([r"\paragraph{Known faults.}", *faults]))
    return "\n\n".join(parts) + "\n"


def _table(board: pd.DataFrame, notes: dict[str, int], keys: Collection[str] | None) -> str:
    """One board's `table*`."""
    columns = shown_columns(board, "paper", keys)
    ways = tuning_notes(board)
    cells = grid(board, columns, "\0{}".format)
    first = next((i for i, column in enumerate(columns) if column.key == "accuracy"), None)
    body = pd.DataFrame(
        {
            "Method": [_name(row, notes) for _, row in board.iterrows()],
            **{
                _head(column): [
                    _cell(texts[i], top=i == first and tier_text(row) == "1")
                    for texts, (_, row) in zip(cells, board.iterrows(), strict=True)
                ]
                for i, column in enumerate(columns)
            },
            **({"Tuning": [tex(tuning_text(row, ways)) for _, row in board.iterrows()]} if ways else {}),
            "Seeds": [tex(short_seeds_text(row)) for _, row in board.iterrows()],
        }
    )
    form = "l" + "r" * len(columns) + "r" * bool(ways) + "l"
    tabular = body.style.hide(axis="index").to_latex(hrules=True, column_format=form)
    said = [rf"\par\raggedright {tex('Tuning: ' + ' '.join(tuning_lines(ways)))}"] if ways else []
    place = [str(part) for part in board[BOARD].iloc[0] if part]
    label = "-".join(place).replace(" ", "-").replace("_", "-")
    lines = [r"\begin{table*}", r"\centering", rf"\caption{{{_caption(board)}}}", rf"\label{{tab:{label}}}"]
    lines += [r"\smallskip", r"\scriptsize", r"\setlength{\tabcolsep}{2.5pt}", tabular.strip(), *said, r"\end{table*}"]
    return "\n".join(lines)


def _head(column: Column) -> str:
    """A column's head, its unit below; per cent is said in the caption."""
    title = tex(column.title)
    return rf"\shortstack[r]{{{title}\\ {{[{tex(column.unit)}]}}}}" if column.unit not in ("", "%") else title


def _name(row: pd.Series, notes: dict[str, int]) -> str:
    """A row's name: references in italics, results from elsewhere with their source."""
    label = tex(str(row["label"]))
    if row["outside"]:
        return f"{label} ({tex(str(row['outside']))})"
    shown = rf"\textit{{{label}}}" if row["reference"] else label
    return shown + (rf"\textsuperscript{{{notes[row['method']]}}}" if row["method"] in notes else "")


def _cell(text: str, top: bool) -> str:
    """A measured cell in LaTeX: the best, marked by a leading NUL, in bold; others of the top tier underlined."""
    mean, *interval = text.removeprefix("\0").split(" ", maxsplit=1)
    shown = tex(mean).replace("-", "$-$") if mean != DASH else tex(DASH)
    if text.startswith("\0"):
        shown = rf"\textbf{{{shown}}}"
    elif top:
        shown = rf"\underline{{{shown}}}"
    return " ".join([shown, *map(tex, interval)])


def _caption(board: pd.DataFrame) -> str:
    """What the table shows, how many seeds stand behind it, what the interval is, what the marks mean."""
    own = board[board["outside"].eq("")]
    finished = own.loc[own["n"] > 0, "n"]
    counts = "no seeds" if finished.empty else f"n = {finished.min()}"
    if not finished.empty and finished.min() != finished.max():
        counts = f"n = {finished.min()} to {finished.max()}"
    failed = int((own["cells"] - own["n"]).sum())
    kinds = ", ".join(f"{label}: {what}" for label, what in own[["label", "failures"]].to_numpy() if what)
    gaps = int((own["asked"] - own["cells"])[own["absent"].ne("not possible")].sum())
    tied = own["tier"].eq(1).fillna(False) & ~own["best"]
    note = next((text for text in own["tier_note"] if text), "")
    sentences = [
        f"{board_title(board)}: mean over seeds ({counts}) ± half the width of the 95 % Student-t interval;",
        "measures of accuracy in per cent.",
        "Bold: best mean of a column, references (italics) and incomplete rows aside.",
        "Underlined: of one tier with the best ACC." if tied.any() else "",
        note,
        f"{failed} of {own['cells'].sum()} cells failed and are left out of the means ({kinds})." if failed else "",
        f"{gaps} cell{'s are' if gaps > 1 else ' is'} missing." if gaps else "",
        f"Rows with n < {FEW_SEEDS} have too few seeds for the interval to be relied upon."
        if finished.lt(FEW_SEEDS).any()
        else "",
        "Rows with a source are results of others, compared with none." if board["outside"].ne("").any() else "",
    ]
    return tex(" ".join(sentence for sentence in sentences if sentence))
