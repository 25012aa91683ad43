"""Anytime measures: worked by hand, against loops, undefined cases and bad input."""

import warnings

from cl_ext import metrics

import numpy as np
import pytest
from numpy.testing import assert_allclose

NAN = float("nan")
CURVE = np.array(
    [
        [0.6, 0.0, 0.0],
        [0.9, 0.0, 0.0],  # the end of experience 1
        [0.2, 0.5, 0.0],  # the stability gap: experience 1 drops, then recovers
        [0.7, 0.8, 0.0],
        [0.5, 0.4, 0.6],
        [0.6, 0.7, 0.9],
    ]
)
EXPERIENCE = np.array([1, 1, 2, 2, 3, 3])


@pytest.fixture(autouse=True)
def _no_warning_ever():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_by_hand():
    seen = [0.6, 0.9, 0.35, 0.75, 0.5, 2.2 / 3]
    assert_allclose(metrics.accuracy_at_instants(CURVE, EXPERIENCE), seen)
    assert metrics.average_anytime_accuracy(CURVE, EXPERIENCE) == pytest.approx(sum(seen) / 6)
    # Experience 1 falls to 0.2 while 2 trains, experience 2 to 0.4 while 3 trains; what it had before it ended is out.
    assert metrics.min_accuracy(CURVE, EXPERIENCE) == pytest.approx((0.2 + 0.4) / 2)
    assert metrics.worst_case_accuracy(CURVE, EXPERIENCE) == pytest.approx(0.9 / 3 + 2 / 3 * 0.3)


@pytest.mark.parametrize("seed", range(5))
def test_against_loops(seed):
    random = np.random.RandomState(seed)
    T, each = 4, 3
    curve = random.rand(T * each, T)
    experience = np.repeat(np.arange(1, T + 1), each)
    lows = [min(curve[n, j - 1] for n in range(len(curve)) if experience[n] > j) for j in range(1, T)]
    anytime = [sum(curve[n, : experience[n]]) / experience[n] for n in range(len(curve))]
    assert metrics.min_accuracy(curve, experience) == pytest.approx(sum(lows) / (T - 1))
    assert metrics.average_anytime_accuracy(curve, experience) == pytest.approx(sum(anytime) / len(anytime))
    expected = curve[-1, -1] / T + (1 - 1 / T) * sum(lows) / (T - 1)
    assert metrics.worst_case_accuracy(curve, experience) == pytest.approx(expected)


def test_a_point_after_each_experience_is_the_matrix():
    R = np.random.RandomState(0).rand(6, 5)
    steps = np.arange(1, 6)
    assert metrics.average_anytime_accuracy(R[1:], steps) == pytest.approx(metrics.average_incremental_accuracy(R))
    assert_allclose(metrics.accuracy_at_instants(R[1:], steps), metrics.accuracy_over_stream(R))


def test_undefined():
    assert np.isnan(metrics.min_accuracy(CURVE[:2], EXPERIENCE[:2]))
    assert metrics.worst_case_accuracy(CURVE[:2], EXPERIENCE[:2]) == 0.9
    future = CURVE.copy()
    future[CURVE == 0] = NAN
    assert metrics.average_anytime_accuracy(future, EXPERIENCE) == pytest.approx(
        metrics.average_anytime_accuracy(CURVE, EXPERIENCE)
    )
    hole = CURVE.copy()
    hole[2, 0] = NAN
    assert np.isnan(metrics.average_anytime_accuracy(hole, EXPERIENCE))
    assert np.isnan(metrics.min_accuracy(hole, EXPERIENCE))


@pytest.mark.parametrize(
    ("curve", "experience"),
    [
        (np.zeros(3), [1, 1, 1]),
        (np.zeros((0, 3)), []),
        (np.zeros((3, 2)), [1, 1]),
        (np.zeros((3, 2)), [1, 1, 3]),
        (np.zeros((3, 2)), [0, 1, 2]),
        (np.zeros((3, 2)), [1, 2, 1]),
        (np.zeros((3, 2)), [1.0, 1.5, 2.0]),
        (np.full((3, 2), 80.0), [1, 1, 2]),
    ],
)
@pytest.mark.parametrize("name", ["average_anytime_accuracy", "min_accuracy", "worst_case_accuracy"])
def test_bad_input(name, curve, experience):
    with pytest.raises(ValueError, match=r"experience|curve|instants"):
        metrics.METRICS[name].function(curve, experience)


def test_windows_by_hand():
    # after each began, experience 1 falls by 0.9 - 0.2 and 2 by 0.8 - 0.4, side by side; 3 never falls
    assert metrics.windowed_forgetting(CURVE, EXPERIENCE, window=2) == pytest.approx((0.7 + 0.4 + 0.0) / 3)
    # rises: 0.2 -> 0.7, then 0.5 -> 0.8 and 0.4 -> 0.7, then 0.6 -> 0.9
    assert metrics.windowed_plasticity(CURVE, EXPERIENCE, window=2) == pytest.approx((0.5 + 0.3 + 0.3) / 3)
    # over all instants experience 1 still falls most from 0.9 to 0.2, and rises most from there to 0.7
    assert metrics.windowed_forgetting(CURVE, EXPERIENCE) == pytest.approx((0.7 + 0.4 + 0.0) / 3)
    assert metrics.windowed_plasticity(CURVE, EXPERIENCE) == pytest.approx((0.5 + 0.3 + 0.3) / 3)


