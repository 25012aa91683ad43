"""Accuracy while training of a few methods in one pair of axes: the figure of a talk, a report, a homework."""

from collections.abc import Collection
from typing import Any

from cl_ext.report.drawing import style
from cl_ext.report.drawing.curves import mean_and_band
from cl_ext.report.drawing.doors import board_figure
from cl_ext.report.drawing.key import spread_words
from cl_ext.report.drawing.over_stream import curves_seen
from cl_ext.report.drawing.runs import Board

import numpy as np
from matplotlib.ticker import MaxNLocator

LINES = 10
"""More lines than this in one pair of axes cannot be told apart."""


def chosen(labels: list[str], references: Collection[str]) -> list[str]:
    """The rows to draw, the most accurate first: all, or fine-tuning and the best methods so that they are `LINES`."""
    if len(labels) <= LINES:
        return labels
    fixed = [label for label in labels if label == "naive"]
    best = [label for label in labels if label not in references]
    kept = {*fixed, *best[: LINES - len(fixed)]}
    return [label for label in labels if label in kept]


@board_figure(needs="accuracies while training (a study with `evaluation: epoch` or a number of iterations)")
def learning_together(board: Board, width: float) -> list[style.Page]:
    """Mean accuracy on the experiences seen so far, while training: one line a method, one pair of axes.

    Joint training, which has no experiences to train through, is a horizontal line at its final accuracy.
    """
    curves = dict(curves_seen(board))
    joint = curves.pop("joint", None)
    if not curves:
        return []
    labels = chosen(list(curves), board.references)
    title = f"Accuracy while training, {board.title}"
    if len(labels) < len(curves):
        fixed = "fine-tuning and " if "naive" in labels else ""
        title += f"\n{len(labels)} of {len(curves)} rows: {fixed}the most accurate methods"
    names = {label: board.names[label] for label in labels}
    narrow = width <= style.WIDTHS["one"]
    words = spread_words([len(curves[label][1]) for label in labels])
    texts = [*names.values(), *([board.names["joint"]] if joint is not None else []), *([words] if words else [])]
    longest = max(style.text_width(text, style.SMALL) for text in texts)
    beside = 0.0 if narrow else 0.45 + longest
    columns = max(1, min(3, int((width - 0.1) / (longest + 0.5))))
    key_rows = -(-len(texts) // columns) if narrow else 0  # a narrow page has its legend below
    head, foot, left, tall = style.heading_height(title, width), 0.38 + 0.13 * key_rows, 0.45, 0.42 * width
    height = head + tall + foot
    page = style.Page(figsize=(width, height))
    style.heading(page, title)
    room = width - left - beside - 0.08
    axis = page.add_axes((left / width, foot / height, room / width, tall / height))
    for number, label in enumerate(labels):
        at, values = curves[label]
        mean, low, high = mean_and_band(values)
        look = style.look(number)
        axis.fill_between(at, np.clip(low, 0, 100), np.clip(high, 0, 100), color=look["color"], alpha=0.15, linewidth=0)
        # Each line's markers begin elsewhere: those of lines that coincide would lie on each other.
        every = max(1, len(at) // 10, min(len(labels), len(at) // 4))
        axis.plot(at, mean, **look, markevery=(number % every, every), label=names[label])
    if joint is not None:
        axis.axhline(joint[1].mean(), color=style.REFERENCE, linestyle="dotted", label=board.names["joint"])
    if words:
        axis.fill_between([], [], color=style.REFERENCE, alpha=0.25, linewidth=0, label=words)
    for boundary in range(1, board.experiences):
        axis.axvline(boundary, color=style.REFERENCE, linewidth=0.5, linestyle="dashed", zorder=0)
    axis.set_xlim(0, board.experiences)
    axis.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    style.name_axes(axis, "experiences trained", "accuracy on experiences seen [%]")
    legend: dict[str, Any] = {"frameon": False, "fontsize": style.SMALL, "handlelength": 2.5}
    if narrow:
        page.legend(loc="lower center", ncols=columns, borderaxespad=0.1, columnspacing=1.0, **legend)
    else:
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), **legend)
    return [page]
