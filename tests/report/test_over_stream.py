"""Figures over the stream: which rows have a panel, what bands may span, what the key tells."""

from collections.abc import Sequence
from typing import Any

from cl_ext.report.drawing import over_stream, overlay
from cl_ext.report.drawing.over_stream import accuracy_over_the_stream, learning_curves, memory_over_the_stream
from cl_ext.report.drawing.panels import Panel, panel_pages
from cl_ext.report.drawing.runs import Board, boards
from cl_ext.report.drawing.style import Page

import numpy as np
import pytest

from tests.report import synthetic


@pytest.fixture(scope="module", name="board")
def _board() -> Board:
    cells = synthetic.records(seeds=5, names=["naive", "joint", "joint_incremental", "er", "lwf"])
    cells = [cell for cell in cells if cell["scenario"] == "class"]
    for cell in cells:
        kept = 0 if cell["method"] == "naive" else 10 ** (2 + cell["seed"])
        cell["sizes"] = [{"extra_bytes": kept * e, "parameters": 10} for e in range(synthetic.T + 1)]
    (board,) = boards(synthetic.frame(cells))
    return board


@pytest.fixture(name="drawn")
def _drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Sequence[Panel], dict[str, Any]]]:
    """The panels and options of each figure, before they are laid out on pages."""
    seen: list[tuple[Sequence[Panel], dict[str, Any]]] = []

    def keep(panels: Sequence[Panel], *args: Any, **options: Any) -> list[Page]:
        seen.append((panels, options))
        return panel_pages(panels, *args, **options)

    monkeypatch.setattr(over_stream, "panel_pages", keep)
    return seen


def test_joint_training_is_a_line_and_no_panel_of_its_own(board, drawn):
    learning_curves(board)
    ((panels, options),) = drawn
    assert {panel.title for panel in panels} == {"naive", "joint_incremental", "er", "lwf"}
    assert [sample.text for sample in options["key"]] == [
        "the panel's method, mean",
        "95 % interval of the mean",
        "naive",
        "joint_incremental",
    ]
    # every panel shows its own method, beside the references
    assert all(not line.behind for panel in panels for line in panel.lines[2:])
    assert {len(panel.lines) for panel in panels} == {3}


def test_bands_end_where_accuracies_do(board, drawn):
    accuracy_over_the_stream(board)
    ((panels, _),) = drawn
    ends = np.concatenate([[*band.low, *band.high] for panel in panels for band in panel.bands])
    assert ends.min() >= 0
    assert ends.max() <= 100


def test_memory_has_no_point_where_nothing_is_kept(board, drawn):
    (page,) = memory_over_the_stream(board)
    ((panels, options),) = drawn
    assert {panel.title for panel in panels} == {"joint", "joint_incremental", "er", "lwf"}
    assert "(never: naive)" in page.texts[0].get_text().replace("\n", " ")
    assert [sample.text for sample in options["key"]] == ["the panel's method, mean", "95 % interval of the mean"]
    # the interval of five seeds from 100 bytes to 1 MB reaches below 0, which no memory does
    assert min(band.low.min() for panel in panels for band in panel.bands) == 0


def test_ten_lines_are_of_methods_and_fine_tuning():
    labels = ["joint_incremental", "cumulative", *(f"m{number}" for number in range(10)), "naive", "worst"]
    references = {"joint_incremental", "cumulative", "naive"}
    assert overlay.chosen(labels, references) == [*(f"m{number}" for number in range(9)), "naive"]
    assert overlay.chosen(labels[:10], references) == labels[:10]


def test_markers_of_lines_that_coincide_lie_apart(board):
    (page,) = overlay.learning_together(board)
    lines = [line for line in page.axes[0].lines if line.get_marker() not in ("None", "", None)]
    starts = [line.get_markevery()[0] for line in lines]
    assert len(lines) == 4
    assert len(set(starts)) == len(starts)
