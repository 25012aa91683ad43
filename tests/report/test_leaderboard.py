"""From the tidy frame to the leaderboard: numbers by hand, failures, gaps, references, variants."""

import math

from cl_ext.report import leaderboard
from cl_ext.report.rows.cells import one_line
from cl_ext.report.rows.gaps import failed_cells, missing_cells

import numpy as np
import pandas as pd
import pytest

from tests.report import synthetic


def cell(method: str, seed: int, accuracy: float, status: str = "done", **more: object) -> dict[str, object]:
    done = status == "done"
    return {
        "study": "s",
        "stream": "d",
        "scenario": "class",
        "method": method,
        "seed": seed,
        "status": status,
        "run_id": f"{method}{seed}{more}",
        "error": None if done else "RuntimeError: no\nmore",
        "accuracy": accuracy if done else None,
        "cpu_seconds": 10.0 + seed if done else None,
        "train_cpu_seconds": 10.0 + seed if done else None,
        "extra_bytes": 0,
        **more,
    }


def small() -> pd.DataFrame:
    cells = [cell("naive", seed, 0.2) for seed in range(5)]
    cells += [cell("joint", seed, 0.97) for seed in range(5)]
    cells += [cell("er", seed, value) for seed, value in enumerate([0.80, 0.82, 0.78, 0.84, 0.81])]
    cells += [
        cell("gem", seed, 0.9, "timeout" if seed == 4 else "diverged" if seed > 1 else "done") for seed in range(5)
    ]
    cells += [cell("ogd", seed, 0.0, "failed") for seed in range(5)]
    cells += [cell("ewc", seed, 0.5, train_cpu_seconds=24.0) for seed in range(3)]
    return pd.DataFrame(cells)


def rows(frame: pd.DataFrame, **more: object) -> pd.DataFrame:
    return leaderboard(frame, **more).set_index("method")


def test_numbers_by_hand():
    er = rows(small()).loc["er"]
    sd = math.sqrt(0.0020 / 4)
    assert er["accuracy"] == pytest.approx(0.81)
    assert er["accuracy_sd"] == pytest.approx(sd)
    assert er["accuracy_half_width"] == pytest.approx(2.776 * sd / math.sqrt(5), rel=1e-3)
    assert (er["accuracy_n"], er["n"], er["few_seeds"]) == (5, 5, False)
    assert er["cpu_seconds"] == pytest.approx(12.0)


def test_cost_is_relative_to_naive_of_the_board():
    table = rows(small())
    assert table.loc["naive", "cost_relative"] == pytest.approx(1)
    assert table.loc["ewc", "cost_relative"] == pytest.approx(2)
    without = small()
    without = without[without["method"] != "naive"]
    assert rows(without)["cost_relative"].isna().all()


def test_order_and_best():
    table = leaderboard(small())
    assert list(table["method"]) == ["joint", "gem", "er", "ewc", "naive", "ogd"]
    # joint is a reference and gem's mean is over the seeds that it survived
    assert list(table.loc[table["best"], "method"]) == ["er"]
    assert list(table.loc[table["reference"], "method"]) == ["joint", "naive"]


def test_where_all_rows_tie_none_is_best():
    tied = pd.DataFrame([cell(name, seed, 0.5 + 0.01 * seed) for name in ("er", "lwf", "naive") for seed in range(5)])
    assert not leaderboard(tied)["best"].any()
    # naive is a reference and does not compete: alone with it, a row is the best there is
    alone = leaderboard(tied[tied["method"].ne("lwf")])
    assert alone.loc[alone["best"], "method"].tolist() == ["er"]
    third = pd.concat([tied, pd.DataFrame([cell("mas", seed, 0.4) for seed in range(5)])])
    assert leaderboard(third)["best"].sum() == 2


def test_failures_and_gaps_are_counted():
    table = rows(small())
    assert table.loc["gem", ["n", "cells", "seeds", "failures", "few_seeds"]].tolist() == [
        *(2, 5, 5, "2 diverged, 1 timeout", True)
    ]
    assert table.loc["ogd", ["n", "cells", "failures"]].tolist() == [0, 5, "5 failed"]
    assert np.isnan(table.loc["ogd", "accuracy"])
    failed = failed_cells(small())
    assert len(failed) == 8
    assert set(failed["error"]) == {"RuntimeError: no"}
    missing = missing_cells(small())
    assert missing[["label", "seed"]].to_numpy().tolist() == [["ewc", 3], ["ewc", 4]]


