"""What methods do to their network: its size over the stream, and which task uses which units."""

import re
from collections.abc import Mapping
from typing import Any

from cl_ext.report.drawing import style
from cl_ext.report.drawing.doors import board_figure
from cl_ext.report.drawing.key import Sample
from cl_ext.report.drawing.panels import Line, Panel, panel_pages
from cl_ext.report.drawing.runs import Board, Run
from cl_ext.report.drawing.scales import engineering, linear, logarithmic

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

_SEPARATE = "separate"
_DECADES = 30
"""Sizes that differ by more than this factor stand on a logarithmic axis: else the small ones have no shape."""


def _in_order(named: Mapping[str, Any]) -> dict[str, Any]:
    """Entries by the number that their name is or ends in: files sort "10" before "2"."""

    def rank(name: str) -> tuple[str, int]:
        digits = re.search(r"\d*$", name)
        number = digits.group() if digits else ""
        return name[: len(name) - len(number)], int(number or -1)

    return {name: named[name] for name in sorted(named, key=rank)}


def _mean(runs: list[Run], key: str) -> np.ndarray:
    """A size after each experience, from 0, as the mean over seeds."""
    return np.mean([[size[key] for size in run.sizes] for run in runs], axis=0)


def _changes(run: Run) -> bool:
    """Whether a run's network grows, or is shared out over tasks."""
    return bool(run.sizes) and (
        any(size.get("by_task") for size in run.sizes) or len({size["parameters"] for size in run.sizes}) > 1
    )


@board_figure(needs="`sizes` in the records, and a method whose network grows or is shared out over tasks")
def parameters_over_the_stream(board: Board, width: float) -> list[style.Page]:
    """Parameters after each experience: all, those that are not 0, those that each task's prediction uses.

    A panel each method whose network grows or is shared out; the dotted line is a network an experience (`separate`).
    """
    runs = board.runs_by_label
    labels = [label for label in board.labels if all(_changes(run) for run in runs[label]) and label != _SEPARATE]
    if not labels:
        return []
    separate = runs.get(_SEPARATE, [])
    grey = _mean(separate, "parameters") if separate and all(run.sizes for run in separate) else None
    behind = (
        [Line(np.arange(len(grey)), grey, style.REFERENCE, "dotted", width=0.8, behind=True)]
        if grey is not None
        else []
    )
    panels = []
    kinds = set()
    for label in labels:
        nominal = _mean(runs[label], "parameters")
        x = np.arange(len(nominal))
        lines = [*behind, Line(x, nominal, marker="o")]
        if all("nonzero" in size for run in runs[label] for size in run.sizes):
            kinds.add("nonzero")
            # Dashed, because it often lies on the line of all parameters.
            lines.append(Line(x, _mean(runs[label], "nonzero"), style.FRONTIER, "dashed", marker="^"))
        last = [_in_order(run.sizes[-1].get("by_task", {})) for run in runs[label]]
        if last[0] and len({tuple(each) for each in last}) == 1:
            kinds.add("used")
            used = np.mean([list(each.values()) for each in last], axis=0)
            lines.append(Line(np.arange(1, len(used) + 1), used, "black", "none", "x"))
        panels.append(Panel(board.names[label], lines))
    key = [Sample("all parameters", marker="o")]
    key += [Sample("those that are not 0", style.FRONTIER, "dashed", "^")] if "nonzero" in kinds else []
    key += [Sample("used by the task's prediction, at the end", "black", "none", "x")] if "used" in kinds else []
    key += [Sample("a network an experience", style.REFERENCE, "dotted")] if grey is not None else []
    values = np.concatenate([line.y for panel in panels for line in panel.lines])
    across = linear("after experience (0: untrained)", [0, board.experiences], whole=True)
    several = values.min() > 0 and values.max() > _DECADES * values.min()
    text = engineering()
    up = (
        logarithmic("parameters", values, text=text)
        if several
        else linear("parameters", [0.0, *values], low=0.0, text=text)
    )
    return panel_pages(panels, across, up, f"Parameters over the stream, {board.title}", width, key=key)


@board_figure(needs="`structure` in the records, of a method whose tasks use units of their own")
def unit_maps(board: Board, width: float) -> list[style.Page]:
    """Which task (rows) uses, and owns, which units (columns) of which layer, of each method's first seed.

    A page a method. Units stand in the order of the first task that uses them; the colour is the share of a unit's
    incoming weights. What a task owns no other task writes; records of before it was told have the first map alone.
    """
    pages = []
    for label in board.labels:
        run = board.runs_by_label[label][0]
        units = run.structure.get("units") or {}
        if units:
            owned = run.structure.get("owned") or {}
            pages.append(_unit_map(label, _in_order(units), owned, board.title, run.seed, width))
    return pages


