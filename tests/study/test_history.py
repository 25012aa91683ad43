"""Records of older versions load, give the numbers they gave, and report; run ids never change."""

import hashlib
import json
import math
import shutil
from pathlib import Path

from cl_ext.report.pages import write_report
from cl_ext.study import CellSpec, Store, Study, StudyError, collect, load_records, plan, run
from cl_ext.study.cellspec import SCHEMA

import pandas as pd
import pytest

from tests.study.helpers import TINY, write
from tests.study.search import TWO, call, write_record

RECORDS = Path(__file__).parent / "records"
STORES = sorted(path for path in RECORDS.iterdir() if path.is_dir())
EXPECTED = json.loads((RECORDS / "expected.json").read_text())
BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def _not_stale(monkeypatch):
    """A method's revision moves on; whether its old records still load does not depend on that."""
    monkeypatch.setattr("cl_ext.study.frame.is_stale", lambda spec: False)


def test_every_shape_of_a_record_has_a_sample():
    """What tells the shapes apart; a new one needs a store of its own."""

    def shape(record: dict) -> tuple[bool, bool]:
        return "sizes" in record, "train_cpu_seconds" in (record.get("sizes") or [{}])[0]

    shapes = {
        store.name: {shape(record) for record in load_records(store) if record["status"] == "done"} for store in STORES
    }
    assert shapes == {
        "first": {(False, False)}, "sizes": {(True, False)}, "costs_over_the_stream": {(True, True)},
    }  # fmt: skip


@pytest.mark.parametrize("store", STORES, ids=lambda path: path.name)
def test_old_records_give_the_numbers_they_gave(store):
    frame = collect(store).set_index("run_id")
    assert set(frame.index) == set(EXPECTED[store.name]) == set(Store(store).run_ids())
    for run_id, expected in EXPECTED[store.name].items():
        for name, value in expected.items():
            found = frame.loc[run_id, name]
            if value is None:
                assert pd.isna(found), (run_id, name)
            elif isinstance(value, str):
                assert found == value, (run_id, name)
            else:
                assert found == pytest.approx(value, rel=1e-12), (run_id, name)


@pytest.mark.parametrize("store", STORES, ids=lambda path: path.name)
def test_the_numbers_are_those_of_the_files(store):
    """Read without this package: the mean of the last row of the matrix that the scenario is judged by."""
    frame = collect(store).set_index("run_id")
    for run_id in Store(store).run_ids():
        folder = store / "cells" / run_id
        record, spec = (json.loads((folder / f"{name}.json").read_text()) for name in ("record", "spec"))
        if record["status"] != "done":
            assert frame.loc[run_id, "status"] == record["status"]
            assert math.isnan(frame.loc[run_id, "accuracy"])
            assert record["error"]["message"] in frame.loc[run_id, "error"]
            continue
        last = record["matrix"]["task_aware" if spec["scenario"] == "task" else "task_agnostic"][-1]
        assert frame.loc[run_id, "accuracy"] == pytest.approx(sum(last) / len(last))
        assert frame.loc[run_id, "parameters"] == record["costs"]["parameters"]


def test_old_records_report(tmp_path):
    """All shapes in one report, failures and stores that know nothing of sizes included."""
    write_report(STORES, tmp_path, figures=False)
    page = (tmp_path / "leaderboard.md").read_text()
    for store in STORES:
        for content in Store(store).studies().values():
            assert content["study"] in page
    assert "diverged" in page
    frame = pd.read_csv(tmp_path / "cells.csv")
    assert set(frame["run_id"]) == {run_id for cells in EXPECTED.values() for run_id in cells}
    first = frame[frame["run_id"].isin(EXPECTED["first"])]
    assert first["parameters_nonzero"].isna().all()


@pytest.mark.parametrize("store", STORES, ids=lambda path: path.name)
def test_run_ids_are_for_ever(store):
    """A stored description gives the id of its folder, read and hashed by this package and by hand."""
    for run_id in Store(store).run_ids():
        path = store / "cells" / run_id / "spec.json"
        assert Store(store).spec(run_id).run_id == run_id
        text = json.dumps(json.loads(path.read_text()), sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest()[:20] == run_id


def test_golden_ids():
    """Written out: the shortest description, and one with every kind of value."""
    short = CellSpec({}, "class", {}, {}, "experience", "cpu", "naive", 1)
    text = (
        '{"budget":{},"device":"cpu","evaluation":"experience","hyperparameters":{},"method":"naive","network":{},'
        '"revision":1,"scenario":"class","schema":1,"seed":0,"stream":{}}'
    )
    assert short.canonical() == text
    assert short.run_id == "05ab76184cd0c7023436"
    stream = {"name": "split", "dataset": "digits", "experiences": 5, "class_order": "fixed", "angles": (0.0, 20.5)}
    full = CellSpec(
        stream, "task", {"hidden": [100, 100], "bias": True}, {"lr": 0.1, "momentum": 0.0}, 50, "cuda", "ewc", 3,
        {"ewc_lambda": 1e-07, "fisher": "exact", "n": 3}, 4,
    )  # fmt: skip
    assert full.run_id == "4d1172ca080b8c73ba99"


def test_a_studys_cells_are_those_of_old_records():
    """The studies' files of today ask for the cells that were run when the records were made."""
    cells = {cell.run_id for cell in Study.load(BENCHMARKS / "digits.yaml").cells()}
    assert {"0c96f8caf171c357b48b", "56a2688d0e55d2764bbd", "5663e2d1c12193a39806"} <= cells, "naive and joint"


@pytest.fixture
def later(tmp_path) -> Path:
    """A store with a record that a later version wrote."""
    shutil.copytree(RECORDS / "sizes", tmp_path / "later")
    for path in (tmp_path / "later" / "cells").glob("*/record.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": SCHEMA + 1, "unheard": {"of": 1}}))
    return tmp_path / "later"


