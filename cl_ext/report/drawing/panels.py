"""Small multiples: many small panels with the same two scales, as one picture.

Forty pairs of axes cost matplotlib seconds a page, most of it for ticks that nobody sees. Here one pair of axes covers
the page, in inches, and every panel is a rectangle in it; lines, bands and markers of all panels are drawn together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cl_ext.metrics.matrix import FloatArray
from cl_ext.report.drawing import style
from cl_ext.report.drawing.key import Sample, draw_key, key_height
from cl_ext.report.drawing.scales import Scale

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from numpy.typing import NDArray

_GAP = 0.07  # inches between panels
_TITLE = 0.14  # inches for a panel's title
_TALLEST = 1.9  # inches of a panel
_COLUMNS = {"few": 8, "some": 20}  # up to how many panels a page has few or some columns
_WIDE = 0.95  # inches: panels from this width on have larger markers


@dataclass(frozen=True)
class Line:
    """A line in a panel: points in the scales' units, NaN where there is none, and its look.

    Attributes:
        x: (n,).
        y: (n,).
        color: its colour.
        linestyle: its dashes; "none" for markers alone.
        marker: "" for none.
        width: points.
        behind: whether it lies below bands and other lines.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    color: str = style.METHOD
    linestyle: str = "solid"
    marker: str = ""
    width: float = 1.1
    behind: bool = False


@dataclass(frozen=True)
class Band:
    """What is shaded between two lines of a panel."""

    x: NDArray[Any]
    low: NDArray[Any]
    high: NDArray[Any]
    color: str = style.METHOD


@dataclass(frozen=True)
class Panel:
    """A small picture with its title.

    Attributes:
        title: above it.
        lines: its lines.
        bands: what is shaded.
        image: (rows, columns) values that fill it as coloured cells, NaN grey; row 0 at the top.
        colours: what `image` is drawn with: vmin, vmax, cmap.
        texts: whether the image's cells show their values.
        note: a short line inside it, at its top.
    """

    title: str
    lines: Sequence[Line] = ()
    bands: Sequence[Band] = ()
    image: FloatArray | None = None
    colours: dict[str, Any] = field(default_factory=dict)
    texts: bool = False
    note: str = ""


