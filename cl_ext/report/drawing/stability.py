"""The stability gap: how far old experiences fall when a new one begins, and how far they come back."""

from collections.abc import Sequence
from dataclasses import replace

from cl_ext.report.drawing import style
from cl_ext.report.drawing.curves import mean_and_band, on_one_grid, stability_gap
from cl_ext.report.drawing.doors import board_figure
from cl_ext.report.drawing.key import Sample, spread_words
from cl_ext.report.drawing.panels import Band, Line, Panel, panel_pages
from cl_ext.report.drawing.runs import Board, Run
from cl_ext.report.drawing.scales import linear

import numpy as np

_NOTE = 0.22
"""The room below the lines that a panel's note takes, in parts of what they span."""


def _panel(name: str, runs: Sequence[Run]) -> Panel | None:
    """A row's panel; None where it has no curves, or where a boundary is not known at every seed."""
    curves = [run.curve for run in runs if run.curve is not None]
    gaps = [stability_gap(curve) for curve in curves]
    if len(curves) < len(runs) or not len(gaps[0]) or any(not np.array_equal(g[:, 0], gaps[0][:, 0]) for g in gaps):
        return None
    together = on_one_grid(curves)
    # At a boundary the experiences so far are those before; inside the next one they are still these.
    old = np.maximum(together.experience - 1, 1)
    inside, ended = together.before(old), together.seen
    k, before, lowest, after, at = np.stack(gaps).mean(axis=0).T
    parts = [np.flatnonzero(together.experience == boundary + 1) for boundary in k]
    ends = [int(np.flatnonzero(together.experience == boundary)[-1]) for boundary in k]
    values = [np.concatenate([ended[:, [end]], inside[:, part]], axis=1) for end, part in zip(ends, parts, strict=True)]
    cuts = np.cumsum([part.shape[1] for part in values])[:-1]
    mean, low, high = (np.split(each, cuts) for each in mean_and_band(100 * np.concatenate(values, axis=1)))
    times = [np.concatenate([[boundary], together.time[part]]) for boundary, part in zip(k, parts, strict=True)]
    lines = [Line(time, each) for time, each in zip(times, mean, strict=True)]
    drops = zip(at, before, lowest, strict=True)
    lines += [Line(np.array([t, t]), 100 * np.array([b, low]), style.FRONTIER, width=0.7) for t, b, low in drops]
    lines.append(Line(at, 100 * lowest, style.FRONTIER, "none", "v"))
    bands = [
        Band(time, np.clip(least, 0, 100), np.clip(most, 0, 100))
        for time, least, most in zip(times, low, high, strict=True)
    ]
    drop, back = 100 * (before - lowest).mean(), 100 * (after - lowest).mean()
    return Panel(name, lines, bands, note=f"drop {drop:.1f}, return {back:.1f}")


@board_figure(needs="accuracies while training, at several instants of an experience")
def stability_gaps(board: Board, width: float) -> list[style.Page]:
    """Accuracy on the experiences learned before, while the next one is trained; a panel a method.

    Each line begins where an experience has ended. A triangle marks the lowest accuracy during the next one, the mean
    of the seeds' lowest, a vertical line its drop; below stand the mean drop and return in percentage points.
    """
    found = (_panel(board.names[label], board.runs_by_label[label]) for label in board.labels if label != "joint")
    panels = [panel for panel in found if panel is not None]
    if not panels:
        return []
    values = np.concatenate([line.y for panel in panels for line in panel.lines])
    x = linear("experiences trained", [1, board.experiences], whole=True)
    room = _NOTE * float(np.ptp(values)) or 1.0
    y = linear("accuracy on earlier experiences [%]", [*values, values.min() - room])
    y = replace(y, ticks=tuple(tick for tick in y.ticks if tick >= 0))  # there is no accuracy below 0
    words = spread_words([len(board.runs_by_label[label]) for label in board.labels if label != "joint"])
    key = [
        Sample("mean while the next experience is trained"),
        *([Sample(words, shaded=True)] if words else []),
        Sample("its lowest, mean over seeds; drop to it and return from it in points", style.FRONTIER, marker="v"),
    ]
    return panel_pages(panels, x, y, f"Stability gap, {board.title}", width, key=key)
