"""Stability against plasticity: what is learned, and how much of it stays."""

from typing import Any

from cl_ext.report.drawing import style
from cl_ext.report.drawing.doors import board_figure
from cl_ext.report.drawing.labelled import draw_points, name_points, points_of, scatter_page
from cl_ext.report.drawing.runs import Board

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator


def final_accuracy(learning_accuracy: float, backward_transfer: float, experiences: int) -> float:
    """Final average accuracy from learning accuracy and backward transfer: ``ACC = LA + (T - 1) / T * BWT``.

    It follows from their definitions, since the last experience has no transfer: ``T * ACC = sum_j R[T, j]`` and
    ``T * LA = sum_j R[j, j]`` differ by ``(T - 1) * BWT = sum_{j<T} (R[T, j] - R[j, j])``.
    """
    return learning_accuracy + (experiences - 1) / experiences * backward_transfer


@board_figure(needs="learning accuracy and backward transfer, so accuracy matrices of two experiences or more")
def stability_plasticity(board: Board, width: float) -> list[style.Page]:
    """Backward transfer (stability) against learning accuracy (plasticity): a point a method with its intervals.

    Methods on one dashed line have the same final accuracy, ``LA + (T - 1) / T * BWT``; it grows to the upper right.
    """
    points = points_of(board, "learning_accuracy", "bwt", (True, True))
    if points.empty or not board.runs:
        return []
    T = board.experiences
    page, axis = scatter_page(points, f"Stability against plasticity, {board.title}", width)
    same: dict[str, Any] = {"color": "0.6", "linewidth": 0.5, "linestyle": "dashed"}
    draw_points(axis, points, Line2D([], [], label="equal final accuracy", **same))
    style.name_axes(axis, "learning accuracy [%] (plasticity)", "backward transfer [points] (stability)")
    axis.margins(0.08)
    (left, right), (low, high) = axis.get_xlim(), axis.get_ylim()
    axis.set(xlim=(left, right), ylim=(low, high))
    share = (T - 1) / T
    for accuracy in MaxNLocator(6).tick_values(left + share * low, right + share * high):
        at = np.array([left, right])
        line = (accuracy - at) / share
        axis.plot(at, line, **same, zorder=0.6)
        # Named where it enters the picture: at the left edge, else at the top.
        beside = low <= line[0] <= high
        place = (left, line[0]) if beside else (accuracy - share * high, high)
        if beside or left <= place[0] <= right:
            axis.annotate(
                f"{accuracy:g} %", place, (2, -2), textcoords="offset points", fontsize=style.LEAST, color="0.4",
                ha="left", va="top", zorder=0.7,
            )  # fmt: skip
    name_points(axis, points)
    return [page]
