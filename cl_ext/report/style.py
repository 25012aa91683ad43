"""How every figure looks, and how it is saved: for print, legible without colour, fonts embedded."""

import re
import textwrap
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 7.2
"""Inches: the text width of a two-column page."""

METHOD, FRONTIER, *_ = sns.color_palette("colorblind").as_hex()
REFERENCE = "0.45"
UNDEFINED = "0.88"
COLOUR_MAP = "cividis"

PANELS_A_PAGE = 30
_PANEL_COLUMNS = 5


def house_style() -> AbstractContextManager[None]:
    """Matplotlib's settings while a figure is drawn and saved; the caller's are left as they were."""
    return mpl.rc_context(
        {
            **sns.axes_style("whitegrid"),
            **sns.plotting_context("paper", font_scale=0.8),
            # Type 42 embeds TrueType fonts; the default, Type 3, is refused by several publishers.
            "pdf.fonttype": 42,
            "ps.fonttype": 42,
            "grid.linewidth": 0.4,
            "axes.linewidth": 0.6,
            "lines.linewidth": 1.2,
            "lines.markersize": 3.5,
        }
    )


def small_multiples(
    labels: Sequence[str],
    draw: Callable[[Axes, str], None],
    title: str,
    xlabel: str,
    ylabel: str,
    *,
    panel_height: float = 1.25,
    right: float = 0.1,
) -> list[Figure]:
    """One small panel a label, at most 30 a page: thirty lines in one axes cannot be told apart.

    Axes are laid out by hand and not shared (`draw` gives every panel the same limits): with 30 axes, constrained
    layout and sharing cost more time than all drawing.

    Args:
        labels: the panels, in order.
        draw: draws a label's panel into its axes, with limits that are the same for all.
        title: the page's title; long lines are wrapped, pages are numbered where there are several.
        xlabel: the name of the horizontal axis.
        ylabel: the name of the vertical axis.
        panel_height: inches, the panel's title included.
        right: inches at the right that stay free.

    Returns:
        The pages.
    """
    pages = [labels[start : start + PANELS_A_PAGE] for start in range(0, len(labels), PANELS_A_PAGE)]
    figures = []
    for number, page in enumerate(pages, start=1):
        columns = min(_PANEL_COLUMNS, len(page))
        rows = -(-len(page) // columns)
        # Never narrower than four panels, or the title would not fit.
        width = WIDTH * max(columns, 4) / _PANEL_COLUMNS
        heading = wrapped(title + (f" ({number} of {len(pages)})" if len(pages) > 1 else ""), width)
        top = 0.3 + 0.17 * len(heading.splitlines())
        height = panel_height * rows + 0.45 + top
        figure = Figure(figsize=(width, height))
        margins = {"left": 0.55 / width, "right": 1 - right / width, "bottom": 0.45 / height, "top": 1 - top / height}
        axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw={**margins, "wspace": 0.08, "hspace": 0.25})
        for position, axis in enumerate(axes.ravel()):
            if position >= len(page):
                axis.remove()
                continue
            draw(axis, page[position])
            axis.set_title(page[position], pad=2)
            axis.set(xlabel="", ylabel="")
            # The last row may be short: whoever has no panel below carries the labels.
            outer = {"labelbottom": position + columns >= len(page), "labelleft": position % columns == 0}
            axis.tick_params(pad=1, **outer)
        figure.suptitle(heading, y=1 - 0.06 / height, va="top")
        figure.supxlabel(xlabel, fontsize="medium")
        figure.supylabel(ylabel, fontsize="medium")
        figures.append(figure)
    return figures


def wrapped(title: str, width: float) -> str:
    """A title in lines that fit `width` inches; its own line breaks stay."""
    return "\n".join(textwrap.fill(line, int(13 * width)) for line in title.splitlines())


def slug(*parts: str) -> str:
    """A file name from names: lower case, anything but letters and digits as one hyphen."""
    return "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts if part)


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
    figure.savefig(png, dpi=160)
    return [pdf, png]
