"""Methods task by task: the numbers of the table are those of the matrices."""

from cl_ext.report.by_task import by_task_tables, size_tables, worst_forgetting
from cl_ext.report.drawing.runs import Run

import numpy as np
import pytest
from scipy import stats

from tests.report import synthetic


def _table(names: list[str], seeds: int, **options) -> list[list[str]]:
    records = [r for r in synthetic.records(seeds=seeds, names=names) if r["scenario"] == "task"]
    (table,) = by_task_tables(synthetic.frame(records), **options)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_means_forgetting_and_paired_intervals():
    head, _, *rows = _table(["separate", "packnet", "er"], 3, reference="separate", late=2)
    by_name = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    matrices = {
        name: np.array([synthetic.record(name, "task", s)["matrix"]["task_aware"] for s in range(3)], dtype=float)
        for name in by_name
    }
    for name, row in by_name.items():
        R = matrices[name]
        assert row["seeds"] == "3"
        assert [row[f"task {j + 1}"] for j in range(5)] == [f"{100 * R[:, -1, j].mean():.1f}" for j in range(5)]
        worst = max(100 * (r[1:-1, :-1].max(0) - r[-1, :-1]).max() for r in R)
        assert float(row["worst forgetting"]) == pytest.approx(worst, abs=0.006)
    for column, tasks in (("mean - separate", slice(0, 5)), ("last 2 tasks - separate", slice(3, 5))):
        pairs = 100 * (matrices["er"][:, -1, tasks].mean(1) - matrices["separate"][:, -1, tasks].mean(1))
        low, high = stats.t.interval(0.95, 2, pairs.mean(), stats.sem(pairs))
        assert by_name["er"][column] == f"{pairs.mean():+.2f} [{low:+.2f}, {high:+.2f}]"
    assert by_name["separate"]["mean - separate"] == ""


def test_one_seed_has_no_interval():
    head, _, *rows = _table(["separate", "er"], 1, reference="separate", late=1)
    assert all("[" not in cell for row in rows for cell in row)
    assert head[-1] == "last 1 tasks - separate"


def test_a_row_that_is_not_there_is_one_sentence():
    records = [r for r in synthetic.records(seeds=1, names=["er", "naive"]) if r["scenario"] == "task"]
    with pytest.raises(ValueError, match="no finished cell of 'separate'; there are er, naive"):
        by_task_tables(synthetic.frame(records), "separate", 2)


def test_forgetting_of_one_task_is_undefined():
    assert np.isnan(worst_forgetting(Run("er", 0, np.array([[0.1], [0.9]]))))


def test_growth_of_network_time_and_memory():
    records = [r for r in synthetic.records(seeds=2, names=["cpg", "er"]) if r["scenario"] == "task"]
    for record in records:
        record["costs"]["peak_memory_bytes"] = 5e8 + record["seed"] * 1e8
        if record["method"] == "cpg":
            seconds = [0.0, 9.0, 10.0, 12.0, 15.0, 19.0 + record["seed"]]  # differences 9, 1, 2, 3, 4 or 5
            record["sizes"] = [
                {
                    "parameters": 100 + 50 * e,
                    "nonzero": 1,
                    "by_task": {},
                    "extra_bytes": 1000 * e + 10 * record["seed"],
                    "train_cpu_seconds": seconds[e],
                }
                for e in range(6)
            ]
    (table,) = size_tables(synthetic.frame(records))
    head, _, *lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert lines == [["cpg", "2", "100", "350", "3.50", "5,005", "1.50", "3.75", "2.50", "600"]]
    assert head[5] == "bytes beside, end"
    assert size_tables(synthetic.frame(synthetic.records(seeds=1, names=["er"]))) == []
