"""The key of a page that is drawn in inches: samples of its ink, each with what it stands for, below the title."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cl_ext.report.drawing import style
from cl_ext.report.statistics import FEW_SEEDS

from matplotlib.axes import Axes

_LEFT, _SAMPLE, _GAP, _ROW = 0.06, 0.26, 0.14, 0.125  # inches: margin, a sample, between entries, a row


@dataclass(frozen=True)
class Sample:
    """One entry.

    Attributes:
        text: what the ink stands for.
        color: its colour.
        linestyle: its dashes; "none" for a marker alone.
        marker: "" for none.
        shaded: whether it is a band: the line is then left out.
    """

    text: str
    color: str = style.METHOD
    linestyle: str = "solid"
    marker: str = ""
    shaded: bool = False


def spread_words(seeds: Collection[int]) -> str:
    """What bands and bars around means stand for, where the means are over so many seeds; "" where there are none."""
    several = [n for n in seeds if n > 1]
    if not several:
        return ""
    if min(several) >= FEW_SEEDS:
        return "95 % interval of the mean"
    if max(several) < FEW_SEEDS:
        return "least to greatest seed"
    return f"95 % interval of the mean, range below {FEW_SEEDS} seeds"


def _rows(samples: Sequence[Sample], width: float) -> list[list[tuple[float, Sample, str, float]]]:
    """The entries of each row: where they begin, in inches, their text as far as it fits, and its size in points."""
    rows: list[list[tuple[float, Sample, str, float]]] = []
    at = width
    for sample in samples:
        text, size = style.fitted(sample.text, width - 2 * _LEFT - _SAMPLE)
        needed = _SAMPLE + style.text_width(text, size)
        if at + needed > width - _LEFT:
            rows.append([])
            at = _LEFT
        rows[-1].append((at, sample, text, size))
        at += needed + _GAP
    return rows


def key_height(samples: Sequence[Sample], width: float) -> float:
    """The inches that a key takes on a page of `width` inches."""
    return _ROW * len(_rows(samples, width))


def draw_key(axis: Axes, samples: Sequence[Sample], width: float, top: float) -> None:
    """Draws a key.

    Args:
        axis: one that covers the page and whose units are inches.
        samples: the entries, from the left.
        width: the page's, in inches.
        top: the key's upper edge, in inches from the page's lower one.
    """
    for number, row in enumerate(_rows(samples, width)):
        y = top - _ROW * (number + 0.5)
        for x, sample, text, size in row:
            ends = [x, x + _SAMPLE - 0.06]
            if sample.shaded:
                axis.fill_between(ends, y - 0.035, y + 0.035, color=sample.color, alpha=0.25, linewidth=0)
            else:
                axis.plot(
                    [ends[0], sum(ends) / 2, ends[1]],
                    [y] * 3,
                    color=sample.color,
                    linestyle=sample.linestyle,
                    linewidth=1.0,
                    marker=sample.marker or None,
                    markevery=[1],
                    markersize=3.0,
                    markeredgewidth=0.7 if sample.marker == "x" else 0.0,
                )
            axis.text(x + _SAMPLE, y, text, fontsize=size, va="center_baseline")
