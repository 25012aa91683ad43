"""What figures are drawn from, and where a cell comes from, stands in the frame itself."""

from cl_ext.metrics import min_accuracy
from cl_ext.study.document import StudyError
from cl_ext.study.frame import OBJECTS, _measures, _with_ends, collect
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


def test_the_end_of_training_counts_where_the_plan_passes_over_it():
    """min-ACC and WC-ACC: a minimum over training cannot lie above the value at its end."""
    R = np.array([[0.1, 0.1, 0.1], [0.9, 0.1, 0.1], [0.3, 0.8, 0.1], [0.2, 0.05, 0.7]])
    accuracies = np.array([[0.5, 0.1, 0.1], [0.6, 0.4, 0.1], [0.4, 0.6, 0.3]])
    experience = np.array([1, 2, 3])
    curve, current = _with_ends(R, accuracies, experience)
    assert current.tolist() == [1, 1, 2, 2, 3, 3]
    assert np.array_equal(curve[1::2], R[1:])
    assert np.array_equal(curve[::2], accuracies)
    low = (0.2 + 0.05) / 2
    found = _measures(R, None, accuracies, {"experience": experience, "iteration": np.array([9, 18, 27])})
    assert found["min_accuracy"] == pytest.approx(low)
    assert found["worst_case_accuracy"] == pytest.approx(0.7 / 3 + 2 / 3 * low)
    # the plan alone would leave the ends out; the measures over instants keep to it
    assert min_accuracy(accuracies, experience) == pytest.approx((0.4 + 0.6) / 2)
    assert found["average_anytime_accuracy"] == pytest.approx(np.mean([0.5, (0.6 + 0.4) / 2, (0.4 + 0.6 + 0.3) / 3]))


def test_an_end_that_is_not_defined_is_left_out():
    R = np.array([[np.nan] * 2, [np.nan] * 2, [0.3, 0.8]])
    curve, current = _with_ends(R, np.array([[0.5, 0.1], [0.6, 0.4]]), np.array([1, 2]))
    assert current.tolist() == [1, 2, 2]
    assert curve[-1].tolist() == [0.3, 0.8]
