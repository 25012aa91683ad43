"""Which method wins over which: the probability of improvement of every pair, as a heat-map."""

from collections.abc import Hashable, Mapping, Sequence

from cl_ext.metrics.matrix import FloatArray
from cl_ext.report.drawing import style
from cl_ext.report.drawing.doors import board_figure
from cl_ext.report.drawing.runs import Board
from cl_ext.report.statistics import probability_of_improvement

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from numpy.typing import ArrayLike

_WRITTEN = 12
"""Up to this many methods, numbers are written into the cells."""
_NORM = Normalize(0, 1)


def improvement_matrix(scores: Sequence[Mapping[Hashable, ArrayLike]]) -> FloatArray:
    """The probability that a run of one method is above a run of another (see `probability_of_improvement`).

    Args:
        scores: a method each: task -> its runs; all have the same tasks.

    Returns:
        (methods, methods): row above column; NaN on the diagonal.
    """
    n = len(scores)
    P = np.full((n, n), np.nan)
    for i in range(n):
        for j in range(i):
            P[i, j] = probability_of_improvement(scores[i], scores[j], repetitions=0).estimate
            P[j, i] = 1 - P[i, j]
    return P


def improvement_page(P: FloatArray, names: Sequence[str], title: str, width: float) -> style.Page:
    """The matrix as a heat-map, blue where the row wins; columns have the numbers of the rows.

    Args:
        P: (methods, methods), NaN where undefined.
        names: of the rows.
        title: the page's title.
        width: inches.
    """
    n = len(names)
    rows = [f"{name}  {number}" for number, name in enumerate(names, start=1)]
    left = 0.12 + min(0.42 * width, max(style.text_width(row, style.SMALL) for row in rows))
    right = 0.55
    side = (width - left - right) / n
    tall = n * max(0.115, min(side, 0.22))
    head, foot = style.heading_height(title, width) + 0.28, 0.1
    height = head + tall + foot
    page = style.Page(figsize=(width, height))
    style.heading(page, title)
    axis = page.add_axes((left / width, foot / height, (width - left - right) / width, tall / height))
    axis.set_facecolor(style.UNDEFINED)
    axis.grid(visible=False)
    axis.imshow(np.ma.masked_invalid(P), norm=_NORM, cmap=style.DIVERGING, aspect="auto", interpolation="none")
    step = max(1, int(np.ceil(style.text_width("88 ", style.SMALL - 1) / side)))
    columns = np.arange(0, n, step) if step == 1 else np.array([0, *range(4, n, 5)])
    axis.set_xticks(columns, [str(column + 1) for column in columns])
    axis.tick_params(top=False, labeltop=True, bottom=False, labelbottom=False, pad=1, labelsize=style.SMALL - 1)
    fitted = [style.fitted(row, left - 0.1) for row in rows]
    axis.set_yticks(np.arange(n), [name for name, _ in fitted])
    for text, (_, size) in zip(axis.get_yticklabels(), fitted, strict=True):
        text.set_fontsize(size)
    axis.tick_params(axis="y", length=0, pad=1)
    if n <= _WRITTEN:
        for i, j in zip(*np.nonzero(~np.isnan(P)), strict=True):
            colour = "white" if abs(P[i, j] - 0.5) > 0.35 else "black"
            share = f"{P[i, j]:.0f}" if P[i, j] in (0, 1) else f"{P[i, j]:.2f}".removeprefix("0")
            axis.text(j, i, share, ha="center", va="center", fontsize=style.SMALL - 1, color=colour)
    axis.xaxis.set_label_position("top")
    axis.set_xlabel("column, numbered as the rows", fontsize=style.SMALL, labelpad=2)
    bar_height = min(1.6, tall)
    place = (1 - 0.45 / width, (foot + (tall - bar_height) / 2) / height, 0.1 / width, bar_height / height)
    bar = page.colorbar(ScalarMappable(_NORM, style.DIVERGING), cax=page.add_axes(place), ticks=[0, 0.5, 1])
    bar.ax.tick_params(labelsize=style.SMALL - 1, pad=1, length=2)
    return page


@board_figure(needs="final accuracies of two complete methods")
def improvement_probabilities(board: Board, width: float) -> list[style.Page]:
    """The probability that a run of the row's method is above a run of the column's, of rows with every seed.

    Ties count a half; runs are drawn independently. It says how often one wins, not by how much, and is no test.
    """
    values = board.values("accuracy")
    finished = board.complete & values.keys()
    labels = [
        label for label in board.table["label"]
        if label in finished and not np.isnan(list(values[label].values())).any()
    ]  # fmt: skip
    if len(labels) < 2:
        return []
    P = improvement_matrix([{"": list(values[label].values())} for label in labels])
    lost = len([label for label in values if label not in labels])
    title = f"Probability that a run of the row is above one of the column, {board.title}"
    title += f" (left out: {lost} with missing seeds)" if lost else ""
    return [improvement_page(P, labels, title, width)]
