"""What accuracy costs: final accuracy against memory and against CPU time, with the Pareto frontier."""

from cl_ext.report import style
from cl_ext.report.runs import Board

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogFormatter


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


def spread(wanted: np.ndarray, gap: float) -> np.ndarray:
    """Moves positions apart to at least `gap`, keeping their order and staying in [0, 1] as far as they fit.

    Args:
        wanted: (n,) ascending positions in [0, 1].
        gap: the least distance.

    Returns:
        (n,) ascending positions.
    """
    steps = gap * np.arange(len(wanted))
    up = np.maximum.accumulate(wanted - steps) + steps
    # What was pushed over the top goes back down, its neighbours with it.
    room = 1 - gap * np.arange(len(wanted))[::-1]
    return np.minimum(up, room)


def _label(axis: Axes, points: pd.DataFrame, x: str, y: str) -> None:
    """Names each point in a column at the right, tied to it by a thin line: labels beside crowded points overlap."""
    ordered = points.sort_values(y)
    to_axes = axis.transData + axis.transAxes.inverted()
    places = to_axes.transform(ordered[[x, y]].to_numpy(dtype=float))
    heights = spread(np.clip(places[:, 1], 0, 1), 1 / max(len(ordered), 22))
    for height, (_, row) in zip(heights, ordered.iterrows(), strict=True):
        axis.annotate(
            str(row["label"]),
            xy=(row[x], row[y]),
            xytext=(1.06, height),
            textcoords="axes fraction",
            fontsize=6.5,
            va="center",
            color=style.REFERENCE if row["reference"] else "black",
            arrowprops={
                "arrowstyle": "-",
                "color": "0.8",
                "linewidth": 0.4,
                "shrinkA": 1,
                "shrinkB": 2,
                "relpos": (0, 0.5),
            },
            annotation_clip=False,
            zorder=1,
        )


def _tradeoff(board: Board, x: str, xlabel: str, title: str) -> list[Figure]:
    """Accuracy against one cost: a point a method, its interval, its name, and the frontier."""
    if x not in board.table:
        return []
    points = board.table.dropna(subset=[x, "accuracy"])
    points = points.assign(accuracy=100 * points["accuracy"], bar=100 * points["accuracy_half_width"])
    if points.empty:
        return []
    figure = Figure(figsize=(0.75 * style.WIDTH, max(3.2, 0.125 * len(points) + 1.2)), layout="constrained")
    axis = figure.subplots()
    if points[x].le(0).any():
        # Linear from 0 to the power of ten below the smallest, so that no tick falls in between.
        smallest = points.loc[points[x] > 0, x].min()
        threshold = 1.0 if np.isnan(smallest) else 10.0 ** np.floor(np.log10(smallest))
        axis.set_xscale("symlog", linthresh=threshold)
        decades = 10.0 ** np.arange(np.log10(threshold), np.log10(max(points[x].max(), threshold)) + 1)
        axis.set_xticks([0, *decades[:: -(-len(decades) // 7)]])
    else:
        axis.set_xscale("log")
        if points[x].nunique() == 1:  # one value spans no axis
            axis.set_xlim(points[x].iloc[0] / 2, points[x].iloc[0] * 2)
    kinds = {"method": ~points["reference"], "reference": points["reference"]}
    for kind, chosen in kinds.items():
        part = points[chosen]
        hollow = kind == "reference"
        colour = style.REFERENCE if hollow else style.METHOD
        axis.errorbar(
            part[x],
            part["accuracy"],
            yerr=part["bar"],
            linestyle="",
            color=colour,
            elinewidth=0.6,
            zorder=3,
            marker="s" if hollow else "o",
            markerfacecolor="white" if hollow else colour,
        )
    frontier = pareto_frontier(points[~points["reference"]], x, "accuracy")
    axis.step(frontier[x], frontier["accuracy"], where="post", color=style.FRONTIER, linewidth=1, zorder=2)
    axis.set(xlabel=xlabel, ylabel="final accuracy [%]")
    axis.margins(x=0.06, y=0.06)
    axis.tick_params(axis="x", which="both", pad=3)
    axis.set_title(style.wrapped(f"{title}, {board.title}", 0.6 * style.WIDTH), loc="left")
    handles = [
        Line2D([], [], linestyle="", marker="o", color=style.METHOD, label="method"),
        Line2D([], [], linestyle="", marker="s", color=style.REFERENCE, markerfacecolor="white", label="reference"),
        Line2D([], [], color=style.FRONTIER, label="Pareto frontier"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.draw_without_rendering()  # places need the final limits
    _label(axis, points, x, "accuracy")
    return [figure]


def accuracy_against_memory(board: Board) -> list[Figure]:
    """Final accuracy against the bytes that a method keeps beside the network."""
    pages = _tradeoff(board, "extra_bytes", "extra memory", "Accuracy against extra memory")
    for page in pages:
        page.axes[0].xaxis.set_major_formatter(EngFormatter("B", sep=" "))
    return pages


def accuracy_against_cost(board: Board) -> list[Figure]:
    """Final accuracy against CPU seconds relative to naive."""
    pages = _tradeoff(board, "cost_relative", "training CPU seconds relative to naive (1)", "Accuracy against cost")
    for page in pages:
        # Plain numbers, and labels between powers of ten only where they are few.
        page.axes[0].xaxis.set_major_formatter(LogFormatter())
        page.axes[0].xaxis.set_minor_formatter(LogFormatter())
    return pages
