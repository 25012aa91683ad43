r"""What fits a page: how wide a LaTeX table is at `\scriptsize`, which columns have room, which rows share a float."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

TEXT_WIDTH = 345.0
r"""`\textwidth` in points of the narrowest stock class: `article` at 10 pt, one column."""
GAP = 4.0
r"""Between two columns, in points: twice `\tabcolsep`."""
_SAFE = 0.98
"""Of the width; at 11 pt letters grow a little more than the page does."""
_NAMES = 0.22
"""Of the width, that names may fill before they are folded."""
_BOLD, _ITALIC = 0.14, 0.06
"""By how much their letters are wider."""
_WIDTHS = {
    2.27: "!',.:;[]`il", 2.5: "|fj", 2.7: " -", 2.9: "_I", 3.17: "()rts", 3.6: "cez", 4.0: '?$"*/0123456789^ago~',
    4.21: "J\\{}qkvxy", 4.42: "Sbdhnpu", 4.95: "ZL", 5.38: "FEP", 5.71: "BCTw", 6.6: "m%#",
}  # fmt: skip
"""Points of Computer Modern at 7 pt; other letters are below 6.3, W and M below 8.1."""
_LETTERS = {letter: width for width, letters in _WIDTHS.items() for letter in letters}
_CAPITAL, _WIDEST = 6.3, 8.1
_HEIGHT = 522.0
"""Points for a float; `article` has 528 at least."""
_LINE, _CAPTION_LINE, _RULES = 9.5, 14.0, 40.0
"""Points, each at 12 pt, where they are highest: a row, a line of the caption, and what else a float has."""
_CAPTION_LETTERS = 66
"""Letters in a line of the caption."""


@dataclass(frozen=True)
class Part:
    """A column of a table as source.

    Attributes:
        head: its head; lines are parted by a new line.
        cells: a row each.
        title: how messages call it.
    """

    head: str
    cells: Sequence[str]
    title: str = ""

    @property
    def width(self) -> float:
        """Of the widest cell, in points."""
        return max(points(text) for cell in (self.head, *self.cells) for text in cell.split("\n"))


def points(source: str) -> float:
    """About how wide source is at 7 points, rather too wide than too narrow."""
    strong, slanted = (
        sum(_plain(part) for part in re.findall(rf"\\text{kind}\{{(.*?)\}}", source)) for kind in ("bf", "it")
    )
    return _plain(source) + _BOLD * strong + _ITALIC * slanted


def _plain(source: str) -> float:
    """Likewise, as if all of it were upright."""
    text = re.sub(r"\$[^$]*\$|\\(ss|ae|AE|oe|OE|o|O|l|L|dots|text[a-z]+)\{\}", "+", source)
    text = re.sub(r"\\(allowbreak |,)|\\[A-Za-z]+|[{}](?<!\\[{}])|\\(?=\W)", "", text)
    return sum(_LETTERS.get(sign, _WIDEST if sign in "WM" else _CAPITAL) for sign in text)


def head_lines(title: str, width: float) -> list[str]:
    """A head's words in lines about as wide as the cells below it."""
    lines: list[str] = []
    for word in title.split():
        if lines and points(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def chosen(
    measured: Sequence[Part], fixed: Sequence[Part], names: Part, width: float
) -> tuple[list[Part], float | None]:
    """The columns that have room beside the names, which are folded where that makes room.

    Args:
        measured: the columns to choose from, those to keep first first.
        fixed: columns that are there in any case.
        names: the first column.
        width: of the page's text, in points.

    Returns:
        The measured columns that fit (always the first of them), and how wide names are where they are to be folded.
    """
    left = _SAFE * width - sum(part.width + GAP for part in fixed)
    if names.width + sum(part.width + GAP for part in measured) <= left:
        return list(measured), None
    folded = names.width > _NAMES * width
    left -= _NAMES * width if folded else names.width
    taken: list[Part] = []
    for part in measured:
        if not taken or part.width + GAP <= left:
            left -= part.width + GAP
            taken.append(part)
    return taken, _NAMES * width + max(left, 0) if folded else None


def fold(names: Part, others: Sequence[Part], width: float) -> tuple[float | None, bool]:
    """How wide names are beside these columns where they are to be folded, and whether even so there is no room."""
    left = _SAFE * width - sum(part.width + GAP for part in others)
    if names.width <= left or names.width <= _NAMES * width:
        return None, names.width > left
    return max(_NAMES * width, left), left < _NAMES * width


def floats(lines: Sequence[int], caption: str) -> list[range]:
    """The rows of each float: as few floats as the height of a page allows, about equally long.

    Args:
        lines: of each row, at least 1.
        caption: of the first float.
    """
    room = _HEIGHT - _RULES - _CAPTION_LINE * math.ceil(len(caption) / _CAPTION_LETTERS)
    most = max(room / _LINE, 12.0)
    count = max(math.ceil(sum(lines) / most), 1)
    share = sum(lines) / count
    starts, above = [0], 0
    for row, height in enumerate(lines):
        if row and above + height > share * len(starts) + 1e-9:
            starts.append(row)
        above += height
    return [range(start, end) for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)]
