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
