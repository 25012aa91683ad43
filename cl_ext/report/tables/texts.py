"""A board of the leaderboard as texts: what Markdown, LaTeX, the terminal and the web page have in common."""

from collections.abc import Callable, Collection, Mapping, Sequence
from string import ascii_lowercase

from cl_ext.report.rows.aggregate import best
from cl_ext.report.rows.columns import Column, Detail, columns_for, columns_named
from cl_ext.report.statistics import FEW_SEEDS

import pandas as pd

DASH = "—"
DISAGREEING = "Cells on which the stores disagree (the first store's result counts)"
_KINDS = {
    "search": "a search, measured on held-out training data",
    "sweep": "a sweep of one hyper-parameter on test data",
    "ablation": "an ablation",
}
Scenarios = Mapping[str, Collection[str]]
Footnotes = Mapping[str, Sequence[str]]


def scenario_name(scenario: str) -> str:
    """ "task" as "task-incremental"; a scenario of another name as it is."""
    return f"{scenario}-incremental" if scenario in {"task", "domain", "class"} else scenario


def board_title(board: pd.DataFrame) -> str:
    """Study, scenario and stream of a board, as the head of its table."""
    first = board.iloc[0]
    stream = f" ({first['stream']})" if first["stream"] else ""
    kind = _KINDS.get(str(first.get("kind")), "")
    return ", ".join(part for part in (first["study"], scenario_name(first["scenario"]), kind) if part) + stream


def shown_columns(board: pd.DataFrame, detail: Detail, keys: Collection[str] | None = None) -> list[Column]:
    """The columns of this detail, or those named, in which at least one row of the board has a number.

    Raises:
        ValueError: a key is no column's.
    """
    wanted = columns_for(detail) if keys is None else columns_named(keys)
    return [column for column in wanted if column.key in board and board[column.key].notna().any()]


def empty_columns(board: pd.DataFrame, detail: Detail) -> list[Column]:
    """The columns of this detail in which no row of the board has a number; `needs` says what they would take."""
    shown = shown_columns(board, detail)
    return [column for column in columns_for(detail) if column not in shown]


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
    if (undefined := row["n"] - row.get("accuracy_n", row["n"])) and not row["outside"]:
        parts.append(f"{undefined} without an accuracy")
    if gap := row["asked"] - row["cells"]:
        parts.append(f"{gap} missing of {row['asked']}")
    if row["few_seeds"]:
        parts.append(f"n < {FEW_SEEDS}")
    return "; ".join([*parts, *(["outside"] if row["outside"] else [])])


def short_seeds_text(row: pd.Series) -> str:
    """Finished seeds of those that should be there, where a table has no room for more."""
    if row["absent"]:
        return str(row["absent"])
    return f"{row['n']}" if row["outside"] else f"{row['n']}/{row['asked']}"


def tier_text(row: pd.Series) -> str:
    """The tier, or a dash for a row that has none."""
    return DASH if pd.isna(row["tier"]) else f"{row['tier']:.0f}"


def tuning_notes(board: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(protocol, tuning seeds) -> a letter, for the ways in which the board's rows were tuned."""
    if "tuning_protocol" not in board:
        return {}
    said = board.loc[board["tuning_protocol"].fillna("").ne(""), ["tuning_protocol", "tuning_seeds"]].fillna("")
    ways = said.drop_duplicates().itertuples(index=False, name=None)
    return {way: _letter(number) for number, way in enumerate(ways)}


def tuning_text(row: pd.Series, notes: Mapping[tuple[str, str], str]) -> str:
    """Configurations tried, and the letter of the protocol; a dash where the study says nothing of this row."""
    seeds = row.get("tuning_seeds")
    letter = notes.get((str(row.get("tuning_protocol")), "" if pd.isna(seeds) else str(seeds)))
    if letter is None:
        return DASH
    tried = row.get("tuning_configurations")
    return f"({letter})" if pd.isna(tried) else f"{tried:g} ({letter})"


def tuning_lines(notes: Mapping[tuple[str, str], str]) -> list[str]:
    """What the letters of `tuning_text` stand for."""
    return [
        f"({letter}) {protocol}{f'; tuning seeds {seeds}' if seeds else ''}."
        for (protocol, seeds), letter in notes.items()
    ]


def grid(board: pd.DataFrame, columns: Sequence[Column], strong: Callable[[str], str]) -> list[list[str]]:
    """The measured cells of a board as text, row by row; `strong` marks the best of a column."""
    texts = []
    for column in columns:
        cells = [cell_text(row, column) for _, row in board.iterrows()]
        texts.append([strong(text) if mark else text for text, mark in zip(cells, best(board, column), strict=True)])
    return [list(row) for row in zip(*texts, strict=True)] if texts else [[] for _ in board.index]


def note_numbers(table: pd.DataFrame, footnotes: Footnotes) -> dict[str, int]:
    """Method -> number of its footnote, for the methods that stand in the table and have a fault to tell."""
    own = table.loc[table["outside"].eq(""), "method"].drop_duplicates()
    return {method: number for number, method in enumerate((name for name in own if footnotes.get(name)), start=1)}


def note_text(sentences: Sequence[str]) -> str:
    """A footnote's sentences as one text, whether they end in a full stop or not."""
    return " ".join(text if text.endswith((".", "!", "?")) else f"{text}." for text in map(str.strip, sentences))


def _letter(number: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    first, last = divmod(number, len(ascii_lowercase))
    return (_letter(first - 1) if first else "") + ascii_lowercase[last]
