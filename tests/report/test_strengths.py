"""Sensitivity to a hyper-parameter: every seed, means only of complete values, 0 on a logarithmic axis."""

from cl_ext.report import strength_sensitivity
from cl_ext.report.drawing.runs import boards
from cl_ext.report.drawing.strengths import places, sweeps

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from tests.report import legible


def cell(method: str, seed: int, accuracy: float, **hp) -> dict:
    row = {"study": "s", "stream": "d", "scenario": "class", "method": method, "seed": seed, "status": "done"}
    return row | {"accuracy": accuracy} | {f"hp.{name}": value for name, value in hp.items()}


def sweep(values=(0.0, 0.1, 10.0, 1000.0), seeds=3) -> pd.DataFrame:
    rows = [
        cell("ewc", seed, 0.2 + 0.1 * at + 0.01 * seed, ewc_lambda=value)
        for at, value in enumerate(values)
        for seed in range(seeds)
    ]
    rows += [cell(name, seed, level) for name, level in (("naive", 0.2), ("joint", 0.9)) for seed in range(seeds)]
    return pd.DataFrame(rows)


def drawn(page):
    """Points of seeds, the line of means, and the texts."""
    assert legible.faults(page) == []  # and draws it: ticks have no text before
    axis = page.axes[0]
    dots, means, *_ = axis.lines
    return axis, dots, means, {text.get_text() for text in axis.findobj(Text)}


def test_every_seed_and_the_means():
    (page,) = strength_sensitivity(sweep(), "ewc", "ewc_lambda", chosen={"class": 10.0})
    axis, dots, means, words = drawn(page)
    assert axis.get_xscale() == "log"
    assert sorted(dots.get_ydata()) == pytest.approx([20 + 10 * at + seed for at in range(4) for seed in range(3)])
    assert list(means.get_xdata()) == pytest.approx([0.01, 0.1, 10, 1000])  # 0 one decade below the smallest
    assert list(means.get_ydata()) == pytest.approx([21, 31, 41, 51])
    assert {"naive", "joint", "chosen", "0"} <= words
    horizontal = sorted(line.get_ydata()[0] for line in axis.lines if list(line.get_xdata()) == [0, 1])
    assert horizontal == pytest.approx([20, 90])
    vertical = [line.get_xdata()[0] for line in axis.lines if list(line.get_ydata()) == [0, 1]]
    assert vertical == [10.0]


def test_a_value_with_a_missing_seed_has_no_mean_and_says_so():
    frame = sweep()
    lost = (frame["hp.ewc_lambda"] == 10.0) & (frame["seed"] == 2)
    frame.loc[lost, ["status", "accuracy"]] = ["failed", np.nan]
    (page,) = strength_sensitivity(frame, "ewc", "ewc_lambda")
    _, dots, means, words = drawn(page)
    assert len(dots.get_xdata()) == 11
    assert np.isnan(means.get_ydata()).tolist() == [False, False, True, False]
    assert "2/3" in words
    assert "chosen" not in words


def test_a_value_at_which_every_seed_failed_stays_on_the_axis():
    frame = sweep()
    frame.loc[frame["hp.ewc_lambda"] == 1000.0, ["status", "accuracy"]] = ["diverged", np.nan]
    (page,) = strength_sensitivity(frame, "ewc", "ewc_lambda")
    axis, dots, means, _ = drawn(page)
    assert len(dots.get_xdata()) == 9
    assert list(means.get_xdata()) == pytest.approx([0.01, 0.1, 10])
    (crosses,) = [line for line in axis.lines if line.get_marker() == "x"]
    assert list(crosses.get_xdata()) == [1000.0]
    assert axis.get_xlim()[1] > 1000
    assert "crosses: a seed failed there" in page.texts[0].get_text()


def test_other_settings_are_lines_of_their_own():
    modes = [sweep().assign(**{"hp.mode": "a"}), sweep().query("method == 'ewc'").assign(**{"hp.mode": "b"})]
    frame = pd.concat(modes, ignore_index=True)
    (page,) = strength_sensitivity(frame, "ewc", "ewc_lambda")
    assert [text.get_text() for text in page.legends[0].get_texts()] == ["mode=a", "mode=b"]


def test_sweeps_are_found_where_one_number_alone_differs():
    (board,) = boards(sweep())
    assert list(sweeps(board)) == [("ewc", "ewc_lambda")]
    assert list(sweeps(boards(sweep(values=(0.1, 1.0)))[0])) == []
    two = sweep()
    two["hp.other"] = np.where(two["method"] == "ewc", two["hp.ewc_lambda"] * 2, np.nan)
    assert list(sweeps(boards(two)[0])) == []


def test_a_method_without_that_number_is_one_sentence():
    with pytest.raises(ValueError, match="strength_sensitivity needs one method with several values"):
        strength_sensitivity(sweep(), "ewc", "si_lambda")


def test_places():
    assert places(np.array([0.0, 0.5, 3.0])).tolist() == [0.01, 0.5, 3.0]
    assert places(np.array([2.0, 20.0])).tolist() == [2.0, 20.0]
    assert places(np.zeros(2)).tolist() == [1.0, 1.0]
