"""The figure of an ablation: what each row reaches, and how large its network is, seed by seed."""

from collections.abc import Mapping, Sequence

from cl_ext.report.drawing import style
from cl_ext.report.drawing.key import spread_words
from cl_ext.report.drawing.scales import log_ticks
from cl_ext.report.statistics import band

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, MaxNLocator, NullLocator

Rows = Mapping[str, Mapping[int, float]]
"""By row and seed."""

_ROW_HEIGHT, _FRAME = 0.2, 0.5
_EVEN = 1.05
"""Networks whose sizes differ by less than this factor are no panel of their own."""


def ablation_figure(
    accuracies: Rows, parameters: Rows, reference: str, title: str, width: style.Width = "two"
) -> Figure:
    """Draws an ablation's rows under each other, the reference first: accuracy, and parameters where these differ.

    A small point is a seed, a large one the mean; the bar is the 95 % Student-t interval of the mean with five seeds or
    more, and the least and greatest seed below. The line is the reference's mean.

    Args:
        accuracies: by row and seed, in [0, 1].
        parameters: of the network at the end, by row and seed.
        reference: the row that the others are compared with.
        title: of the figure.
        width: "one" or "two" columns of a page.

    Returns:
        The figure. Rows without a finished cell are named, and empty.

    Raises:
        ValueError: the reference is no row.
    """
    if reference not in accuracies:
        raise ValueError(f"the reference is {reference!r}; the rows are {', '.join(accuracies)}")
    names = [reference, *(name for name in accuracies if name != reference)]
    sizes = [value for row in parameters.values() for value in row.values()]
    panels: list[tuple[str, Rows]] = [("final accuracy [%]", {n: _scaled(accuracies[n]) for n in names})]
    if sizes and max(sizes) > _EVEN * min(sizes):
        panels.append(("parameters at the end", parameters))
    with style.house_style():
        inches = style.WIDTHS[width]
        words = spread_words([len(row) for row in accuracies.values()])
        key = "dot: a seed, large: their mean" + (f", bar: {words}" if words else "") + f", dashed: {reference}"
        heading = style.wrapped(f"{title}\n{key}", inches - 0.12)
        tall = _FRAME + _ROW_HEIGHT * len(names) + 0.125 * len(heading.splitlines())
        figure = style.Page(figsize=(inches, tall), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, (label, rows) in zip(axes, panels, strict=True):
            _draw(axis, rows, names)
            text, size = style.fitted(label, 0.28 * inches, style.TEXT)
            axis.set_xlabel(text, fontsize=size)
            axis.tick_params(labelsize=style.SMALL)
        ticks = 5 if width == "two" else 4
        axes[0].xaxis.set_major_locator(MaxNLocator(ticks))
        axes[0].set_yticks(range(len(names)), [style.fitted(name, 0.3 * inches)[0] for name in names])
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        if len(panels) > 1:
            axes[1].set_xscale("log")
            low, high = axes[1].get_xlim()
            axes[1].xaxis.set_major_locator(FixedLocator(log_ticks(low, high, ticks)))
            axes[1].xaxis.set_minor_locator(NullLocator())
            axes[1].xaxis.set_major_formatter(EngFormatter(sep=""))
        figure.suptitle(heading, fontsize=style.TEXT, x=0.06 / inches, ha="left", linespacing=1.25)
    return figure


def _scaled(values: Mapping[int, float]) -> dict[int, float]:
    return {seed: 100 * value for seed, value in values.items()}


def _draw(axis: Axes, rows: Rows, names: Sequence[str]) -> None:
    for place, name in enumerate(names):
        values = list(rows.get(name, {}).values())
        if not values:
            continue
        colour = style.METHOD if place else style.FRONTIER
        mean, (low, high) = float(np.mean(values)), band(values)
        if place == 0:
            axis.axvline(mean, color=style.REFERENCE, linewidth=0.8, linestyle="dashed", zorder=1)
        if len(values) > 1:
            axis.plot([low, high], [place, place], color=colour, linewidth=1.2, zorder=2)
        axis.plot(
            values, [place] * len(values), linestyle="", marker=".", color=style.REFERENCE, markersize=3, zorder=3
        )
        axis.plot([mean], [place], marker="s" if place == 0 else "o", color=colour, zorder=4)
    axis.grid(axis="y", visible=False)
