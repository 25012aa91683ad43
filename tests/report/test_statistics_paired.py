"""Exact signed-rank tests, Holm's correction and verdicts: enumeration, closed forms, power limits."""

import itertools
import math

from cl_ext.report.statistics import compare, holm, paired_difference
from cl_ext.report.statistics.signed_rank import differences, signed_rank

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

# Halves of small whole numbers: exact in floating point, full of ties and zeros.
steps = st.integers(-6, 6).map(lambda value: value / 2)
rows = st.lists(steps, min_size=1, max_size=8)


def enumerated(row):
    """The two-sided p by all signs of the sizes that are not 0, each as probable: (p, how many sums are as extreme)."""
    moved = np.array([value for value in row if value != 0.0])
    ranks = stats.rankdata(np.abs(moved))
    signs = np.array(list(itertools.product((0, 1), repeat=len(moved))))
    sums = signs @ ranks
    seen = ranks[moved > 0].sum()
    return min(1.0, 2 * min((sums <= seen).mean(), (sums >= seen).mean()))


def scores(*each):
    return dict(enumerate(each))


def ahead(n, by=0.1, spread=0.001):
    """A row that is above 0 at every seed, with n different differences."""
    return scores(*(by + spread * np.arange(n)))


@given(rows.filter(any))
def test_p_is_the_share_of_all_signs(row):
    found = signed_rank(row)
    assert float(found.p) == enumerated(row)
    assert found.least_p == min(1.0, 2.0 ** (1 - np.count_nonzero(row)))
    # the least p: all signs alike
    assert signed_rank(np.abs(row)).p == found.least_p <= found.p <= 1.0
    assert signed_rank(np.negative(row)).p == found.p
    assert signed_rank(np.negative(row)).direction == -found.direction


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8))
def test_the_test_keeps_every_level_with_ties(sizes):
    signs = np.array(list(itertools.product((-1, 1), repeat=len(sizes))))
    p = signed_rank(signs * np.array(sizes, dtype=float)).p
    for level in np.unique(p):
        assert (p <= level).mean() <= level


@pytest.mark.parametrize("n", [1, 2, 5, 10, 18, 25, 40])
def test_without_ties_it_is_scipys(n):
    row = np.random.RandomState(n).randn(n) + 0.3
    assert signed_rank(row).p == pytest.approx(stats.wilcoxon(row, method="exact").pvalue, rel=1e-12)


def test_with_ties_scipys_exact_p_is_not_exact():
    row = [1.0, 1.0, 2.0, -1.0, 3.0, 3.0]
    assert stats.wilcoxon(row, method="exact").pvalue == pytest.approx(6 / 64)
    assert float(signed_rank(row).p) == enumerated(row) == 8 / 64


def test_zeros_have_no_rank():
    assert signed_rank([0.0, 3.0, 0.0, -1.0, 2.0]).p == signed_rank([3.0, -1.0, 2.0]).p == 0.5  # sums 5 and 1
    none = signed_rank([0.0, 0.0])
    assert math.isnan(none.p)
    assert (none.least_p, none.direction) == (1.0, 0)


def test_rounding_breaks_no_tie_and_makes_no_difference():
    first = np.array([0.1 + 0.2, 0.85, 0.90, 0.7, 1.1])
    second = np.array([0.3, 0.80, 0.85, 0.75, 1.0])  # 0, .05, .05, -.05, .1
    raw = first - second
    assert np.count_nonzero(raw) == 5  # what the trouble is
    assert len({*np.abs(raw[1:4])}) == 2
    found = differences(first, second)
    np.testing.assert_allclose(found, [0, 0.05, 0.05, -0.05, 0.1], atol=1e-15)
    assert signed_rank(found).p == enumerated([0, 1, 1, -1, 2])
    assert signed_rank(raw).p != signed_rank(found).p
    # of a million times the size, and a real difference of a millionth
    np.testing.assert_allclose(differences([3e6, 1e6 + 1], [3e6, 1e6]), [0, 1], rtol=1e-9)


def test_rows_of_a_table_one_by_one():
    table = np.random.RandomState(0).randint(-3, 4, (4, 5, 7)) / 2
    found = signed_rank(table)
    assert found.p.shape == found.least_p.shape == found.direction.shape == (4, 5)
    for index in np.ndindex(4, 5):
        np.testing.assert_equal(found.p[index], signed_rank(table[index]).p)


