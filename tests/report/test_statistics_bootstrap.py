"""Aggregates over streams: closed forms, enumeration, invariances, what undefined and few runs do."""

import itertools
import math

from cl_ext.report.statistics import (
    Interval,
    iqm,
    mean,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats


def tables():
    """Task -> runs, on a coarse grid: ties and tasks without variance are frequent."""
    runs = st.lists(st.integers(-2, 6).map(lambda value: value / 4), min_size=2, max_size=6)
    columns = st.lists(runs, min_size=1, max_size=4)
    return columns.map(lambda found: {f"t{k}": column for k, column in enumerate(found)})


def test_iqm_by_hand():
    assert iqm([[0.0, 1.0], [2.0, 100.0]]) == 1.5
    assert iqm(np.arange(8.0).reshape(4, 2)) == 3.5
    assert iqm([[1.0, 5.0, 9.0]]) == 5.0  # floor(3 / 4) = 0 are left out
    assert iqm([[1.0], [2.0], [30.0], [4.0], [5.0]]) == pytest.approx(11 / 3)
    np.testing.assert_array_equal(iqm(np.arange(16.0).reshape(2, 4, 2)), [3.5, 11.5])
    assert mean([[0.0, 1.0], [2.0, 5.0]]) == 2.0


def test_undefined_stays_undefined():
    assert math.isnan(iqm([[0.5, math.nan], [0.5, 0.5]]))  # left to a sort, the NaN would go with the highest quarter
    assert math.isnan(iqm(np.zeros((0, 3))))
    assert math.isnan(mean([[math.nan]]))
    nothing = Interval(math.nan, math.nan, math.nan)
    for scores in ({}, {"a": []}, {"a": [0.5, 0.6], "b": [0.5, math.nan]}):
        assert repr(stratified_bootstrap(scores)) == repr(nothing)
        assert repr(probability_of_improvement(scores, scores)) == repr(nothing)
        assert np.isnan(performance_profile(scores, [0.1, 0.2])).all()


def test_one_run_has_no_spread():
    one = stratified_bootstrap({"a": [0.5], "b": [0.7]}, mean)
    assert (one.estimate, math.isnan(one.low), math.isnan(one.high)) == (0.6, True, True)
    found = probability_of_improvement({"a": [0.5]}, {"a": [0.4]})
    assert (found.estimate, math.isnan(found.low)) == (1.0, True)
    share, low, high = performance_profile({"a": [0.5], "b": [0.1, 0.2]}, [0.15])
    assert (share[0], math.isnan(low[0]), math.isnan(high[0])) == (0.75, True, True)


def test_no_variance_no_width():
    assert stratified_bootstrap({"a": [0.5] * 4, "b": [0.25] * 4}, mean) == Interval(0.375, 0.375, 0.375)
    assert probability_of_improvement({"a": [0.5] * 4}, {"a": [0.5] * 3}) == Interval(0.5, 0.5, 0.5)
    assert probability_of_improvement({"a": [0.5] * 4}, {"a": [0.4] * 3}) == Interval(1.0, 1.0, 1.0)


def test_draws_stay_within_their_task():
    """Were runs drawn across tasks, the mean of two tasks without variance would vary."""
    apart = {"a": [0.0, 0.0, 0.0], "b": [1.0, 1.0, 1.0]}
    assert stratified_bootstrap(apart, mean) == Interval(0.5, 0.5, 0.5)
    pooled = stratified_bootstrap({"all": [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]}, mean)
    assert pooled.high - pooled.low > 0.5


def test_the_interval_is_that_of_all_resamples():
    runs = {"a": [0.0, 1.0, 5.0], "b": [2.0, 2.5, 9.0]}
    draws = list(itertools.product(range(3), repeat=3))
    sums = {task: np.array([np.mean([values[k] for k in draw]) for draw in draws]) for task, values in runs.items()}
    every = (sums["a"][:, None] + sums["b"]).ravel() / 2
    low, high = np.quantile(every, [0.025, 0.975])
    found = stratified_bootstrap(runs, mean, repetitions=200_000)
    assert found.estimate == pytest.approx(3.25)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05)


def test_width_for_a_normal_sample():
    rng = np.random.RandomState(0)
    column = rng.randn(200)
    found = stratified_bootstrap({"a": column}, mean)
    half = 1.96 * column.std() / math.sqrt(200)
    assert (found.low, found.high) == pytest.approx((column.mean() - half, column.mean() + half), abs=0.02)


def test_tasks_with_different_numbers_of_runs_count_the_same():
    ragged = {"a": [0.0, 1.0], "b": [3.0, 4.0, 8.0]}
    assert stratified_bootstrap(ragged, mean).estimate == pytest.approx((0.5 + 5) / 2)
    # each run of a three times, each of b twice; of twelve, three are left out at each end
    assert stratified_bootstrap(ragged, iqm).estimate == pytest.approx(np.mean([1, 1, 1, 3, 3, 4]))
    many = {task: np.random.RandomState(n).rand(n) for task, n in (("a", 17), ("b", 19), ("c", 20), ("d", 3))}
    found = stratified_bootstrap(many, mean, repetitions=200)  # 19,380 of each: drawn in parts
    assert found.estimate == pytest.approx(np.mean([values.mean() for values in many.values()]))
    assert found.low < found.estimate < found.high


@given(tables())
def test_the_interval_holds_the_estimate_within_the_range(scores):
    every = [value for runs in scores.values() for value in runs]
    for statistic in (iqm, mean):
        found = stratified_bootstrap(scores, statistic, repetitions=50)
        assert min(every) - 1e-12 <= found.low <= found.estimate <= found.high <= max(every) + 1e-12


