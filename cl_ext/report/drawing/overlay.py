"""Accuracy while training of a few methods in one pair of axes: the figure of a talk, a report, a homework."""

from typing import Any

from cl_ext.report.drawing import style
from cl_ext.report.drawing.curves import mean_and_band
from cl_ext.report.drawing.doors import board_figure
from cl_ext.report.drawing.over_stream import curves_seen
from cl_ext.report.drawing.runs import Board

from matplotlib.ticker import MaxNLocator

LINES = 10
"""More lines than this in one pair of axes cannot be told apart."""


def chosen(labels: list[str]) -> list[str]:
    """The rows to draw, the most accurate first: all of them, or fine-tuning and the best so that they are `LINES`."""
    if len(labels) <= LINES:
        return labels
    fixed = [label for label in labels if label == "naive"]
    best = [label for label in labels if label not in fixed][: LINES - len(fixed)]
    return [label for label in labels if label in {*fixed, *best}]


@board_figure(needs="accuracies while training (a study with `evaluation: epoch` or a number of iterations)")
def learning_together(board: Board, width: float) -> list[style.Page]:
    """Mean accuracy on the experiences seen so far, while training: one line a method, one pair of axes.

    Joint training, which has no experiences to train through, is a horizontal line at its final accuracy.
    """
    curves = dict(curves_seen(board))
    joint = curves.pop("joint", None)
    if not curves:
        return []
    labels = chosen(list(curves))
    title = f"Accuracy while training, {board.title}"
    if len(labels) < len(curves):
        title += f"\n{len(labels)} of {len(curves)} methods: fine-tuning and the most accurate"
    names = {label: board.names[label] for label in labels}
    narrow = width <= style.WIDTHS["one"]
    beside = 0.0 if narrow else 0.45 + min(1.8, max(style.text_width(name, style.SMALL) for name in names.values()))
    key_rows = -(-(len(labels) + 1) // 3) if narrow else 0  # a narrow page has its legend below
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
        axis.fill_between(at, low, high, color=look["color"], alpha=0.15, linewidth=0)
        axis.plot(at, mean, **look, markevery=max(1, len(at) // 10), label=names[label])
    if joint is not None:
        axis.axhline(joint[1].mean(), color=style.REFERENCE, linestyle="dotted", label=board.names["joint"])
    for boundary in range(1, board.experiences):
        axis.axvline(boundary, color=style.REFERENCE, linewidth=0.5, linestyle="dashed", zorder=0)
    axis.set_xlim(0, board.experiences)
    axis.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    style.name_axes(axis, "experiences trained", "accuracy on experiences seen [%]")
    legend: dict[str, Any] = {"frameon": False, "fontsize": style.SMALL, "handlelength": 2.5}
    if narrow:
        page.legend(loc="lower center", ncols=3, borderaxespad=0.1, columnspacing=1.0, **legend)
    else:
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), **legend)
    return [page]
