"""Methods under each other: every seed, the mean and its interval."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cl_ext.metrics.matrix import FloatArray
from cl_ext.report.drawing import style
from cl_ext.report.drawing.doors import board_figure
from cl_ext.report.drawing.runs import Board
from cl_ext.report.statistics import summarize

import numpy as np

_NO_TIER = "-"
_LINE, _FOOT = 0.115, 0.36  # inches a row, and below the rows


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
        name: at its left.
        seeds: a value a seed, drawn as small points.
        estimate: drawn as a large point.
        low: the interval's lower end, NaN for none.
        high: its upper end.
        reference: whether it competes with none.
        note: at its right.
    """

    name: str
    seeds: FloatArray
    estimate: float
    low: float
    high: float
    reference: bool
    note: str = ""


def interval_page(
    rows: Sequence[Row], title: str, label: str, note: str, width: float, tick: str, bar: str
) -> style.Page:
    """The rows in order, the first at the top.

    Args:
        rows: at least one.
        title: the page's title.
        label: of the horizontal axis.
        note: the head of the column at the right, "" for none.
        width: inches.
        tick: what a small line is.
        bar: what a bar is, "" where there are none.
    """
    title += f"\ntick: {tick}" + (f", bar: {bar}" if bar else "")
    head = style.heading_height(title, width) + (0.12 if note else 0.0)
    left = 0.12 + min(0.45 * width, max(style.text_width(row.name, style.SMALL) for row in rows))
    right = 0.1 + (style.text_width(note, style.SMALL) + 0.08 if note else 0.0)
    tall = max(_LINE * len(rows), 0.5)
    height = head + tall + _FOOT
    page = style.Page(figsize=(width, height))
    style.heading(page, title)
    axis = page.add_axes((left / width, _FOOT / height, (width - left - right) / width, tall / height))
    places = np.arange(len(rows))
    for hollow in (False, True):
        part = [(at, row) for at, row in zip(places, rows, strict=True) if row.reference == hollow]
        if not part:
            continue
        heights, estimates = [at for at, _ in part], np.array([row.estimate for _, row in part])
        ends = np.array([(row.estimate - row.low, row.high - row.estimate) for _, row in part]).T
        colour = style.REFERENCE if hollow else style.METHOD
        axis.errorbar(
            estimates,
            heights,
            xerr=ends,
            linestyle="",
            color=colour,
            elinewidth=1.0,
            marker="s" if hollow else "o",
            markersize=3,
            markerfacecolor="white" if hollow else colour,
            markeredgewidth=0.8,
            zorder=3,
        )
    seeds = np.concatenate(
        [np.c_[row.seeds, np.full(len(row.seeds), at)] for at, row in zip(places, rows, strict=True)]
    )
    axis.plot(*seeds.T, linestyle="", marker="|", markersize=3.5, markeredgewidth=0.5, color="0.5", zorder=2)
    axis.grid(axis="y", color="0.93", linewidth=0.4)  # leads the eye from a name to its point
    axis.set(ylim=(len(rows) - 0.4, -0.6), yticks=places)
    fitted = [style.fitted(row.name, left - 0.1) for row in rows]
    axis.set_yticks(places, [name for name, _ in fitted])
    style.name_axes(axis, label, "")
    axis.tick_params(axis="y", pad=1, length=0)
    for text, (_, size), row in zip(axis.get_yticklabels(), fitted, rows, strict=True):
        text.set_fontsize(size)
        text.set_color(style.REFERENCE if row.reference else "black")
    side = axis.get_yaxis_transform()
    look: dict[str, Any] = {"fontsize": style.SMALL, "ha": "left", "va": "center_baseline", "clip_on": False}
    beside = 1 + 0.07 / (width - left - right)
    for at, row in zip(places, rows, strict=True):
        if row.note:
            axis.text(beside, float(at), row.note, transform=side, **look)
    if note:
        axis.text(beside, 1 + 0.09 / tall, note, transform=axis.transAxes, **look)
    return page


@board_figure(needs="final accuracies")
def accuracy_intervals(board: Board, width: float) -> list[style.Page]:
    """Final accuracy of each method: a tick a seed, the mean, its 95 % interval from five seeds on, and the tier."""
    rows = []
    values = board.values("accuracy")
    tiers = board.table.set_index("label")["tier"].dropna()
    for label in board.table["label"]:
        scores = 100 * np.array(list(values.get(label, {}).values()))
        scores = scores[~np.isnan(scores)]
        if not scores.size:
            continue
        summary = summarize(scores)
        half = np.nan if summary.few else summary.half_width
        note = str(tiers[label]) if label in tiers else _NO_TIER
        low, high = summary.mean - half, summary.mean + half
        rows.append(Row(board.names[label], scores, summary.mean, low, high, label in board.references, note))
    if not rows:
        return []
    note = "tier" if len(tiers) else ""
    rows = rows if note else [replace(row, note="") for row in rows]
    bar = "95 % interval of the mean" if any(not np.isnan(row.low) for row in rows) else ""
    title, label = f"Final accuracy, {board.title}", "final accuracy [%]"
    return [interval_page(rows, title, label, note, width, "a seed", bar)]
