"""How wide the columns of a table are on a terminal, and which it has no room for."""

import re
from collections.abc import Sequence

from rich.cells import cell_len

GAP = 2
"""Between two columns."""
_FOLDED, _NARROW, _LAST = 24, 12, 6
"""Letters a line, at which names are folded at least: beside whole numbers, beside broken ones, beside one column."""

Fields = list[tuple[str, Sequence[str]]]
"""The columns: head, and a cell a row. The first one's cells are names."""


def fit(fields: Fields, room: int) -> tuple[Fields, list[int], list[str]]:
    """The columns that a terminal has room for.

    Names are folded first, then intervals stand below their means, then columns are left out, the rightmost first, and
    never the third, the first measured one.

    Args:
        fields: all columns.
        room: letters in a line.

    Returns:
        The columns that fit, how wide each is, and the heads of those left out; no columns where not even the names and
        one column fit.
    """
    kept = list(fields)
    while True:
        whole = [max(map(_length, (*head.split("\n"), *cells))) for head, cells in kept]
        least = [whole[0], *(max(map(_piece, (head, *cells))) for head, cells in kept[1:])]
        tried = [(whole, whole[0]), (whole, _FOLDED), (least, whole[0]), (least, _NARROW)]
        for widths, folded in [*tried, *([(least, _LAST)] if len(kept) <= 3 else [])]:
            names = min(whole[0], folded)
            if (spare := room - _sum([names, *widths[1:]])) >= 0:
                left_out = [head.replace("\n", " ") for head, _ in fields if head not in dict(kept)]
                return kept, [min(whole[0], names + spare), *widths[1:]], left_out
        if len(kept) <= 2:
            return [], [], []
        del kept[-1 if len(kept) > 3 else 1]


def _sum(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _length(text: str) -> int:
    return cell_len(text.removeprefix("\0"))


def _piece(text: str) -> int:
    """The longest part that stays on one line: a mean with its sign ±, a word of a head."""
    return max(map(_length, re.split(r"(?<=±) | (?=\()|\n| (?=[a-z]+\])| (?=[A-Za-z.]{3})", text)))