def test_a_later_schema_is_refused_in_one_sentence(later):
    sentence = rf"record.json is of schema {SCHEMA + 1}, and this version of cl_ext reads schemas up to {SCHEMA}"
    with pytest.raises(StudyError, match=sentence):
        collect(later)
    code, text = call("report", later)
    assert (code, text.count("cl-ext:")) == (2, 1)
    assert f"reads schemas up to {SCHEMA}" in text


def test_a_later_description_is_refused_too(tmp_path):
    """Its fields are unknown here; that is no reason for a traceback."""
    shutil.copytree(RECORDS / "sizes", tmp_path / "later")
    for path in (tmp_path / "later" / "cells").glob("*/spec.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": SCHEMA + 1, "unheard": 1}))
    with pytest.raises(StudyError, match=f"spec.json is of schema {SCHEMA + 1}"):
        collect(tmp_path / "later")


def test_a_record_of_a_later_schema_is_never_run_over(tmp_path):
    """A failure of a later version is not taken for a missing cell."""
    study = Study.load(write(tmp_path, TINY))
    store = Store(tmp_path / "out")
    cell = study.cells()[0]
    record = {"schema": SCHEMA + 1, "run_id": cell.run_id, "status": "done", "error": None}
    store.write(cell, record, {})
    with pytest.raises(StudyError, match="of schema"):
        plan(study, store)
    with pytest.raises(StudyError, match="of schema"):
        run(study, tmp_path / "out")
    assert json.loads((store.folder(cell.run_id) / "record.json").read_text()) == record


def test_a_half_written_or_damaged_record_is_no_record(tmp_path):
    shutil.copytree(RECORDS / "first", tmp_path / "store")
    store = Store(tmp_path / "store")
    first, second, third = store.run_ids()
    text = (store.folder(first) / "record.json").read_text()
    (store.folder(first) / "record.json").write_text(text[: len(text) // 2])
    (store.folder(second) / "record.json").unlink()
    assert [store.status(run_id) for run_id in (first, second)] == [None, None]
    assert set(collect(tmp_path / "store")["run_id"]) == {third}


def test_where_values_came_from_stands_beside_every_later_record(tmp_path):
    """Also where a cell's folder alone is copied into another store, and no study is known; scenario by scenario."""
    tuned = (
        "tuning: {protocol: by grid, configurations: {lfl: {class: 7}}, seeds: [50, 51]}\n"
        "values: {lfl: {lfl_lambda: 2}}\n"
    )
    text = TINY.replace("[naive, joint]", "[naive, lfl]").replace("[class]", "[task, class]").replace("0-1", "0")
    assert run(Study.load(write(tmp_path, text + tuned)), tmp_path / "out").states["done"] == 4
    shutil.copytree(tmp_path / "out" / "cells", tmp_path / "other" / "cells")
    columns = ["tuning_protocol", "tuning_configurations", "tuning_seeds"]
    for store in ("out", "other"):
        frame = collect(tmp_path / store).set_index(["method", "scenario"])
        assert frame.loc[("lfl", "class"), columns].tolist() == ["by grid", 7, "50, 51"]
        assert frame.loc[("lfl", "task"), columns].isna().all(), (
            "its value is the study's, and nothing was tried for it"
        )
        assert frame.loc["naive", columns].isna().all(axis=None)


def test_what_older_stores_say_of_tuning_they_go_on_saying(tmp_path):
    """Their studies and cells tell methods apart at most: that holds for every scenario."""
    study = Study.load(write(tmp_path, TWO.replace("0-1", "0")))
    store = Store(tmp_path / "out")
    how = {"protocol": "by grid", "configurations": 7, "seeds": [50]}
    for cell in study.cells():
        write_record(store, cell, 0.5)
        path = store.folder(cell.run_id) / "environment.json"
        path.write_text(json.dumps({"tuning": how} if cell.method == "lfl" else {}))
    alone = collect(tmp_path / "out").set_index(["method", "scenario"])
    described = {"stream": "split digits", "cells": [cell.run_id for cell in study.cells()]}
    store.write_study("tiny", described | {"tuning": how | {"configurations": {"lfl": 7}}})
    columns = ["tuning_protocol", "tuning_configurations", "tuning_seeds"]
    for frame in (alone, collect(tmp_path / "out").set_index(["method", "scenario"])):
        for scenario in ("task", "class"):
            assert frame.loc[("lfl", scenario), columns].tolist() == ["by grid", 7, "50"]
            assert pd.isna(frame.loc[("scp", scenario), "tuning_protocol"])