def columns_for(panels: int, width: float) -> int:
    """How many panels stand beside each other on a page of this width in inches, in rows as equal as can be."""
    most = 5 if panels == 5 else 4 if panels <= _COLUMNS["few"] else 5 if panels <= _COLUMNS["some"] else 6
    most = most if width > style.WIDTHS["one"] else 2 if panels <= 4 else 3
    return -(-panels // -(-panels // most))


def panel_pages(
    panels: Sequence[Panel],
    x: Scale,
    y: Scale,
    title: str,
    width: float,
    *,
    key: Sequence[Sample] = (),
    shape: float = 0.8,
    right: float = 0.08,
) -> list[style.Page]:
    """The panels in order, as many on a page as fit; none for no panels.

    Args:
        panels: what to draw.
        x: the horizontal scale of all.
        y: the vertical scale of all.
        title: the pages' title; they are numbered where there are several.
        width: inches.
        key: what the ink of the panels stands for, below the title.
        shape: a panel's height in parts of its width.
        right: inches at the right that stay free.

    Returns:
        The pages, with one pair of axes each, in inches from the lower left corner.
    """
    if not panels:
        return []
    columns = columns_for(len(panels), width)
    left = 0.3 + max(style.text_width(y.text(tick), style.SMALL - 1) for tick in (*y.ticks, 0.0))
    side = (width - left - right - _GAP * (columns - 1)) / columns
    tall = min(shape * side, _TALLEST)
    foot, legend = 0.31, key_height(key, width)

    def fit(numbered: str) -> tuple[float, int]:
        """The inches above the panels, and how many rows of panels fit below."""
        head = style.heading_height(numbered, width) + legend
        return head, max(1, int((style.TALLEST - head - foot) // (tall + _TITLE + _GAP)))

    head, rows = fit(title)
    several = len(panels) > rows * columns
    if several:
        head, rows = fit(f"{title} (10 of 10)")
    pages = []
    for start in range(0, len(panels), rows * columns):
        part = panels[start : start + rows * columns]
        used = -(-len(part) // columns)
        height = head + used * (tall + _TITLE + _GAP) + foot
        figure = style.Page(figsize=(width, height))
        axis = figure.add_axes((0, 0, 1, 1))
        axis.set_axis_off()
        axis.set(xlim=(0, width), ylim=(0, height))
        axis.set_autoscale_on(False)
        number = f" ({start // (rows * columns) + 1} of {-(-len(panels) // (rows * columns))})" if several else ""
        style.heading(figure, title + number)
        draw_key(axis, key, width, height - head + legend + 0.05)
        corners = [
            (left + (side + _GAP) * (at % columns), height - head - (at // columns + 1) * (tall + _TITLE + _GAP) + _GAP)
            for at in range(len(part))
        ]
        _draw(axis, part, corners, (side, tall), x, y)
        for at, (x0, y0) in enumerate(corners):
            if at + columns >= len(part):  # no panel below
                _ticks_below(axis, x, x0, y0, side)
            if at % columns == 0:
                _ticks_beside(axis, y, x0, y0, tall)
        names: dict[str, Any] = {"fontsize": style.TEXT, "ha": "center"}
        axis.text(left + min(len(part), columns) * (side + _GAP) / 2, 0.04, x.label, va="bottom", **names)
        middle = foot + used * (tall + _TITLE + _GAP) / 2
        label, size = style.fitted(y.label, height - head - 0.15, style.TEXT)
        half = style.text_width(label, size) / 2
        middle = max(min(middle, height - head - half), half + 0.05)
        axis.text(0.07, middle, label, rotation=90, va="center", ha="left", fontsize=size)
        pages.append(figure)
    return pages


def _draw(
    axis: Axes,
    panels: Sequence[Panel],
    corners: Sequence[tuple[float, float]],
    size: tuple[float, float],
    x: Scale,
    y: Scale,
) -> None:
    """Frames, grid, titles, and the lines, bands and images of all panels of a page."""
    wide, tall = size
    boxes, grid, shaded = [], [], dict[str, list[FloatArray]]()
    looks: dict[tuple[str, str, str, float, bool], list[FloatArray]] = {}
    for panel, (x0, y0) in zip(panels, corners, strict=True):
        boxes.append([(x0, y0), (x0 + wide, y0), (x0 + wide, y0 + tall), (x0, y0 + tall)])
        name, points = style.fitted(panel.title, wide)
        axis.text(x0 + wide / 2, y0 + tall + 0.03, name, fontsize=points, ha="center", va="bottom")
        if panel.note:
            note, points = style.fitted(panel.note, wide - 0.04, style.SMALL - 1)
            axis.text(
                x0 + wide - 0.03, y0 + 0.03, note, fontsize=points, ha="right", va="bottom", color="0.25", zorder=6
            )
        if panel.image is None:
            heights = y0 + tall * y.place(y.ticks)
            grid += [np.array([(x0, height), (x0 + wide, height)]) for height in heights]
        else:
            _image(axis, panel, (x0, x0 + wide, y0, y0 + tall))
        for band in panel.bands:
            known = ~(np.isnan(band.low) | np.isnan(band.high))
            known &= (np.nan_to_num(band.high) > 0) | (not y.log)
            along = x0 + wide * x.place(band.x)[known]
            # Cut at the panel's edges before a logarithm is taken: an interval of bytes can reach below 0.
            low, high = (
                y0 + tall * y.place(np.clip(edge[known], min(y.low, y.high), max(y.low, y.high)))
                for edge in (band.low, band.high)
            )
            if known.any():
                shape = np.concatenate([np.c_[along, low], np.c_[along, high][::-1]])
                shaded.setdefault(band.color, []).append(shape)
        for line in panel.lines:
            key = (line.color, line.linestyle, line.marker, line.width, line.behind)
            looks.setdefault(key, []).append(np.c_[x0 + wide * x.place(line.x), y0 + tall * y.place(line.y)])
    look: dict[str, Any] = {"facecolors": "none", "edgecolors": "0.7", "linewidths": 0.5}
    axis.add_collection(PolyCollection(boxes, **look, zorder=5), autolim=False)
    axis.add_collection(LineCollection(grid, colors="0.9", linewidths=0.4, zorder=0.5), autolim=False)
    for colour, shapes in shaded.items():
        axis.add_collection(
            PolyCollection(shapes, facecolors=colour, alpha=0.25, linewidths=0, zorder=2), autolim=False
        )
    for (colour, linestyle, marker, linewidth, behind), segments in looks.items():
        order = 1 if behind else 3
        if linestyle != "none":
            drawn: dict[str, Any] = {"colors": colour, "linestyles": linestyle, "linewidths": linewidth}
            axis.add_collection(LineCollection(segments, **drawn, zorder=order, capstyle="butt"), autolim=False)
        if marker:
            edge = 0.7 if marker == "x" else 0.0
            dots: dict[str, Any] = {"marker": marker, "color": colour, "markeredgewidth": edge}
            dots["markersize"] = 3.0 if wide >= _WIDE else 2.2
            axis.plot(*np.concatenate(segments).T, linestyle="none", **dots, zorder=order + 0.5)


def _image(axis: Axes, panel: Panel, extent: tuple[float, float, float, float]) -> None:
    """A panel's cells, grey where undefined."""
    assert panel.image is not None
    left, right, low, high = extent
    axis.fill([left, right, right, left], [low, low, high, high], color=style.UNDEFINED, linewidth=0, zorder=0.4)
    masked = np.ma.masked_invalid(panel.image)
    drawn = axis.imshow(masked, extent=extent, aspect="auto", interpolation="none", zorder=1, **panel.colours)
    axis.set_autoscale_on(False)
    if panel.texts:
        rows, columns = panel.image.shape
        # As large as the widest number leaves room for, in a cell's width and height.
        most = min(0.85 * (right - left) / columns / style.text_width("-100", 1.0), 0.8 * 72 * (high - low) / rows)
        size = min(style.SMALL, max(style.LEAST, most))
        for i, j in zip(*np.nonzero(~np.isnan(panel.image)), strict=True):
            value = panel.image[i, j]
            red, green, blue, _ = drawn.cmap(drawn.norm(value))
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            axis.text(
                left + (j + 0.5) * (right - left) / columns,
                high - (i + 0.5) * (high - low) / rows,
                f"{value:z.0f}",
                fontsize=size,
                ha="center",
                va="center",
                color="white" if dark else "black",
            )


def _ticks_below(axis: Axes, scale: Scale, left: float, bottom: float, wide: float) -> None:
    places = left + wide * scale.place(scale.ticks)
    _marks(axis, [[(place, bottom), (place, bottom - 0.025)] for place in places])
    for place, tick in zip(places, scale.ticks, strict=True):
        axis.text(place, bottom - 0.035, scale.text(tick), fontsize=style.SMALL - 1, ha="center", va="top")


def _ticks_beside(axis: Axes, scale: Scale, left: float, bottom: float, tall: float) -> None:
    places = bottom + tall * scale.place(scale.ticks)
    _marks(axis, [[(left, place), (left - 0.025, place)] for place in places])
    for place, tick in zip(places, scale.ticks, strict=True):
        axis.text(left - 0.04, place, scale.text(tick), fontsize=style.SMALL - 1, ha="right", va="center_baseline")


def _marks(axis: Axes, segments: Sequence[Sequence[tuple[float, float]]]) -> None:
    axis.add_collection(LineCollection(segments, colors="0.4", linewidths=0.5), autolim=False)
