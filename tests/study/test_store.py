"""Records appear whole or not at all, are never half-read, and finished ones are never replaced."""

import os

from cl_ext.study.cellspec import CellSpec
from cl_ext.study.frame import collect
from cl_ext.study.store import Store


def cell(**changes) -> CellSpec:
    fields = {
        "stream": {"name": "split", "dataset": "digits"}, "scenario": "class", "network": {}, "budget": {},
        "evaluation": "experience", "device": "cpu", "method": "naive", "revision": 1, "seed": 0,
    }  # fmt: skip
    return CellSpec(**(fields | changes))


def record(spec: CellSpec, status: str = "done") -> dict:
    R = [[0.5, 0.5], [1.0, 0.5], [0.75, 1.0]]
    error = None if status == "done" else {"type": "ValueError", "message": "no", "traceback": "..."}
    done = {"matrix": {"task_aware": R, "task_agnostic": R}} if status == "done" else {}
    return {"schema": 1, "run_id": spec.run_id, "status": status, "error": error, "costs": {"seconds": 1.0}} | done


def test_a_record_is_written_whole(tmp_path):
    store, spec = Store(tmp_path), cell()
    assert store.status(spec.run_id) is None
    store.write(spec, record(spec), {"python": "3.11"}, "a line\n")
    assert store.status(spec.run_id) == "done"
    assert store.spec(spec.run_id) == spec
    assert {p.name for p in store.folder(spec.run_id).iterdir()} == {
        "spec.json", "record.json", "environment.json", "log.txt",
    }  # fmt: skip
    assert store.run_ids() == [spec.run_id]


def test_a_failure_is_replaced_and_a_finished_record_is_not(tmp_path):
    store, spec = Store(tmp_path), cell()
    store.write(spec, record(spec, "failed"), {})
    store.write(spec, record(spec), {})
    assert store.status(spec.run_id) == "done"
    store.write(spec, record(spec, "failed"), {})
    assert store.status(spec.run_id) == "done"
    assert [p.name for p in (tmp_path / "cells").iterdir()] == [spec.run_id]


def test_half_written_folders_are_swept_and_never_read(tmp_path):
    store, spec = Store(tmp_path), cell()
    store.write(spec, record(spec), {})
    name = next((tmp_path / "cells").iterdir()).name
    host = __import__("platform").node().replace(".", "-")
    dead, alive = (tmp_path / "cells" / f".{name}.{host}.{pid}" for pid in (2**22 + 1, os.getpid()))
    dead.mkdir()
    alive.mkdir()
    assert store.run_ids() == [spec.run_id]
    store.sweep()
    assert not dead.exists()
    assert alive.exists()


def test_an_unreadable_record_counts_as_missing(tmp_path):
    store, spec = Store(tmp_path), cell()
    store.write(spec, record(spec), {})
    (store.folder(spec.run_id) / "record.json").write_text('{"status": "do')
    assert store.status(spec.run_id) is None
    store.write(spec, record(spec), {})
    assert store.status(spec.run_id) == "done"


def test_a_lock_is_held_once(tmp_path):
    store = Store(tmp_path)
    with store.lock("a") as first, Store(tmp_path).lock("a") as second:
        assert first
        assert not second
    with store.lock("a") as again:
        assert again


def test_collect_takes_the_scenarios_own_criterion_and_leaves_stale_records_out(tmp_path):
    store = Store(tmp_path)
    for spec in (cell(), cell(seed=1, revision=0), cell(seed=2, scenario="task")):
        content = record(spec)
        content["matrix"]["task_agnostic"] = [[0.0, 0.0], [0.5, 0.0], [0.0, 0.5]]
        store.write(spec, content, {})
    bad = cell(seed=3)
    store.write(bad, record(bad, "failed"), {})
    frame = collect(tmp_path).set_index(["scenario", "seed"])
    assert list(frame.index) == [("class", 0), ("class", 3), ("task", 2)]
    assert frame.loc[("class", 0), "accuracy"] == 0.25
    assert frame.loc[("task", 2), "accuracy"] == 0.875
    assert frame.loc[("task", 2), "accuracy_task_agnostic"] == 0.25
    assert frame.loc[("task", 2), "forgetting"] == 0.25
    assert frame.loc[("class", 3), "status"] == "failed"
    assert frame.loc[("class", 3), "error"] == "ValueError: no"
    assert frame.loc[("class", 3), "accuracy":"intransigence"].isna().all()


def test_intransigence_is_against_joint_incremental_of_the_same_seed(tmp_path):
    store = Store(tmp_path)
    for method, diagonal in (("naive", 0.5), ("joint_incremental", 0.75)):
        spec = cell(method=method)
        content = record(spec)
        content["matrix"]["task_agnostic"] = [[0.0, 0.0], [diagonal, 0.0], [0.0, diagonal]]
        store.write(spec, content, {})
    frame = collect(tmp_path).set_index("method")
    assert frame.loc["naive", "intransigence"] == 0.25
    assert frame.loc["joint_incremental", "intransigence"] == 0.0
