"""What accuracy costs: final accuracy against memory, CPU time and parameters, with the Pareto frontier."""

from typing import Any

from cl_ext.report.drawing import style
from cl_ext.report.drawing.doors import board_figure
from cl_ext.report.drawing.labelled import draw_points, name_points, points_of, scatter_page
from cl_ext.report.drawing.runs import Board

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

_NARROW = 3
"""Costs within this factor stand on a linear axis."""


def pareto_frontier(points: pd.DataFrame, cost: str, gain: str) -> pd.DataFrame:
    """The points that no other beats in one of both without losing in the other, the cheapest first.

    Args:
        points: a row a method.
        cost: the column of which less is better.
        gain: the column of which more is better.

    Returns:
        The rows of the frontier; of equal rows the first.
    """
    ordered = points.dropna(subset=[cost, gain]).sort_values([cost, gain], ascending=[True, False], kind="stable")
    best_before = ordered[gain].cummax().shift(fill_value=-np.inf)
    return ordered[ordered[gain] > best_before]


def _cost_axis(axis: Axes, values: "pd.Series[float]") -> None:
    """A logarithmic axis, or a linear one where costs hardly differ.

    Where a cost is 0, it is linear from 0 to the power of ten below the smallest other.
    """
    if values.le(0).any():
        smallest = values[values > 0].min()
        threshold = 1.0 if np.isnan(smallest) else float(10.0 ** np.floor(np.log10(smallest)))
        axis.set_xscale("symlog", linthresh=threshold)
        decades = 10.0 ** np.arange(np.log10(threshold), np.log10(max(values.max(), threshold)) + 1)
        axis.set_xticks([0, *decades[:: -(-len(decades) // 4)]])
        return
    least, most = values.min(), values.max()
    if least < most < _NARROW * least:  # powers of ten would leave no tick on it
        axis.xaxis.set_major_locator(MaxNLocator(4))
        return
    axis.set_xscale("log")
    if least == most:  # one value spans no axis
        axis.set_xlim(least / 2, most * 2)
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if most < 30 * least else (1.0,), numticks=6))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _tradeoff(board: Board, x: str, xlabel: str, title: str, width: float) -> tuple[list[style.Page], Axes | None]:
    """Accuracy against one cost: a point a method, its interval, its name, and the frontier."""
    points = points_of(board, x, "accuracy", (False, True))
    if points.empty:
        return [], None
    complete = points.index.isin(board.table.index[board.table["label"].isin(board.complete)])
    page, axis = scatter_page(points, f"{title}, {board.title}", width)
    _cost_axis(axis, points["x"])
    draw_points(axis, points.drop(columns="xbar"), "Pareto frontier of complete methods")
    frontier = pareto_frontier(points[complete & ~points["reference"]], "x", "y")
    ring: dict[str, Any] = {"marker": "o", "markersize": 6.5, "markerfacecolor": "none", "markeredgewidth": 0.8}
    axis.step(frontier["x"], frontier["y"], where="post", color=style.FRONTIER, linewidth=1, zorder=2, **ring)
    style.name_axes(axis, xlabel, "final accuracy [%]")
    axis.margins(x=0.06, y=0.06)
    name_points(axis, points)
    return [page], axis


@board_figure(needs="`extra_bytes` of a finished cell")
def accuracy_against_memory(board: Board, width: float) -> list[style.Page]:
    """Final accuracy against the bytes that a method keeps beside the network, with the Pareto frontier."""
    pages, axis = _tradeoff(board, "extra_bytes", "extra memory", "Accuracy against extra memory", width)
    if axis is not None:
        axis.xaxis.set_major_formatter(EngFormatter("B", sep=" "))
    return pages


@board_figure(needs="`train_cpu_seconds` of a finished cell, and `naive` to relate them to")
def accuracy_against_cost(board: Board, width: float) -> list[style.Page]:
    """Final accuracy against CPU seconds of training relative to naive, with the Pareto frontier."""
    label = "training CPU seconds relative to naive (1)"
    pages, axis = _tradeoff(board, "cost_relative", label, "Accuracy against cost", width)
    if axis is not None:
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return pages


@board_figure(needs="`parameters` of a finished cell, not the same for all methods")
def accuracy_against_parameters(board: Board, width: float) -> list[style.Page]:
    """Final accuracy against the parameters of the network at the end, with the Pareto frontier.

    Left out where all methods end with the same network.
    """
    if "parameters" not in board.table or board.table["parameters"].nunique() < 2:
        return []
    label, title = "parameters at the end", "Accuracy against parameters"
    pages, axis = _tradeoff(board, "parameters", label, title, width)
    if axis is not None:
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    return pages
