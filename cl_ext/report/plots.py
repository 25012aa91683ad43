"""Figures from records: one function a figure, and the door that draws them all."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from cl_ext.metrics import accuracy_over_stream, forgetting_per_experience
from cl_ext.report import style
from cl_ext.report.networks import growth_by_task, parameters_over_the_stream, unit_maps
from cl_ext.report.overlay import learning_together
from cl_ext.report.runs import Board, boards
from cl_ext.report.statistics import band
from cl_ext.report.tradeoffs import accuracy_against_cost, accuracy_against_memory

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_log = logging.getLogger(__name__)

# Drawn grey in every panel, so that a panel can be read alone: the row's key and its line.
_GREY = {"naive": "dashed", "joint_incremental": "dotted", "joint": "dotted"}
_ANNOTATED_EXPERIENCES = 5


def accuracy_matrices(board: Board) -> list[Figure]:
    """A heat-map of the mean accuracy matrix a method, all with one colour scale; grey where undefined."""
    T = board.experiences
    annotate = T <= _ANNOTATED_EXPERIENCES

    def draw(axis: Axes, label: str) -> None:
        axis.set_facecolor(style.UNDEFINED)
        axis.grid(visible=False)
        sns.heatmap(
            100 * board.mean_matrix(label),
            vmin=0,
            vmax=100,
            cmap=style.COLOUR_MAP,
            cbar=False,
            ax=axis,
            rasterized=T > 20,
            annot=annotate,
            fmt=".0f",
            annot_kws={"fontsize": 4.5},
            xticklabels=False,
            yticklabels=False,
        )
        ticks = np.unique(np.linspace(1, T, min(T, 5)).round().astype(int))
        axis.set_xticks(ticks - 0.5, [str(tick) for tick in ticks])
        rows = np.unique(np.linspace(0, T, min(T + 1, 6)).round().astype(int))
        axis.set_yticks(rows + 0.5, [str(row) for row in rows])

    title = f"Accuracy matrix [%], {board.title}"
    labels = ("accuracy on experience", "after experience (0: untrained)")
    pages = style.small_multiples(board.labels, draw, title, *labels, panel_height=1.3, right=0.75)
    for page in pages:
        width, height = page.get_size_inches()
        scale = ScalarMappable(Normalize(0, 100), style.COLOUR_MAP)
        place = page.add_axes((1 - 0.65 / width, 0.5 - 0.9 / height, 0.12 / width, 1.8 / height))
        page.colorbar(scale, cax=place, label="accuracy [%]")
    return pages


def _panels(
    board: Board, data: pd.DataFrame, x: str, title: str, xlabel: str, ylabel: str, marker: str
) -> list[Figure]:
    """Small multiples of a row's mean over seeds with its band, references grey behind; none without data."""
    if data.empty:
        return []
    data = data.assign(value=100 * data["value"])
    lines = data.groupby(["label", x])["value"].agg(["mean", band]).reset_index()
    lines[["low", "high"]] = lines["band"].to_list()
    by_label = {str(label): part for label, part in lines.groupby("label")}
    grey = {name: by_label[name] for name in _grey_rows(by_label)}
    xlim = _limits(lines[x])
    # Limits hold means and seeds; a wide interval of few seeds may run out of the picture.
    ylim = _limits(data["value"])

    def draw(axis: Axes, label: str) -> None:
        for name, line in grey.items():
            look: dict[str, Any] = {"color": style.REFERENCE, "linestyle": _GREY[name], "linewidth": 0.8}
            if len(line) == 1:  # joint training: one number, at the end of the stream
                axis.axhline(line["mean"].item(), **look)
            else:
                axis.plot(line[x], line["mean"], **look)
        own = by_label[label]
        axis.fill_between(own[x], own["low"], own["high"], color=style.METHOD, alpha=0.25, linewidth=0)
        axis.plot(own[x], own["mean"], color=style.METHOD, marker=marker)
        axis.set(xlim=xlim, ylim=ylim)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axis.yaxis.set_major_locator(MaxNLocator(nbins=4))

    labels = [label for label in board.labels if label in by_label]
    # In words, because a legend would need the room of the axis labels.
    key = ", ".join(["solid: the panel's method", *(f"{_GREY[name]}: {name}" for name in grey)])
    return style.small_multiples(labels, draw, f"{title}, {board.title}\n{key}", xlabel, ylabel)


def _limits(values: "pd.Series[float]") -> tuple[float, float]:
    """Limits of an axis that hold all values with a margin."""
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _grey_rows(labels: Collection[str]) -> list[str]:
    """naive and the upper reference that is there: joint training at each step rather than at the end only."""
    present = [name for name in _GREY if name in labels]
    return [name for name in present if name != "joint" or "joint_incremental" not in present]


