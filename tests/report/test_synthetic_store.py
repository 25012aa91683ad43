"""scripts/synthetic_store.py writes what a real run would: cells, ids and files, with the gaps it is asked for."""

import importlib.util
import sys
from pathlib import Path

from cl_ext.metrics import average_accuracy
from cl_ext.streams.catalogue import DATASETS
from cl_ext.streams.spec import SCENARIOS, STREAMS
from cl_ext.study import Store, collect
from cl_ext.study.runner import plan

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "synthetic_store.py"
_spec = importlib.util.spec_from_file_location("synthetic_store", SCRIPT)
synthetic_store = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(synthetic_store)
GAPS = {"failed": 2, "diverged": 1, "missing": 2, "half_written": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic") / "store"
    studies = list(synthetic_store.studies(3, 6, 4, 2))
    return out, studies, synthetic_store.write(out, studies, GAPS, 2)


def test_the_gaps_are_those_asked_for(made):
    out, studies, gaps = made
    frame = collect(out)
    assert frame["status"].value_counts().to_dict() == {"done": 3 * 6 * 4 - 6, "failed": 2, "diverged": 1}
    assert set(frame.loc[frame["status"].ne("done"), "run_id"]) == {
        cell.run_id for kind in ("failed", "diverged") for cell in gaps[kind]
    }
    lost = {cell.run_id for kind in ("missing", "half_written") for cell in gaps[kind]}
    assert lost.isdisjoint(frame["run_id"])
    half = Store(out).folder(gaps["half_written"][0].run_id)
    assert (half / "record.json").stat().st_size > 0
    # the planner of real runs knows every cell, and would run again what is lost
    states = {item.cell.run_id: item.state for study in studies for item in plan(study, Store(out))}
    assert {run_id for run_id, state in states.items() if state not in ("done", "failed", "diverged")} == lost


def test_records_hold_what_real_ones_hold(made):
    frame = collect(made[0])
    done = frame[frame["status"].eq("done")]
    for _, cell in done.iterrows():
        own = "task_aware" if cell["scenario"] == "task" else "task_agnostic"
        assert cell["accuracy"] == average_accuracy(cell[f"matrix_{own}"])
        if cell["method"] != "joint":
            # the last instant of an experience is the matrix's row
            last = cell["curve"].groupby("experience").last()
            for which in ("task_aware", "task_agnostic"):
                np.testing.assert_allclose(np.stack(last[which].to_list()), cell[f"matrix_{which}"][1:])
    mean = done.groupby(["study", "method"])["accuracy"].mean().unstack()
    assert (mean["joint"] > mean["naive"] + 0.1).all()
    assert done["tuning_protocol"].dropna().eq("made up").all()


def test_the_streams_are_those_that_the_project_can_build():
    for name, dataset, _, scenario in synthetic_store.STREAMS:
        assert name in STREAMS
        assert dataset in DATASETS
        assert scenario in SCENARIOS


def test_it_is_the_same_again(made, tmp_path):
    out, studies, gaps = made
    assert synthetic_store.write(tmp_path / "again", studies, GAPS, 2) == gaps
    for run_id in Store(out).run_ids():
        assert Store(tmp_path / "again").record(run_id) == Store(out).record(run_id)


def test_more_streams_than_there_are_have_cells_of_their_own():
    studies = list(synthetic_store.studies(8, 2, 1, 0))
    ids = [cell.run_id for study in studies for cell in study.cells()]
    assert len({study.name for study in studies}) == 8
    assert len(set(ids)) == 16


def test_the_command(tmp_path, monkeypatch, capsys):
    def main(*arguments):
        monkeypatch.setattr(sys, "argv", ["synthetic_store", *map(str, arguments)])
        return synthetic_store.main()

    small = ("--methods", 2, "--seeds", 2, "--streams", 1)
    assert main(tmp_path / "s", *small, "--half-written", 1) == 0
    assert "half-written: split mnist" in capsys.readouterr().out
    assert len(collect(tmp_path / "s")) == 3
    for wrong, sentence in (
        ((tmp_path / "s", *small), "is already there"),
        ((tmp_path / "t", *small, "--failed", 5), "5 cells are to have gaps, and there are 4"),
        ((tmp_path / "t", "--methods", 999), "--methods is 999"),
        ((tmp_path / "t", "--seeds", 0), "--seeds is 0; it takes a whole number of at least 1"),
        ((tmp_path / "t", "--half-written", -1), "--half-written is -1; it takes 0 or more"),
    ):
        assert main(*wrong) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "t").exists()
