"""Accuracy matrices as heat-maps, a panel a method: as they are, and as differences from a baseline."""

from cl_ext.metrics.matrix import FloatArray
from cl_ext.report.drawing import style
from cl_ext.report.drawing.doors import board_figure
from cl_ext.report.drawing.panels import Panel, panel_pages
from cl_ext.report.drawing.runs import Board
from cl_ext.report.drawing.scales import Scale

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, TwoSlopeNorm

_MOST_CELLS = 6 * 5
"""Numbers are written into matrices of up to this size, where panels are wide enough to hold them."""


def _pages(
    board: Board, matrices: dict[str, FloatArray], title: str, width: float, norm: Normalize, cmap: str, label: str
) -> list[style.Page]:
    if not matrices:
        return []
    T = board.experiences
    written = (T + 1) * T <= _MOST_CELLS and len(matrices) <= (8 if width > style.WIDTHS["one"] else 4)
    colours = {"norm": norm, "cmap": cmap}
    panels = [Panel(board.names[name], image=R, colours=colours, texts=written) for name, R in matrices.items()]
    step = -(-T // 5)
    x = Scale("accuracy on experience", 0.5, T + 0.5, tuple(range(1, T + 1, step)))
    y = Scale("after experience (0: untrained)", T + 0.5, -0.5, tuple(range(0, T + 1, step)))
    pages = panel_pages(panels, x, y, title, width, shape=0.95, right=0.62)
    for page in pages:
        wide, height = page.get_size_inches()
        tall = min(1.8, height - 1.0)
        place = page.add_axes((1 - 0.52 / wide, 0.5 - tall / 2 / height, 0.1 / wide, tall / height))
        bar = page.colorbar(ScalarMappable(norm, cmap), cax=place)
        bar.set_label(label, fontsize=style.SMALL, labelpad=1)
        bar.ax.tick_params(labelsize=style.SMALL - 1, pad=1, length=2)
    return pages


@board_figure(needs="accuracy matrices")
def accuracy_matrices(board: Board, width: float) -> list[style.Page]:
    """The mean accuracy matrix of each method as a heat-map, all with one colour scale; grey where undefined."""
    matrices = {label: 100 * board.mean_matrix(label) for label in board.labels}
    title = f"Accuracy matrix [%], {board.title}"
    return _pages(board, matrices, title, width, Normalize(0, 100), style.COLOUR_MAP, "accuracy [%]")


@board_figure("accuracy matrices of the baseline and of another method, at seeds that both have", baseline="naive")
def accuracy_differences(board: Board, width: float, baseline: str = "naive") -> list[style.Page]:
    """The accuracy matrix of each method minus a baseline's, seed by seed, as a heat-map; blue is above the baseline.

    Its option `baseline` is the row that is subtracted, by default `naive`.
    """
    if baseline not in board.runs_by_label:
        return []
    reference = {run.seed: run.matrix for run in board.runs_by_label[baseline]}
    matrices = {}
    for label in board.labels:
        pairs = [run.matrix - reference[run.seed] for run in board.runs_by_label[label] if run.seed in reference]
        if label != baseline and pairs and not np.isnan(mean := np.mean(pairs, axis=0)).all():
            matrices[label] = 100 * mean
    if not matrices:
        return []
    most = max(float(np.nanmax(np.abs(each))) for each in matrices.values()) or 1.0
    title = f"Accuracy matrix minus that of {baseline} [percentage points], {board.title}"
    label = f"minus {baseline} [points]"
    return _pages(board, matrices, title, width, TwoSlopeNorm(0, -most, most), style.DIVERGING, label)
