"""Figures of methods that change their network: what is drawn is what the records hold."""

import json
from collections.abc import Sequence
from typing import Any

from cl_ext.report import figures
from cl_ext.report.drawing import networks
from cl_ext.report.drawing.networks import growth_by_task, parameters_over_the_stream, unit_maps
from cl_ext.report.drawing.panels import Panel, panel_pages
from cl_ext.report.drawing.runs import Board, boards
from cl_ext.report.drawing.style import TALLEST, Page

import numpy as np
import pytest

from tests.report import legible, synthetic

UNITS = {"1": [[0.5, 0.0, 0.25, 0.0], [0.0, 1.0, 0.25, 0.0]], "3": [[1.0, 0.0], [0.0, 0.5]]}


def _with_structure(name: str, seed: int, grows: bool) -> dict[str, Any]:
    record = synthetic.record(name, "task", seed)
    sizes = [
        {
            "experience": e,
            "parameters": 1000 + (500 * e if grows else 0),
            "nonzero": 900 + 10 * e + seed,
            "by_task": {str(task): 100 * (task + 1) + 2 * seed for task in range(e)} if name != "separate" else {},
            "extra_bytes": 0,
        }
        for e in range(synthetic.T + 1)
    ]
    layers = {"1": {"selected": 3, "added": 2, "split": 1}, "3": {"selected": 2, "added": 0, "split": 0}}
    history = [{"task": task, "layers": layers if task else {}} for task in range(3)]
    return record | {"sizes": sizes, "structure": {"units": UNITS, "history": history} if grows else {}}


def _board(records: list[dict[str, Any]]) -> Board:
    (board,) = boards(synthetic.frame(records))
    return board


@pytest.fixture(name="records")
def _records() -> list[dict[str, Any]]:
    grown = [_with_structure(name, seed, True) for name in ("packnet", "cpg", "separate") for seed in (0, 1)]
    return [*grown, *(synthetic.record("er", "task", seed) for seed in (0, 1))]


@pytest.fixture(name="panels")
def _panels(monkeypatch: pytest.MonkeyPatch) -> list[Panel]:
    """The panels that a figure is made of, before they are laid out on pages."""
    seen: list[Panel] = []

    def keep(panels: Sequence[Panel], *args: Any, **options: Any) -> list[Page]:
        seen.extend(panels)
        return panel_pages(panels, *args, **options)

    monkeypatch.setattr(networks, "panel_pages", keep)
    return seen


def test_lines_are_means_over_seeds_and_only_of_methods_that_change_the_network(
    records: list[dict[str, Any]], panels: list[Panel]
) -> None:
    (_,) = parameters_over_the_stream(_board(records))
    assert {panel.title for panel in panels} == {"packnet", "cpg"}
    grey, nominal, nonzero, used = panels[0].lines
    assert list(nominal.y) == [1000, 1500, 2000, 2500, 3000, 3500]
    assert list(nonzero.y) == pytest.approx([900.5 + 10 * e for e in range(6)])
    assert list(used.x) == [1, 2, 3, 4, 5]
    assert list(used.y) == pytest.approx([100 * (task + 1) + 1 for task in range(5)])
    assert list(grey.y) == list(nominal.y)


def test_tasks_beyond_the_tenth_stand_in_their_order(panels: list[Panel]) -> None:
    """Records sort their keys as words, "10" before "2"."""
    record = _with_structure("packnet", 0, True)
    sizes = [{"parameters": 1000 + e, "by_task": {str(t): 10 * (t + 1) for t in range(e)}} for e in range(13)]
    R = np.full((13, 12), 0.5).tolist()
    record |= {"sizes": json.loads(json.dumps(sizes, sort_keys=True)), "matrix": {"task_aware": R, "task_agnostic": R}}
    record["curves"] = None
    assert list(record["sizes"][12]["by_task"])[:3] == ["0", "1", "10"]
    parameters_over_the_stream(_board([record]))
    _, used = panels[0].lines
    assert list(used.y) == [10 * (task + 1) for task in range(12)]