def accuracy_over_the_stream(board: Board) -> list[Figure]:
    """Mean accuracy on the experiences seen so far, after each experience."""
    data = board.over(accuracy_over_stream)
    labels = ("after experience", "accuracy on experiences seen [%]")
    return _panels(board, data, "experience", "Accuracy over the stream", *labels, marker="o")


def forgetting_by_experience(board: Board) -> list[Figure]:
    """Chaudhry's forgetting of each experience but the last, at the end of the stream."""
    data = board.over(forgetting_per_experience)
    labels = ("experience", "forgetting [percentage points]")
    return _panels(board, data, "experience", "Forgetting at the end of the stream", *labels, marker="s")


def learning_curves(board: Board) -> list[Figure]:
    """Mean accuracy on the experiences seen so far, while training."""
    labels = ("experiences trained", "accuracy on experiences seen [%]")
    return _panels(board, board.instants, "time", "Accuracy while training", *labels, marker="")


FIGURES: dict[str, Callable[[Board], list[Figure]]] = {
    "matrix": accuracy_matrices,
    "stream": accuracy_over_the_stream,
    "forgetting": forgetting_by_experience,
    "learning": learning_curves,
    "together": learning_together,
    "memory": accuracy_against_memory,
    "cost": accuracy_against_cost,
}
"""The end of a figure's file name -> what draws its pages for a board; no pages where the data are missing."""

NETWORK_FIGURES: dict[str, Callable[[Board], list[Figure]]] = {
    "parameters": parameters_over_the_stream,
    "units": unit_maps,
    "growth": growth_by_task,
}
"""As `FIGURES`, for methods that change their network; where no method does, nothing is missing."""

_CAPTIONS = """\
# Figures

Every figure is drawn from the stored records, once as PDF and once as PNG; names are study, scenario, kind. Lines are
means over the seeds that finished; bands and bars are the 95 % Student-t interval of the mean with five seeds or more,
and the least and greatest seed below. Accuracies use the scenario's own criterion (task-aware in the task-incremental
scenario, else task-agnostic). Panels are ordered by final accuracy.

- `matrix`: mean accuracy on experience j (columns) after experience i (rows, 0: untrained); grey is undefined.
- `stream`: mean accuracy on the experiences seen so far; grey lines are references.
- `forgetting`: max over rows 1..T-1 minus the last row, by experience (Chaudhry et al. 2018).
- `learning`: as `stream`, while training; instants are evenly spaced inside an experience.
- `together`: the same of at most ten methods in one pair of axes; dashed lines end an experience.
- `memory`, `cost`: final accuracy against extra bytes and against CPU seconds relative to naive; the line is the Pareto
  frontier of the methods, references (hollow) aside.
- `parameters`: parameters after each experience, of methods whose network grows or is shared out over tasks.
- `units`: which task uses which units of which layer, at the end of the stream, first seed.
- `growth`: units that were selected, added and split at each task, first seed.
"""


def figures(records: Iterable[Mapping[str, Any]], frame: pd.DataFrame, out: str | Path) -> list[Path]:
    """Draws every figure that the records allow, each as PDF and PNG, and a page of captions, `figures.md`.

    A figure whose data are missing is left out; `figures.md` and the log say which and why.

    Args:
        records: the cells' records with their spec's fields (see `cl_ext.report.runs.boards`).
        frame: the tidy frame of the same cells.
        out: the folder, made if it is not there.

    Returns:
        The figures' paths.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    notes: list[str] = []
    found = boards(records, frame)
    streams = {(study, stream) for (study, stream, _) in (board.place for board in found)}
    several = len(streams) > len({study for study, _ in streams})
    for board in found:
        study, stream, scenario = board.place
        for kind, draw in (FIGURES | NETWORK_FIGURES).items():
            name = style.slug(study, stream if several else "", scenario, kind)
            with style.house_style():
                pages = draw(board) if board.runs else []
                for number, page in enumerate(pages, start=1):
                    paths += style.save(page, folder / (name if len(pages) == 1 else f"{name}-{number}"))
            if not pages and kind in FIGURES:
                notes.append(f"- `{name}` is left out: no finished cell has the data for it.")
                _log.warning("figure %s is left out: no finished cell has the data for it", name)
    text = _CAPTIONS + ("\n".join(["", "## Left out", "", *notes, ""]) if notes else "")
    (folder / "figures.md").write_text(text, encoding="utf-8")
    return paths
