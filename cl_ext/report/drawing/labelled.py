"""A scatter of methods with their names: a point each, its interval, and its name in a column at the right."""

from collections.abc import Sequence
from typing import Any

from cl_ext.metrics.matrix import FloatArray
from cl_ext.report.drawing import style
from cl_ext.report.drawing.key import spread_words
from cl_ext.report.drawing.runs import Board
from cl_ext.report.statistics import band

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

_LINE = 0.105  # inches a name takes
_FOOTS: dict[bool, float] = {True: 0.7, False: 0.55}  # inches below the axes of a narrow page, of a wide one


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
    left, right, foot = 0.48, names + 0.22, _FOOTS[width <= style.WIDTHS["one"]]
    tall = max((0.62 if width <= style.WIDTHS["one"] else 0.5) * (width - left - right), _LINE * len(points), 1.6)
    height = head + tall + foot
    page = style.Page(figsize=(width, height))
    style.heading(page, title)
    return page, page.add_axes((left / width, foot / height, (width - left - right) / width, tall / height))


def draw_points(axis: Axes, points: pd.DataFrame, *more: Line2D) -> None:
    """The points with their bars: methods filled, references hollow; and the legend below.

    Args:
        axis: where.
        points: columns x, y, reference, and xlow, xhigh, ylow, yhigh (the ends of their bars, NaN for none) where there
            are any; `spread`, what the bars are.
        more: further entries of the legend.
    """
    for hollow in (False, True):
        part = points[points["reference"].eq(hollow)]
        colour = style.REFERENCE if hollow else style.METHOD
        axis.errorbar(
            part["x"],
            part["y"],
            xerr=_bars(part, "x"),
            yerr=_bars(part, "y"),
            linestyle="",
            color=colour,
            elinewidth=0.6,
            zorder=3,
            marker="s" if hollow else "o",
            markerfacecolor="white" if hollow else colour,
            markeredgewidth=0.8,
        )
    handles = [Line2D([], [], linestyle="", marker="o", color=style.METHOD, label="method")]
    if points["reference"].any():
        hollow_square: dict[str, Any] = {"marker": "s", "color": style.REFERENCE, "markerfacecolor": "white"}
        handles.append(Line2D([], [], linestyle="", **hollow_square, label="reference"))
    if words := str(points["spread"].iloc[0]):
        handles.append(Line2D([], [], color=style.METHOD, linewidth=0.6, label=words))
    handles += more
    look: dict[str, Any] = {"fontsize": style.SMALL, "frameon": False, "handletextpad": 0.4, "columnspacing": 1.0}
    figure = axis.get_figure(root=True)
    assert figure is not None
    columns = _legend_columns([str(handle.get_label()) for handle in handles], figure.get_figwidth())
    figure.legend(handles=handles, loc="lower center", ncols=columns, borderaxespad=0.1, handlelength=1.5, **look)


def _legend_columns(names: Sequence[str], width: float) -> int:
    """How many columns a legend of these names has on a page of this width: all beside each other, or two."""
    needed = sum(0.32 + style.text_width(name, style.SMALL) for name in names)
    return len(names) if needed < width - 0.1 else 2


def _bars(points: pd.DataFrame, axis: str) -> FloatArray | None:
    """The bars of one axis as matplotlib takes them: how far they reach below and above."""
    if f"{axis}low" not in points:
        return None
    ends = np.stack([points[axis] - points[f"{axis}low"], points[f"{axis}high"] - points[axis]]).astype(float)
    return np.maximum(ends, 0.0)  # rounding


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
    """A row a method: x, y, the ends of their bars, `name`, `reference`, `spread`; rows without both are left out.

    Bars are those of `cl_ext.report.statistics.band`: the interval from five seeds on, below that the range.

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
        values = board.values(column)
        ends = [band(list(values.get(label, {}).values()) or [np.nan]) for label in table["label"]]
        for at, end in enumerate(("low", "high")):
            found[f"{axis}{end}"] = pd.Series([scale * each[at] for each in ends], index=table.index, dtype=float)
    found["spread"] = pd.Series(spread_words(table["n"].tolist()), index=table.index, dtype=object)
    return pd.DataFrame(found)
