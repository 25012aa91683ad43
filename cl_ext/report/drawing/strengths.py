"""How accuracy depends on one hyper-parameter: every seed, the mean, the chosen value, naive and joint training."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cl_ext.metrics.matrix import FloatArray
from cl_ext.report.drawing import style
from cl_ext.report.drawing.doors import board_figure
from cl_ext.report.drawing.runs import Board

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

_BOUNDS = {"naive": "dashed", "joint": "dotted"}
_LEAST_VALUES = 3
"""Where no hyper-parameter is named, one with so many values is taken for a sweep."""


def _numeric(values: "pd.Series[Any]") -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values.dropna())


def sweeps(board: Board) -> Iterator[tuple[str, str]]:
    """Method and hyper-parameter of each sweep in a board: the only one that differs, a number of several values."""
    several = board.table.loc[board.table["variant"].ne(""), "method"]
    for method, cells in board.cells[board.cells["method"].isin(several)].groupby("method"):
        differing = [name for name in _settings(cells) if cells[name].astype(str).nunique() > 1]
        if len(differing) == 1 and _numeric(cells[differing[0]]) and cells[differing[0]].nunique() >= _LEAST_VALUES:
            yield str(method), differing[0].removeprefix("hp.")


def _settings(cells: pd.DataFrame) -> list[str]:
    return [str(name) for name in cells if str(name).startswith("hp.")]


def places(values: FloatArray) -> FloatArray:
    """Where values stand on a logarithmic axis: 0, which has no place there, one decade below the smallest other.

    Args:
        values: (n,) numbers from 0.
    """
    positive = values[values > 0]
    least = 10.0 ** (np.floor(np.log10(positive.min())) - 1) if positive.size else 1.0
    return np.where(values > 0, values, least)


def _hint(
    boards: Sequence[Board],
    method: str | None = None,
    hyperparameter: str | None = None,
    chosen: float | Mapping[str, float] | None = None,
    column: str = "accuracy",
) -> str:
    """What a call that found no sweep may have meant."""
    del chosen
    cells = pd.concat([board.cells for board in boards]) if boards else pd.DataFrame(columns=["method"])
    if column not in cells:
        return f"; no finished cell has a column {column!r}"
    if method is not None and method not in set(cells["method"]):
        return f"; no finished cell is of {method!r}, they are of {', '.join(sorted(set(cells['method']))) or 'none'}"
    own = cells if method is None else cells[cells["method"].eq(method)]
    numbers = [name for name in _settings(own) if own[name].notna().any() and _numeric(own[name])]
    if hyperparameter is not None and f"hp.{hyperparameter}" not in numbers:
        there = ", ".join(name.removeprefix("hp.") for name in numbers) or "none"
        return f"; {repr(method) if method else 'no method'} has no number {hyperparameter!r}, there are {there}"
    return f"; where other hyper-parameters differ too, or only {_LEAST_VALUES - 1} values were tried, name both"


@board_figure("one method with several values of a numeric hyper-parameter", hint=_hint)
def strength_sensitivity(
    board: Board,
    width: float,
    method: str | None = None,
    hyperparameter: str | None = None,
    chosen: float | Mapping[str, float] | None = None,
    column: str = "accuracy",
) -> list[style.Page]:
    """Final accuracy against a hyper-parameter on a logarithmic axis: every seed is a point, the line is their mean.

    A vertical line marks the chosen value, horizontal ones are fine-tuning and joint training. The mean has a gap where
    a seed is missing; a cross at the bottom is a value at which one failed. Where other hyper-parameters differ too,
    each of their settings is a line.

    Its options: `method` and `hyperparameter`, by default every method of which one number alone has three values or
    more; `chosen`, the value or a value by scenario; `column`, the frame's column that is shown, in [0, 1].
    """
    if method is None or hyperparameter is None:
        wanted = [(m, h) for m, h in sweeps(board) if method in (None, m) and hyperparameter in (None, h)]
    else:
        wanted = [(method, hyperparameter)]
    mark = chosen.get(board.place[2]) if isinstance(chosen, Mapping) else chosen
    pages = []
    for name, setting in wanted:
        cells = board.cells[board.cells["method"].eq(name)]
        if f"hp.{setting}" in cells and column in cells:
            cells = cells.dropna(subset=[f"hp.{setting}", column])
            failed = board.failed[board.failed["method"].eq(name)].dropna(subset=f"hp.{setting}")
            if len(cells) and _numeric(cells[f"hp.{setting}"]):
                pages.append(_page(board, cells, failed, name, setting, mark, column, width))
    return pages


def _page(
    board: Board,
    cells: pd.DataFrame,
    failed: pd.DataFrame,
    method: str,
    setting: str,
    mark: float | None,
    column: str,
    width: float,
) -> style.Page:
    title = f"{method}: {column.replace('_', ' ')} against {setting}, {board.title}"
    title += "\ndots: seeds, circles: mean of all seeds" + (", crosses: a seed failed there" if len(failed) else "")
    others = [name for name in _settings(cells) if name != f"hp.{setting}" and cells[name].astype(str).nunique() > 1]
    groups = list(cells.groupby([cells[name].astype(str) for name in others])) if others else [((), cells)]
    bounds = {}
    for name in _BOUNDS:
        scores = list(board.values(column).get(name, {}).values())
        if scores and not np.isnan(scores).any():
            bounds[name] = 100 * float(np.mean(scores))
    key = len(groups) > 1
    right = 0.1 + max([0.0, *(style.text_width(name, style.SMALL) + 0.1 for name in bounds)])
    head, left, foot = style.heading_height(title, width), 0.45, 0.38 + (0.13 * -(-len(groups) // 2) if key else 0.0)
    tall = 0.45 * width
    height = head + tall + foot
    page = style.Page(figsize=(width, height))
    style.heading(page, title)
    axis = page.add_axes((left / width, foot / height, (width - left - right) / width, tall / height))
    tried = pd.concat([cells[f"hp.{setting}"], failed[f"hp.{setting}"]])
    values = tried.to_numpy(dtype=float)
    logarithmic = bool((values >= 0).all() and (values > 0).any())
    x = pd.Series(places(values) if logarithmic else values, index=tried.index)
    for number, (group, part) in enumerate(groups):
        label = ", ".join(f"{name.removeprefix('hp.')}={value}" for name, value in zip(others, group, strict=True))
        _line(axis, x[part.index], 100 * part[column].astype(float), part["seed"], board.seeds, number, label)
    if len(failed):
        lost = np.unique(x[failed.index])
        axis.plot(lost, np.full(len(lost), 0.03), transform=axis.get_xaxis_transform(), linestyle="", marker="x",
                  color="black", markersize=4, zorder=4)  # fmt: skip
    if logarithmic:
        axis.set_xscale("log")
        _ticks(axis, x, values)
    if mark is not None:
        at = float(places(np.append(values, mark))[-1]) if logarithmic else mark
        axis.axvline(at, color=style.FRONTIER, linewidth=1.0, linestyle="dashdot", zorder=1)
        axis.annotate(
            "chosen", (at, 1), (2, -2), xycoords=("data", "axes fraction"), textcoords="offset points",
            fontsize=style.SMALL, color=style.FRONTIER, va="top",
        )  # fmt: skip
    for name, height_at in bounds.items():
        axis.axhline(height_at, color=style.REFERENCE, linewidth=0.8, linestyle=_BOUNDS[name], zorder=1)
    axis.margins(y=0.06)
    axis.yaxis.set_major_locator(MaxNLocator(6))
    low, high = axis.get_ylim()
    gap = 0.1 * (high - low) / tall
    names = sorted(bounds, key=lambda name: bounds[name])
    heights = [bounds[name] for name in names]
    if len(heights) == 2 and heights[1] - heights[0] < gap:
        heights[1] = heights[0] + gap
    for name, at in zip(names, heights, strict=True):
        axis.annotate(
            name, (1, at), (3, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            fontsize=style.SMALL, color=style.REFERENCE, va="center_baseline",
        )  # fmt: skip
    measure = column.replace("_", " ")
    style.name_axes(axis, setting, f"{'final ' if column == 'accuracy' else ''}{measure} [%]")
    if key:
        page.legend(loc="lower center", ncols=2, frameon=False, fontsize=style.SMALL, borderaxespad=0.1)
    return page


def _line(
    axis: Axes,
    x: "pd.Series[float]",
    y: "pd.Series[float]",
    seeds: "pd.Series[int]",
    all_seeds: int,
    number: int,
    label: str,
) -> None:
    """One setting: its seeds as points, the mean where every seed is there, and how many are where not."""
    look = style.look(number)
    axis.plot(x, y, linestyle="", marker=look["marker"], color=look["color"], markersize=2.2, alpha=0.55, zorder=2)
    means = y.groupby(x).mean()
    counts = seeds.groupby(x).nunique()
    axis.plot(means.index, means.where(counts.eq(all_seeds)), linestyle=look["linestyle"], color=look["color"],
              marker=look["marker"], markerfacecolor="white", markersize=4, zorder=3, label=label)  # fmt: skip
    for at, count in counts[counts < all_seeds].items():
        axis.annotate(
            f"{count}/{all_seeds}", (at, 0), (0, 9), xycoords=("data", "axes fraction"), textcoords="offset points",
            fontsize=style.LEAST, ha="center", color=look["color"],
        )  # fmt: skip


def _ticks(axis: Axes, x: "pd.Series[float]", values: FloatArray) -> None:
    """Powers of ten, at most ten of them, and 0 where it was tried."""
    low, high = np.floor(np.log10(x.min())), np.ceil(np.log10(x.max()))
    decades = np.arange(low, high + 1)
    ticks = 10.0 ** decades[:: -(-len(decades) // 10)]
    zero = float(x.min()) if (values == 0).any() else None
    if zero is not None:
        ticks = np.unique([zero, *ticks[ticks > zero]])
    axis.xaxis.set_major_locator(FixedLocator(ticks.tolist()))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: "0" if value == zero else _power(value)))


def _power(value: float) -> str:
    """A power of ten as 0.01, 1, 1000 or 1e4."""
    if 1e-3 <= value < 1e4:
        return f"{value:g}"
    return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
