"""The leaderboard as a Markdown page."""

import re
import string
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from cl_ext.report.rows.across_boards import Across
from cl_ext.report.rows.budgets import BUDGETS, UNKNOWN, budget_text, tied_text
from cl_ext.report.rows.cells import BOARD
from cl_ext.report.rows.columns import COLUMNS, Column, percent
from cl_ext.report.rows.results import Results
from cl_ext.report.statistics import FEW_SEEDS
from cl_ext.report.tables.texts import (
    DASH,
    DISAGREEING,
    Footnotes,
    Scenarios,
    board_title,
    empty_columns,
    grid,
    note_numbers,
    note_text,
    scenario_name,
    seeds_text,
    shown_columns,
    tier_text,
    tuning_lines,
    tuning_notes,
    tuning_text,
)

import pandas as pd

HOW_TO_READ = f"""\
Accuracies and what is computed from them are in per cent (differences in percentage points): the mean over seeds ± half
the width of its 95 % Student-t interval. One seed has no interval; rows marked "n < {FEW_SEEDS}" have too few seeds for
theirs to be relied upon. {DASH} is undefined or not recorded, never 0. Bold is the best mean of a column, which is no
claim; *tiers* are: rows of one tier are not ordered, and what they rest on stands below each table. References (in
italics) and rows with failed or missing cells are never bold and have no tier. Rows are ordered by accuracy. Cost is in
CPU seconds of training relative to `naive` of the same table. Accuracies use the scenario's own criterion: task-aware
in the task-incremental scenario, else task-agnostic; the CSV has both, and for each row the differences from the best
row and from `naive`, seed by seed, with interval, corrected p-value and verdict. Results from elsewhere, marked
"outside", come last and are compared with nothing.
"""

_ACROSS = """\
Normalised accuracy puts each run between fine-tuning (`naive`, 0) and joint training (`joint`, 1) of the same seed:
(ACC - naive) / (joint - naive). IQM is its interquartile mean over the runs of all boards with a 95 % stratified
bootstrap interval; rows whose interval overlaps with that of the first row of a tier share the tier (no test). Rank is
the mean over seeds and boards among these rows. P(> naive) and P(> best) are the probabilities that a fresh run is
above one of `naive`, or of the first row, on the same board.
"""

_BUDGETS = f"""\
The most accurate row among those whose mean keeps to a budget, where a larger budget changes which row that is. Only
rows with all seeds compete, references aside. "Not told apart" are the rows of its tier among those that fit;
"{UNKNOWN}": seeds are too few to say.
"""


def to_markdown(frame: pd.DataFrame, footnotes: Footnotes | None = None, methods: Scenarios | None = None) -> str:
    """The leaderboard as a Markdown page.

    Args:
        frame: the tidy frame, a row a cell.
        footnotes: method -> sentences on its known faults.
        methods: method -> the scenarios it can do (see `leaderboard`).

    Returns:
        The page: how to read it, a table a board, the view across boards, budgets, formulas, known faults, failed
        cells, missing cells.
    """
    return markdown_page(Results(frame, methods), footnotes)


