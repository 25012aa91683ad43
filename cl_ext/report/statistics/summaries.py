"""What a handful of seeds says: mean, spread and an interval, and where they say too little."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

CONFIDENCE = 0.95
FEW_SEEDS = 5
"""Below this number of seeds an interval is shown but flagged: at n = 3 it is 2.5 standard deviations wide each way."""


@dataclass(frozen=True)
class Summary:
    """A sample, summed up.

    Attributes:
        mean: the mean; NaN for no values.
        sd: the sample standard deviation (divisor n - 1); NaN for n < 2.
        half_width: half the width of the 95 % Student-t interval of the mean; NaN for n < 2.
        n: how many values are defined.
    """

    mean: float
    sd: float
    half_width: float
    n: int

    @property
    def few(self) -> bool:
        """Whether there are too few values for the interval to be relied upon."""
        return self.n < FEW_SEEDS


def half_width(sd: ArrayLike, n: ArrayLike) -> NDArray[np.float64]:
    """Half the width of the 95 % Student-t interval of a mean: ``t_{0.975, n-1} * sd / sqrt(n)``.

    It takes the seeds for independent draws from a normal distribution. Works entry by entry on arrays.

    Args:
        sd: sample standard deviations.
        n: numbers of values, of the same shape.

    Returns:
        Half widths of that shape, in the unit of `sd`; NaN where n < 2.
    """
    count = np.asarray(n, dtype=np.float64)
    count = np.where(count < 2, np.nan, count)
    quantile = special.stdtrit(count - 1, (1 + CONFIDENCE) / 2)  # Student's t; what `stats.t.ppf` calls
    return quantile * np.asarray(sd, dtype=np.float64) / np.sqrt(count)


def summarize(values: ArrayLike) -> Summary:
    """Mean, sample standard deviation and 95 % Student-t interval of the values that are defined.

    Args:
        values: (n,) numbers, one a seed; NaN where undefined, which is left out.

    Returns:
        Their summary.
    """
    sample = np.asarray(values, dtype=np.float64).ravel()
    sample = sample[~np.isnan(sample)]
    n = sample.size
    mean = float(sample.mean()) if n else float("nan")
    sd = float(sample.std(ddof=1)) if n > 1 else float("nan")
    return Summary(mean, sd, float(half_width(sd, n)), n)


def band(values: ArrayLike) -> tuple[float, float]:
    """The band that a figure draws around a mean: the 95 % Student-t interval, or all values where they are few.

    Args:
        values: (n,) numbers, one a seed; NaN where undefined.

    Returns:
        (low, high): the interval for n >= 5, the least and the greatest value for 2 <= n < 5, (NaN, NaN) below.
    """
    summary = summarize(values)
    if summary.n < 2:
        return float("nan"), float("nan")
    if summary.few:
        return float(np.nanmin(values)), float(np.nanmax(values))
    return summary.mean - summary.half_width, summary.mean + summary.half_width
