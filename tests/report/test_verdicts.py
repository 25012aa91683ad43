"""Tiers and differences in the leaderboard: who is compared, with whom, and what few or missing seeds forbid."""

from cl_ext.report import leaderboard
from cl_ext.report.statistics import compare, tiers

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.synthetic import cells

BASE = np.array([0.50, 0.52, 0.49, 0.51, 0.53, 0.50, 0.48, 0.52, 0.51, 0.50])


def rows(frame: pd.DataFrame) -> pd.DataFrame:
    return leaderboard(frame).set_index("method")


def ten() -> pd.DataFrame:
    """er above lwf at every seed, mas equal to lwf in the mean; naive and joint as bounds."""
    swap = np.array([0.01, -0.01] * 5)
    return cells(naive=BASE - 0.3, joint=BASE + 0.4, er=BASE + 0.2, lwf=BASE, mas=BASE + swap)


def test_tiers_and_differences_are_the_statistics_own():
    frame = ten()
    table = rows(frame)
    scores = {name: dict(zip(part["seed"], part["accuracy"], strict=True)) for name, part in frame.groupby("method")}
    own = tiers({name: scores[name] for name in ("er", "lwf", "mas")})
    assert table.loc[["er", "lwf", "mas"], "tier"].tolist() == [own[name] for name in ("er", "lwf", "mas")] == [1, 2, 2]
    against = compare({name: scores[name] for name in ("er", "lwf", "mas", "naive")}, "naive")
    for name, found in against.items():
        assert table.loc[name, "from_naive"] == pytest.approx(found.difference.mean)
        assert table.loc[name, "from_naive_half_width"] == pytest.approx(found.difference.half_width)
        assert table.loc[name, "from_naive_p_holm"] == pytest.approx(found.p_holm)
        assert table.loc[name, ["from_naive_n", "from_naive_better"]].tolist() == [10, 10]
        assert table.loc[name, "from_naive_verdict"] == found.verdict == "better"


def test_the_best_is_a_method_and_references_take_no_part():
    table = rows(ten())
    assert table.loc["lwf", "from_best"] == pytest.approx(-0.2)
    assert table.loc["lwf", "from_best_verdict"] == "worse"
    assert table.loc["er", "from_best_verdict"] == ""
    assert np.isnan(table.loc["er", "from_best"])
    assert table.loc[["naive", "joint"], "tier"].isna().all()
    assert table.loc[["naive", "joint"], ["from_best", "from_naive"]].isna().all(axis=None)
    assert table.loc[["naive", "joint"], ["from_best_verdict", "from_naive_verdict"]].eq("").all(axis=None)


def test_an_incomplete_row_is_never_best_has_no_tier_and_is_compared_with_nothing():
    survived = BASE + 0.3
    survived[3] = np.nan
    table = rows(cells(naive=BASE - 0.3, er=BASE + 0.2, lwf=BASE, gem=survived))
    assert table.loc["gem", "accuracy"] > table.loc["er", "accuracy"]
    assert table["best"].to_dict() == {"gem": False, "er": True, "lwf": False, "naive": False}
    assert pd.isna(table.loc["gem", "tier"])
    assert table.loc["gem", ["from_best_verdict", "from_naive_verdict"]].tolist() == ["incomplete", "incomplete"]
    assert np.isnan(table.loc["gem", "from_naive"])
    # and the others are judged as if it were not there
    without = rows(cells(naive=BASE - 0.3, er=BASE + 0.2, lwf=BASE))
    for column in ("tier", "from_best", "from_best_p_holm", "from_naive_p_holm", "tier_note"):
        pd.testing.assert_series_equal(table.loc[["er", "lwf"], column], without.loc[["er", "lwf"], column])


def test_a_missing_seed_counts_as_a_failed_one():
    frame = cells(naive=BASE - 0.3, er=BASE + 0.2, lwf=BASE)
    frame = frame[~(frame["method"].eq("lwf") & frame["seed"].eq(4))]
    table = rows(frame)
    assert table.loc["lwf", ["n", "cells", "seeds"]].tolist() == [9, 9, 10]
    assert not table.loc["lwf", "complete"]
    assert pd.isna(table.loc["lwf", "tier"])
    assert table.loc["lwf", "from_naive_verdict"] == "incomplete"


def test_four_seeds_claim_nothing():
    table = rows(cells(naive=BASE[:4] - 0.3, er=BASE[:4] + 0.2, lwf=BASE[:4]))
    assert table["tier"].isna().all()
    assert "at least 5 seeds" in table["tier_note"].iloc[0]
    assert table.loc["lwf", "from_best_verdict"] == table.loc["lwf", "from_naive_verdict"] == "underpowered"
    assert table.loc["lwf", "from_best"] == pytest.approx(-0.2)


def test_equal_rows_are_equal():
    table = rows(cells(naive=BASE - 0.3, er=BASE, lwf=BASE))
    assert table.loc[["er", "lwf"], "tier"].tolist() == [1, 1]
    assert table.loc["lwf", "from_best_verdict"] == "equal"


def test_without_naive_there_is_nothing_from_it():
    table = rows(cells(er=BASE + 0.2, lwf=BASE))
    assert table["from_naive"].isna().all()
    assert table["from_naive_verdict"].eq("").all()
    assert table.loc["lwf", "from_best_verdict"] == "worse"


def test_only_references_or_only_failures():
    only = rows(cells(naive=BASE - 0.3, joint=BASE))
    assert only["tier"].isna().all()
    assert not only["best"].any()
    failed = rows(cells(er=np.full(10, np.nan), naive=BASE))
    assert pd.isna(failed.loc["er", "tier"])
    assert failed.loc["er", "from_naive_verdict"] == ""


def test_boards_are_judged_apart():
    frame = ten()
    two = pd.concat([frame, frame.assign(scenario="task", accuracy=1 - frame["accuracy"])])
    table = leaderboard(two).set_index(["scenario", "method"])
    assert table.loc[("class", "er"), "tier"] == 1
    assert table.loc[("task", "er"), "tier"] == 2
    pd.testing.assert_series_equal(table.loc["class", "tier"], rows(frame)["tier"])


@settings(max_examples=10)
@given(st.permutations(range(50)), st.floats(0.0, 0.1))
def test_order_of_cells_and_a_shift_change_nothing(order, shift):
    frame = ten()
    mixed = frame.iloc[order].assign(accuracy=frame["accuracy"].iloc[order] - shift)
    columns = ["label", "tier", "from_naive_verdict", "from_best_verdict", "best"]
    pd.testing.assert_frame_equal(leaderboard(mixed)[columns], leaderboard(frame)[columns])