def markdown_page(results: Results, footnotes: Footnotes | None = None) -> str:
    """As `to_markdown`, from results."""
    footnotes = footnotes or {}
    table = results.table
    notes = note_numbers(table, footnotes)
    parts = ["# Leaderboard", HOW_TO_READ]
    used: dict[str, Column] = {}
    for _, board in table.groupby(BOARD):
        columns = shown_columns(board, "report")
        used.update({column.key: column for column in columns})
        parts += _board(board, columns, notes)
    for across in results.across:
        parts += _across(across)
    parts += _budgets(results.budgets)
    formulas = [[column.title, f"`{column.formula}`", column.source] for column in used.values()]
    parts += ["## Formulas", pipe_table(["Column", "Formula", "Source"], formulas, 3)]
    parts += ["`R[i, j]` is the accuracy on experience j after experience i of T, row 0 the untrained network."]
    if notes:
        lines = [
            f"[^{number}]: **{method}**: {escaped(note_text(footnotes[method]))}" for method, number in notes.items()
        ]
        parts += ["## Known faults", "\n".join(lines)]
    gaps = [("Failed cells", results.failed), ("Missing cells", results.missing)]
    if len(results.disagreeing):
        gaps.append((DISAGREEING, results.disagreeing))
    for title, cells in gaps:
        body = [[escaped(str(cell)) for cell in row] for row in cells.to_numpy().tolist()]
        listed = pipe_table([str(name).capitalize() for name in cells], body, len(cells.columns))
        parts += [f"## {title}", listed if len(cells) else "None."]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def pipe_table(heads: Sequence[str], rows: Sequence[Sequence[object]], numbers_from: int) -> str:
    """A Markdown table; columns from `numbers_from` on are aligned to the right."""
    rule = ["---" if i < numbers_from else "---:" for i in range(len(heads))]
    lines = [heads, rule, *([str(cell).replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def escaped(text: str) -> str:
    """Text of a store (names, errors) that a Markdown page shows as it is: no tag, link, emphasis, code or formula."""
    text = re.sub(r"&(?=#?\w+;)", r"\\&", re.sub(r"([\\`*\[\]$~])", r"\\\1", re.sub(r"\s*[\r\n]+\s*", " ", text)))
    text = re.sub(r"<(?=[A-Za-z/!?])", r"\\<", text)
    beside = r"(?<![^\W_])_|_(?![^\W_])"  # underscores inside a word mean nothing, and a single one neither
    return re.sub(beside, r"\\_", text) if len(re.findall(beside, text)) > 1 else text


def _link(text: str, url: str) -> str:
    """Text that leads to a web address; text alone where the address is none."""
    if not url.lower().startswith(("http://", "https://")):
        return f"({text})"
    return f"([{text}]({quote(url, safe=string.punctuation.translate(dict.fromkeys(map(ord, '()<>|`*'))))}))"


def _board(board: pd.DataFrame, columns: Sequence[Column], notes: dict[str, int]) -> list[str]:
    """Head and table of a board, and what is to be known to read it."""
    ways = tuning_notes(board)
    rows = [
        [_name(row, notes), tier_text(row), *cells, *([tuning_text(row, ways)] if ways else []), seeds_text(row)]
        for (_, row), cells in zip(board.iterrows(), grid(board, columns, "**{}**".format), strict=True)
    ]
    heads = ["Method", "Tier", *(column.head for column in columns), *(["Tuning"] if ways else []), "Seeds"]
    parts = [f"## {escaped(board_title(board))}", pipe_table(heads, rows, 1)]
    if note := next((text for text in board["tier_note"] if text), ""):
        parts.append(f"*Tiers.* {note}")
    if ways:
        lines = escaped(" ".join(tuning_lines(ways)))
        parts.append(f"*Tuning.* Configurations tried, and how the values were chosen: {lines}")
    if empty := empty_columns(board, "report"):
        needs: dict[str, list[str]] = {}
        for column in empty:
            needs.setdefault(column.needs, []).append(column.title)
        missing = "; ".join(f"{', '.join(titles)}: {what}" for what, titles in needs.items())
        parts.append(f"*Columns without a number*, and what they need: {missing}.")
    return parts


def _name(row: pd.Series, notes: dict[str, int]) -> str:
    """A row's name, with its footnote or its source."""
    label = escaped(str(row["label"]))
    if row["outside"]:
        source = escaped(str(row["outside"]))
        return f"{label} {_link(source, str(row['url']))}"
    shown = f"*{label}*" if row["reference"] else label
    return shown + (f"[^{notes[row['method']]}]" if row["method"] in notes else "")


def across_cells(row: pd.Series) -> list[str]:
    """A ranked row of `Across.table` as texts: tier, IQM, rank, P(> naive), P(> best)."""

    def interval(key: str) -> str:
        if pd.isna(row[key]):
            return DASH
        ends = "" if pd.isna(row[f"{key}_low"]) else f" [{row[f'{key}_low']:.3f}, {row[f'{key}_high']:.3f}]"
        return f"{row[key]:.3f}{ends}"

    return [tier_text(row), interval("iqm"), f"{row['rank']:.2f}", interval("over_naive"), interval("over_best")]


ACROSS_HEADS = ("Tier", "IQM", "Rank", "P(> naive)", "P(> best)")


def across_title(across: Across) -> str:
    """ "Across 6 boards", "Across 2 class-incremental boards"."""
    kind = f"{scenario_name(across.scenario)} " if across.scenario else ""
    return f"Across {len(across.boards)} {kind}board{'s' * (len(across.boards) != 1)}"


def _across(across: Across) -> Iterator[str]:
    """The view across boards, where there are at least two; else why there is none."""
    if not across.scenario:
        yield "## Across boards"
        yield _ACROSS
    left_out = [f"{study}, {scenario_name(kind)}: {reason}" for study, _, kind, reason in across.left_out.to_numpy()]
    if len(across.boards) < 2:
        if not across.scenario:
            count = "one board" if across.boards else "no board"
            yield f"There is {count} to put on this scale: nothing is summed up."
    else:
        yield f"### {across_title(across)}"
        body = [[escaped(str(row["label"])), *across_cells(row), row["runs"]] for _, row in across.ranked.iterrows()]
        yield pipe_table(["Method", *ACROSS_HEADS, "Runs"], body, 1) if body else "No row is complete on all of them."
        if len(across.partial):
            rows = [f"{row['label']} ({row['boards']} of {row['of']})" for _, row in across.partial.iterrows()]
            yield escaped(f"Not ranked, because a board lacks them or a seed of theirs: {', '.join(rows)}.")
        if across.friedman is not None:
            yield across.friedman.sentence
    if left_out and not across.scenario:
        yield escaped(f"Boards left out: {'; '.join(left_out)}.")


def _budgets(ladder: pd.DataFrame) -> Iterator[str]:
    """The best row under each budget, a table a board and budget."""
    if ladder.empty:
        return
    yield "## Equal memory, equal compute"
    yield _BUDGETS
    titles = {column.key: column.title for column in COLUMNS if column.key in BUDGETS}
    for _, board in ladder.groupby(BOARD):
        yield f"### {escaped(board_title(board))}"
        for budget, rungs in board.groupby("budget", sort=False):
            name = str(budget)
            heads = [f"{titles[name]} up to", "Method", "ACC [%]", "Uses", "Rows that fit", "Not told apart"]
            yield pipe_table(heads, [_rung(row, name) for _, row in rungs.iterrows()], len(heads))


def _rung(row: pd.Series, budget: str) -> list[str]:
    width = "" if pd.isna(row["accuracy_half_width"]) else f" ± {percent(row['accuracy_half_width'])}"
    limit, used = budget_text(budget, row["limit"]), budget_text(budget, row["used"])
    fitting = f"{row['fitting']} of {row['of']}"
    return [
        limit,
        escaped(str(row["label"])),
        percent(row["accuracy"]) + width,
        used,
        fitting,
        escaped(tied_text(row["tied"])),
    ]
