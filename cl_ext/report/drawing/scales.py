"""The scale of one axis of small panels: what it spans, where its ticks are, how they read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cl_ext.metrics.matrix import FloatArray

import numpy as np
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import ArrayLike


def plain(value: float) -> str:
    """A tick as a plain number."""
    return f"{value:g}"


def engineering(unit: str = "") -> Callable[[float], str]:
    """Ticks with a metric prefix: 2 kB."""
    form = EngFormatter(unit, sep=" " if unit else "")
    return lambda value: str(form(value))


@dataclass(frozen=True)
class Scale:
    """One axis.

    Attributes:
        label: its name with the unit.
        low: the value at its beginning.
        high: the value at its end.
        ticks: the values that are named.
        text: a tick's text.
        log: whether it is logarithmic.
    """

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    text: Callable[[float], str] = plain
    log: bool = False

    def place(self, values: ArrayLike) -> FloatArray:
        """Values as fractions of the axis; on a logarithmic one NaN for what is not positive."""
        given = np.asarray(values, dtype=np.float64)
        if self.log:
            given = np.log10(np.where(given > 0, given, np.nan))
            return (given - np.log10(self.low)) / (np.log10(self.high) - np.log10(self.low))
        return (given - self.low) / (self.high - self.low)


def linear(label: str, values: ArrayLike, ticks: int = 5, whole: bool = False, **options: Any) -> Scale:
    """A linear scale that holds all values with a margin; NaN is none.

    Args:
        label: the axis' name with the unit.
        values: what it has to hold.
        ticks: at most how many steps between ticks.
        whole: whether ticks are whole numbers.
        **options: `text`; `low`, `high` where an end is given, without margin.
    """
    given = np.asarray(values, dtype=np.float64)
    given = given[np.isfinite(given)]
    least, most = (float(given.min()), float(given.max())) if given.size else (0.0, 1.0)
    margin = 0.05 * (most - least) or 0.5
    low, high = options.pop("low", least - margin), options.pop("high", most + margin)
    if not low < high:
        high = low + 1.0
    places = MaxNLocator(ticks, integer=whole).tick_values(low, high)
    inside = tuple(float(tick) for tick in places if low <= tick <= high)
    return Scale(label, low, high, inside, **options)


def logarithmic(label: str, values: ArrayLike, ticks: int = 4, **options: Any) -> Scale:
    """A logarithmic scale that holds all positive values with a margin, ticks at powers of ten.

    Args:
        label: the axis' name with the unit.
        values: what it has to hold; at least one is positive.
        ticks: at most how many ticks.
        **options: `text`.
    """
    given = np.asarray(values, dtype=np.float64)
    given = given[np.isfinite(given) & (given > 0)]
    least, most = np.log10(given.min()), np.log10(given.max())
    margin = 0.05 * (most - least) or 0.5
    decades = np.arange(np.ceil(least - margin), np.floor(most + margin) + 1)
    decades = decades[:: max(1, -(-len(decades) // ticks))]
    return Scale(
        label,
        float(10.0 ** (least - margin)),
        float(10.0 ** (most + margin)),
        tuple(float(10.0**tick) for tick in decades),
        log=True,
        **options,
    )
