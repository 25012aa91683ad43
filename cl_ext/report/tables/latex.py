"""The leaderboard as LaTeX tables for a paper."""

import math
from collections.abc import Collection, Iterator, Sequence

from cl_ext.report.rows.cells import BOARD
from cl_ext.report.rows.columns import Column
from cl_ext.report.rows.results import Results
from cl_ext.report.tables.latex_caption import caption, tuning_below
from cl_ext.report.tables.latex_fit import TEXT_WIDTH, Part, chosen, floats, fold, head_lines, points
from cl_ext.report.tables.latex_text import breakable, label_of, name_start, tex
from cl_ext.report.tables.texts import (
    DASH,
    Footnotes,
    Scenarios,
    grid,
    note_numbers,
    note_text,
    short_seeds_text,
    shown_columns,
    tier_text,
    tuning_notes,
    tuning_text,
)

import pandas as pd

_RESIZED = r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi"
_MOST_FLOATS = 16
"""In a row; LaTeX holds back 52 at most, fewer in old versions."""


def to_latex(
    frame: pd.DataFrame,
    footnotes: Footnotes | None = None,
    methods: Scenarios | None = None,
    columns: Collection[str] | None = None,
    text_width: float = TEXT_WIDTH,
) -> str:
    r"""The leaderboard as LaTeX: a `table*` a board, several where its rows need more than a page.

    The first line names the packages: booktabs, and graphicx where the columns named may be wider than the page.

    Args:
        frame: the tidy frame, a row a cell.
        footnotes: method -> sentences on its known faults, set after the tables.
        methods: method -> the scenarios it can do (see `leaderboard`).
        columns: keys of the columns to show, in order; by default those that fit the width. Named ones that do not are
            made smaller.
        text_width: the page's `\textwidth` in points, 345 for `article` at 10 pt, 397 for NeurIPS and ICLR.

    Returns:
        The tables, one after the other, in ASCII.

    Raises:
        ValueError: a key is no column's.
    """
    return latex_tables(Results(frame, methods), footnotes, columns, text_width)


def latex_tables(
    results: Results,
    footnotes: Footnotes | None = None,
    columns: Collection[str] | None = None,
    text_width: float = TEXT_WIDTH,
) -> str:
    """As `to_latex`, from results."""
    footnotes = footnotes or {}
    notes = note_numbers(results.table, footnotes)
    boards = [board for _, board in results.table.groupby(BOARD)]
    labels: set[str] = set()
    tables = [text for board in boards for text in _board(board, notes, columns, text_width, labels)]
    for place in range(len(tables) - 1 - (len(tables) - 1) % _MOST_FLOATS, 0, -_MOST_FLOATS):
        tables.insert(place, r"\clearpage")
    parts = [*tables, *filter(None, map(tuning_below, boards))]
    if notes:
        faults = [rf"\textsuperscript{{{number}}}\,{tex(note_text(footnotes[name]))}" for name, number in notes.items()]
        parts.append("\n\n".join([r"\paragraph{Known faults.}", *faults]))
    packages = "booktabs,graphicx" if any(_RESIZED in text for text in tables) else "booktabs"
    return "\n\n".join([rf"% Needs \usepackage{{{packages}}}", *parts]) + "\n"


