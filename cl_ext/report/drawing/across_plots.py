"""Figures of what several boards say together, on the scale where 0 is fine-tuning and 1 joint training."""

from collections.abc import Callable
from dataclasses import replace

from cl_ext.report.drawing import style
from cl_ext.report.drawing.doors import check_frame, check_width
from cl_ext.report.drawing.improvement import improvement_matrix, improvement_page
from cl_ext.report.drawing.interval_plot import Row, interval_page
from cl_ext.report.drawing.profiles import profile_pages
from cl_ext.report.drawing.rank_diagram import rank_diagram
from cl_ext.report.drawing.scales import linear
from cl_ext.report.rows.across_boards import Across
from cl_ext.report.rows.cells import BOARD
from cl_ext.report.rows.results import Results
from cl_ext.report.statistics import performance_profile

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

_BAND = "95 % bootstrap interval"
_SCALE = "normalised accuracy (0: naive, 1: joint)"
_POINTS = 101


def counted(number: int, noun: str) -> str:
    """ "1 board", "2 boards"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _title(across: Across, what: str) -> str:
    kind = f"{across.scenario}-incremental board" if across.scenario else "board"
    lost = len(across.partial)
    left_out = (
        f"; {counted(lost, 'method')} that some board lacks {'is' if lost == 1 else 'are'} left out" if lost else ""
    )
    return f"{what}, {counted(len(across.boards), kind)}{left_out}"


def intervals_of(across: Across, width: float) -> list[style.Page]:
    """The interquartile mean of the normalised accuracy with its stratified bootstrap interval; a tick a board."""
    rows = []
    for row in across.ranked.to_dict("records"):
        means = np.array([np.mean(runs) for runs in across.runs[row["label"]].values()])
        ends = row["iqm_low"], row["iqm_high"]
        rows.append(Row(row["label"], means, row["iqm"], *ends, reference=False, note=f"{row['tier']:.0f}"))
    title = _title(across, "Interquartile mean of normalised accuracy")
    return [interval_page(rows, title, _SCALE, "tier", width, "a board", _BAND)] if rows else []


def profiles_of(across: Across, width: float) -> list[style.Page]:
    """The share of runs whose normalised accuracy is above each threshold, the mean over boards; a panel a method.

    The first method's stands grey behind all.
    """
    labels = list(across.ranked["label"])
    if not labels:
        return []
    values = np.concatenate([np.asarray(runs) for label in labels for runs in across.runs[label].values()])
    x = linear(f"threshold of {_SCALE}", values, ticks=3)
    thresholds = np.linspace(x.low, x.high, _POINTS)
    profiles = {label: performance_profile(across.runs[label], thresholds) for label in labels}
    names = {label: label for label in labels}
    title, behind = _title(across, "Performance profile"), {labels[0]: "dashed"}
    return profile_pages(profiles, names, x, "share of runs above", title, width, _BAND, behind)


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
    "profile": (
        profiles_of,
        "share of runs whose normalised accuracy is above a threshold, bands: bootstrap, grey: the first method",
    ),
    "improvement": (improvement_of, "probability of improvement of every pair, the mean over boards"),
    "ranks": (ranks_of, "critical-difference diagram of mean ranks, from ten streams on"),
}
"""The end of a file's name -> what draws its pages over several boards, and its caption."""
_NAMES = {"intervals": "intervals", "profile": "profiles", "improvement": "improvement", "ranks": "ranks"}


def lacks(kind: str, across: Across) -> str:
    """Why a figure over boards has no page: what it needs, and which boards or methods are not fit for it.

    Args:
        kind: a key of `ACROSS`, or "" for all of them.
        across: boards of which it has no page.
    """
    reasons = unfit_boards(across)
    if len(across.boards) < 2 and (reasons or not across.boards):
        return f"boards with complete rows of naive and joint; {reasons or 'there is no board'}"
    if across.ranked.empty:
        return f"a method that is complete on all {counted(len(across.boards), 'board')}"
    if kind == "ranks" and len(across.ranked) > 1 and across.friedman is not None:
        return f"methods that are complete on ten streams. {across.friedman.sentence}"
    return f"two methods complete on all boards; only {across.ranked['label'].iloc[0]} is"


def unfit_boards(across: Across) -> str:
    """The boards that are not on the common scale, each with the reason; "" for none."""
    rows = across.left_out.to_dict("records")
    return "; ".join(f"{', '.join(str(row[name]) for name in BOARD if row[name])} ({row['reason']})" for row in rows)


def _door(kind: str, frame: pd.DataFrame | Results, scenario: str, width: style.Width) -> list[Figure]:
    """A figure over all boards of a frame, or over those of one scenario."""
    check_width(width)
    check_frame(f"{_NAMES[kind]}_across", frame, Results)
    results = frame if isinstance(frame, Results) else Results(frame)
    there = sorted(set(results.table["scenario"]))
    if scenario and scenario not in there:
        raise ValueError(f"the frame has no scenario {scenario!r}; it has {', '.join(map(repr, there)) or 'none'}")
    across = next((each for each in results.across if each.scenario == scenario), results.across[0])
    across = replace(across, scenario=scenario)  # the only scenario has no entry of its own
    with style.house_style():
        pages: list[Figure] = [*ACROSS[kind][0](across, style.WIDTHS[width])]
    if not pages:
        raise ValueError(f"{_NAMES[kind]}_across needs {lacks(kind, across)}")
    return pages


def intervals_across(frame: pd.DataFrame | Results, scenario: str = "", width: style.Width = "two") -> list[Figure]:
    """Methods over all boards: interquartile mean of normalised accuracy with its stratified bootstrap interval.

    Args:
        frame: the tidy frame.
        scenario: only boards of this scenario.
        width: "one" or "two" columns of a page.

    Raises:
        ValueError: there is no such scenario, or no method is complete on all boards; the sentence says why.
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
