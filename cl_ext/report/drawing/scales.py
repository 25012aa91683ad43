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
    # Whole numbers are counted from the ends of what is shown: five experiences have five ticks, margin or not.
    places = MaxNLocator(ticks, integer=whole).tick_values(*((least, most) if whole and least < most else (low, high)))
    inside = tuple(float(tick) for tick in places if low <= tick <= high)
    return Scale(label, low, high, inside, **options)


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Ticks of a logarithmic axis, at least two: one alone says nothing of the distance to another value.

    They are 1, 2, 3, 5 times powers of ten where so many are allowed, else 1, 2, 5, or 1, 3, or powers of ten, or some
    of these; evenly spaced numbers where the axis spans less than all that.

    Args:
        low: the axis' lower end, above 0.
        high: its upper end, above `low`.
        most: at most how many ticks, 2 or more.
    """
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    candidates = [[m * 10.0**d for d in decades for m in digits] for digits in ((1, 2, 3, 5), (1, 2, 5), (1, 3), (1,))]
    inside = [[float(tick) for tick in ticks if low <= tick <= high] for ticks in candidates]
    found = next((ticks for ticks in inside if 2 <= len(ticks) <= most), [])
    if not found and len(inside[-1]) > most:
        found = inside[-1][:: -(-len(inside[-1]) // most)]
    if not found:
        even = MaxNLocator(most, steps=[1, 2, 5, 10]).tick_values(low, high)
        found = [float(tick) for tick in even if low <= tick <= high]
    return found


def logarithmic(label: str, values: ArrayLike, ticks: int = 5, **options: Any) -> Scale:
    """A logarithmic scale that holds all positive values with a margin; its ticks are those of `log_ticks`.

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
    low, high = float(10.0 ** (least - margin)), float(10.0 ** (most + margin))
    return Scale(label, low, high, tuple(log_ticks(low, high, ticks)), log=True, **options)
