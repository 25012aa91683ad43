"""Tables as the HTML page shows them: a text and, behind each cell, the value that it is sorted by."""

from collections.abc import Sequence
from dataclasses import dataclass

from cl_ext.report.tables.texts import DASH

import pandas as pd


@dataclass(frozen=True)
class Head:
    """A column's head.

    Attributes:
        key: the column's name in the CSV.
        title: what the head shows, with the unit.
        note: formula and source, shown on hovering.
        higher_is_better: the direction sorted first; None sorts ascending first.
        number: whether its cells are numbers.
        hidden: whether the page shows it only when asked for.
    """

    key: str
    title: str
    note: str = ""
    higher_is_better: bool | None = None
    number: bool = True
    hidden: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell.

    Attributes:
        text: what it shows.
        value: what it is sorted by: a number, or lower-case text; None for undefined, which comes last.
        small: what follows in small print, such as an interval.
        best: whether it is marked as best.
        interval: mean, low and high as per cent of the drawing's width; it is then drawn in place of the text.
        link: an address that the text leads to; "" for none.
    """

    text: str
    value: float | str | None
    small: str = ""
    best: bool = False
    interval: tuple[float, float, float] | None = None
    link: str = ""


NOTHING = Cell(DASH, None)
NO_INTERVAL = "no interval"


@dataclass(frozen=True)
class Row:
    """A row: its label, its cells, its tags, and under which place its provenance is found."""

    label: Cell
    cells: Sequence[Cell]
    tags: Sequence[Cell] = ()
    reference: bool = False
    place: tuple[str, ...] = ()


@dataclass(frozen=True)
class WebTable:
    """A table.

    Attributes:
        name: its id in the page.
        title: its title.
        heads: of all columns but the first.
        rows: its rows.
        label: the first column's head.
        study: what it is filtered by.
        scenario: likewise.
        notes: sentences below it.
    """

    name: str
    title: str
    heads: Sequence[Head]
    rows: Sequence[Row]
    label: str = "Method"
    study: str = ""
    scenario: str = ""
    notes: Sequence[str] = ()


def text_cell(value: object) -> Cell:
    """A word, sorted without regard to case; nothing where there is none."""
    text = "" if value is None or value is pd.NA or value != value else str(value)  # NaN alone differs from itself
    return Cell(text, text.lower()) if text else NOTHING


def number_cell(value: object, text: str | None = None, small: str = "") -> Cell:
    """A number with its text, by default the shortest; nothing where it is undefined."""
    if value is None or pd.isna(value):  # type: ignore[call-overload]
        return NOTHING
    number = float(value)  # type: ignore[arg-type]
    return Cell(f"{number:g}" if text is None else text, number, small)


def interval_cells(
    mean: "pd.Series[float]", low: "pd.Series[float]", high: "pd.Series[float]", form: str = "{:.2%} to {:.2%}"
) -> list[Cell]:
    """Intervals drawn side by side on one scale, from the least end to the greatest.

    Args:
        mean, low, high: (rows,), NaN where undefined; a row without an interval has its mean as both ends.
        form: how an interval reads; a row that has none says so, and its mean is drawn as a point.
    """
    known = low.notna() & high.notna()
    low, high = low.where(known, mean), high.where(known, mean)
    least, width = low.min(), max(high.max() - low.min(), 1e-12)
    cells = []
    for point, start, end, has in zip(mean, low, high, known, strict=True):
        if pd.isna(point):
            cells.append(NOTHING)
            continue
        place = tuple(round(float(100 * (value - least) / width), 1) for value in (point, start, end))
        text = form.format(start, end) if has else NO_INTERVAL
        cells.append(Cell(text, float(point), interval=(place[0], place[1], place[2])))
    return cells


def plain_table(name: str, title: str, frame: pd.DataFrame) -> WebTable:
    """A small table of words and whole numbers as it stands; its first column labels the rows.

    Args:
        name: the table's id in the page.
        title: its title.
        frame: the rows; a head is the column's name with a capital.
    """
    made = [Head(str(column), str(column).capitalize(), number=_numeric(frame[column])) for column in frame]
    rows = []
    for values in frame.itertuples(index=False, name=None):
        cells = [number_cell(v) if head.number else text_cell(v) for v, head in zip(values, made, strict=True)]
        rows.append(Row(cells[0], cells[1:]))
    return WebTable(name, title, made[1:], rows, made[0].title)


def _numeric(values: "pd.Series[float]") -> bool:
    return bool(pd.api.types.is_numeric_dtype(values)) and len(values) > 0