@given(rows, st.randoms(use_true_random=False))
def test_seeds_in_any_order(row, random):
    mixed = list(enumerate(row))
    random.shuffle(mixed)
    zero = dict.fromkeys(range(len(row)), 0.0)
    assert repr(paired_difference(dict(mixed), zero)) == repr(paired_difference(dict(enumerate(row)), zero))


@given(rows.filter(any), st.sampled_from([0.001, 0.3, 7.0, 1e6]), st.sampled_from([-3.0, 0.1, 12.7]))
def test_p_knows_neither_unit_nor_origin(row, scale, shift):
    ours = {seed: scale * (value + shift) for seed, value in enumerate(row)}
    theirs = dict.fromkeys(range(len(row)), scale * shift)
    found, plain = paired_difference(ours, theirs), paired_difference(scores(*row), scores(*[0.0] * len(row)))
    assert (found.p, found.least_p, found.better, found.direction) == (
        plain.p, plain.least_p, plain.better, plain.direction,
    )  # fmt: skip
    assert found.mean == pytest.approx(scale * plain.mean, abs=1e-9 * scale)


@given(st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=30))
def test_holm_is_monotone_and_at_least_p(p):
    corrected = holm(p)
    order = np.argsort(p, kind="stable")
    assert (np.diff(corrected[order]) >= 0).all()
    assert (corrected >= p).all()
    assert (corrected <= np.minimum(1.0, len(p) * np.array(p))).all()
    assert corrected.min() == min(1.0, len(p) * min(p))
    assert holm([*p, 0.5])[:-1] == pytest.approx(np.maximum(corrected, holm([*p, 0.5])[:-1]))  # one more test costs


@pytest.mark.parametrize(
    ("n", "least"), [(3, 0.25), (4, 0.125), (5, 0.0625), (6, 0.03125), (8, 0.0078125), (9, 0.00390625), (10, 2.0**-9)]
)
def test_power_limits(n, least):
    assert paired_difference(ahead(n), scores(*[0.0] * n)).least_p == least
    assert paired_difference(ahead(n), scores(*[0.0] * n)).p == least


@pytest.mark.parametrize(("rows", "needed"), [(1, 6), (5, 8), (10, 9), (20, 10), (45, 11)])
def test_seeds_that_holm_needs(rows, needed):
    """Rows against one reference; 45 rows are as many tests as all pairs of 10 methods have."""
    for n, verdict in ((needed - 1, "underpowered"), (needed, "better")):
        table = {row: ahead(n, 0.1 + row) for row in range(rows)} | {"naive": scores(*[0.0] * n)}
        found = compare(table, "naive")
        assert {each.verdict for each in found.values()} == {verdict}
        assert all(each.reachable == each.p_holm == rows * 2.0 ** (1 - n) for each in found.values())


def test_verdicts():
    rng = np.random.RandomState(0)
    base = rng.rand(10)
    few = dict(list(enumerate(base + 0.1))[:4])
    coarse = base.copy()
    coarse[:5] += 0.1  # five pairs differ of ten: the least p is 1/16
    found = compare(
        {
            "naive": scores(*base),
            "better": scores(*(base + 0.1 + 0.01 * rng.rand(10))),
            "worse": scores(*(base - 0.1)),
            "same": scores(*base),
            "noise": scores(*(base + rng.randn(10))),
            "few": few,
            "coarse": scores(*coarse),
            "lost": scores(*[math.nan] * 10),
        },
        "naive",
    )
    verdicts = {label: each.verdict for label, each in found.items()}
    assert verdicts == {
        "better": "better",
        "worse": "worse",
        "same": "equal",
        "noise": "no difference shown",
        "few": "underpowered",
        "coarse": "underpowered",
        "lost": "underpowered",
    }
    assert (found["coarse"].difference.least_p, found["few"].difference.n, found["lost"].difference.n) == (1 / 16, 4, 0)
    # five tests: better, worse, noise, few, coarse
    assert found["better"].p_holm == found["worse"].p_holm == pytest.approx(5 * 2.0**-9)
    assert math.isnan(found["same"].p_holm)
    assert math.isnan(found["lost"].p_holm)


