"""From what draws one board to a function of the tidy frame alone: a figure in one line."""

from collections.abc import Callable, Collection
from typing import Any, Protocol

from cl_ext.report.drawing import style
from cl_ext.report.drawing.runs import Board, boards, select
from cl_ext.study.frame import OBJECTS

import pandas as pd
from matplotlib.figure import Figure


class Draw(Protocol):
    """Draws a figure of one board on a page of `width` inches; no pages where the board lacks the data."""

    def __call__(self, board: Board, width: float, *args: Any, **options: Any) -> list[style.Page]: ...


class BoardFigure:
    """A figure of each board of a frame.

    Args:
        draw: draws one board.
        needs: the data that it takes, to say why it is left out.
        baseline: the row that its option `baseline` names by default, and that `methods` never leaves out; "" for none.
        hint: says more, from the boards and the options, where no board has the data.
    """

    def __init__(
        self,
        draw: Draw | Callable[..., list[style.Page]],
        needs: str,
        baseline: str = "",
        hint: Callable[..., str] | None = None,
    ) -> None:
        self.draw = draw
        self.needs = needs
        self.baseline = baseline
        self.hint = hint
        self.__doc__ = f"{draw.__doc__}\n\n{_ARGUMENTS}".replace("NEEDS", needs)
        self.__name__ = getattr(draw, "__name__", "")
        self.__module__ = draw.__module__

    def __call__(
        self,
        frame: pd.DataFrame | Board,
        *args: Any,
        study: str | None = None,
        stream: str | None = None,
        scenario: str | None = None,
        methods: Collection[str] | None = None,
        width: style.Width = "two",
        **options: Any,
    ) -> list[Figure]:
        check_width(width)
        check_frame(self.__name__, frame, Board)
        found = [frame] if isinstance(frame, Board) else boards(frame)
        wanted = [methods] if isinstance(methods, str) else methods
        if wanted is not None and not wanted:
            raise ValueError("methods is empty; without it a figure has all of them")
        chosen = select(found, study, stream, scenario, wanted)
        if wanted is not None and self.baseline:
            chosen = select(found, study, stream, scenario, [*wanted, *self._baseline(chosen, found, options)])
        pages: list[Figure] = []
        with style.house_style():
            for board in chosen:
                pages += self.draw(board, style.WIDTHS[width], *args, **options)
        if not pages and not isinstance(frame, Board):
            places = "; ".join(board.title for board in chosen) or "an empty frame"
            raise ValueError(
                f"{self.__name__} needs {self.needs}; there is none in {places}"
                + (_without_objects(frame) if chosen and any(word in self.needs for word in _FROM_OBJECTS) else "")
                + (self.hint(chosen, *args, **options) if self.hint and chosen else "")
            )
        return pages

    def _baseline(self, chosen: Collection[Board], found: Collection[Board], options: dict[str, Any]) -> list[str]:
        """The baseline, where a board that is drawn has such a row."""
        name = options.get("baseline", self.baseline)
        places = {board.place for board in chosen}
        return [name] if any(board.place in places and name in set(board.table["label"]) for board in found) else []


def check_width(width: str) -> None:
    """Raises a ValueError for a width that no page has."""
    if width not in style.WIDTHS:
        raise ValueError(f"width is {width!r}; it takes {' or '.join(map(repr, style.WIDTHS))}")


def check_frame(name: str, frame: object, other: type) -> None:
    """Raises a TypeError where a figure is given something else than a frame, such as a store's path.

    Args:
        name: the figure's function.
        frame: what it was given.
        other: what it takes beside a frame.
    """
    if not isinstance(frame, (pd.DataFrame, other)):
        raise TypeError(
            f"{name} takes the frame that cl_ext.study.collect makes from a store, and was given "
            f"{type(frame).__name__} {str(frame)[:60]!r}"
        )


_FROM_OBJECTS = ("matrices", "while training", "`sizes`", "`structure`")
"""In the words of `needs`: what the frame holds in columns of objects."""


def _without_objects(frame: pd.DataFrame) -> str:
    """What to do about a frame that was read from a table, which holds numbers alone."""
    if not set(OBJECTS) & set(frame.columns):
        return ". This frame has numbers alone, as a CSV file; cl_ext.study.collect reads the rest from the store, too"
    return ""


_ARGUMENTS = """\
    Args:
        frame: the tidy frame of `cl_ext.study.collect`; it needs NEEDS.
        study: only this study.
        stream: only this stream.
        scenario: only this scenario.
        methods: only these methods or rows.
        width: "one" or "two" columns of a page: 3.5 or 7.2 inches.

    Returns:
        The pages of every board, as `matplotlib.figure.Figure`.

    Raises:
        ValueError: the frame has no such board or method, or lacks the data; the sentence says which.
"""


def board_figure(
    needs: str, baseline: str = "", hint: Callable[..., str] | None = None
) -> Callable[[Callable[..., list[style.Page]]], BoardFigure]:
    """Makes what draws one board a figure of a frame (see `BoardFigure`)."""
    return lambda draw: BoardFigure(draw, needs, baseline, hint)
