"""Published numbers beside our measurements: a status for each, worked out and never written by hand.

With d = ours - theirs and its 95 % interval, H half the interval's width and m the margin, all in the column's unit:

- reproduced: ``|d| <= m`` and ``H <= m``, so that the difference is at most 2m as far as the interval tells;
- deviates: the whole interval lies beyond the margin, above m or below -m;
- too few seeds to say: anything else, and always with fewer than three seeds;
- not tried: there is no measurement.

The interval is Welch's where the paper's standard deviation and number of runs are known, so that its seeds count too;
else the paper's number is taken as exact and the interval is that of our mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cl_ext.report.rows.measured import Measurement, latest, place_of
from cl_ext.report.rows.measuring import cell_of
from cl_ext.report.rows.published import Number, Published
from cl_ext.report.statistics import Interval, half_width, welch

REPRODUCED, DEVIATES, TOO_FEW, NOT_TRIED = "reproduced", "deviates", "too few seeds to say", "not tried"
STATUSES = (REPRODUCED, DEVIATES, TOO_FEW, NOT_TRIED)
LEAST_SEEDS = 3
_ROUNDING = 1e-9
"""In the column's unit: a difference that equals the margin on paper is within it, whatever the last bits are."""


@dataclass(frozen=True)
class Comparison:
    """A published number beside ours.

    Attributes:
        number: The published number.
        ours: Our measurement; None where there is none.
        status: One of `STATUSES`.
        difference: Ours minus the paper's with its 95 % interval, in the column's unit; None where not measured.
        stale: Whether the row's revision or the study has changed since the measurement, as far as its line tells.
    """

    number: Number
    ours: Measurement | None
    status: str
    difference: Interval | None = None
    stale: bool = False


def compare_published(published: Published, lines: Sequence[Measurement]) -> list[Comparison]:
    """Each published number beside the last line of its row."""
    ours = latest(lines)
    return [_compare(number, ours.get(place_of(number) or ("", "", "", "", ""))) for number in published.numbers]


def status(difference: Interval, n: int, margin: float) -> str:
    """What a difference says; see the head of this module.

    Args:
        difference: Ours minus the paper's, with its 95 % interval.
        n: Our seeds.
        margin: In the same unit, at least 0.
    """
    if n < LEAST_SEEDS:
        return TOO_FEW
    if difference.low > margin + _ROUNDING or difference.high < -margin - _ROUNDING:
        return DEVIATES
    reach = (difference.high - difference.low) / 2
    within = abs(difference.estimate) <= margin + _ROUNDING and reach <= margin + _ROUNDING
    return REPRODUCED if within else TOO_FEW


def problems(comparisons: Sequence[Comparison]) -> list[str]:
    """What a person has to set right, a sentence each: a deviation without a reason, a reason without a deviation."""
    found = []
    for one in comparisons:
        what = f"{one.number.at}: {one.number.row}, {one.number.scenario}, {one.number.column.key}"
        if one.status == DEVIATES and not one.number.why:
            found.append(f"{what} deviates from {one.number.paper} and has no why")
        if one.status == REPRODUCED and one.number.why:
            found.append(f"{what} is reproduced, so its why is out of date")
    return found


def _compare(number: Number, ours: Measurement | None) -> Comparison:
    if ours is None:
        return Comparison(number, None, NOT_TRIED)
    mean, width = ours.mean * number.scale, ours.half_width * number.scale
    # The t-interval's factor turns the half width back into the standard deviation.
    sd = width / float(half_width(1.0, ours.n)) if ours.n > 1 else math.nan
    theirs = (0.0, 1) if math.isnan(number.sd) else (number.sd, number.n)
    difference = welch(mean, sd, ours.n, number.value, *theirs)
    stale = bool(ours.cell) and ours.cell != cell_of(number)
    return Comparison(number, ours, status(difference, ours.n, number.setting.margin), difference, stale)