@pytest.mark.parametrize("window", [2, 3, 5, 20])
@pytest.mark.parametrize("seed", range(3))
def test_windows_against_loops(seed, window):
    random = np.random.RandomState(seed)
    T, each = 3, 6
    curve = random.rand(T * each, T)
    experience = np.repeat(np.arange(1, T + 1), each)
    falls, rises = [], []
    for j in range(T):
        values = [curve[n, j] for n in range(len(curve)) if experience[n] > j]
        pairs = [(a, b) for i, a in enumerate(values) for b in values[i : i + window]]
        falls.append(max(a - b for a, b in pairs))
        rises.append(max(b - a for a, b in pairs))
    assert metrics.windowed_forgetting(curve, experience, window) == pytest.approx(sum(falls) / T)
    assert metrics.windowed_plasticity(curve, experience, window) == pytest.approx(sum(rises) / T)


def test_windows_of_curves_that_only_rise_or_stay():
    rising = np.linspace(0.1, 0.9, 9)[:, None]
    ones = np.ones(9, dtype=int)
    assert metrics.windowed_forgetting(rising, ones, 3) == 0
    assert metrics.windowed_plasticity(rising, ones, 3) == pytest.approx(0.2)
    assert metrics.windowed_plasticity(rising, ones, 9) == pytest.approx(0.8)
    assert metrics.windowed_forgetting(np.full((9, 1), 0.5), ones) == 0
    assert metrics.windowed_forgetting(rising[:1], ones[:1]) == 0


def test_windows_are_undefined_where_an_instant_after_the_beginning_is():
    future = CURVE.copy()
    future[CURVE == 0] = NAN
    assert metrics.windowed_forgetting(future, EXPERIENCE) == metrics.windowed_forgetting(CURVE, EXPERIENCE)
    hole = CURVE.copy()
    hole[3, 0] = NAN
    assert np.isnan(metrics.windowed_forgetting(hole, EXPERIENCE))
    assert np.isnan(metrics.windowed_plasticity(hole, EXPERIENCE))


@pytest.mark.parametrize("window", [1, 0, -3])
def test_a_window_holds_two(window):
    with pytest.raises(ValueError, match=f"window is {window}"):
        metrics.windowed_forgetting(CURVE, EXPERIENCE, window)


R = np.array([[0.1, 0.2, 0.3], [0.9, 0.2, 0.1], [0.7, 0.8, 0.1], [0.6, 0.7, 0.9]])
STEPS = np.array([1, 2, 3, 4, 5, 6])


def test_learning_curve_area_by_hand():
    # b = 0 is the matrix before the experience, then one and two batches of it
    areas = [(0.1 + 0.6 + 0.9) / 3, (0.2 + 0.5 + 0.8) / 3, (0.1 + 0.6 + 0.9) / 3]
    assert metrics.learning_curve_area(R, CURVE, EXPERIENCE, STEPS, shots=2) == pytest.approx(sum(areas) / 3)
    first = [(0.1 + 0.6) / 2, (0.2 + 0.5) / 2, (0.1 + 0.6) / 2]
    assert metrics.learning_curve_area(R, CURVE, EXPERIENCE, STEPS, shots=1) == pytest.approx(sum(first) / 3)


def test_learning_curve_area_needs_every_one_of_the_first_batches():
    assert np.isnan(metrics.learning_curve_area(R, CURVE, EXPERIENCE, STEPS))  # two batches an experience, not ten
    assert np.isnan(metrics.learning_curve_area(R, CURVE, EXPERIENCE, 10 * STEPS, shots=2))
    grown = R.copy()
    grown[0] = NAN
    assert np.isnan(metrics.learning_curve_area(grown, CURVE, EXPERIENCE, STEPS, shots=2))
    assert np.isnan(metrics.learning_curve_area(R, CURVE[2:], EXPERIENCE[2:], STEPS[2:], shots=2))


@pytest.mark.parametrize(
    ("steps", "shots", "match"),
    [(STEPS, 0, "shots is 0"), (STEPS[:3], 2, "iteration must have shape")],
)
def test_bad_learning_curve_area(steps, shots, match):
    with pytest.raises(ValueError, match=match):
        metrics.learning_curve_area(R, CURVE, EXPERIENCE, steps, shots)


def test_learning_curve_area_wants_one_number_of_experiences():
    with pytest.raises(ValueError, match="the curve must have T = 2 columns"):
        metrics.learning_curve_area(R[:3, :2], CURVE, EXPERIENCE, STEPS)
