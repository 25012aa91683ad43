"""A store with a failed, a diverged, a timed-out, a missing and half-written cells: the report shows them all."""

import io

from cl_ext.cli import app
from cl_ext.methods import METHODS
from cl_ext.report.pages import write_report
from cl_ext.report.rows.gaps import asked_of
from cl_ext.study.cellspec import CellSpec
from cl_ext.study.store import Store

import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

SEEDS = range(5)
STREAM = {"name": "split", "dataset": "digits", "experiences": 2, "class_order": "fixed"}
LEVELS = {"naive": 0.3, "joint": 0.9, "er": 0.7, "lwf": 0.5, "ewc": 0.8, "si": 0.85, "mas": 0.6, "gem": 0.95}
FAULTS = {("ewc", 1): "failed", ("si", 2): "diverged", ("gem", 0): "timeout"}
MISSING = {("mas", 3)}
HALF_WRITTEN = {("lwf", 4)}
NEVER_RUN = 5  # a seed that the study asks for and no row has


def cell(method: str, seed: int, scenario: str = "class") -> CellSpec:
    return CellSpec(STREAM, scenario, {}, {}, "experience", "cpu", method, METHODS[method].revision, {}, seed)


def record(method: str, seed: int, status: str = "done") -> dict[str, object]:
    last = LEVELS[method] + 0.001 * seed
    matrix = [[0.1, 0.1], [0.9, 0.1], [last, last]]
    error = {"type": "ValueError", "message": f"{method} broke", "traceback": "Traceback ..."}
    return {
        "schema": 1,
        "run_id": cell(method, seed).run_id,
        "status": status,
        "error": None if status == "done" else error,
        "matrix": {"task_aware": matrix, "task_agnostic": matrix} if status == "done" else None,
        "curves": {"loss": [], "accuracy": []},
        "costs": {"train_cpu_seconds": 2.0, "cpu_seconds": 3.0, "steps": 10, "parameters": 7, "extra_bytes": 5},
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    made = Store(tmp_path_factory.mktemp("store"))
    asked = [cell(method, seed) for method in LEVELS for seed in (*SEEDS, NEVER_RUN)]
    for method in LEVELS:
        for seed in SEEDS:
            if (method, seed) not in MISSING:
                status = FAULTS.get((method, seed), "done")
                place = made.write(cell(method, seed), record(method, seed, status), {})
                if (method, seed) in HALF_WRITTEN:
                    text = (place / "record.json").read_text()
                    (place / "record.json").write_text(text[: len(text) // 2])
    # what a killed process leaves beside its place
    beside = made.folder("x").with_name(f".{cell('mas', 3).run_id}.elsewhere.1")
    beside.mkdir()
    (beside / "spec.json").write_text('{"half": ')
    content = {
        "stream": "split digits",
        "scenarios": ["class"],
        "methods": [*LEVELS, "packnet", "derpp"],
        "seeds": [*SEEDS, NEVER_RUN],
        "tuning": {},
        "cells": [each.run_id for each in asked],
    }
    made.write_study("faulty", content)
    return made


@pytest.fixture(scope="module")
def out(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("out")
    console = Console(width=120, file=io.StringIO(), color_system=None)
    write_report([store.root], folder, figures=False, console=console)
    (folder / "terminal.txt").write_text(console.file.getvalue(), encoding="utf-8")
    return folder


def table(out) -> pd.DataFrame:
    return pd.read_csv(out / "leaderboard.csv", keep_default_na=False, na_values=[""]).set_index("method")


def test_counts(out):
    rows = table(out)
    counts = rows[["n", "cells", "seeds", "asked"]]
    assert counts.loc["er"].tolist() == [5, 5, 5, 6]
    assert counts.loc["ewc"].tolist() == counts.loc["si"].tolist() == counts.loc["gem"].tolist() == [4, 5, 5, 6]
    assert counts.loc["mas"].tolist() == counts.loc["lwf"].tolist() == [4, 4, 5, 6]
    assert counts.loc["derpp"].tolist() == [0, 0, 5, 6]
    assert rows.loc[["ewc", "si", "gem"], "failures"].tolist() == ["1 failed", "1 diverged", "1 timeout"]
    assert rows.loc[["packnet", "derpp"], "absent"].tolist() == ["not possible", "missing"]


def test_means_are_over_finished_cells_and_say_so(out):
    rows = table(out)
    assert rows.loc["gem", "accuracy"] == pytest.approx(0.95 + 0.001 * (1 + 2 + 3 + 4) / 4)
    assert rows.loc["gem", "accuracy_n"] == 4
    page = (out / "leaderboard.md").read_text()
    assert "95.25 ± 0.21 |" in page
    for seeds in (
        "4; 1 failed of 5; 1 missing of 6; n < 5",
        "4; 1 failed of 5 (1 diverged); 1 missing of 6; n < 5",
        "4; 1 failed of 5 (1 timeout); 1 missing of 6; n < 5",
        "4; 2 missing of 6; n < 5",
        "5; 1 missing of 6",
    ):
        assert f"| {seeds} |" in page, seeds


def test_only_rows_with_all_seeds_compete(out):
    rows = table(out)
    # gem, si and ewc have the higher means, each over the seeds that it survived
    assert rows.index[rows["best"]].tolist() == ["er"]
    assert rows.index[rows["tier"].notna()].tolist() == ["er"]
    assert set(rows.loc[["gem", "si", "ewc", "mas", "lwf"], "from_naive_verdict"]) == {"incomplete"}
    page = (out / "leaderboard.md").read_text()
    assert "**70.20 ± 0.20**" in page
    assert "**95" not in page
    tex = (out / "leaderboard.tex").read_text()
    assert r"\textbf{70.20}" in tex
    assert "3 of 38 cells failed and are left out of the means (gem: 1 timeout, si: 1 diverged, ewc: 1 failed)" in tex
    assert "16 cells are missing" in tex


def section(page: str, title: str) -> str:
    return page.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_failed_cells_are_listed_with_their_error(out):
    failed = section((out / "leaderboard.md").read_text(), "Failed cells")
    assert failed.count("| faulty |") == 3
    assert "| faulty | split digits | class | si | 2 | diverged | ValueError: si broke |" in failed


def test_missing_cells_are_listed_half_written_and_never_run_ones_too(out):
    missing = section((out / "leaderboard.md").read_text(), "Missing cells")
    assert "| class | mas | 3 | no record of this seed |" in missing
    assert "| class | lwf | 4 | no record of this seed |" in missing
    for method in LEVELS:
        assert f"| class | {method} | {NEVER_RUN} | no record of this seed |" in missing
    assert missing.count("| class | derpp |") == 6
    assert "packnet" not in missing
    assert missing.count("| faulty |") == 2 + len(LEVELS) + 6


def test_the_terminal_says_how_many_seeds_stand_behind_a_row(out):
    text = (out / "terminal.txt").read_text()
    assert "5/6" in text
    assert "4/6" in text
    assert "not possible" in text


def test_two_stores_make_one_report(store, tmp_path):
    more = Store(tmp_path / "more")
    for method, seed in (("mas", 3), ("lwf", 4), ("ewc", 1)):
        more.write(cell(method, seed), record(method, seed), {})
    more.write_study("faulty", store.studies()["faulty"] | {"seeds": list(SEEDS), "cells": [cell("mas", 3).run_id]})
    write_report([store.root, more.root], tmp_path / "out", figures=False)
    rows = table(tmp_path / "out")
    assert rows.loc["mas", ["n", "cells"]].tolist() == [5, 5]
    # ids that the second store's study does not name belong to the first one's
    assert rows.loc["er", ["n", "cells"]].tolist() == [5, 5]
    assert asked_of([store.root, more.root])["faulty"]["seeds"] == [*SEEDS, NEVER_RUN]


def test_a_cell_finished_in_one_store_and_failed_in_the_other_is_finished(store, tmp_path):
    more = Store(tmp_path / "more")
    more.write(cell("ewc", 1), record("ewc", 1), {})
    more.write_study("faulty", store.studies()["faulty"])
    for order in ([store.root, more.root], [more.root, store.root]):
        write_report(order, tmp_path / "out", figures=False)
        assert table(tmp_path / "out").loc["ewc", ["n", "cells", "complete"]].tolist() == [5, 5, True]


def test_results_of_others_from_the_command_line(store, tmp_path):
    outside = tmp_path / "results.csv"
    head = "study,stream,scenario,method,seed,n,accuracy,sd,source,url\n"
    outside.write_text(head + "faulty,split digits,class,Theirs,,3,0.99,0.01,Nobody 2020,\n")
    command = ["report", str(store.root), "--out", str(tmp_path / "out"), "--no-figures", "--outside", str(outside)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert table(tmp_path / "out").loc["Theirs", "outside"] == "Nobody 2020"
    outside.write_text(head + "faulty,split digits,class,Theirs,,3,99,0.01,Nobody 2020,\n")
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    said = " ".join(result.output.split())
    assert "results.csv, line 2, column accuracy: it is '99'; it takes a fraction in [0, 1], not per cent" in said
