"""Figures of what several boards say together, on the scale where 0 is fine-tuning and 1 joint training."""

from collections.abc import Callable
from dataclasses import replace

from cl_ext.report.drawing import style
from cl_ext.report.drawing.improvement import improvement_matrix, improvement_page
from cl_ext.report.drawing.interval_plot import Row, interval_page
from cl_ext.report.drawing.profiles import profile_pages
from cl_ext.report.drawing.rank_diagram import rank_diagram
from cl_ext.report.drawing.scales import linear
from cl_ext.report.rows.across_boards import Across
from cl_ext.report.rows.results import Results
from cl_ext.report.statistics import performance_profile

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

_SCALE = "normalised accuracy (0: naive, 1: joint)"
_POINTS = 101


def _title(across: Across, what: str) -> str:
    kind = f"{across.scenario}-incremental boards" if across.scenario else "boards"
    lost = f"; {len(across.partial)} methods that some board lacks are left out" if len(across.partial) else ""
    return f"{what}, {len(across.boards)} {kind}{lost}"


def intervals_of(across: Across, width: float) -> list[style.Page]:
    """The interquartile mean of the normalised accuracy with its stratified bootstrap interval; a tick a board."""
    rows = []
    for row in across.ranked.to_dict("records"):
        means = np.array([np.mean(runs) for runs in across.runs[row["label"]].values()])
        ends = row["iqm_low"], row["iqm_high"]
        rows.append(Row(row["label"], means, row["iqm"], *ends, reference=False, note=f"{row['tier']:.0f}"))
    title = _title(across, "Interquartile mean of normalised accuracy")
    return [interval_page(rows, title, _SCALE, "tier", width)] if rows else []


def profiles_of(across: Across, width: float) -> list[style.Page]:
    """The share of runs whose normalised accuracy is above each threshold, the mean over boards; a panel a method."""
    labels = list(across.ranked["label"])
    if not labels:
        return []
    values = np.concatenate([np.asarray(runs) for label in labels for runs in across.runs[label].values()])
    x = linear(f"threshold of {_SCALE}", values, ticks=3)
    thresholds = np.linspace(x.low, x.high, _POINTS)
    profiles = {label: performance_profile(across.runs[label], thresholds) for label in labels}
    names = {label: label for label in labels}
    return profile_pages(profiles, names, x, "share of runs above", _title(across, "Performance profile"), width)


def improvement_of(across: Across, width: float) -> list[style.Page]:
    """The probability that a run of the row's method is above one of the column's, the mean over boards."""
    labels = list(across.ranked["label"])
    if len(labels) < 2:
        return []
    P = improvement_matrix([across.runs[label] for label in labels])
    title = _title(across, "Probability that a run of the row is above one of the column")
    return [improvement_page(P, labels, title, width)]


def ranks_of(across: Across, width: float) -> list[style.Page]:
    """Mean ranks over boards with Nemenyi's critical difference, only where the number of streams carries the test."""
    test = across.friedman
    if test is None or not test.carries:
        return []
    ranks = dict(zip(across.runs, test.ranks, strict=True))
    title = f"{_title(across, 'Mean rank')}: bars join ranks closer than the critical difference"
    return [rank_diagram(ranks, test.critical_difference, title, width)]


ACROSS: dict[str, tuple[Callable[[Across, float], list[style.Page]], str]] = {
    "intervals": (intervals_of, "interquartile mean of normalised accuracy, its bootstrap interval; ticks are boards"),
    "profile": (profiles_of, "share of runs whose normalised accuracy is above a threshold, bands: bootstrap"),
    "improvement": (improvement_of, "probability of improvement of every pair, the mean over boards"),
    "ranks": (ranks_of, "critical-difference diagram of mean ranks, from ten streams on"),
}
"""The end of a file's name -> what draws its pages over several boards, and its caption."""


def _door(kind: str, frame: pd.DataFrame | Results, scenario: str, width: style.Width) -> list[Figure]:
    """A figure over all boards of a frame, or over those of one scenario."""
    results = frame if isinstance(frame, Results) else Results(frame)
    found = [across for across in results.across if across.scenario == scenario]
    if not found and set(results.table["scenario"]) == {scenario}:
        found = [replace(results.across[0], scenario=scenario)]
    with style.house_style():
        pages: list[Figure] = []
        for across in found:
            pages += ACROSS[kind][0](across, style.WIDTHS[width])
    if not pages:
        raise ValueError(
            f"the figure {kind!r} over boards needs boards with complete rows of naive, joint and a method in common"
            f"{', on ten streams' if kind == 'ranks' else ''}; `across(frame).left_out` says which boards can't be used"
        )  # fmt: skip
    return pages


def intervals_across(frame: pd.DataFrame | Results, scenario: str = "", width: style.Width = "two") -> list[Figure]:
    """Methods over all boards: interquartile mean of normalised accuracy with its stratified bootstrap interval.

    Args:
        frame: the tidy frame.
        scenario: only boards of this scenario.
        width: "one" or "two" columns of a page.

    Raises:
        ValueError: no method is complete on all boards.
    """
    return _door("intervals", frame, scenario, width)


def profiles_across(frame: pd.DataFrame | Results, scenario: str = "", width: style.Width = "two") -> list[Figure]:
    """Methods over all boards: performance profiles of normalised accuracy; arguments as `intervals_across`."""
    return _door("profile", frame, scenario, width)


def improvement_across(frame: pd.DataFrame | Results, scenario: str = "", width: style.Width = "two") -> list[Figure]:
    """Methods over all boards: the probability of improvement of every pair; arguments as `intervals_across`."""
    return _door("improvement", frame, scenario, width)


def ranks_across(frame: pd.DataFrame | Results, scenario: str = "", width: style.Width = "two") -> list[Figure]:
    """Methods over ten streams or more: the critical-difference diagram; arguments as `intervals_across`."""
    return _door("ranks", frame, scenario, width)