@given(tables(), st.randoms(use_true_random=False))
def test_order_of_runs_and_tasks_is_nothing(scores, random):
    mixed = {task: random.sample(runs, len(runs)) for task, runs in random.sample(list(scores.items()), len(scores))}
    other = {task: [0.5, 0.25, 0.7] for task in scores}
    plain = stratified_bootstrap(scores, iqm, repetitions=50)
    found = stratified_bootstrap(mixed, iqm, repetitions=50)
    assert [found.estimate, found.low, found.high] == pytest.approx([plain.estimate, plain.low, plain.high], abs=1e-12)
    p, q = probability_of_improvement(scores, other, 50), probability_of_improvement(mixed, other, 50)
    assert [p.estimate, p.low, p.high] == pytest.approx([q.estimate, q.low, q.high], abs=1e-12)
    np.testing.assert_allclose(
        performance_profile(mixed, [0.1, 0.5], 50), performance_profile(scores, [0.1, 0.5], 50), atol=1e-12
    )


@given(tables(), st.sampled_from([0.01, 4.0, 1e5]), st.sampled_from([-2.0, 0.0, 7.0]))
def test_unit_and_origin(scores, scale, shift):
    moved = {task: scale * (np.array(runs) + shift) for task, runs in scores.items()}
    plain = stratified_bootstrap(scores, iqm, repetitions=50)
    found = stratified_bootstrap(moved, iqm, repetitions=50)
    expected = [scale * (value + shift) for value in (plain.estimate, plain.low, plain.high)]
    assert [found.estimate, found.low, found.high] == pytest.approx(expected, rel=1e-9, abs=1e-9 * scale)
    other = {task: [0.25, 0.5] for task in scores}
    both = {task: scale * (np.array(runs) + shift) for task, runs in other.items()}
    assert probability_of_improvement(moved, both, 50) == probability_of_improvement(scores, other, 50)


@given(tables(), st.integers(0, 1000))
def test_improvement_one_way_and_the_other(scores, seed):
    rng = np.random.RandomState(seed)
    other = {task: rng.randint(-2, 7, rng.randint(2, 6)) / 4 for task in scores}
    there, back = probability_of_improvement(scores, other, 50), probability_of_improvement(other, scores, 50)
    assert there.estimate + back.estimate == pytest.approx(1.0)
    assert (there.low, there.high) == pytest.approx((1 - back.high, 1 - back.low))
    assert 0.0 <= there.low <= there.estimate <= there.high <= 1.0
    expected = [
        stats.mannwhitneyu(scores[task], other[task]).statistic / len(scores[task]) / len(other[task])
        for task in scores
    ]
    assert there.estimate == pytest.approx(np.mean(expected))
    same = probability_of_improvement(scores, scores, 50)
    assert (same.estimate, same.low) == pytest.approx((0.5, 1 - same.high))


def test_improvement_of_all_resamples():
    x, y = [0.1, 0.5, 0.6], [0.2, 0.3, 0.55]
    draws = list(itertools.product(range(3), repeat=3))
    every = [
        np.mean([[x[i] > y[j] for j in second] for i in first]) for first in draws for second in draws
    ]  # without ties between x and y
    low, high = np.quantile(every, [0.025, 0.975])
    found = probability_of_improvement({"a": x}, {"a": y}, repetitions=100_000)
    assert found.estimate == pytest.approx(5 / 9)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


@given(tables())
def test_a_profile_falls_from_one_to_zero(scores):
    limits = np.linspace(-1, 2, 25)
    share, low, high = performance_profile(scores, limits, repetitions=50)
    assert (share[0], share[-1]) == (1.0, 0.0)
    assert (np.diff(share) <= 1e-12).all()
    assert ((low <= share) & (share <= high) & (low >= 0) & (high <= 1)).all()


def test_a_profile_by_hand():
    share, _, _ = performance_profile({"a": [0.1, 0.2], "b": [0.3, 0.4, 0.5]}, [0.1, 0.25, 0.4])
    assert share == pytest.approx([(1 / 2 + 1) / 2, (0 + 1) / 2, (0 + 1 / 3) / 2])  # above, not at


def test_results_are_the_same_again_and_leave_the_global_generator_alone():
    scores = {"a": [0.1, 0.52, 0.9, 0.33], "b": [0.44, 0.2, 0.31, 0.77]}
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    first = stratified_bootstrap(scores)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert stratified_bootstrap(scores) == first
    assert stratified_bootstrap(scores, seed=1) != first
    # numpy keeps RandomState's stream: these stay what they are
    assert [first.estimate, first.low, first.high] == pytest.approx([0.4, 0.23, 0.645])


def test_bad_input():
    with pytest.raises(ValueError, match=r"the scores of task 'a' have the shape \(1, 2\); they are a row"):
        stratified_bootstrap({"a": [[0.1, 0.2]]})
    with pytest.raises(ValueError, match=r"both sides need the same tasks; only one of them has 'b'"):
        probability_of_improvement({"a": [0.1]}, {"a": [0.1], "b": [0.2]})
    with pytest.raises(ValueError, match="there are 0 repetitions"):
        stratified_bootstrap({"a": [0.1, 0.2]}, repetitions=0)
    with pytest.raises(ValueError, match=r"the statistic made \(\) of \(1, 2, 1\); it has to reduce the last two axes"):
        stratified_bootstrap({"a": [0.1, 0.2]}, np.mean)
    with pytest.raises(ValueError, match=r"scores have the shape \(2,\)"):
        iqm([0.1, 0.2])
    with pytest.raises(ValueError, match="thresholds have the shape"):
        performance_profile({"a": [0.1, 0.2]}, 0.5)