def _board(
    board: pd.DataFrame, notes: dict[str, int], keys: Collection[str] | None, width: float, labels: set[str]
) -> Iterator[str]:
    """One board's floats."""
    names = Part("Method", [_name(row, notes) for _, row in board.iterrows()])
    tiers = Part("Tier", [tex(tier_text(row)) for _, row in board.iterrows()])
    before = [tiers] if board["tier"].notna().any() else []
    measured, after = _measured(board, shown_columns(board, "paper", keys)), _after(board)
    shown, hidden = measured, ""
    if keys is None:
        # of the paper's columns those that the terminal has, too, are the last to go
        first = [column.title for column in shown_columns(board, "terminal")]
        order = sorted(measured, key=lambda part: part.title not in first)
        taken, folded = chosen(order, [*before, *after], names, width)
        shown, resized = [part for part in measured if part in taken], False
        hidden = ", ".join(part.title for part in measured if part not in taken)
    else:
        folded, resized = fold(names, [*before, *measured, *after], width)
    parts = [names, *before, *shown, *after]
    form = "l" if folded is None else f"p{{{folded:.0f}pt}}"
    form += "r" * (len(parts) - 1 - (after[-1:] == parts[-1:] and parts[-1].title == "Seeds"))
    form += "l" * (len(parts) - form.count("r") - 1)
    said = caption(board)
    lines = [1 if folded is None else math.ceil(1.1 * points(name) / folded) for name in names.cells]
    label = _label(board, labels)
    for number, rows in enumerate(floats(lines, said)):
        head = [rf"\caption{{{said}}}", rf"\label{{tab:{label}}}"]
        if number:
            head = [rf"Table~\ref{{tab:{label}}} (continued)\par"]
        elif hidden:
            head.append(f"% A text of {width:g} pt has no room for {tex(hidden)}; see to_latex(columns=, text_width=).")
        yield "\n".join(
            [
                *(r"\begin{table*}", r"\centering", *head, r"\smallskip", r"\scriptsize"),
                r"\setlength{\tabcolsep}{2pt}",
                *_tabular(parts, form, rows, folded is not None, resized),
                r"\end{table*}",
            ]
        )


def _tabular(parts: Sequence[Part], form: str, rows: range, folded: bool, resized: bool) -> Iterator[str]:
    """The lines of some rows, in a box that is made smaller if need be."""
    yield from [r"\sbox0{%"] if resized else []
    yield rf"\begin{{tabular}}{{@{{}}{form}@{{}}}}"
    yield r"\toprule"
    yield " & ".join(_stacked(part.head) for part in parts) + r" \\"
    yield r"\midrule"
    for row in rows:
        name, *cells = (part.cells[row] for part in parts)
        first = rf"\raggedright\hangindent1em {breakable(name)}" if folded else name_start(name)
        yield " & ".join([first, *cells]) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}" + ("}" if resized else "")
    yield from [_RESIZED] if resized else []


def _measured(board: pd.DataFrame, columns: Sequence[Column]) -> list[Part]:
    """The columns of numbers."""
    cells = grid(board, columns, "\0{}".format)
    tops = [tier_text(row) == "1" for _, row in board.iterrows()]
    parts = []
    accuracy = next((i for i, column in enumerate(columns) if column.key == "accuracy"), None)
    for i, column in enumerate(columns):
        texts = [_cell(row[i], top and i == accuracy) for row, top in zip(cells, tops, strict=True)]
        parts.append(Part(_head(column, texts), texts, column.title))
    return parts


def _after(board: pd.DataFrame) -> list[Part]:
    """How values were chosen, and the seeds, unless all rows have the same and none is missing."""
    ways = tuning_notes(board)
    parts = [Part("Tuning", [tex(tuning_text(row, ways)) for _, row in board.iterrows()], "Tuning")] if ways else []
    seeds = [short_seeds_text(row) for _, row in board.iterrows()]
    whole = board["n"].eq(board["asked"]) & board["outside"].eq("") & board["n"].eq(board["n"].iloc[0])
    return parts if whole.all() else [*parts, Part("Seeds", [tex(text) for text in seeds], "Seeds")]


def _head(column: Column, cells: Sequence[str]) -> str:
    """A column's head, in lines where it is wider than the cells; per cent is said in the caption."""
    lines = head_lines(tex(column.title), max(map(points, cells)))
    return "\n".join([*lines, *([f"[{tex(column.unit)}]"] if column.unit not in ("", "%") else [])])


def _stacked(head: str) -> str:
    """Lines of a head above each other."""
    if "\n" not in head:
        return head
    lines = [f"{{{line}}}" if line.startswith("[") else line for line in head.split("\n")]
    return r"\shortstack[r]{" + r"\\ ".join(lines) + "}"


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


def _label(board: pd.DataFrame, labels: set[str]) -> str:
    """What a paper refers to the table by, of letters that every LaTeX takes; no two of a file are the same."""
    wanted = "-".join(filter(None, (label_of(str(part)) for part in board[BOARD].iloc[0] if part))) or "board"
    label, number = wanted, 1
    while label in labels:
        number += 1
        label = f"{wanted}-{number}"
    labels.add(label)
    return label