def test_layers_stand_in_their_order() -> None:
    record = _with_structure("packnet", 0, True)
    record["structure"]["units"] = {"1": UNITS["1"], "10": UNITS["3"], "3": UNITS["3"]}
    (page,) = unit_maps(_board([record]))
    heads = [axis.get_title(loc="left").split(":")[0] for axis in page.axes]
    assert heads == ["layer 1", "layer 3", "layer 10", ""]


@pytest.mark.parametrize(("factor", "log"), [(2, False), (1000, True)])
def test_networks_of_very_different_sizes_have_a_logarithmic_axis(
    monkeypatch: pytest.MonkeyPatch, factor: int, log: bool
) -> None:
    record = _with_structure("packnet", 0, True)
    record["sizes"] = [{"parameters": 1000 if e < 3 else 1000 * factor, "by_task": {}} for e in range(6)]
    scales = []
    monkeypatch.setattr(networks, "panel_pages", lambda panels, x, y, *args, **options: scales.append(y) or [])
    networks.parameters_over_the_stream(boards(synthetic.frame([record]))[0])
    assert [scale.log for scale in scales] == [log]


def test_older_records_have_no_such_figures() -> None:
    board = _board([synthetic.record("cpg", "task", seed) for seed in (0, 1)])
    assert parameters_over_the_stream(board) == unit_maps(board) == growth_by_task(board) == []


def test_units_stand_in_the_order_of_their_first_task(records: list[dict[str, Any]]) -> None:
    pages = unit_maps(_board(records))
    assert len(pages) == 3
    first, second, _ = pages[0].axes
    image = first.images[0].get_array()
    assert np.asarray(image.filled(0)).tolist() == [[0.5, 0.25, 0.0, 0.0], [0.0, 0.25, 1.0, 0.0]]
    assert first.get_title(loc="left") == "layer 1: 4 units, 3 used"
    assert second.get_title(loc="left") == "layer 3: 2 units, 2 used"


def test_what_tasks_own_stands_below_what_they_use_in_the_same_order(records: list[dict[str, Any]]) -> None:
    owned = {"1": [[0.5, 0.0, 0.25, 0.0], [0.0, 1.0, 0.0, 0.0]], "3": [[0.0, 0.0], [0.0, 0.5]]}
    told = [r | {"structure": r["structure"] | {"owned": owned}} if r["structure"] else r for r in records
            if "structure" in r]  # fmt: skip
    uses, owns, _, top, _ = unit_maps(_board(told))[0].axes
    assert uses.get_title(loc="left") == "layer 1: 4 units, 3 used"
    assert owns.get_title(loc="left") == "layer 1: 3 owned"
    assert top.get_title(loc="left") == "layer 3: 1 owned"
    image = np.asarray(owns.images[0].get_array().filled(0))
    assert image.tolist() == [[0.5, 0.25, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]


@pytest.mark.parametrize("width", ["one", "two"])
def test_maps_of_many_tasks_stay_on_the_page(records: list[dict[str, Any]], width: Any) -> None:
    rows = np.tril(np.ones((20, 20))).tolist()
    structure = {"units": dict.fromkeys("0123", rows), "owned": dict.fromkeys("0123", np.eye(20).tolist())}
    page = unit_maps(_board([records[0] | {"structure": structure}]), width=width)[0]
    assert page.get_figheight() <= TALLEST + 1e-6
    assert legible.faults(page) == []


def test_growth_shows_each_layer(records: list[dict[str, Any]], panels: list[Panel]) -> None:
    pages = growth_by_task(_board(records))
    assert len(pages) == 3
    assert [panel.title for panel in panels[:2]] == ["layer 1", "layer 3"]
    selected, added, split = panels[0].lines
    assert np.isnan(selected.y[0])
    assert [list(line.y[1:]) for line in (selected, added, split)] == [[3, 3], [2, 2], [1, 1]]


def test_they_are_among_the_reports_figures(records: list[dict[str, Any]], tmp_path: Any) -> None:
    names = {path.name for path in figures(synthetic.frame(records), tmp_path)}
    assert {"digits-task-parameters.png", "digits-task-units-1.pdf", "digits-task-growth-2.png"} <= names
