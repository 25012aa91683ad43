"""Figures that compare methods: ranks, plasticity, probabilities, profiles, groups; each against its definition."""

import cl_ext.report as report
from cl_ext.metrics import average_accuracy, backward_transfer, learning_accuracy
from cl_ext.report.drawing.across_plots import ACROSS
from cl_ext.report.drawing.improvement import improvement_matrix
from cl_ext.report.drawing.plasticity import final_accuracy
from cl_ext.report.drawing.profiles import share_above
from cl_ext.report.drawing.rank_diagram import groups, rank_diagram
from cl_ext.report.drawing.ranking import mean_ranks
from cl_ext.report.drawing.runs import boards
from cl_ext.report.drawing.style import house_style
from cl_ext.report.rows.results import Results

import hypothesis.extra.numpy as arrays
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report import legible, synthetic

matrices = st.integers(2, 6).flatmap(lambda T: arrays.arrays(float, (T + 1, T), elements=st.floats(0, 1)))


@given(matrices)
def test_lines_of_equal_accuracy(R):
    expected = average_accuracy(R)
    assert final_accuracy(learning_accuracy(R), backward_transfer(R), R.shape[1]) == pytest.approx(expected, abs=1e-12)


@given(st.lists(matrices.filter(lambda R: R.shape == (4, 3)), min_size=1, max_size=3), st.floats(0, 1))
def test_profiles_are_shares(found, threshold):
    share = share_above(found, np.array([threshold]))
    assert share[:, 0].tolist() == [sum(value > threshold for value in R[-1]) / 3 for R in found]


def test_profiles_fall_from_all_to_none():
    share = share_above([np.array([[0.1, 0.1], [0.3, 0.2], [0.5, 0.25]])])
    assert share[0, 0] == 1
    assert share[0, -1] == 0
    assert (np.diff(share[0]) <= 0).all()
    assert np.isnan(share_above([np.array([[0.1], [np.nan]])])).all()


def test_ranks_by_hand():
    accuracies = np.array([[[0.9, 0.5], [0.9, 0.7]], [[0.8, 0.6], [0.9, 0.1]], [[0.1, 0.1], [0.2, 0.1]]])
    # seed 0: 1 2 3 and 2 1 3; seed 1: 1.5 1.5 3 and 1 2.5 2.5
    np.testing.assert_allclose(mean_ranks(accuracies), [[1.25, 1.5], [1.75, 1.75], [3, 2.75]])


@given(arrays.arrays(float, (4, 3, 2), elements=st.floats(0, 1)))
def test_ranks_sum_to_what_ranks_sum_to(accuracies):
    np.testing.assert_allclose(mean_ranks(accuracies).sum(axis=0), 10)


def test_methods_with_missing_seeds_are_not_ranked_and_named():
    records = [r for r in synthetic.records(names=["naive", "gem", "er", "derpp"]) if r["scenario"] == "task"]
    (page,) = report.rank_over_the_stream(synthetic.frame(records))
    assert "left out, seeds missing or undefined: gem" in page.texts[0].get_text()
    assert {text.get_text() for text in page.axes[0].texts} == {"er", "derpp"}  # naive is a reference


def test_probabilities_of_improvement():
    P = improvement_matrix([{"a": [3, 4], "b": [1, 1]}, {"a": [1, 2], "b": [1, 1]}, {"a": [1, 4], "b": [2, 0]}])
    assert P[0, 1] == 0.75  # always above on a, ties on b
    assert P[1, 0] == 0.25
    assert P[0, 2] == pytest.approx((0.625 + 0.5) / 2)  # a: 3 of 4 wins less the tie at 4; b: one of two
    assert np.isnan(np.diagonal(P)).all()
    np.testing.assert_allclose((P + P.T)[~np.eye(3, dtype=bool)], 1)


def test_groups_by_hand():
    assert groups([1.0, 1.5, 3.0, 3.2, 6.0], 2.0) == [(0, 1), (1, 3)]
    assert groups([1.0, 4.0, 7.0], 2.0) == []
    assert groups([1.0, 2.0, 3.0], 9.0) == [(0, 2)]


@given(st.lists(st.floats(1, 40), min_size=2, max_size=12).map(sorted), st.floats(0.1, 40))
def test_groups_hold_exactly_the_close_pairs(ranks, difference):
    found = groups(ranks, difference)
    for i, low in enumerate(ranks):
        for j in range(i + 1, len(ranks)):
            assert any(a <= i and j <= b for a, b in found) == (ranks[j] - low < difference)
    assert not any(a <= c and d <= b for a, b in found for c, d in found if (a, b) != (c, d))


@pytest.mark.parametrize("width", [3.5, 7.2])
def test_a_rank_diagram_of_forty_can_be_read(width):
    with house_style():
        page = rank_diagram({f"method_number_{n}": 1 + n for n in range(40)}, 6.8, "Mean rank", width)
    assert legible.faults(page) == []


@pytest.fixture(scope="module", name="many")
def _many() -> pd.DataFrame:
    """Ten boards of four methods, one of which a board lacks."""
    cells = [
        r
        for r in synthetic.records(seeds=2, names=["naive", "joint", "er", "derpp", "der"])
        if r["scenario"] == "class"
    ]
    frame = synthetic.frame(cells)
    parts = [frame.assign(study=f"s{n}", stream=f"d{n}", run_id=frame["run_id"] + f"-{n}") for n in range(10)]
    parts[3] = parts[3][parts[3]["method"] != "der"]
    return pd.concat(parts, ignore_index=True)


def test_figures_over_boards(many):
    results = Results(many)
    pages = {kind: draw(results.across[0], 7.2) for kind, (draw, _) in ACROSS.items()}
    assert {kind: len(found) for kind, found in pages.items()} == dict.fromkeys(ACROSS, 1)
    (intervals,) = pages["intervals"]
    assert [label.get_text() for label in intervals.axes[0].get_yticklabels()] == ["derpp", "er"]  # der lacks a board
    assert "; 1 method that some board lacks is left out" in intervals.texts[0].get_text()
    (ranks,) = report.ranks_across(results)
    assert {"derpp", "er"} <= {text.get_text() for text in ranks.axes[0].texts}
    assert report.intervals_across(many, scenario="class")


def test_few_boards_carry_no_rank_diagram(many):
    few = many[many["study"].isin(["s0", "s1"])]
    with pytest.raises(ValueError, match="on ten streams"):
        report.ranks_across(few)
    assert len(report.profiles_across(few)) == len(report.improvement_across(few)) == 1


def test_differences_are_paired_by_seed():
    records = [r for r in synthetic.records(names=["naive", "gem"]) if r["scenario"] == "task"]
    frame = synthetic.frame(records)
    (page,) = report.accuracy_differences(frame)
    (board,) = boards(frame)
    by_seed = {label: {run.seed: run.matrix for run in runs} for label, runs in board.runs_by_label.items()}
    pairs = [by_seed["gem"][seed] - by_seed["naive"][seed] for seed in by_seed["gem"]]
    assert len(pairs) == 3
    np.testing.assert_allclose(page.axes[0].images[0].get_array().filled(np.nan), 100 * np.mean(pairs, axis=0))
    with pytest.raises(ValueError, match="accuracy_differences needs accuracy matrices of the baseline"):
        report.accuracy_differences(frame, baseline="er")
