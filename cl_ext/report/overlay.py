"""Accuracy while training of a few methods in one pair of axes: the figure of a talk, a report, a homework."""

from cl_ext.report import style
from cl_ext.report.runs import Board
from cl_ext.report.statistics import band

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

LINES = 10
"""More lines than this in one pair of axes cannot be told apart."""

_MARKERS = "osD^vPX<>*"


def chosen(board: Board, labels: list[str]) -> list[str]:
    """The rows to draw, the most accurate first: all of them, or fine-tuning and the best so that they are `LINES`."""
    if len(labels) <= LINES:
        return labels
    fixed = [label for label in labels if label == "naive"]
    best = [label for label in labels if label not in fixed][: LINES - len(fixed)]
    return [label for label in labels if label in {*fixed, *best}]


def learning_together(board: Board) -> list[Figure]:
    """Mean accuracy on the experiences seen so far, while training: one line a method, one pair of axes.

    Joint training, which has no experiences to train through, is a horizontal line at its final accuracy.
    """
    data = board.instants
    if data.empty:
        return []
    seen = [label for label in board.labels if label in set(data["label"]) and label != "joint"]
    labels = chosen(board, seen)
    lines = data.groupby(["label", "time"])["value"].agg(["mean", band]).reset_index()
    colours = dict(zip(labels, sns.color_palette("colorblind", len(labels)).as_hex(), strict=True))
    figure = Figure(figsize=(style.WIDTH, 3.2))
    axis = figure.subplots()
    for label, marker in zip(labels, _MARKERS, strict=False):
        own = lines[lines["label"] == label]
        low, high = (pd.Series([100 * pair[end] for pair in own["band"]]) for end in (0, 1))
        axis.fill_between(own["time"], low, high, color=colours[label], alpha=0.15, linewidth=0)
        every = max(1, len(own) // 10)
        axis.plot(own["time"], 100 * own["mean"], color=colours[label], marker=marker, markevery=every, label=label)
    joint = [run for run in board.runs if run.label == "joint"]
    if joint:
        final = sum(float(run.matrix[-1].mean()) for run in joint) / len(joint)
        axis.axhline(100 * final, color=style.REFERENCE, linestyle="dotted", label="joint")
    for boundary in range(1, board.experiences):
        axis.axvline(boundary, color=style.REFERENCE, linewidth=0.5, linestyle="dashed", zorder=0)
    axis.set(xlabel="experiences trained", ylabel="accuracy on experiences seen [%]", xlim=(0, board.experiences))
    title = f"Accuracy while training, {board.title}"
    if len(labels) < len(seen):
        title += f"\n{len(labels)} of {len(seen)} methods: fine-tuning and the most accurate"
    figure.suptitle(style.wrapped(title, style.WIDTH), fontsize="medium")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.set_layout_engine("constrained")
    return [figure]
