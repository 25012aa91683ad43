"""What accuracy costs: final accuracy against memory, CPU time and parameters, with the Pareto frontier."""

from typing import Any

from cl_ext.report.drawing import style
from cl_ext.report.drawing.doors import board_figure
from cl_ext.report.drawing.labelled import draw_points, name_points, points_of, scatter_page
from cl_ext.report.drawing.runs import Board
from cl_ext.report.drawing.scales import log_ticks

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

_NARROW = 3
"""Costs within this factor stand on a linear axis."""
_TICK = 0.36
"""Inches that a tick of a cost takes."""


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
    figure = axis.get_figure(root=True)
    assert figure is not None
    most_ticks = max(2, int(axis.get_position().width * figure.get_figwidth() / _TICK))
    least, most = float(values.min()), float(values.max())
    if values.le(0).any():
        smallest = values[values > 0].min()
        threshold = 1.0 if np.isnan(smallest) else float(10.0 ** np.floor(np.log10(smallest)))
        axis.set_xscale("symlog", linthresh=threshold)
        decades = 10.0 ** np.arange(np.log10(threshold), np.log10(max(most, threshold)) + 1)
        decades = decades[:: max(1, -(-len(decades) // min(4, most_ticks)))]
        axis.set_xticks([0, *decades])
        axis.xaxis.set_minor_locator(FixedLocator(_nines(threshold, 10 * max(most, threshold))))
    elif least < most < _NARROW * least:  # powers of ten would leave no tick on it
        axis.xaxis.set_major_locator(MaxNLocator(4))
        return
    else:
        axis.set_xscale("log")
        low, high = (
            (least / 2, most * 2) if least == most else (least * (least / most) ** 0.06, most * (most / least) ** 0.06)
        )
        axis.set_xlim(low, high)
        axis.xaxis.set_major_locator(FixedLocator(log_ticks(low, high, most_ticks)))
        axis.xaxis.set_minor_locator(FixedLocator(_nines(low, high)))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(axis="x", which="both", bottom=True, width=0.4, color="0.4")
    axis.tick_params(axis="x", which="major", length=2.5)
    axis.tick_params(axis="x", which="minor", length=1.5)


def _nines(low: float, high: float) -> list[float]:
    """1 to 9 times the powers of ten of a logarithmic axis: their marks show that it is one."""
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    return [float(tick) for tick in np.outer(decades, np.arange(1, 10)).ravel() if low <= tick <= high]


def _tradeoff(board: Board, x: str, xlabel: str, title: str, width: float) -> tuple[list[style.Page], Axes | None]:
    """Accuracy against one cost: a point a method, its interval, its name, and the frontier."""
    points = points_of(board, x, "accuracy", (False, True))
    if points.empty:
        return [], None
    complete = points.index.isin(board.table.index[board.table["label"].isin(board.complete)])
    page, axis = scatter_page(points, f"{title}, {board.title}", width)
    _cost_axis(axis, points["x"])
    frontier = pareto_frontier(points[complete & ~points["reference"]], "x", "y")
    ring: dict[str, Any] = {"marker": "o", "markersize": 6.5, "markerfacecolor": "none", "markeredgewidth": 0.8}
    ring |= {"color": style.FRONTIER, "linewidth": 1}
    name = "Pareto frontier of complete methods"
    draw_points(axis, points.drop(columns=["xlow", "xhigh"]), Line2D([], [], label=name, **ring))
    axis.step(frontier["x"], frontier["y"], where="post", zorder=2, **ring)
    style.name_axes(axis, xlabel, "final accuracy [%]")
    axis.margins(y=0.06) if axis.get_xscale() == "log" else axis.margins(x=0.06, y=0.06)
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
