"""Calls that a user may well make: each does what was meant, or says in one sentence what to write instead."""

import cl_ext.report as report
from cl_ext.study.frame import OBJECTS

import pandas as pd
import pytest

from tests.report import synthetic
from tests.report.test_strengths import sweep


@pytest.fixture(scope="module", name="frame")
def _frame() -> pd.DataFrame:
    cells = synthetic.records(seeds=2, names=["naive", "joint", "er", "lwf"])
    return synthetic.frame([cell for cell in cells if cell["scenario"] == "class"])


def panels(page):
    return {text.get_text() for text in page.axes[0].texts}


def test_one_method_needs_no_list(frame):
    (page,) = report.accuracy_matrices(frame, methods="er")
    assert "er" in panels(page)
    assert "lwf" not in panels(page)
    with pytest.raises(ValueError, match="no row is called 'err'; there are er, joint, lwf, naive"):
        report.accuracy_matrices(frame, methods="err")
    with pytest.raises(ValueError, match="methods is empty"):
        report.accuracy_matrices(frame, methods=[])


def test_differences_keep_their_baseline_whatever_methods_are_chosen(frame):
    (page,) = report.accuracy_differences(frame, methods=["er"])
    assert {"er"} == panels(page) & {"er", "lwf", "naive", "joint"}
    (page,) = report.accuracy_differences(frame, methods=["er"], baseline="lwf")
    assert {"er"} == panels(page) & {"er", "lwf", "naive", "joint"}
    with pytest.raises(ValueError, match="needs accuracy matrices of the baseline"):
        report.accuracy_differences(frame, methods=["er"], baseline="ewc")


@pytest.mark.parametrize("name", ["accuracy_matrices", "intervals_across"])
def test_a_store_is_no_frame(name):
    with pytest.raises(TypeError, match=rf"{name} takes the frame that .*collect makes.* given str 'runs/digits'"):
        getattr(report, name)("runs/digits")


def test_a_frame_read_from_a_csv_is_told_from_a_store_without_the_data(frame, tmp_path):
    frame.drop(columns=[*OBJECTS], errors="ignore").to_csv(tmp_path / "cells.csv", index=False)
    read = pd.read_csv(tmp_path / "cells.csv")
    assert len(report.accuracy_intervals(read)) == 1
    for name in ("accuracy_matrices", "stability_plasticity", "learning_curves", "unit_maps"):
        with pytest.raises(ValueError, match=f"{name} needs .* This frame has numbers alone, as a CSV file"):
            getattr(report, name)(read)
    with pytest.raises(ValueError, match="needs `sizes`") as caught:
        report.memory_over_the_stream(frame)
    assert "numbers alone" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "ewc", "hyperparameter": "ewc_lamda"}, "'ewc' has no number 'ewc_lamda', there are ewc_lambda"),
        (
            {"method": "ew", "hyperparameter": "ewc_lambda"},
            "no finished cell is of 'ew', they are of ewc, joint, naive",
        ),
        ({"method": "si"}, "no finished cell is of 'si'"),
        ({"column": "acuracy"}, "no finished cell has a column 'acuracy'"),
    ],
)
def test_a_sweep_that_is_not_there(options, words):
    with pytest.raises(ValueError, match="strength_sensitivity needs one method with several values") as caught:
        report.strength_sensitivity(sweep(seeds=1), **options)
    assert words in str(caught.value)


@pytest.mark.parametrize("kind", ["intervals", "profiles", "improvement", "ranks"])
def test_boards_that_are_not_fit_are_named(kind, frame):
    draw = getattr(report, f"{kind}_across")
    with pytest.raises(ValueError, match="the frame has no scenario 'clas'; it has 'class'"):
        draw(frame, scenario="clas")
    with pytest.raises(ValueError, match="width is 'three'"):
        draw(frame, width="three")
    with pytest.raises(
        ValueError, match=f"{kind}_across needs boards .*digits, split digits, class .no finished cell of"
    ):
        draw(frame[frame["method"] != "joint"])
    with pytest.raises(ValueError, match=f"{kind}_across needs boards .*there is no board"):
        draw(frame.iloc[:0])


def test_one_method_over_boards(frame):
    one = frame[frame["method"] != "lwf"]
    assert len(report.intervals_across(one)) == 1
    for kind in ("improvement", "ranks"):
        with pytest.raises(ValueError, match="needs two methods complete on all boards; only er is"):
            getattr(report, f"{kind}_across")(one)
    with pytest.raises(ValueError, match=r"needs methods that are complete on ten streams.*and there are 1 "):
        report.ranks_across(frame)
