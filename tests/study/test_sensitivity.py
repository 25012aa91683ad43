"""Sweeps of a hyper-parameter: which cells, what is refused, what the table says, and that a sweep goes on."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

from cl_ext.report.tables.sweeps import sweep_table
from cl_ext.study import Store, Study, StudyError, collect, run
from cl_ext.study.sensitivity import measured, parse_grid, sweep_of

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.study.helpers import TINY, write
from tests.study.search import TWO, strength, write_record

SCRIPT = Path(__file__).resolve().parent.parent.parent / "scripts" / "sensitivity.py"
TUNED = TWO + "values: {scp: {alpha: 0.5, scp_lambda: {task: 10, class: 100}}}\n"


def test_a_grid_is_even_on_a_logarithmic_scale():
    assert parse_grid("1e-2:1e6:9") == tuple(10.0**e for e in range(-2, 7))
    assert parse_grid("1e-3:1e3:4") == (0.001, 0.1, 10.0, 1000.0)
    assert parse_grid("1:100:5") == pytest.approx((1, 10**0.5, 10, 10**1.5, 100), rel=1e-5)
    assert parse_grid("100:1:3") == (100.0, 10.0, 1.0)
    assert parse_grid("0,0.1, 1") == (0.0, 0.1, 1.0)


@given(low=st.floats(1e-9, 1e3), decades=st.floats(0.5, 12), points=st.integers(2, 40))
def test_neighbours_of_a_grid_have_one_ratio(low, decades, points):
    grid = parse_grid(f"{low!r}:{low * 10**decades!r}:{points}")
    assert len(grid) == points
    assert grid[0] == pytest.approx(low, rel=1e-5)
    assert grid[-1] == pytest.approx(low * 10**decades, rel=1e-5)
    ratio = 10 ** (decades / (points - 1))
    assert all(b / a == pytest.approx(ratio, rel=1e-4) for a, b in itertools.pairwise(grid))


@pytest.mark.parametrize(
    "text", ["", "a", "1:10", "0:10:3", "-1:10:3", "1:1:3", "1:10:1", "1:10:2.5", "1:inf:3", "nan", "a,1"]
)
def test_a_bad_grid_is_one_sentence(text):
    with pytest.raises(StudyError, match=re.escape(f"--grid is {text!r}; it takes FROM:TO:POINTS")):
        parse_grid(text)


def test_its_cells_are_the_references_and_the_method_at_every_value(tmp_path):
    study = Study.load(write(tmp_path, TUNED))
    sweep = sweep_of(study, "scp", "scp_lambda", (1000, 0.1, 10, 10))
    assert sweep.grid == (0.1, 10.0, 1000.0)
    assert sweep.chosen == {"task": 10.0, "class": 100.0}
    cells = sweep.cells()
    assert len({cell.run_id for cell in cells}) == len(cells) == (2 + 3) * 2 * 2
    assert {cell.method for cell in cells} == {"naive", "joint", "scp"}
    assert all(cell.hyperparameters["alpha"] == 0.5 for cell in cells if cell.method == "scp")
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells), "an interrupted sweep has whole seeds"
    own = {cell.run_id for cell in study.cells()}
    shared = {cell.run_id for cell in cells} & own
    assert len(shared) == 2 * 2 + 2, "naive's cells, and scp's at the study's own value where the grid has it"


def test_scenarios_and_seeds_can_be_chosen(tmp_path):
    study = Study.load(write(tmp_path, TUNED))
    sweep = sweep_of(study, "scp", "alpha", (0.1, 1), scenarios=("class",), seeds=(5, 6, 7))
    assert {(cell.scenario, cell.seed) for cell in sweep.cells()} == {("class", seed) for seed in (5, 6, 7)}
    assert sweep.chosen == {"class": 0.5}
    assert {cell.hyperparameters["scp_lambda"] for cell in sweep.cells() if cell.method == "scp"} == {100.0}


def test_whole_numbers_are_rounded(tmp_path):
    sweep = sweep_of(Study.load(write(tmp_path)), "er", "mem_size", parse_grid("10:1000:7"))
    assert all(type(value) is int for value in sweep.grid)
    assert sweep.grid == (10, 22, 46, 100, 215, 464, 1000)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("scpp", "scp_lambda", (1,)), "--method: 'scpp' is no method; did you mean"),
        (("naive", "lr", (1,)), "--method is naive, a reference that every sweep has beside it"),
        (("scp", "scp_lamda", (1,)), "--hyperparameter: 'scp_lamda' is no number that scp has; it has scp_lambda"),
        (("scp", "mode", (1,)), "--hyperparameter: 'mode' is no number that scp has"),
        (("scp", "scp_lambda", (-1, 1)), "--grid: scp: scp_lambda is -1.0; it takes a number of at least 0"),
        (
            ("scp", "scp_lambda", (1,), ("domain",)),
            "--scenarios: 'domain' is none of the study's, which are task, class",
        ),
        (("packnet", "prune", (0.5,), ("class",)), "--method: packnet can't run in class-incremental streams"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, arguments, sentence):
    with pytest.raises(StudyError, match=re.escape(sentence)):
        sweep_of(Study.load(write(tmp_path, TWO)), *arguments)


def swept(tmp_path, results) -> tuple:
    """A sweep over 0.1, 1 and 10 in the class scenario with these results by value and seed."""
    study = Study.load(write(tmp_path, TINY + "values: {scp: {scp_lambda: 1}}\n"))
    sweep, store = sweep_of(study, "scp", "scp_lambda", (0.1, 1, 10)), Store(tmp_path / "out")
    for cell in sweep.cells():
        key = (strength(cell) if cell.method == "scp" else cell.method, cell.seed)
        if key in results:
            write_record(store, cell, results[key])
    return sweep, store


def test_the_table_has_every_seed_and_what_is_missing(tmp_path):
    sweep, store = swept(tmp_path, {
        ("naive", 0): 0.2, ("naive", 1): 0.4, ("joint", 0): 0.9, (0.1, 0): 0.5, (0.1, 1): 0.7, (1.0, 0): "diverged",
        (1.0, 1): 0.6, (10.0, 0): "failed", (10.0, 1): "timeout",
    })  # fmt: skip
    lines = sweep_table(sweep, measured(sweep, store, "class"), "class").splitlines()
    # half of the t-interval of two values: 12.706 times their distance over 2
    assert lines[4:] == [
        "| `naive` | 30.00 ± 127.06 | 2 | 20.00 | 40.00 |",
        "| `joint` | 90.00 | 1 of 2 | 90.00 | missing |",
        "| 0.1 | 60.00 ± 127.06 | 2 | 50.00 | 70.00 |",
        "| **1** | 60.00 | 1 of 2 | diverged | 60.00 |",
        "| 10 | - | 0 of 2 | failed | timeout |",
        "",
        "Fewer than 5 seeds: look at the seeds, not at the intervals.",
    ]


def test_a_value_of_the_study_that_is_not_swept_is_said(tmp_path):
    study = Study.load(write(tmp_path, TINY + "values: {scp: {scp_lambda: 3}}\n"))
    sweep = sweep_of(study, "scp", "scp_lambda", (0.1, 1))
    table = sweep_table(sweep, measured(sweep, Store(tmp_path / "out"), "class"), "class")
    assert "The study's own value, 3, is none of the grid." in table
    assert "| 0.1 | - | 0 of 2 | missing | missing |" in table


def test_a_sweep_goes_on_and_shares_a_studys_cells(tmp_path, fake):
    study = Study.load(write(tmp_path, TUNED))
    fake(lambda cell: 0.5)
    run(study, tmp_path / "out")
    executor = fake(lambda cell: 0.6)
    sweep = sweep_of(study, "scp", "scp_lambda", (1, 10))
    run(sweep, tmp_path / "out")
    assert len(executor.ran) == 4 * 2 + 4 - 2, "not naive's, not scp's at the study's value"
    again = fake(lambda cell: 0.7)
    run(sweep, tmp_path / "out")
    assert again.ran == []
    frame = collect(tmp_path / "out", study=sweep.name)
    assert sorted(frame.loc[frame["method"] == "scp", "hp.scp_lambda"].unique()) == [1.0, 10.0]
    assert len(frame) == len(sweep.cells())


def script(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_the_script(tmp_path):
    """Trains: L2 of strength 0 is fine-tuning; a strength that diverges is shown, and the exit code says so."""
    path = write(tmp_path, TINY.replace("[class]", "[task]").replace("experiences: 5", "experiences: 2"))
    options = ("--method", "l2", "--hyperparameter", "l2_lambda", "--seeds", "0", "--out", tmp_path / "out")
    done = script(path, *options, "--grid", "0,1e6")
    assert done.returncode == 1, done.stderr
    page = (tmp_path / "out" / "sensitivity.md").read_text()
    assert page in done.stdout
    figures = {path.name for path in (tmp_path / "out").glob("sensitivity-*")}
    assert figures == {"sensitivity-task.pdf", "sensitivity-task.png"}
    rows = {line.split("|")[1].strip(): line.split("|")[2:] for line in page.splitlines() if line.startswith("|")}
    assert rows["0"] == rows["`naive`"], "the limit of strength 0"
    assert rows["1e+06"][2].strip() == "diverged"
    at = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("record.json")}
    assert len(at) == 4
    assert script(path, *options, "--grid", "0,1e6").returncode == 1
    assert at == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("record.json")}
    done = script(path, *options, "--grid", "1:x:3")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "sensitivity: --grid is '1:x:3'" in done.stderr
