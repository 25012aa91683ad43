"""Ranks over the stream: who leads after each experience."""

from cl_ext.metrics import accuracy_over_stream
from cl_ext.metrics.matrix import FloatArray
from cl_ext.report.drawing import style
from cl_ext.report.drawing.doors import board_figure
from cl_ext.report.drawing.labelled import spread
from cl_ext.report.drawing.runs import Board

import numpy as np
from matplotlib.ticker import MaxNLocator
from scipy.stats import rankdata

LEADERS = 10
"""So many methods, the best at the end, have lines of their own look; the others are grey."""


def mean_ranks(accuracies: FloatArray) -> FloatArray:
    """The rank after each experience, the mean over seeds; 1 is the most accurate, ties share the mean of theirs.

    Args:
        accuracies: (methods, seeds, experiences), no NaN.

    Returns:
        (methods, experiences).
    """
    return rankdata(-accuracies, axis=0).mean(axis=1)


@board_figure(needs="accuracy matrices of two methods, complete and no references, over two experiences or more")
def rank_over_the_stream(board: Board, width: float) -> list[style.Page]:
    """The rank of each method by accuracy on the experiences seen so far, after each experience.

    Ranks are worked out seed by seed among the methods that have every seed, references aside, and averaged.
    """
    curves = board.over(accuracy_over_stream)
    competing = [label for label in board.labels if label not in board.references]
    labels = [name for name in competing if name in board.complete and not np.isnan(curves[name]).any()]
    if len(labels) < 2 or board.experiences < 2:
        return []
    ranks = mean_ranks(np.stack([curves[label] for label in labels]))
    order = np.argsort(ranks[:, -1], kind="stable")
    title = f"Rank by accuracy on experiences seen, {board.title}"
    lost = [name for name in competing if name not in labels]
    title += f"\nleft out, seeds missing or undefined: {', '.join(lost)}" if lost else ""

    head, foot, left = style.heading_height(title, width), 0.36, 0.42
    right = 0.3 + min(0.4 * width, max(style.text_width(label, style.SMALL) for label in labels))
    tall = max(1.6, 0.11 * len(labels))
    height = head + tall + foot
    page = style.Page(figsize=(width, height))
    style.heading(page, title)
    axis = page.add_axes((left / width, foot / height, (width - left - right) / width, tall / height))
    x = np.arange(1, ranks.shape[1] + 1)
    bottom, top = len(labels) + 0.5, 0.5
    wanted = (ranks[order[::-1], -1] - bottom) / (top - bottom)
    places = dict(zip(order[::-1], spread(wanted, 0.1 / tall), strict=True))
    for position, at in enumerate(order):
        leads = position < LEADERS
        look = style.look(position) if leads else {"color": "0.7", "linestyle": "solid", "marker": ""}
        every = max(1, len(x) // 8)
        axis.plot(x, ranks[at], **look, linewidth=1.2 if leads else 0.6, markevery=every, zorder=3 if leads else 2)
        name, size = style.fitted(labels[at], right - 0.28)
        axis.annotate(
            name,
            xy=(x[-1], ranks[at, -1]),
            xytext=(1 + 0.2 / (width - left - right), places[at]),
            textcoords="axes fraction",
            fontsize=size,
            va="center_baseline",
            color="black" if leads else "0.35",
            arrowprops={"arrowstyle": "-", "color": look["color"], "linewidth": 0.7, "shrinkA": 1, "shrinkB": 1,
                        "relpos": (0, 0.5)},
            annotation_clip=False,
        )  # fmt: skip
    margin = 0.02 * (x[-1] - 1)  # else the edge cuts the first and the last marker
    axis.set(xlim=(1 - margin, x[-1] + margin), ylim=(bottom, top))
    axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    style.name_axes(axis, "after experience", "mean rank (1: most accurate)")
    return [page]
