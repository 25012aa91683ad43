"""Friedman's test: against scipy, by hand, and only where there are streams enough."""

import math

from cl_ext.report.statistics import critical_difference, friedman

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

scores = st.integers(0, 10_000).map(lambda seed: np.random.RandomState(seed).randint(0, 6, (11, 4)) / 8)


@given(scores)
def test_it_is_scipys_with_ties(table):
    found = friedman(table)
    expected = stats.friedmanchisquare(*table.T)
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue), rel=1e-9)
    assert found.ranks.sum() == pytest.approx(4 * 5 / 2)


@given(scores, st.permutations(range(4)), st.permutations(range(11)))
def test_order_of_methods_and_streams_is_nothing(table, methods, streams):
    plain, mixed = friedman(table), friedman(table[streams][:, methods])
    np.testing.assert_allclose(mixed.ranks, plain.ranks[methods])
    assert mixed.statistic == pytest.approx(plain.statistic)


@given(scores)
def test_ranks_know_no_unit_of_a_stream(table):
    units = np.linspace(0.1, 50, 11)[:, None]
    np.testing.assert_array_equal(friedman(units * table - 3 * units).ranks, friedman(table).ranks)


def test_by_hand():
    table = np.tile([0.9, 0.5, 0.1], (10, 1))
    found = friedman(table)
    np.testing.assert_array_equal(found.ranks, [1, 2, 3])
    assert found.statistic == pytest.approx(20)  # the greatest: N (K - 1)
    assert found.p == pytest.approx(math.exp(-10))  # of two degrees of freedom
    assert found.carries
    assert "Friedman's test of 3 methods on 10 streams: chi-squared(2) = 20.0, p = 4.5e-05" in found.sentence


def test_two_methods_are_a_sign_test():
    found = friedman([[0.2, 0.1]] * 9 + [[0.1, 0.2]] * 3)
    np.testing.assert_allclose(found.ranks, [1.25, 1.75])
    assert found.statistic == pytest.approx((9 - 3) ** 2 / 12)


def test_all_ties():
    found = friedman(np.full((12, 3), 0.5))
    np.testing.assert_array_equal(found.ranks, [2, 2, 2])
    assert math.isnan(found.statistic)
    assert math.isnan(found.p)
    assert found.sentence == "All 3 methods tie on all 12 streams."


@pytest.mark.parametrize(("streams", "apart"), [(4, 6.8), (6, 5.5), (10, 4.3)])
def test_critical_difference_of_ten_methods(streams, apart):
    assert critical_difference(10, streams) == pytest.approx(apart, abs=0.05)


def test_too_few_streams_carry_nothing():
    found = friedman(np.random.RandomState(0).rand(9, 4))
    assert not found.carries
    assert "at least 10 streams, and there are 9" in found.sentence
    assert np.isfinite(found.ranks).all()
    one = friedman([[0.5, 0.9]])
    np.testing.assert_array_equal(one.ranks, [2, 1])
    assert not one.carries


def test_missing_cells_carry_nothing():
    table = np.random.RandomState(0).rand(12, 4)
    table[3, 1] = math.nan
    found = friedman(table)
    assert not found.carries
    assert np.isnan(found.ranks).all()
    assert found.sentence.startswith("No Friedman test: 1 of 48 cells are missing")
    assert friedman(np.zeros((12, 1))).sentence.startswith("No Friedman test: there are 12 streams and 1 methods")
    assert not friedman(np.zeros((0, 4))).carries


def test_bad_input():
    with pytest.raises(ValueError, match=r"the scores have the shape \(3,\)"):
        friedman([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="the level is 1"):
        friedman(np.zeros((12, 3)), level=1)
