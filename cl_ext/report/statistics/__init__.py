"""What runs say and what they don't: intervals, paired tests, tiers, aggregates over streams. Numpy and scipy only.

This is the door: other parts of the package import from here.
"""

from cl_ext.report.statistics.bootstrap import (
    REPETITIONS,
    Interval,
    iqm,
    mean,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)
from cl_ext.report.statistics.paired import LEVEL, Comparison, Difference, Verdict, compare, holm, paired_difference
from cl_ext.report.statistics.ranks import LEAST_STREAMS, Friedman, critical_difference, friedman
from cl_ext.report.statistics.summaries import CONFIDENCE, FEW_SEEDS, Summary, band, half_width, summarize
from cl_ext.report.statistics.tiering import Basis, Tiering, tiering, tiers
from cl_ext.report.statistics.welch import welch

__all__ = [
    "CONFIDENCE",
    "FEW_SEEDS",
    "LEAST_STREAMS",
    "LEVEL",
    "REPETITIONS",
    "Basis",
    "Comparison",
    "Difference",
    "Friedman",
    "Interval",
    "Summary",
    "Tiering",
    "Verdict",
    "band",
    "compare",
    "critical_difference",
    "friedman",
    "half_width",
    "holm",
    "iqm",
    "mean",
    "paired_difference",
    "performance_profile",
    "probability_of_improvement",
    "stratified_bootstrap",
    "summarize",
    "tiering",
    "tiers",
    "welch",
]
