"""From what draws one board to a function of the tidy frame alone: a figure in one line."""

from collections.abc import Callable, Collection
from typing import Any, Protocol

from cl_ext.report.drawing import style
from cl_ext.report.drawing.runs import Board, boards, select

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
    """

    def __init__(self, draw: Draw | Callable[..., list[style.Page]], needs: str) -> None:
        self.draw = draw
        self.needs = needs
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
        if width not in style.WIDTHS:
            raise ValueError(f"width is {width!r}; it takes {' or '.join(map(repr, style.WIDTHS))}")
        chosen = select([frame] if isinstance(frame, Board) else boards(frame), study, stream, scenario, methods)
        pages: list[Figure] = []
        with style.house_style():
            for board in chosen:
                pages += self.draw(board, style.WIDTHS[width], *args, **options)
        if not pages and not isinstance(frame, Board):
            places = "; ".join(board.title for board in chosen) or "an empty frame"
            raise ValueError(f"{self.__name__} needs {self.needs}; there is none in {places}")
        return pages


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


def board_figure(needs: str) -> Callable[[Callable[..., list[style.Page]]], BoardFigure]:
    """Makes what draws one board a figure of a frame (see `BoardFigure`)."""
    return lambda draw: BoardFigure(draw, needs)
