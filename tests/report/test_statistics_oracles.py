"""Against other libraries: what they gave once (oracles/record.py), and live where they can be imported."""

import json
from pathlib import Path

from cl_ext.report.statistics import (
    friedman,
    holm,
    iqm,
    mean,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap,
)
from cl_ext.report.statistics.signed_rank import signed_rank

import numpy as np
import pytest


def cases(name):
    recorded = json.loads((Path(__file__).parent / "oracles" / f"{name}.json").read_text(encoding="utf-8"))
    assert recorded["versions"]["rliable"] == "1.2.0"
    return [pytest.param(case, id=str(case.get("name", index))) for index, case in enumerate(recorded["cases"])]


def columns(table):
    return dict(enumerate(np.array(table).T))


def close(found, expected, allowed):
    """Ends of two bootstraps of one sample, as far apart as their draws allow: a share of the width, or one step."""
    share, step = allowed
    assert np.abs(np.subtract(found, expected)).max() <= max(share * (expected[1] - expected[0]), step) + 1e-12


@pytest.mark.parametrize("case", cases("aggregates"))
@pytest.mark.parametrize(("key", "statistic"), [("iqm", iqm), ("mean", mean)])
def test_aggregates_are_rliables(case, key, statistic):
    point, low, high = case[key]
    assert statistic(case["x"]) == pytest.approx(point, rel=1e-12)
    found = stratified_bootstrap(columns(case["x"]), statistic, repetitions=20_000)
    assert found.estimate == pytest.approx(point, rel=1e-12)
    step = 1 / np.size(case["x"]) if case["name"] == "ties" else 0.0  # of scores in halves, of which iqm takes a half
    close((found.low, found.high), (low, high), (0.05, step))


@pytest.mark.parametrize("case", cases("aggregates"))
def test_probability_of_improvement_is_rliables(case):
    point, low, high = case["improvement"]
    found = probability_of_improvement(columns(case["x"]), columns(case["y"]), repetitions=20_000)
    assert found.estimate == pytest.approx(point, rel=1e-12)
    close((found.low, found.high), (low, high), (0.12, 0.0))  # only 2,000 draws there


@pytest.mark.parametrize("case", cases("aggregates"))
def test_profiles_are_rliables(case):
    expected = np.array(case["profile"])
    found = np.array(performance_profile(columns(case["x"]), case["thresholds"], repetitions=20_000))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-12)
    # ends are steps of one run in so many: one step at most
    assert np.abs(found[1:] - expected[1:]).max() <= 1.0 / np.size(case["x"]) + 1e-9


@pytest.mark.parametrize("case", cases("signed_rank"))
def test_signed_ranks_are_those_of_scipys_permutations(case):
    assert float(signed_rank(case["differences"]).p) == pytest.approx(case["p"], rel=1e-12)


@pytest.mark.parametrize("case", cases("holm"))
def test_holm_is_statsmodels(case):
    np.testing.assert_allclose(holm(case["p"]), case["corrected"], rtol=1e-12)


@pytest.mark.parametrize("case", cases("ranks"))
def test_ranks_are_autoranks_and_scikit_posthocs(case):
    found = friedman(case["scores"])
    assert found.statistic == pytest.approx(case["statistic"], abs=1e-9)
    assert found.p == pytest.approx(case["p"])
    np.testing.assert_allclose(found.ranks, case["ranks"])
    # autorank reads the studentized range off a table of four digits
    assert found.critical_difference == pytest.approx(case["critical_difference"], rel=1e-4)
    apart = np.abs(found.ranks[:, None] - found.ranks)
    np.testing.assert_array_equal(apart > found.critical_difference, np.array(case["nemenyi"]) < 0.05)


def test_rliable_live():
    library = pytest.importorskip(
        "rliable.library", reason="rliable is not here (it needs pandas below 3)", exc_type=ImportError
    )
    metrics = pytest.importorskip("rliable.metrics")
    x, y = np.random.RandomState(1).rand(2, 10, 4)
    assert iqm(x) == pytest.approx(metrics.aggregate_iqm(x))
    improvement = metrics.probability_of_improvement(x, y)
    assert probability_of_improvement(columns(x), columns(y)).estimate == pytest.approx(improvement)
    share, _ = library.create_performance_profile({"x": x}, np.linspace(0, 1, 9), reps=10)
    np.testing.assert_allclose(performance_profile(columns(x), np.linspace(0, 1, 9))[0], share["x"])


def test_statsmodels_live():
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="statsmodels is not here")
    p = np.random.RandomState(2).rand(40) ** 3
    np.testing.assert_allclose(holm(p), multitest.multipletests(p, method="holm")[1], rtol=1e-12)


def test_scikit_posthocs_live():
    posthocs = pytest.importorskip("scikit_posthocs", reason="scikit-posthocs is not here")
    table = np.random.RandomState(3).rand(15, 6) + np.linspace(0, 1, 6)
    found = friedman(table)
    apart = np.abs(found.ranks[:, None] - found.ranks)
    different = posthocs.posthoc_nemenyi_friedman(table).to_numpy() < 0.05
    np.testing.assert_array_equal(apart > found.critical_difference, different)


def test_autorank_live():
    autorank = pytest.importorskip("autorank", reason="autorank is not here")
    import pandas as pd

    table = np.random.RandomState(4).rand(15, 6)
    result = autorank.autorank(pd.DataFrame(table), alpha=0.05, force_mode="nonparametric", order="descending")
    np.testing.assert_allclose(friedman(table).ranks, result.rankdf["meanrank"].sort_index())
