"""Where a number comes from: each distinct setting and environment once, every cell with its run id."""

import json
from dataclasses import replace

from cl_ext.report.rows.cells import prepare
from cl_ext.report.web.provenance import CELL_FIELDS, provenance, stream_hash
from cl_ext.study.cellspec import CellSpec

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

STREAM = {"name": "split", "dataset": "mnist", "experiences": 5, "class_order": "fixed"}
CELL = CellSpec(STREAM, "class", {"name": "mlp"}, {"lr": 0.1}, "experience", "cpu", "ewc", 1, {"ewc_lambda": 10.0})
MACHINES = ({"commit": "abc", "packages": {"torch": "2.13.0"}}, {"commit": "def", "packages": {"torch": "2.13.0"}})


def row(cell: CellSpec, **columns) -> dict:
    return {
        "study": "s", "stream": "split mnist", "scenario": cell.scenario, "method": cell.method, "seed": cell.seed,
        "run_id": cell.run_id, "status": "done", "error": None, "accuracy": 0.5, "cpu_seconds": 2.0,
        "environment": MACHINES[0], "spec": cell.to_dict(), "tuning_protocol": None,
        "tuning_configurations": float("nan"),
        **{f"hp.{name}": value for name, value in cell.hyperparameters.items()}, **columns,
    }  # fmt: skip


def told(rows: list[dict]):
    shared, by_row = provenance(prepare(pd.DataFrame(rows)))
    assert json.loads(json.dumps([shared, list(by_row.values())])) == [shared, list(by_row.values())]
    return shared, by_row


def cells(entry: dict) -> list[dict]:
    return [dict(zip(CELL_FIELDS, values, strict=True)) for values in entry["cells"]]


def test_every_cell_has_its_run_id_seed_status_and_machine():
    two = replace(CELL, seed=1)
    error = {"status": "diverged", "error": "DivergedError: <b>", "accuracy": float("nan"), "environment": MACHINES[1]}
    shared, by_row = told([row(two, **error), row(CELL)])
    (place, entry), *rest = by_row.items()
    assert place == ("s", "split mnist", "class", "ewc")
    assert not rest
    first, second = cells(entry)
    assert (first["seed"], first["run_id"], first["status"], first["error"]) == (0, CELL.run_id, "done", None)
    assert (second["seed"], second["run_id"], second["status"]) == (1, two.run_id, "diverged")
    assert second["error"] == "DivergedError: <b>"
    assert second["accuracy"] is None
    assert [shared["environments"][each["environment"]]["commit"] for each in (first, second)] == ["abc", "def"]


def test_what_cells_share_is_written_once_and_what_differs_is_kept():
    other = replace(CELL, method="naive", hyperparameters={})
    wider = replace(CELL, method="er", hyperparameters={"mem_size": 200}, budget={"lr": 0.01})
    shared, by_row = told([row(cell) for cell in (CELL, replace(CELL, seed=1), other, wider)])
    assert len(shared["environments"]) == 1
    assert [setting["budget"]["lr"] for setting in shared["settings"]] == [0.1, 0.01]
    by_method = {entry["method"]: entry for entry in by_row.values()}
    assert by_method["ewc"]["settings"] == by_method["naive"]["settings"] != by_method["er"]["settings"]
    assert by_method["ewc"]["hyperparameters"] == {"ewc_lambda": 10.0}
    assert by_method["naive"]["hyperparameters"] == {}
    assert not {"seed", "method", "hyperparameters"} & set(shared["settings"][0])


def test_where_values_come_from_is_told_where_it_is_known():
    _, by_row = told([row(CELL, tuning_protocol="end-of-stream", tuning_configurations=7.0, tuning_seeds="1000")])
    (entry,) = by_row.values()
    assert entry["tuning"] == {"protocol": "end-of-stream", "configurations": 7.0, "seeds": "1000"}
    _, by_row = told([row(CELL)])
    assert next(iter(by_row.values()))["tuning"] == {}


def test_a_frame_made_by_hand_tells_what_it_has():
    bare = {
        "study": "s",
        "scenario": "task",
        "method": "mine",
        "seed": 3,
        "status": "done",
        "hp.width": 8,
        "hp.none": None,
    }
    shared, by_row = told([bare])
    (entry,) = by_row.values()
    assert shared == {"settings": [], "environments": []}
    assert entry["hyperparameters"] == {"width": 8}
    assert cells(entry) == [dict.fromkeys(CELL_FIELDS) | {"seed": 3, "status": "done"}]


def test_the_stream_is_the_same_for_every_method_and_moves_with_all_that_makes_it():
    same = replace(
        CELL, method="er", revision=4, hyperparameters={}, budget={"lr": 1.0}, network={"name": "cnn"}, device="cuda"
    )
    assert stream_hash(CELL.to_dict()) == stream_hash(same.to_dict())
    moved = [replace(CELL, seed=1), replace(CELL, scenario="task"), replace(CELL, stream=STREAM | {"experiences": 2})]
    hashes = {stream_hash(cell.to_dict()) for cell in (CELL, *moved)}
    assert len(hashes) == 4
    assert all(len(each) == 16 for each in hashes)


@given(st.permutations(list(STREAM.items())))
def test_the_order_of_a_description_does_not_matter(items):
    assert stream_hash(replace(CELL, stream=dict(items)).to_dict()) == stream_hash(CELL.to_dict())
