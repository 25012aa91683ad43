"""The figure of an ablation: every seed and every mean is where it belongs."""

from cl_ext.report.drawing.ablations import ablation_figure

import numpy as np
import pytest

from tests.report import legible

ACCURACIES = {"a": {0: 0.5, 1: 0.6}, "base": {0: 0.7, 1: 0.9}, "none": {}}
SIZES = {"a": {0: 100.0, 1: 100.0}, "base": {0: 1000.0, 1: 3000.0}, "none": {}}


def _points(axis, place):
    """The horizontal places of all lines at one row."""
    lines = [line for line in axis.get_lines() if len(line.get_ydata()) and set(line.get_ydata()) == {place}]
    return [np.asarray(line.get_xdata(), dtype=float).tolist() for line in lines]


def test_the_reference_comes_first_and_every_seed_is_shown():
    accuracy, size = ablation_figure(ACCURACIES, SIZES, "base", "t").axes
    assert [text.get_text() for text in accuracy.get_yticklabels()] == ["base", "a", "none"]
    for place, values in ((0, [70.0, 90.0]), (1, [50.0, 60.0])):
        bar, seeds, mean = _points(accuracy, place)
        assert bar == pytest.approx(values)  # fewer than five seeds: from the least to the greatest
        assert seeds == pytest.approx(values)
        assert mean == pytest.approx([np.mean(values)])
    assert _points(accuracy, 2) == []
    assert _points(size, 0)[1] == [1000.0, 3000.0]
    assert size.get_xscale() == "log"
    assert accuracy.get_ylim() == (2.5, -0.5)


def test_networks_of_one_size_have_no_panel():
    equal = {name: dict.fromkeys(row, 10.0) for name, row in ACCURACIES.items()}
    assert len(ablation_figure(ACCURACIES, equal, "base", "t").axes) == 1


@pytest.mark.parametrize("width", ["one", "two"])
def test_it_can_be_read_at_both_widths(width):
    names = ["base", "a row with quite a long name of many words", "b"]
    values = {name: {seed: 0.5 + 0.01 * seed for seed in range(5)} for name in names}
    sizes = {name: {0: 10.0 ** (4 + at)} for at, name in enumerate(names)}
    figure = ablation_figure(values, sizes, "base", "An ablation with a title of some length, task-incremental", width)
    assert figure.get_figwidth() == {"one": 3.5, "two": 7.2}[width]
    assert legible.faults(figure) == []
    said = figure.get_suptitle().replace("\n", " ")
    assert said.endswith("dot: a seed, large: their mean, bar: 95 % interval of the mean, dashed: base")


def test_the_reference_has_to_be_a_row():
    with pytest.raises(ValueError, match="the reference is 'c'; the rows are a, base, none"):
        ablation_figure(ACCURACIES, SIZES, "c", "t")