def test_a_method_absent_from_a_scenario():
    frame = synthetic.frame(synthetic.records(seeds=2, names=["naive", "er", "packnet"]))
    assert "packnet" not in set(leaderboard(frame).query("scenario == 'class'")["method"])
    able = {"naive": ("class", "task"), "er": ("class", "task"), "packnet": ("task",)}
    absent = leaderboard(frame, able).set_index(["scenario", "method"])["absent"]
    assert absent[("class", "packnet")] == "not possible"
    assert absent.drop(("class", "packnet")).eq("").all()
    assert missing_cells(frame, able).empty
    assert leaderboard(frame, {**able, "packnet": ("task", "class")}).query("absent == 'missing'")["n"].tolist() == [0]
    lacking = missing_cells(frame, {**able, "packnet": ("task", "class")})
    assert lacking[["scenario", "label", "seed"]].to_numpy().tolist() == [
        ["class", "packnet", 0],
        ["class", "packnet", 1],
    ]


def test_sets_of_hyper_parameters_are_rows_of_their_own():
    cells = [cell("ewc", seed, 0.1 * value, **{"hp.ewc_lambda": value}) for seed in range(3) for value in (1.0, 5.0)]
    table = leaderboard(pd.DataFrame(cells))
    assert table["label"].tolist() == ["ewc (ewc_lambda=5.0)", "ewc (ewc_lambda=1.0)"]
    assert table["n"].tolist() == [3, 3]
    assert table["accuracy_half_width"].tolist() == [0, 0]


def test_one_cell_in_two_stores_counts_once():
    failed = cell("er", 0, 0.0, "failed")
    frame = pd.concat([pd.DataFrame([failed]), small(), small()], ignore_index=True)
    frame.loc[0, "run_id"] = frame.loc[frame["method"].eq("er") & frame["seed"].eq(0), "run_id"].iloc[-1]
    pd.testing.assert_frame_equal(leaderboard(frame), leaderboard(small()))


def test_two_different_cells_of_one_seed_are_refused():
    frame = pd.concat([small(), pd.DataFrame([cell("er", 0, 0.5, steps=7)])])
    with pytest.raises(ValueError, match=r"two different cells of 'er' for seed 0"):
        leaderboard(frame)


def test_missing_columns_are_named():
    with pytest.raises(ValueError, match=r"lacks the columns \['seed'\]"):
        leaderboard(small().drop(columns="seed"))


def test_what_a_study_says_of_tuning():
    tuned = {"tuning_protocol": "grid", "tuning_configurations": 7.0, "tuning_seeds": "1000, 1001"}
    silent = {"tuning_protocol": None, "tuning_configurations": float("nan"), "tuning_seeds": None}
    cells = [cell("ewc", seed, 0.5, **tuned) for seed in range(5)] + [cell("naive", s, 0.2, **silent) for s in range(5)]
    table = rows(pd.DataFrame(cells))
    names = ["tuning_protocol", "tuning_configurations", "tuning_seeds"]
    assert table.loc["ewc", names].tolist() == ["grid", 7, "1000, 1001"]
    assert table.loc["naive", ["tuning_protocol", "tuning_seeds"]].tolist() == ["", ""]
    assert np.isnan(table.loc["naive", "tuning_configurations"])
    # two stores that tuned the same row in different ways: both are said
    cells[0] |= {"tuning_protocol": "by hand", "tuning_configurations": 3.0}
    both = rows(pd.DataFrame(cells)).loc["ewc", names].tolist()
    assert both == ["by hand; grid", 7, "1000, 1001"]


def test_what_a_study_asks_for_and_has_no_record_of():
    asked = {"s": {"stream": "d", "scenarios": ["class", "task"], "methods": ["er", "lwf"], "seeds": range(7)}}
    able = dict.fromkeys(("er", "lwf", "ewc", "gem", "ogd", "naive", "joint"), ("class", "task"))
    table = leaderboard(small(), able, asked=asked).set_index("method")
    assert table.loc["er", ["n", "cells", "seeds", "asked"]].tolist() == [5, 5, 5, 7]
    assert table.loc["lwf", ["absent", "cells", "asked"]].tolist() == ["missing", 0, 7]
    assert table.loc["er", "best"]  # the others lack the two seeds as well
    lacking = missing_cells(small(), able, asked)
    assert len(lacking.query("scenario == 'class' and label == 'er'")) == 2
    assert len(lacking.query("scenario == 'class' and label == 'lwf'")) == 7
    # the scenario that was never begun: every method of the study that can do it, every seed asked for
    assert len(lacking.query("scenario == 'task'")) == 7 * len(able)
    other = {"s": {**asked["s"], "stream": "another"}}
    pd.testing.assert_frame_equal(missing_cells(small(), able, other), missing_cells(small(), able))


def test_nothing_finished():
    frame = small().assign(status="failed")
    table = leaderboard(frame)
    assert len(table) == 6
    assert not table["best"].any()
    assert leaderboard(small().iloc[:0]).empty


def test_one_line():
    assert one_line({"type": "ValueError", "message": "a\nb", "traceback": "…"}) == "ValueError: a"
    assert one_line('Traceback (most recent call last):\n  File "x"\nKeyError: 1\n') == "KeyError: 1"
    assert one_line(None) == one_line(float("nan")) == one_line("") == ""
