"""Equal memory and equal compute: who fits a budget, who wins under it, and the ladder that the data give."""

from cl_ext.report import leaderboard
from cl_ext.report.rows.budgets import BUDGETS, budget_text, ladder, rungs
from cl_ext.report.rows.cells import prepare
from cl_ext.report.rows.results import Results
from cl_ext.report.tables.exports import write_results
from cl_ext.report.web.views import budget_section

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.synthetic import cells

OFFSETS = np.array([0.0, 0.01, -0.01, 0.02, -0.02, 0.01, -0.01, 0.0, 0.02, -0.02])


def frame(seeds: int = 10) -> pd.DataFrame:
    """naive, and methods by accuracy: the better, the more memory; their costs the other way round."""
    table = {
        "naive": (0.2, 0, 10.0),
        "joint": (0.95, 0, 60.0),
        "lwf": (0.3, 900, 50.0),
        "er": (0.5, 8_000, 30.0),
        "der": (0.51, 9_000, 29.0),
        "gem": (0.7, 1_500_000, 10.0),
    }
    # der and er change places from seed to seed
    turned = {"der": -1}
    made = cells(**{name: level + turned.get(name, 1) * OFFSETS[:seeds] for name, (level, _, _) in table.items()})
    return made.assign(
        extra_bytes=made["method"].map({name: size for name, (_, size, _) in table.items()}),
        train_cpu_seconds=made["method"].map({name: cost for name, (_, _, cost) in table.items()}),
    )


def of(cells: pd.DataFrame, budget: str) -> pd.DataFrame:
    found = ladder(leaderboard(cells), prepare(cells))
    return found[found["budget"].eq(budget)]


def test_the_memory_ladder_by_hand():
    found = of(frame(), "extra_bytes")
    shown = found[["limit", "fitting", "of", "label", "used", "tied"]].to_numpy().tolist()
    assert shown == [
        [1_000, 1, 4, "lwf", 900, ""],
        [10_000, 3, 4, "der", 9_000, "er"],
        [2_000_000, 4, 4, "gem", 1_500_000, ""],
    ]
    assert found["accuracy"].tolist() == pytest.approx([0.3, 0.51, 0.7])
    assert found["n"].tolist() == [10, 10, 10]


def test_a_budget_that_changes_nothing_is_no_rung():
    # gem is the cheapest and the best: one rung, at naive's own cost
    found = of(frame(), "cost_relative")
    assert found[["limit", "label", "fitting", "of"]].to_numpy().tolist() == [[1.0, "gem", 1, 4]]


def test_few_seeds_tell_nothing_apart():
    assert of(frame(seeds=4), "extra_bytes")["tied"].isna().all()


def test_nothing_tied_and_too_few_seeds_are_told_apart_in_every_format(tmp_path):
    few = frame(seeds=3).assign(study="few")
    results = Results(pd.concat([frame(), few]))
    expected = {("s", "lwf"): "none", ("s", "der"): "er", ("s", "gem"): "none"}
    expected |= {("few", label): "unknown" for label in ("lwf", "der", "gem")}
    write_results(results, tmp_path)
    table = pd.read_csv(tmp_path / "budgets.csv", keep_default_na=False)
    assert {(row["study"], row["label"]): row["tied"] for _, row in table.iterrows()} == expected
    _, _, part = (tmp_path / "leaderboard.md").read_text(encoding="utf-8").partition("## Equal memory")
    for study in ("s", "few"):
        lines = part.partition(f"### {study}, class")[2].partition("\n##")[0].splitlines()
        shown = {line.split(" | ")[1]: line.split(" | ")[5].rstrip(" |") for line in lines if line.startswith("| ")}
        assert {label: tied for label, tied in shown.items() if (study, label) in expected} == {
            label: tied for (board, label), tied in expected.items() if board == study
        }
    (section,) = budget_section(results.budgets)
    texts = [
        (row.label.text.split(",")[0], row.cells[1].text, row.cells[4].text, row.cells[4].value)
        for each in section.tables
        for row in each.rows
    ]
    assert {(study, label): tied for study, label, tied, _ in texts} == expected
    # what nothing is known of is sorted last
    assert all((value is None) == (tied == "unknown") for *_, tied, value in texts)


def test_incomplete_rows_and_references_do_not_stand_for_a_budget():
    cells = frame()
    cells.loc[cells["method"].eq("gem") & cells["seed"].eq(3), "status"] = "timeout"
    found = of(cells, "extra_bytes")
    assert found["label"].tolist() == ["lwf", "der"]
    assert set(found["of"]) == {3}
    assert "joint" not in set(found["label"])


def test_unknown_use_fits_no_budget():
    cells = frame()
    cells.loc[cells["method"].eq("lwf"), "extra_bytes"] = np.nan
    assert of(cells, "extra_bytes")["label"].tolist() == ["der", "gem"]
    assert of(cells.drop(columns="extra_bytes"), "extra_bytes").empty
    assert of(cells[cells["method"].ne("naive")], "cost_relative").empty


def test_within_leaves_rows_out_before_anything_is_compared():
    table = leaderboard(frame(), within={"extra_bytes": 10_000}).set_index("method")
    assert set(table.index) == {"naive", "joint", "lwf", "er", "der"}
    assert table.index[table["best"]].tolist() == ["der"]
    assert table.loc[["der", "er", "lwf"], "tier"].tolist() == [1, 1, 2]
    assert table.loc["er", "from_best"] == pytest.approx(-0.01)
    both = leaderboard(frame(), within={"extra_bytes": 10_000, "cost_relative": 2.95})
    assert set(both["method"]) == {"naive", "joint", "der"}
    assert (
        leaderboard(frame(), within={"extra_bytes": 1e9})["method"].tolist() == leaderboard(frame())["method"].tolist()
    )


def test_within_names_a_column():
    with pytest.raises(ValueError, match=r"within has 'bytes', which is no measured column here; there are accuracy"):
        leaderboard(frame(), within={"bytes": 1})


def test_budgets_in_words():
    assert [budget_text("extra_bytes", value) for value in (0, 2e6)] == ["0 B", "2 MB"]
    assert budget_text("cost_relative", 2) == "2.00 x naive"
    assert BUDGETS == ("extra_bytes", "cost_relative")


def test_rungs_by_hand():
    assert rungs(pd.Series([0.0, 0.0, 1.0, 1.00000001, 1.5, 3.0, 900.0, np.nan])) == [0, 1, 2, 5, 1000]
    assert rungs(pd.Series([np.nan])) == rungs(pd.Series([], dtype=float)) == []


@given(st.lists(st.just(0.0) | st.floats(1e-6, 1e12), min_size=1, max_size=20))
def test_rungs_hold_every_value_and_no_rung_is_idle(values):
    found = rungs(pd.Series(values))
    assert found == sorted(set(found))
    assert max(values) <= found[-1] * 1.0001
    before = -1.0
    for limit in found:
        # each rung admits a value that the one below does not
        assert any(before * 1.0001 < value <= limit * 1.0001 for value in values)
        before = limit
        digits = f"{limit:.0e}"[0]
        assert limit == 0 or digits in "125"
