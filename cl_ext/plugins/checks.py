"""Checks of a plugin's arguments: each failure is one sentence that names owner, argument, value and range."""

import math
from typing import Any, get_args


def check_number(owner: str, name: str, value: Any, low: float, high: float = math.inf, above: bool = False) -> float:
    """Returns `value` as a float of `[low, high]`, or of `(low, high]` where `above`; infinity and NaN never pass.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is out of range; the message names owner, argument, value and range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{owner}: {name} must be a number, got {value!r}")
    span = f"{'(' if above else '['}{low:g}, {'inf)' if math.isinf(high) else f'{high:g}]'}"
    if not math.isfinite(value) or value < low or value > high or (above and value == low):
        raise ValueError(f"{owner}: {name} must be in {span}, got {value!r}")
    return float(value)


def check_count(owner: str, name: str, value: Any, low: int = 1) -> int:
    """Returns `value` if it is an integer of at least `low`.

    Raises:
        TypeError: if it is not an integer.
        ValueError: if it is smaller.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{owner}: {name} must be an integer, got {value!r}")
    if value < low:
        raise ValueError(f"{owner}: {name} must be an integer >= {low}, got {value!r}")
    return value


def check_choice(owner: str, name: str, value: Any, choices: Any) -> Any:
    """Returns `value` if it is one of the `Literal` type `choices`.

    Raises:
        ValueError: if it is not.
    """
    if value not in get_args(choices):
        raise ValueError(f"{owner}: {name} must be one of {', '.join(map(repr, get_args(choices)))}, got {value!r}")
    return value
