"""What figures are drawn from, and where a cell comes from, stands in the frame itself."""

from cl_ext.study.document import StudyError
from cl_ext.study.frame import OBJECTS, collect
from cl_ext.study.store import Store

import numpy as np
import pytest

from tests.study.test_store import cell, record


def test_the_object_columns(tmp_path):
    store, spec, bad = Store(tmp_path), cell(), cell(seed=1)
    points = [
        {"experience": 1, "epoch": 1, "iteration": 5, "task_aware": [0.5, None], "task_agnostic": [0.25, None]},
        {"experience": 2, "epoch": 1, "iteration": 9, "task_aware": [0.5, 1.0], "task_agnostic": [0.25, 1.0]},
    ]
    sizes = [{"experience": e, "parameters": 10, "extra_bytes": e} for e in range(3)]
    more = {"curves": {"accuracy": points}, "sizes": sizes, "structure": {"units": {}}}
    store.write(spec, record(spec) | more, {"python": "3.11", "commit": "abc"})
    store.write(bad, record(bad, "failed"), {})
    done, failed = collect(tmp_path).to_dict("records")
    assert set(OBJECTS) <= set(done)
    assert done["matrix_task_aware"].tolist() == [[0.5, 0.5], [1.0, 0.5], [0.75, 1.0]]
    curve = done["curve"]
    assert curve[["experience", "epoch", "iteration"]].to_numpy().tolist() == [[1, 1, 5], [2, 1, 9]]
    np.testing.assert_array_equal(np.stack(curve["task_agnostic"].to_list()), [[0.25, np.nan], [0.25, 1.0]])
    assert done["sizes"] == sizes
    assert done["structure"] == {"units": {}}
    assert done["environment"] == {"python": "3.11", "commit": "abc", "device": "cpu"}
    assert done["spec"] == spec.to_dict()
    assert failed["matrix_task_aware"] is None
    assert failed["curve"] is None
    assert (failed["sizes"], failed["structure"], failed["environment"]) == ([], {}, {"device": "cpu"})


def test_a_lost_environment_does_not_lose_the_cell(tmp_path):
    store, spec = Store(tmp_path), cell()
    (store.write(spec, record(spec), {}) / "environment.json").write_text("{")
    assert collect(tmp_path).loc[0, "environment"] == {"device": "cpu"}


def test_a_record_that_cannot_be_is_named(tmp_path):
    store, spec = Store(tmp_path), cell()
    broken = record(spec)
    broken["matrix"]["task_aware"][1][0] = 7.0
    store.write(spec, broken, {})
    with pytest.raises(StudyError, match=f"the record of cell {spec.run_id} .*seed 0\\) can't be used: .*"):
        collect(tmp_path)
