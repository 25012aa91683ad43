"""A scatter of methods with their names: a point each, its interval, and its name in a column at the right."""

from cl_ext.metrics.matrix import FloatArray
from cl_ext.report.drawing import style
from cl_ext.report.drawing.runs import Board

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

_LINE = 0.105  # inches a name takes
_FOOT = 0.62


def spread(wanted: FloatArray, gap: float) -> FloatArray:
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


def scatter_page(points: pd.DataFrame, title: str, width: float) -> tuple[style.Page, Axes]:
    """A page with an empty pair of axes, high enough for a column of names at its right.

    Args:
        points: a row a method, its name in `name`.
        title: the page's title.
        width: inches.
    """
    head = style.heading_height(title, width)
    names = min(0.4 * width, 0.1 + max(style.text_width(name, style.SMALL) for name in points["name"]))
    left, right = 0.48, names + 0.22
    tall = max(0.62 * (width - left - right), _LINE * len(points), 1.6)
    height = head + tall + _FOOT
    page = style.Page(figsize=(width, height))
    style.heading(page, title)
    return page, page.add_axes((left / width, _FOOT / height, (width - left - right) / width, tall / height))


def draw_points(axis: Axes, points: pd.DataFrame, frontier: str = "") -> None:
    """The points with their intervals: methods filled, references hollow; and the legend below.

    Args:
        axis: where.
        points: columns x, y, reference, and xbar, ybar (half widths, NaN for none) where there are any.
        frontier: what the legend calls the line in the frontier's colour; "" for none.
    """
    for hollow in (False, True):
        part = points[points["reference"].eq(hollow)]
        colour = style.REFERENCE if hollow else style.METHOD
        axis.errorbar(
            part["x"],
            part["y"],
            xerr=part.get("xbar"),
            yerr=part.get("ybar"),
            linestyle="",
            color=colour,
            elinewidth=0.6,
            zorder=3,
            marker="s" if hollow else "o",
            markerfacecolor="white" if hollow else colour,
            markeredgewidth=0.8,
        )
    handles = [
        Line2D([], [], linestyle="", marker="o", color=style.METHOD, label="method"),
        Line2D([], [], linestyle="", marker="s", color=style.REFERENCE, markerfacecolor="white", label="reference"),
    ]
    if frontier:
        handles.append(Line2D([], [], color=style.FRONTIER, label=frontier))
    look = {"fontsize": style.SMALL, "frameon": False, "handletextpad": 0.2, "columnspacing": 1.0}
    figure = axis.get_figure()
    assert figure is not None
    figure.legend(handles=handles, loc="lower center", ncols=3, borderaxespad=0.1, **look)


def name_points(axis: Axes, points: pd.DataFrame) -> None:
    """Names each point in a column at the right, tied to it by a thin line: labels beside crowded points overlap.

    All that sets limits must be drawn before.
    """
    axis.get_xlim(), axis.get_ylim()  # matplotlib works limits out when they are asked for; places need them
    page = axis.get_figure()
    assert page is not None
    width, height = page.get_size_inches()  # type: ignore[union-attr]
    box = axis.get_position()
    tall, wide = box.height * height, box.width * width
    room = width * (1 - box.x1) - 0.2
    ordered = points.sort_values("y", kind="stable")
    to_axes = axis.transData + axis.transAxes.inverted()
    places = to_axes.transform(ordered[["x", "y"]].to_numpy(dtype=float))
    heights = spread(np.clip(places[:, 1], 0, 1), _LINE / tall)
    for at, (_, row) in zip(heights, ordered.iterrows(), strict=True):
        name, size = style.fitted(str(row["name"]), room)
        axis.annotate(
            name,
            xy=(row["x"], row["y"]),
            xytext=(1 + 0.16 / wide, at),
            textcoords="axes fraction",
            fontsize=size,
            va="center_baseline",
            color=style.REFERENCE if row["reference"] else "black",
            arrowprops={
                "arrowstyle": "-", "color": "0.75", "linewidth": 0.4, "shrinkA": 1, "shrinkB": 2, "relpos": (0, 0.5),
            },
            annotation_clip=False,
            zorder=1,
        )  # fmt: skip


def points_of(board: Board, x: str, y: str, percent: tuple[bool, bool]) -> pd.DataFrame:
    """A row a method: x, y, their intervals' half widths, `name`, `reference`; those without both are left out.

    Args:
        board: the board.
        x: the leaderboard's column of the horizontal axis.
        y: that of the vertical one.
        percent: whether each is a fraction, to be shown in per cent.
    """
    if x not in board.table or y not in board.table:
        return pd.DataFrame()
    table = board.table.dropna(subset=[x, y])
    found = {"name": table["label"].map(board.names), "reference": table["reference"].astype(bool)}
    for axis, column, fraction in (("x", x, percent[0]), ("y", y, percent[1])):
        scale = 100 if fraction else 1
        found[axis] = scale * table[column]
        found[f"{axis}bar"] = scale * table[f"{column}_half_width"]
    return pd.DataFrame(found)
