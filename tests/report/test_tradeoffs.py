"""Accuracy against a cost: bars are what other figures' bands are, and the axis tells what it is."""

from cl_ext.report import accuracy_against_memory, stability_plasticity
from cl_ext.report.drawing.labelled import points_of
from cl_ext.report.drawing.runs import boards
from cl_ext.report.statistics import band

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tests.report import synthetic


def frame(seeds: int, bytes_of: dict[str, int]):
    cells = [c for c in synthetic.records(seeds=seeds, names=["naive", "er", "lwf"]) if c["scenario"] == "class"]
    for cell in cells:
        cell["costs"]["extra_bytes"] = bytes_of[cell["method"]]
    return synthetic.frame(cells)


@pytest.mark.parametrize(("seeds", "words"), [(3, "least to greatest seed"), (6, "95 % interval of the mean")])
def test_bars_are_the_bands_of_the_statistics(seeds, words):
    made = frame(seeds, {"naive": 0, "er": 1000, "lwf": 5000})
    (board,) = boards(made)
    points = points_of(board, "learning_accuracy", "bwt", (True, True)).set_index("name")
    for name in ("er", "lwf"):
        for axis, column in (("x", "learning_accuracy"), ("y", "bwt")):
            values = made.loc[made["method"] == name, column]
            assert points.loc[name, axis] == pytest.approx(100 * values.mean())
            ends = 100 * np.array(band(values.to_numpy()))
            np.testing.assert_allclose(points.loc[name, [f"{axis}low", f"{axis}high"]].tolist(), ends)
    (page,) = stability_plasticity(made)
    shown = [text.get_text() for text in page.legends[0].get_texts()]
    assert shown == ["method", "reference", words, "equal final accuracy"]


def test_one_seed_has_no_bar():
    (page,) = accuracy_against_memory(frame(1, {"naive": 0, "er": 1000, "lwf": 5000}))
    shown = [text.get_text() for text in page.legends[0].get_texts()]
    assert shown == ["method", "reference", "Pareto frontier of complete methods"]


@pytest.mark.parametrize(
    ("most", "shown"),
    [(2000, ["1 kB", "1.2 kB", "1.4 kB", "1.6 kB", "1.8 kB", "2 kB"]), (6000, ["1 kB", "2 kB", "3 kB", "5 kB"])],
)
def test_a_cost_axis_has_ticks_enough_to_be_read(most, shown):
    (page,) = accuracy_against_memory(frame(2, {"naive": 1000, "er": 1500, "lwf": most}))
    FigureCanvasAgg(page).draw()
    (axis,) = page.axes
    low, high = axis.get_xlim()
    ticks = [tick.get_text() for tick in axis.get_xticklabels() if low <= tick.get_position()[0] <= high]
    assert len(ticks) >= 3
    assert set(ticks) <= {*shown, "1.25 kB", "1.5 kB", "1.75 kB"}


def test_where_nothing_costs_anything_all_stand_at_0():
    (page,) = accuracy_against_memory(frame(2, {"naive": 0, "er": 0, "lwf": 0}))
    FigureCanvasAgg(page).draw()
    (axis,) = page.axes
    assert axis.get_xlim()[0] <= 0 <= axis.get_xlim()[1]
    assert "0 B" in [tick.get_text() for tick in axis.get_xticklabels()]
