"""What methods do to their network: its size over the stream, and which task uses which units."""

from collections.abc import Mapping
from typing import Any

from cl_ext.report import style
from cl_ext.report.runs import Board, Run

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

_SEPARATE = "separate"


def _mean(runs: list[Run], key: str) -> np.ndarray:
    """A size after each experience, from 0, as the mean over seeds."""
    return np.mean([[size[key] for size in run.sizes] for run in runs], axis=0)


def _changes(run: Run) -> bool:
    """Whether a run's network grows, or is shared out over tasks."""
    return bool(run.sizes) and (
        any(size["by_task"] for size in run.sizes) or len({size["parameters"] for size in run.sizes}) > 1
    )


def parameters_over_the_stream(board: Board) -> list[Figure]:
    """Parameters after each experience: all, those that are not 0, those that each task's prediction uses."""
    runs = {label: [run for run in board.runs if run.label == label] for label in board.labels}
    labels = [label for label, mine in runs.items() if all(_changes(run) for run in mine) and label != _SEPARATE]
    if not labels:
        return []
    separate = runs.get(_SEPARATE, [])
    grey = _mean(separate, "parameters") if separate and all(run.sizes for run in separate) else None
    top = max(float(_mean(runs[label], "parameters").max()) for label in labels)
    top = 1.08 * max(top, 0.0 if grey is None else float(grey.max()))

    def draw(axis: Axes, label: str) -> None:
        mine = runs[label]
        nominal = _mean(mine, "parameters")
        x = np.arange(len(nominal))
        if grey is not None:
            axis.plot(np.arange(len(grey)), grey, color=style.REFERENCE, linestyle="dashed", linewidth=0.8)
        axis.plot(x, nominal, color=style.METHOD, marker="o")
        axis.plot(x, _mean(mine, "nonzero"), color=style.FRONTIER, marker="^", markersize=3)
        last = [list(run.sizes[-1]["by_task"].values()) for run in mine]
        if last[0] and len({len(each) for each in last}) == 1:
            used = np.mean(last, axis=0)
            axis.plot(np.arange(1, len(used) + 1), used, color="black", marker="x", linestyle="none", markersize=3)
        axis.set(ylim=(0, top))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axis.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axis.yaxis.set_major_formatter(EngFormatter(sep=""))

    key = "circles: all parameters, triangles: those not 0, crosses: used by the task's prediction"
    key += ", dashed: a network an experience" if grey is not None else ""
    title = f"Parameters over the stream, {board.title}\n{key}"
    return style.small_multiples(labels, draw, title, "after experience", "parameters")


def unit_maps(board: Board) -> list[Figure]:
    """Which task (rows) uses which units (columns) of which layer, of each method's first seed; a page a method.

    Units stand in the order of the first task that uses them; the colour is the share of a unit's incoming weights.
    """
    pages = []
    for label in board.labels:
        run = min((run for run in board.runs if run.label == label), key=lambda run: run.seed)
        units = run.structure.get("units") or {}
        if units:
            pages.append(_unit_map(label, units, board.title, run.seed))
    return pages


def _unit_map(label: str, units: Mapping[str, list[list[float]]], title: str, seed: int) -> Figure:
    most = max((max(row) for rows in units.values() for row in rows if row), default=0.0) or 1.0
    heights = [max(0.5, 0.11 * len(rows)) for rows in units.values()]
    heading = style.wrapped(f"Units used by task, {label}, seed {seed}, {title}", style.WIDTH)
    top = 0.3 + 0.17 * len(heading.splitlines())
    height = sum(heights) + 0.45 * len(heights) + top + 0.3
    figure = Figure(figsize=(style.WIDTH, height))
    figure.suptitle(heading, y=1 - 0.06 / height, va="top")
    bottom = height - top
    for (name, rows), tall in zip(units.items(), heights, strict=True):
        shares = np.asarray(rows, dtype=float)
        used = shares > 0
        first = np.where(used.any(0), used.argmax(0), len(shares))
        order = np.lexsort((-shares.sum(0), first))
        bottom -= tall + 0.2
        axis = figure.add_axes((0.6 / style.WIDTH, bottom / height, 1 - 1.5 / style.WIDTH, tall / height))
        axis.grid(visible=False)
        image = np.ma.masked_equal(shares[:, order], 0.0)
        axis.set_facecolor(style.UNDEFINED)
        axis.imshow(image, aspect="auto", interpolation="nearest", vmin=0, vmax=most, cmap=style.COLOUR_MAP)
        axis.set_yticks(np.arange(len(shares)), [str(task + 1) for task in range(len(shares))], fontsize=5)
        axis.set_title(f"layer {name}: {shares.shape[1]} units, {int(used.any(0).sum())} used", pad=2, loc="left")
        axis.set_ylabel("task")
        bottom -= 0.25
    axis.set_xlabel("units, in the order of the first task that uses them", labelpad=1)
    scale = ScalarMappable(Normalize(0, most), style.COLOUR_MAP)
    place = figure.add_axes((1 - 0.65 / style.WIDTH, 0.5 - 0.35, 0.12 / style.WIDTH, 0.6))
    figure.colorbar(scale, cax=place, label="share of incoming weights")
    return figure


def growth_by_task(board: Board) -> list[Figure]:
    """Units that a method selected, added and split at each task, a panel a layer; a page a method, its first seed."""
    pages = []
    for label in board.labels:
        run = min((run for run in board.runs if run.label == label), key=lambda run: run.seed)
        history = [entry for entry in run.structure.get("history") or [] if isinstance(entry.get("layers"), dict)]
        if history:
            pages += _growth(label, history, board.title, run.seed)
    return pages


def _growth(label: str, history: list[dict[str, Any]], title: str, seed: int) -> list[Figure]:
    layers = list(history[-1]["layers"])
    known = {kind for entry in history for counts in entry["layers"].values() for kind in counts}
    kinds = [kind for kind in ("selected", "added", "split") if kind in known]
    look = {"selected": (style.REFERENCE, "o"), "added": (style.METHOD, "s"), "split": (style.FRONTIER, "^")}
    top = 1.08 * max(
        float(counts.get(kind) or 0) for entry in history for counts in entry["layers"].values() for kind in kinds
    )

    def draw(axis: Axes, layer: str) -> None:
        for kind in kinds:
            values = [h["layers"].get(layer, {}).get(kind) for h in history]
            shown = [np.nan if value is None else float(value) for value in values]
            axis.plot(np.arange(1, len(shown) + 1), shown, color=look[kind][0], marker=look[kind][1])
        axis.set(ylim=(0, top or 1.0))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))

    words = {"selected": "circles: selected for retraining", "added": "squares: added", "split": "triangles: split"}
    key = ", ".join(words[kind] for kind in kinds)
    heading = f"Units by task, {label}, seed {seed}, {title}\n{key}"
    return style.small_multiples(layers, draw, heading, "task", "units", panel_height=1.8)
