"""Intervals of a handful of seeds."""

import math
import warnings

from cl_ext.report.statistics import band, half_width, summarize

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
