"""How every figure looks, and how it is saved: for print, legible without colour, fonts embedded."""

import re
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from cl_ext.report.drawing.fonts import FULL, families

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

Width = Literal["one", "two"]

WIDTHS: dict[Width, float] = {"one": 3.5, "two": 7.2}
"""Inches: one column of a two-column page, and the whole page."""
TALLEST = 9.3
"""Inches: the most that a page's text is high."""

PALETTE: list[str] = sns.color_palette("colorblind").as_hex()
METHOD, FRONTIER, *_ = PALETTE
REFERENCE = "0.45"
UNDEFINED = "0.8"
COLOUR_MAP = "cividis"
DIVERGING = "RdBu"

DOTS = 160
"""Of a PNG to the inch."""

TEXT, SMALL, LEAST = 7.0, 6.0, 4.5
"""Points: of titles and axes, of what is many, and the smallest that is used."""

MARKERS = "osD^vPX<>*"
DASHES = ("solid", "dashed", "dashdot", "dotted")


def house_style() -> AbstractContextManager[None]:
    """Matplotlib's settings while a figure is drawn and saved; the caller's are left as they were."""
    return mpl.rc_context(
        {
            **sns.axes_style("whitegrid"),
            **sns.plotting_context("paper", font_scale=0.8),
            # Type 42 embeds TrueType fonts; the default, Type 3, is refused by several publishers.
            "pdf.fonttype": 42,
            "ps.fonttype": 42,
            "font.family": families(),
            "grid.linewidth": 0.4,
            "axes.linewidth": 0.6,
            "lines.linewidth": 1.2,
            "lines.markersize": 3.5,
        }
    )


class Page(Figure):
    """A figure that is saved in the house's style too, whoever saves it: fonts are embedded when it is written."""

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """As `matplotlib.figure.Figure.savefig`."""
        with house_style():
            super().savefig(*args, **kwargs)


def look(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of the `number`-th line: no two below 100 share colour and marker."""
    return {
        "color": PALETTE[number % len(PALETTE)],
        "marker": MARKERS[(number + number // len(PALETTE)) % len(MARKERS)],
        "linestyle": DASHES[number % len(DASHES)],
    }


@lru_cache(maxsize=4096)
def text_width(text: str, size: float) -> float:
    """The width in inches of a line of text in points of `size`."""
    font = get_font(findfont(FULL))
    # Measured large: at its own size, letters are moved to whole pixels. A screen's pixels still widen them a little.
    font.set_size(100, 72)
    font.set_text(text)
    return 1.04 * size / 100 * float(font.get_width_height()[0]) / 64 / 72


def fitted(text: str, room: float, size: float = SMALL) -> tuple[str, float]:
    """A line of text that fits: set smaller where it is too long, and shortened where it still is.

    Args:
        text: the line.
        room: inches.
        size: points to begin with.

    Returns:
        The line and its size.
    """
    while text_width(text, size) > room and size > LEAST:
        size = max(LEAST, size - 0.5)
    if text_width(text, size) <= room:
        return text, size
    # Both ends stay: variants of one method differ at their end.
    kept = len(text) - 1
    while kept > 2 and text_width(_shortened(text, kept), size) > room:
        kept -= 1
    return _shortened(text, kept), size


def _shortened(text: str, kept: int) -> str:
    """The beginning and the end of a text, `kept` characters in all."""
    return f"{text[: -(-kept // 2)]}…{text[len(text) - kept // 2 :]}"


def name_axes(axis: Axes, xlabel: str, ylabel: str) -> None:
    """Names both axes, in letters and at places that keep the names on the page and below its title.

    A name stands at the middle of its axis; one that is longer than the axis moves over its beginning.
    """
    figure = axis.get_figure(root=True)
    assert figure is not None
    width, height = figure.get_size_inches()
    box = axis.get_position()
    for label, text, along, low, high, end in (
        (axis.xaxis.label, xlabel, "x", width * box.x0, width * box.x1, width - 0.05),
        (axis.yaxis.label, ylabel, "y", height * box.y0, height * box.y1, height * box.y1),
    ):
        fit, size = fitted(text, end - 0.05, TEXT)
        half = text_width(fit, size) / 2
        centre = max(min((low + high) / 2, end - half), half + 0.05)
        label.set(**{"text": fit, "fontsize": size, along: (centre - low) / (high - low)})
    axis.xaxis.labelpad = axis.yaxis.labelpad = 2
    axis.tick_params(which="both", labelsize=SMALL, pad=2)


def wrapped(title: str, width: float, size: float = TEXT) -> str:
    """A title in lines that fit `width` inches, broken at spaces where there are any; its own line breaks stay."""
    lines: list[str] = []
    for given in title.splitlines():
        lines.append("")
        for word in given.split():
            longer = f"{lines[-1]} {word}".lstrip()
            if lines[-1] and text_width(longer, size) > width:
                lines.append(word)
            else:
                lines[-1] = longer
            while len(lines[-1]) > 1 and text_width(lines[-1], size) > width:
                kept = len(lines[-1]) - 1
                while kept > 1 and text_width(lines[-1][:kept], size) > width:
                    kept -= 1
                lines[-1:] = [lines[-1][:kept], lines[-1][kept:]]
    return "\n".join(lines)


def heading(figure: Figure, title: str, left: float = 0.06) -> float:
    """Writes a figure's title at its top left, in lines that fit.

    Args:
        figure: the figure; its height need not be final.
        title: the title.
        left: inches from the left edge.

    Returns:
        The inches that the title takes from the top.
    """
    width, height = figure.get_size_inches()
    text = wrapped(title, width - 2 * left)
    figure.text(left / width, 1 - 0.05 / height, text, va="top", ha="left", fontsize=TEXT, linespacing=1.25)
    return heading_height(title, width, left)


def heading_height(title: str, width: float, left: float = 0.06) -> float:
    """The inches that `heading` takes from the top of a figure of this width."""
    return 0.12 + 0.125 * len(wrapped(title, width - 2 * left).splitlines())


def slug(*parts: str) -> str:
    """A file name from names: lower case, anything but letters and digits (of any script) as one hyphen."""
    return "-".join(re.sub(r"[\W_]+", "-", part.lower()).strip("-") for part in parts if part)


def save(figure: Figure, path: Path) -> list[Path]:
    """Saves a figure as PDF and PNG beside each other.

    Args:
        figure: the figure.
        path: the file's path without its ending.

    Returns:
        The two paths.
    """
    pdf, png = path.with_name(f"{path.name}.pdf"), path.with_name(f"{path.name}.png")
    # No date of creation: the same records give the same bytes.
    figure.savefig(pdf, metadata={"CreationDate": None})
    figure.savefig(png, dpi=DOTS)
    return [pdf, png]
