"""Tiers: what they claim, what they don't, and that they depend on nothing else."""

import math

from cl_ext.report.statistics import holm, paired_difference, tiering, tiers
from cl_ext.report.statistics.signed_rank import differences, signed_rank

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st


def board(table):
    return {f"m{k}": dict(enumerate(map(float, row))) for k, row in enumerate(table)}


def groups(*levels, n=20, spread=0.01, seed=1):
    """Rows at these levels with a little noise."""
    return np.array(levels)[:, None] + spread * np.random.RandomState(seed).randn(len(levels), n)


def test_three_groups_are_three_tiers():
    found = tiering(board(groups(0.5, 0.9, 0.9001, 0.5002, 0.2)))
    assert found.tiers == {"m0": 2, "m1": 1, "m2": 1, "m3": 2, "m4": 3}
    assert found.basis == "test"
    assert "10 pairs of rows over 20 seeds, Holm's correction, level 0.05" in found.sentence
    assert tiers(board(groups(0.5, 0.9, 0.9001, 0.5002, 0.2))) == found.tiers


def test_where_no_exact_test_could_tell_the_interval_does():
    five = board(groups(0.5, 0.9, 0.9001, n=5))
    found = tiering(five)
    assert (found.tiers, found.basis) == ({"m0": 2, "m1": 1, "m2": 1}, "interval")
    assert "paired t-intervals of 3 pairs of rows over 5 seeds" in found.sentence
    # three pairs: 2^(1 - n) * 3 <= .05 from n = 7 on
    assert [tiering(board(groups(0.5, 0.9, 0.7, n=n))).basis for n in (6, 7)] == ["interval", "test"]
    # 780 pairs of 40 rows: from n = 15 on
    assert [tiering(board(np.random.RandomState(0).rand(40, n))).basis for n in (14, 15)] == ["interval", "test"]


def test_the_interval_is_the_t_tests():
    """Two rows: parted exactly where the 95 % Student-t interval of their differences leaves 0 out."""
    rng = np.random.RandomState(1)
    parted = 0
    for _ in range(60):
        table = board(rng.randn(2, 5) + np.array([[1.2], [0.0]]))
        difference = paired_difference(table["m0"], table["m1"])
        apart = abs(difference.mean) > difference.half_width
        parted += apart
        assert (max(tiers(table).values()) == 2) == apart
    assert 10 < parted < 50


def test_too_few_seeds_say_nothing():
    found = tiering(board(groups(0.5, 0.9, n=4)))
    assert found.tiers == {"m0": None, "m1": None}
    assert (found.basis, found.sentence) == ("none", "No tiers: they need at least 5 seeds, and there are 4.")
    assert tiers(board(groups(0.5, 0.9, n=1))) == {"m0": None, "m1": None}
    assert tiers({}) == {}
    assert tiers({"a": {}}) == {"a": None}


def test_rows_with_missing_seeds_have_none():
    table = board(groups(0.2, 0.9, 0.5, 0.8))
    del table["m1"][3]
    table["m2"][0] = math.nan
    table["gone"] = dict.fromkeys(range(20), math.nan)
    found = tiers(table)
    assert found == {"m0": 2, "m1": None, "m2": None, "m3": 1, "gone": None}
    nobody = {"a": dict.fromkeys(range(6), 0.5), "b": dict.fromkeys(range(3, 9), 0.5)}
    assert tiering(nobody).sentence == "No tiers: no row has all 9 seeds."


def test_ties_and_rows_without_variance():
    assert tiers(board(np.full((4, 8), 0.5))) == dict.fromkeys(("m0", "m1", "m2", "m3"), 1)
    flat = board(np.array([0.5, 0.6, 0.6, 0.4])[:, None] * np.ones(8))  # every difference the same at all seeds
    assert tiers(flat) == {"m0": 2, "m1": 1, "m2": 1, "m3": 3}
    # by intervals too: 190 pairs at 8 seeds
    many = tiering(board(np.r_[np.full((10, 8), 0.6), np.full((10, 8), 0.4)]))
    assert (many.basis, [*many.tiers.values()]) == ("interval", [1] * 10 + [2] * 10)
    assert tiering(board(np.full((1, 8), 0.5))).tiers == {"m0": 1}


def test_one_that_varies_much_holds_a_tier_together():
    """A row that is not shown worse than the best keeps all rows above it in the tier: no claim that was not shown."""
    n = 20
    best, near = np.full(n, 0.9) + 0.001 * np.arange(n), np.full(n, 0.85) + 0.002 * np.arange(n)
    erratic = np.where(np.arange(n) % 2, 0.2, 1.0)
    assert tiers(board([best, near])) == {"m0": 1, "m1": 2}
    assert tiers(board([best, near, erratic])) == {"m0": 1, "m1": 1, "m2": 1}


coarse = st.integers(0, 10_000).map(
    lambda seed: (
        np.random.RandomState(seed).randint(0, 4, (6, 10)) / 8 + np.random.RandomState(seed).rand(6, 1).round(1)
    )
)


@given(coarse, st.permutations(range(6)), st.permutations(range(10)))
def test_order_of_rows_and_seeds_is_nothing(table, rows, seeds):
    plain = tiers(board(table))
    mixed = tiers({f"m{k}": {seed: float(table[k, seed]) for seed in seeds} for k in rows})
    assert mixed == plain


@given(coarse)
def test_a_higher_mean_is_never_in_a_lower_tier(table):
    found = tiers(board(table))
    means = [round(float(row.mean()), 9) for row in table]
    for k in range(6):
        for other in range(6):
            if means[k] >= means[other]:
                assert found[f"m{k}"] <= found[f"m{other}"]
    assert sorted({*found.values()}) == [*range(1, max(found.values()) + 1)]


@given(coarse, st.sampled_from([0.01, 3.0, 1e4]), st.sampled_from([-0.7, 5.0]))
def test_unit_and_origin_are_nothing(table, scale, shift):
    assert tiers(board(scale * (table + shift))) == tiers(board(table))


@given(coarse)
def test_what_a_tier_claims_is_shown(table):
    """Every row of a lower tier against the best row of each tier above, recomputed from all pairs."""
    found = [*tiers(board(table)).values()]
    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    corrected = dict(
        zip(pairs, holm([float(signed_rank(differences(table[i], table[j])).p) for i, j in pairs]), strict=True)
    )
    for tier in range(1, max(found)):
        best = max((k for k in range(6) if found[k] == tier), key=lambda k: table[k].mean())
        for below in (k for k in range(6) if found[k] > tier):
            assert corrected[min(best, below), max(best, below)] <= 0.05


def test_equal_methods_are_one_tier_but_for_the_level():
    """The best of many equal rows, compared as if it had been named beforehand, seems better far more often."""
    rng = np.random.RandomState(5)
    tables = [rng.randn(12, 14) for _ in range(250)]
    allowed = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 250)
    assert tiering(board(tables[0])).basis == "test"
    assert np.mean([max(tiers(board(table)).values()) > 1 for table in tables]) <= allowed

    def against_the_best(table):
        best = int(table.mean(axis=1).argmax())
        return bool((holm(signed_rank(table[best] - np.delete(table, best, axis=0)).p) <= 0.05).any())

    assert np.mean([against_the_best(table) for table in tables]) > allowed


def test_bad_level():
    with pytest.raises(ValueError, match="the level is 0"):
        tiers(board(groups(0.5)), level=0)
