"""The difference of two means that are not paired, of which one may be known by its summary alone."""

import math

from cl_ext.report.statistics.bootstrap import Interval
from cl_ext.report.statistics.summaries import CONFIDENCE

from scipy import special


def welch(mean: float, sd: float, n: int, other: float, other_sd: float = 0.0, other_n: int = 1) -> Interval:
    """The 95 % interval of the difference of two means by Welch's t, from what papers print of theirs.

    The variance of the difference is ``sd^2 / n + other_sd^2 / other_n``, its degrees of freedom are Welch and
    Satterthwaite's. With `other_sd` 0 the other mean is taken as exact: that leaves the one-sample t-interval.

    Args:
        mean: mean of the first sample.
        sd: its sample standard deviation, at least 0; NaN where n < 2.
        n: its size.
        other: mean of the second sample.
        other_sd: likewise; 0 where nothing is known of its spread.
        other_n: likewise; at least 2 where `other_sd` is not 0.

    Returns:
        The difference first - second with its interval, NaN ends where n < 2 or `other_sd` is of one run.
    """
    difference = mean - other
    if n < 2 or (other_sd and other_n < 2):
        return Interval(difference, math.nan, math.nan)
    own, their = sd**2 / n, other_sd**2 / other_n
    if own + their == 0:
        return Interval(difference, difference, difference)
    # The second term's divisor is of no account where its numerator is 0.
    freedom = (own + their) ** 2 / (own**2 / (n - 1) + their**2 / max(other_n - 1, 1))
    reach = float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(own + their)
    return Interval(difference, difference - reach, difference + reach)