def test_reachable_counts_what_the_other_rows_can_reach():
    """A row with few differences comes last at best, and is then not multiplied."""
    base = np.zeros(12)
    part = base.copy()
    part[:6] = 0.1  # six pairs differ: 1/32
    found = compare({"r": scores(*base), "a": ahead(12), "b": ahead(12), "part": scores(*part)}, "r")
    assert found["part"].reachable == found["part"].p_holm == 1 / 32
    assert found["part"].verdict == "better"
    assert found["a"].reachable == 3 * 2.0**-11


def test_no_claim_where_mean_and_ranks_disagree():
    values = np.array([0.01 * k for k in range(1, 12)] + [-9.0])  # above at 11 seeds, and far below at one
    found = compare({"r": scores(*np.zeros(12)), "odd": scores(*values)}, "r", level=0.3)
    difference = found["odd"].difference
    assert difference.mean < 0 < difference.direction
    assert found["odd"].p_holm <= 0.3
    assert found["odd"].verdict == "no difference shown"


@given(st.permutations(range(5)), st.integers(0, 50))
def test_rows_in_any_order(order, seed):
    table = np.random.RandomState(seed).randint(0, 5, (5, 9)) / 4
    plain = compare({k: scores(*table[k]) for k in range(5)}, 0)
    mixed = compare({k: scores(*table[k]) for k in order}, 0)
    assert {k: repr(each) for k, each in mixed.items()} == {k: repr(each) for k, each in plain.items()}


def test_false_claims_stay_below_the_level():
    rng = np.random.RandomState(3)
    boards = [compare({k: scores(*row) for k, row in enumerate(rng.randn(8, 10))}, 0) for _ in range(200)]
    allowed = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)
    claims = [{each.verdict for each in board.values()} & {"better", "worse"} for board in boards]
    assert np.mean([bool(each) for each in claims]) <= allowed
    without_holm = [any(each.difference.p <= 0.05 for each in board.values()) for board in boards]
    assert np.mean(without_holm) > 1.5 * allowed


def test_a_reference_that_the_scores_picked_costs_all_pairs():
    rng = np.random.RandomState(4)
    table = {k: scores(*row) for k, row in enumerate(np.linspace(0, 0.3, 5)[:, None] + 0.1 * rng.randn(5, 12))}
    del table[2][3]
    pairs = [(i, j) for i in range(5) for j in range(i)]
    tested = {(i, j): paired_difference(table[i], table[j]) for i, j in pairs}
    corrected = dict(zip(pairs, holm([each.p for each in tested.values()]), strict=True))
    reachable = dict(zip(pairs, holm([each.least_p for each in tested.values()]), strict=True))
    found = compare(table, 4, named=False)
    assert [each.p_holm for each in found.values()] == pytest.approx([corrected[4, k] for k in range(4)])
    assert [each.reachable for each in found.values()] == pytest.approx([reachable[4, k] for k in range(4)])
    assert all(each.p_holm >= compare(table, 4)[k].p_holm for k, each in found.items())


def test_the_best_of_equal_rows_is_not_better():
    """As if it had been named beforehand, it would be so more often than the level says."""
    rng = np.random.RandomState(6)
    claims: dict[bool, list[bool]] = {True: [], False: []}
    for _ in range(60):
        table = rng.randn(16, 16)
        best = int(table.mean(axis=1).argmax())
        for named, of in claims.items():
            found = compare({k: scores(*row) for k, row in enumerate(table)}, best, named=named)
            of.append(any(each.verdict in ("better", "worse") for each in found.values()))
    assert np.mean(claims[False]) <= 0.05 < 0.1 < np.mean(claims[True])


def test_bad_input():
    with pytest.raises(ValueError, match=r"no row 'b' to compare with; there are 'a'"):
        compare({"a": scores(1.0)}, "b")
    with pytest.raises(ValueError, match=r"the level is 5; it has to lie between 0 and 1"):
        compare({"a": scores(1.0)}, "a", level=5)
    assert compare({"a": scores(1.0)}, "a") == compare({"a": scores(1.0)}, "a", named=False) == {}
