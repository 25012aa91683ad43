"""Performance profiles: which share of scores lies above each threshold (Agarwal et al. 2021), a panel a method."""

from collections.abc import Mapping, Sequence

from cl_ext.metrics.matrix import FloatArray
from cl_ext.report.drawing import style
from cl_ext.report.drawing.curves import mean_and_band
from cl_ext.report.drawing.doors import board_figure
from cl_ext.report.drawing.key import Sample, spread_words
from cl_ext.report.drawing.panels import Band, Line, Panel, panel_pages
from cl_ext.report.drawing.runs import Board
from cl_ext.report.drawing.scales import Scale

import numpy as np

THRESHOLDS = np.linspace(0, 1, 101)
_GREY = {"naive": "dashed", "joint": "dotted"}

Profile = tuple[FloatArray, FloatArray, FloatArray]
"""Share, low, high at each threshold."""


def share_above(matrices: Sequence[FloatArray], thresholds: FloatArray = THRESHOLDS) -> FloatArray:
    """The share of experiences whose final accuracy is above each threshold, seed by seed.

    Args:
        matrices: a seed's accuracy matrix each, (T + 1, T).
        thresholds: (n,) fractions.

    Returns:
        (seeds, n) fractions; NaN for a seed with an undefined final accuracy.
    """
    final = np.stack([R[-1] for R in matrices])
    share = (final[:, :, None] > thresholds).mean(axis=1)
    share[np.isnan(final).any(axis=1)] = np.nan
    return share


def profile_pages(
    profiles: Mapping[str, Profile],
    names: Mapping[str, str],
    x: Scale,
    ylabel: str,
    title: str,
    width: float,
    spread: str,
    behind: Mapping[str, str] = _GREY,
) -> list[style.Page]:
    """Small multiples of profiles, some of them grey behind all.

    Args:
        profiles: by row, in the order of the panels.
        names: how each row is named.
        x: the thresholds' scale, in per cent.
        ylabel: what a share is of.
        title: the page's title.
        width: inches.
        spread: what the bands are, "" for none.
        behind: the rows that stand behind, with their dashes.
    """
    at = np.linspace(x.low, x.high, len(next(iter(profiles.values()))[0])) if profiles else np.empty(0)
    present = {name: dashes for name, dashes in behind.items() if name in profiles}
    grey = [
        Line(at, profiles[name][0], style.REFERENCE, dashes, width=0.7, behind=True) for name, dashes in present.items()
    ]
    panels = [
        Panel(names[label], [*grey, Line(at, share)], [Band(at, np.clip(low, 0, 1), np.clip(high, 0, 1))])
        for label, (share, low, high) in profiles.items()
    ]
    key = [Sample("the panel's method"), *([Sample(spread, shaded=True)] if spread else [])]
    key += [Sample(names[name], style.REFERENCE, dashes) for name, dashes in present.items()]
    y = Scale(ylabel, -0.04, 1.04, (0.0, 0.5, 1.0))
    return panel_pages(panels, x, y, title, width, key=key)


@board_figure(needs="accuracy matrices")
def performance_profiles(board: Board, width: float) -> list[style.Page]:
    """The share of experiences whose final accuracy is above each threshold, the mean over seeds; a panel a method."""
    profiles = {}
    for label in board.labels:
        share = share_above([run.matrix for run in board.runs_by_label[label]])
        if not np.isnan(share).any():
            profiles[label] = mean_and_band(share)
    x = Scale("threshold of final accuracy [%]", 0, 100, (20.0, 40.0, 60.0, 80.0))
    title = f"Performance profile, {board.title}"
    words = spread_words([len(board.runs_by_label[label]) for label in profiles])
    return profile_pages(profiles, board.names, x, "share of experiences above", title, width, words)