def _unit_map(
    label: str, units: Mapping[str, list[list[float]]], owned: Mapping[str, list[list[float]]], title: str, seed: int,
    width: float,
) -> style.Page:  # fmt: skip
    most = max((max(row) for rows in units.values() for row in rows if row), default=0.0) or 1.0
    maps = []  # what a map is called, its shares (tasks, units), the order of its columns
    for name, rows in units.items():
        shares = np.asarray(rows, dtype=float)
        used = shares > 0
        first = np.where(used.any(0), used.argmax(0), len(shares))
        order = np.lexsort((-shares.sum(0), first))
        maps.append((f"layer {name}: {shares.shape[1]} units, {int(used.any(0).sum())} used", shares, order))
        if name in owned:
            own = np.asarray(owned[name], dtype=float)
            maps.append((f"layer {name}: {int((own > 0).any(0).sum())} owned", own, order))
    heading = f"Units used{' and owned' if owned else ''} by task (grey: not), {label}, seed {seed}, {title}"
    top = style.heading_height(heading, width)
    room = (style.TALLEST - top - 0.2 - 0.45 * len(maps)) / sum(len(shares) for _, shares, _ in maps)
    heights = [max(0.5 if room > 0.11 else 0.0, min(0.11, max(room, 0.03)) * len(shares)) for _, shares, _ in maps]
    height = sum(heights) + 0.45 * len(heights) + top + 0.2
    figure = style.Page(figsize=(width, height))
    style.heading(figure, heading)
    bottom = height - top
    for (head, shares, order), tall in zip(maps, heights, strict=True):
        bottom -= tall + 0.2
        axis = figure.add_axes((0.4 / width, bottom / height, 1 - 1.05 / width, tall / height))
        axis.grid(visible=False)
        image = np.ma.masked_equal(shares[:, order], 0.0)
        axis.set_facecolor(style.UNDEFINED)
        # Columns are counted from 0 at the left edge, so that a tick is how many units stand left of it.
        extent = (0, shares.shape[1], len(shares) - 0.5, -0.5)
        look: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest", "cmap": style.COLOUR_MAP}
        axis.imshow(image, extent=extent, vmin=0, vmax=most, **look)
        axis.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        every = max(1, round(0.09 * len(shares) / tall))
        tasks = np.arange(0, len(shares), every)
        axis.set_yticks(tasks, [str(task + 1) for task in tasks], fontsize=5)
        axis.set_title(head, pad=2, loc="left", fontsize=style.SMALL)
        axis.set_ylabel("task", fontsize=style.SMALL, labelpad=1)
        axis.tick_params(labelsize=style.SMALL - 1, pad=1)
        bottom -= 0.25
    axis.set_xlabel("number of units, in the order of the first task that uses them", labelpad=1, fontsize=style.TEXT)
    scale = ScalarMappable(Normalize(0, most), style.COLOUR_MAP)
    bar = figure.colorbar(scale, cax=figure.add_axes((1 - 0.55 / width, 0.2, 0.1 / width, 0.6)))
    bar.set_label("share of incoming weights", fontsize=style.SMALL, labelpad=1)
    bar.ax.tick_params(labelsize=style.SMALL - 1, pad=1, length=2)
    return figure


@board_figure(needs="`structure` in the records, with the history of a method that adds or splits units")
def growth_by_task(board: Board, width: float) -> list[style.Page]:
    """Units that a method selected, added and split at each task, a panel a layer; a page a method, its first seed."""
    pages = []
    for label in board.labels:
        run = board.runs_by_label[label][0]
        history = [entry for entry in run.structure.get("history") or [] if isinstance(entry.get("layers"), dict)]
        if history:
            pages += _growth(label, history, board.title, run.seed, width)
    return pages


def _growth(label: str, history: list[dict[str, Any]], title: str, seed: int, width: float) -> list[style.Page]:
    layers = list(_in_order(history[-1]["layers"]))
    known = {kind for entry in history for counts in entry["layers"].values() for kind in counts}
    kinds = [kind for kind in ("selected", "added", "split") if kind in known]
    look = {"selected": (style.REFERENCE, "o"), "added": (style.METHOD, "s"), "split": (style.FRONTIER, "^")}
    tasks = np.arange(1, len(history) + 1)
    panels = []
    for layer in layers:
        lines = []
        for kind in kinds:
            given = [entry["layers"].get(layer, {}).get(kind) for entry in history]
            values = np.array([np.nan if value is None else float(value) for value in given])
            lines.append(Line(tasks, values, look[kind][0], marker=look[kind][1]))
        panels.append(Panel(f"layer {layer}", lines))
    words = {"selected": "selected for retraining", "added": "added", "split": "split"}
    key = [Sample(words[kind], look[kind][0], marker=look[kind][1]) for kind in kinds]
    heading = f"Units by task, {label}, seed {seed}, {title}"
    values = np.concatenate([line.y for panel in panels for line in panel.lines])
    x, y = linear("task", tasks, whole=True), linear("units", [0.0, *values], low=0.0)
    return panel_pages(panels, x, y, heading, width, key=key)
