"""What happens over the stream, a small panel a method: accuracy, forgetting, learning curves, memory."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cl_ext.metrics import accuracy_over_stream, forgetting_per_experience
from cl_ext.metrics.matrix import FloatArray
from cl_ext.report.drawing import style
from cl_ext.report.drawing.curves import mean_and_band, on_one_grid
from cl_ext.report.drawing.doors import board_figure
from cl_ext.report.drawing.key import Sample, spread_words
from cl_ext.report.drawing.panels import Band, Line, Panel, panel_pages
from cl_ext.report.drawing.runs import Board
from cl_ext.report.drawing.scales import Scale, engineering, linear, logarithmic

import numpy as np
from numpy.typing import NDArray

# Drawn grey in every panel, so that a panel can be read alone: the row's key and its line.
_GREY = {"naive": "dashed", "joint_incremental": "dotted", "joint": "dotted"}

Curves = Mapping[str, tuple[NDArray[Any], FloatArray]]
"""By row: the places (points,) and each seed's values there (seeds, points)."""


def _grey_rows(curves: Collection[str]) -> list[str]:
    """naive and the upper reference that is there: joint training at each step rather than at the end only."""
    present = [name for name in _GREY if name in curves]
    return [name for name in present if name != "joint" or "joint_incremental" not in present]


def _pages(
    board: Board,
    curves: Curves,
    x: Scale,
    y: Scale,
    title: str,
    width: float,
    marker: str,
    behind: Sequence[str] = tuple(_GREY),
    bounds: tuple[float, float] = (0.0, 100.0),
) -> list[style.Page]:
    """Small multiples of each row's mean over seeds with its band, references grey behind; none without data.

    Bands end at `bounds`, which no value can leave: an interval of the mean may.
    """
    drawn = {}
    for label, (at, values) in curves.items():
        mean, low, high = mean_and_band(values)
        drawn[label] = (at, mean, np.clip(low, *bounds), np.clip(high, *bounds))
    known = {label: int((~np.isnan(each[1])).sum()) for label, each in drawn.items()}
    names = [name for name in _grey_rows(drawn) if name in behind and known[name]]
    grey = []
    for name in names:
        at, mean, _, _ = drawn[name]
        if known[name] == 1:  # joint training: one number, at the end of the stream
            at, mean = np.array([x.low, x.high]), np.repeat(mean[~np.isnan(mean)], 2)
        grey.append(Line(at, mean, style.REFERENCE, _GREY[name], width=0.7, behind=True))
    # A row of one point is a panel only where that is the whole stream, and where a marker shows it.
    shown = [
        label for label, (at, *_) in drawn.items() if known[label] > 1 or (known[label] and marker and len(at) == 1)
    ]
    panels = [
        Panel(board.names[label], [*grey, Line(at, mean, marker=marker)], [Band(at, low, high)])
        for label, (at, mean, low, high) in drawn.items()
        if label in shown
    ]
    words = spread_words([len(curves[label][1]) for label in shown])
    key = [Sample("the panel's method, mean", marker=marker)]
    key += [Sample(words, shaded=True)] if words else []
    key += [Sample(name, style.REFERENCE, _GREY[name]) for name in names]
    return panel_pages(panels, x, y, f"{title}, {board.title}", width, key=key)


def _values(curves: Curves) -> FloatArray:
    """All values of all rows."""
    return np.concatenate([values.ravel() for _, values in curves.values()]) if curves else np.empty(0)


def _by_experience(
    board: Board, measure: Any, title: str, label: str, xlabel: str, width: float, least: float = 0.0
) -> list[style.Page]:
    found = {name: (np.arange(1, values.shape[1] + 1), 100 * values) for name, values in board.over(measure).items()}
    found = {name: each for name, each in found.items() if each[0].size}
    x = linear(xlabel, [1, max((at[-1] for at, _ in found.values()), default=1)], whole=True)
    return _pages(board, found, x, linear(label, _values(found)), title, width, "o", bounds=(least, 100.0))


@board_figure(needs="accuracy matrices")
def accuracy_over_the_stream(board: Board, width: float) -> list[style.Page]:
    """Mean accuracy on the experiences seen so far, after each experience; a panel a method."""
    label = "accuracy on experiences seen [%]"
    return _by_experience(board, accuracy_over_stream, "Accuracy over the stream", label, "after experience", width)


@board_figure(needs="accuracy matrices of two experiences or more")
def forgetting_by_experience(board: Board, width: float) -> list[style.Page]:
    """Forgetting (Chaudhry et al. 2018) of each experience but the last, at the end of the stream; a panel a method."""
    label, title = "forgetting [percentage points]", "Forgetting at the end of the stream"
    return _by_experience(board, forgetting_per_experience, title, label, "experience", width, least=-100.0)


def curves_seen(board: Board) -> Curves:
    """Accuracy in per cent on the experiences seen so far, while training, of rows whose every run has a curve."""
    found = {}
    for label in board.labels:
        if label == "joint":  # it has no experiences to train through: its final accuracy alone is comparable
            final = np.array([[100 * run.matrix[-1].mean()] for run in board.runs_by_label[label]])
            found[label] = (np.array([float(board.experiences)]), final)
            continue
        curves = [run.curve for run in board.runs_by_label[label] if run.curve is not None]
        if len(curves) == len(board.runs_by_label[label]):
            together = on_one_grid(curves)
            found[label] = (together.time, 100 * together.seen)
    return found


@board_figure(needs="accuracies while training (a study with `evaluation: epoch` or a number of iterations)")
def learning_curves(board: Board, width: float) -> list[style.Page]:
    """Mean accuracy on the experiences seen so far, while training; a panel a method."""
    curves = curves_seen(board)
    if set(curves) <= {"joint"}:
        return []
    x = linear("experiences trained", [0, board.experiences], whole=True)
    y = linear("accuracy on experiences seen [%]", _values(curves))
    return _pages(board, curves, x, y, "Accuracy while training", width, "")


@board_figure(needs="`sizes` in the records, and a method that keeps something beside the network")
def memory_over_the_stream(board: Board, width: float) -> list[style.Page]:
    """Bytes that a method keeps beside the network, after each experience; a panel each method that keeps any."""
    found = {}
    for label, runs in board.runs_by_label.items():
        if all(run.sizes for run in runs):
            values = np.array([[size["extra_bytes"] for size in run.sizes] for run in runs], dtype=float)
            if values.any():
                found[label] = (np.arange(values.shape[1]), values)
    if not found:
        return []
    found = {label: found[label] for label in board.labels if label in found}
    x = linear("after experience (0: untrained)", [0, board.experiences], whole=True)
    y = logarithmic("extra memory", _values(found), text=engineering("B"))
    none = [label for label in board.labels if label not in found]
    title = "Extra memory over the stream, no point where nothing is kept"
    title += f" (never: {', '.join(none)})" if none else ""
    return _pages(board, found, x, y, title, width, "o", behind=(), bounds=(0.0, np.inf))
