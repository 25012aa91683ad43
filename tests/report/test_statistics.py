"""Intervals of a handful of seeds."""

import math
import warnings

from cl_ext.report.statistics import band, half_width, holm, paired_difference, summarize

import numpy as np
import pytest
from scipy import stats

SAMPLE = [0.80, 0.82, 0.78, 0.84, 0.81]


@pytest.fixture(autouse=True)
def _no_warning_ever():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_by_hand():
    summary = summarize(SAMPLE)
    # Deviations from 0.81: -.01, .01, -.03, .03, 0; their squares sum to .0020.
    sd = math.sqrt(0.0020 / 4)
    assert (summary.mean, summary.sd, summary.n) == (pytest.approx(0.81), pytest.approx(sd), 5)
    assert summary.half_width == pytest.approx(2.776 * sd / math.sqrt(5), rel=1e-3)
    assert not summary.few


@pytest.mark.parametrize(("n", "factor"), [(3, 2.48), (5, 1.24), (10, 0.72), (20, 0.47)])
def test_width_in_standard_deviations(n, factor):
    assert half_width(1.0, n) == pytest.approx(factor, abs=0.006)


def test_against_scipy():
    low, high = stats.ttest_1samp(SAMPLE, 0).confidence_interval(0.95)
    summary = summarize(SAMPLE)
    assert (summary.mean - summary.half_width, summary.mean + summary.half_width) == pytest.approx((low, high))
    assert band(SAMPLE) == pytest.approx((low, high))


def test_few_none_and_undefined():
    assert summarize([0.8, 0.9, 0.7]).few
    one = summarize([0.8, float("nan")])
    assert (one.mean, one.n, one.few) == (0.8, 1, True)
    assert np.isnan([one.sd, one.half_width]).all()
    none = summarize([float("nan")])
    assert none.n == 0
    assert np.isnan([none.mean, none.sd, none.half_width]).all()
    assert summarize([0.5] * 5).half_width == 0


def test_band_of_few_seeds_is_their_range():
    assert band([0.8, 0.9, 0.7]) == (0.7, 0.9)
    assert np.isnan(band([0.8])).all()


def test_entry_by_entry():
    np.testing.assert_allclose(half_width([1.0, 2.0, np.nan, 1.0], [5, 5, 1, 0])[:2], [1.2416, 2.4833], atol=1e-4)
    assert np.isnan(half_width([1.0, 1.0], [1, 0])).all()


def test_a_paired_difference_by_hand():
    ours = {0: 0.85, 1: 0.80, 2: 0.90, 3: 0.7, 7: float("nan")}
    theirs = {0: 0.80, 1: 0.82, 2: 0.80, 4: 0.9, 7: 0.5}
    found = paired_difference(ours, theirs)  # seeds 0, 1, 2: .05, -.02, .10
    low, high = stats.ttest_rel([0.85, 0.80, 0.90], [0.80, 0.82, 0.80]).confidence_interval(0.95)
    assert (found.n, found.better, found.least_p) == (3, 2, 0.25)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))
    # ranks 2, 1, 3 with the signs +, -, +: of the 8 equally likely signs, W- <= 1 at 2, on both sides 4
    assert found.p == pytest.approx(0.5)


def test_seeds_that_pair_off_narrow_the_interval():
    rng = np.random.default_rng(0)
    level = rng.normal(0.8, 0.05, 20)
    found = paired_difference(dict(enumerate(level + 0.01)), dict(enumerate(level)))
    assert found.mean == pytest.approx(0.01)
    assert found.half_width < 1e-12
    assert found.p == found.least_p == 2.0**-19


def test_equal_seeds_and_none():
    same = paired_difference({0: 0.5, 1: 0.6}, {0: 0.5, 1: 0.6})
    assert (same.mean, same.better) == (0.0, 1.0)
    assert math.isnan(same.p)
    none = paired_difference({0: 0.5}, {1: 0.5})
    assert none.n == 0
    assert math.isnan(none.mean)


def test_holm_by_hand_and_in_any_order():
    # .01 * 4, .02 * 3, .03 * 2 = .06 as well, .5
    expected = [0.06, 0.04, np.nan, 0.5, 0.06]
    np.testing.assert_allclose(holm([0.03, 0.01, np.nan, 0.5, 0.02]), expected)
    np.testing.assert_allclose(holm([0.9, 0.8]), [1.0, 1.0])
    assert holm([]).size == 0


def test_holm_keeps_the_familywise_error():
    rng = np.random.default_rng(1)
    false = np.mean([(holm(rng.uniform(size=10)) < 0.05).any() for _ in range(4000)])
    assert false == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 4000))
    assert np.mean([(rng.uniform(size=10) < 0.05).any() for _ in range(4000)]) > 0.3  # without it
