"""Trackers: what they show is what the record says, and the record is the same with and without them."""

import dataclasses
import random
import re
import subprocess
import sys
import time
import types
from pathlib import Path

import cl_ext  # noqa: F401
from cl_ext.study import CellSpec, Store, Study, StudyError, run
from cl_ext.study.cell import CellOptions, run_cell
from cl_ext.study.follower import EVERY, Follower, final_measures
from cl_ext.study.tracking import Tracking, run_name, settings, tracking_of

import numpy as np
import pytest
import torch

from tests.study.helpers import TINY, write
from tests.study.search import call

TIMES = ("seconds", "cpu_seconds", "train_seconds", "train_cpu_seconds", "seconds_per_step", "peak_memory_bytes")


@pytest.fixture(scope="module")
def cell(tmp_path_factory) -> CellSpec:
    """SCP, which draws random directions and publishes a quantity, measured at every epoch."""
    text = (
        TINY.replace("[naive, joint]", "[scp]")
        .replace("epochs: 1", "epochs: 2")
        .replace("experiences: 5", "experiences: 2")
    )
    study = Study.load(
        write(tmp_path_factory.mktemp("study"), text + "evaluation: epoch\nvalues: {scp: {scp_lambda: 0.1}}\n")
    )
    return study.cells()[0]


@pytest.fixture(scope="module")
def plain(cell) -> dict:
    """Its record without a tracker."""
    record = run_cell(cell)
    assert record["status"] == "done"
    return record


def untimed(record: dict) -> dict:
    """A record without its measured times."""
    costs = {name: value for name, value in record["costs"].items() if name not in TIMES}
    sizes = [{k: v for k, v in size.items() if k != "train_cpu_seconds"} for size in record["sizes"]]
    return record | {"costs": costs, "sizes": sizes}


def tracked(cell: CellSpec, kind: str, folder: Path) -> dict:
    return run_cell(cell, CellOptions(tracking=Tracking(kind, str(folder)).options("tiny", folder)))


@pytest.fixture(scope="module")
def expected(plain) -> dict[str, list[tuple[int, float]]]:
    """What a tracker has to show of the plain record: name -> (step, value)."""
    points: dict[str, list[tuple[int, float]]] = {}
    for point in plain["curves"]["loss"]:
        points.setdefault("train/epoch_loss", []).append((point["iteration"], point["loss"]))
    for which in ("task_aware", "task_agnostic"):
        every = [(0, 0, plain["matrix"][which][0])]
        for point in plain["curves"]["accuracy"]:
            every.append((point["iteration"], point["experience"], point[which]))
            if point["epoch"] == 2:  # the evaluation after the experience, which the matrix has
                every.append((point["iteration"], point["experience"], plain["matrix"][which][point["experience"]]))
        for j in range(2):
            points[f"accuracy_{which}/experience_{j + 1:02d}"] = [(step, row[j]) for step, _, row in every]
        points[f"accuracy_{which}/seen"] = [(step, sum(row[:i]) / i) for step, i, row in every if i]
    return points


def check(shown: dict[str, list[tuple[int, float]]], expected: dict, plain: dict) -> None:
    """Every point of the record is shown, the losses of some steps, and the plugin's quantity."""
    for name, points in expected.items():
        assert [step for step, _ in shown[name]] == [step for step, _ in points], name
        assert [v for _, v in shown[name]] == pytest.approx([v for _, v in points], rel=1e-6), name
    steps = plain["costs"]["steps"]
    assert [step for step, _ in shown["train/loss"]] == list(range(EVERY, steps + 1, EVERY))
    assert all(value > 0 for _, value in shown["train/loss"])
    (quantity,) = {name.split("/")[0] for name in shown if name.startswith("SCP_ActiveOutputs")}
    assert sum(len(v) for name, v in shown.items() if name.startswith(f"{quantity}/")) == 2, "one an experience"


def test_tensorboard(cell, plain, expected, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record = tracked(cell, "tensorboard", tmp_path)
    assert untimed(record) == untimed(plain)
    folder = tmp_path / "tiny" / run_name(cell)
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    shown = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}
    check(shown, expected, plain)
    for name, value in final_measures(record, cell.scenario).items():
        assert shown[f"final/{name}"] == [(0, pytest.approx(value, rel=1e-6))]
    assert "hp.scp_lambda" in str(events.Tensors("cell/text_summary")[0].tensor_proto.string_val)


def test_wandb_offline(cell, plain, tmp_path, monkeypatch):
    """Its files are a log of protocol buffers, whose texts stand there as they are."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    # W&B Launch, which nobody asked for here: with torch imported its import alone takes seconds
    run_class = "wandb.sdk.wandb_run.Run._detect_and_apply_job_inputs"
    monkeypatch.setattr(run_class, lambda run: None, raising=False)
    assert untimed(tracked(cell, "wandb", tmp_path)) == untimed(plain)
    (log,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    texts = ("train/loss", "accuracy_task_aware/experience_02", "SCP_ActiveOutputs", "hp.scp_lambda", "final/accuracy")
    until = time.monotonic() + 30  # the client's own process writes the file, and ends after `finish` has returned
    while (missing := [text for text in texts if text.encode() not in log.read_bytes()]) and time.monotonic() < until:
        time.sleep(0.1)
    assert missing == []


def test_mlflow(cell, plain, expected, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra [tracking]")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    record = tracked(cell, "mlflow", tmp_path)
    assert untimed(record) == untimed(plain)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert (run.info.status, run.info.run_name, run.data.tags["status"]) == ("FINISHED", run_name(cell), "done")
    assert run.data.params["hp.scp_lambda"] == "0.1"
    shown = {n: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, n)] for n in run.data.metrics}
    check({name: sorted(points, key=lambda p: p[0]) for name, points in shown.items()}, expected, plain)
    assert run.data.metrics["final/average_incremental_accuracy"] > 0


class Broken:
    """A tracker that draws random numbers, and fails when it is told to."""

    fails = ""

    def __init__(self, tracking: Tracking, cell: CellSpec) -> None:
        self._maybe("open")

    def log(self, points: list) -> None:
        self._maybe("log")

    def end(self, status: str, measures: dict) -> None:
        self._maybe("end")

    def _maybe(self, where: str) -> None:
        torch.rand(7), np.random.rand(7), random.random()
        if self.fails == where:
            raise RuntimeError(f"no {where}")


@pytest.fixture
def broken(monkeypatch):
    def install(fails: str) -> dict:
        module = types.ModuleType("cl_ext.study.track_broken")
        module.Tracker = type("Tracker", (Broken,), {"fails": fails})
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return dataclasses.asdict(Tracking("broken", "nowhere", "tiny"))

    return install


@pytest.mark.parametrize("fails", ["open", "log", "end", "never"])
def test_a_tracker_that_fails_kills_no_cell_and_is_said_once(cell, plain, broken, capfd, fails):
    record = run_cell(cell, CellOptions(tracking=broken(fails)))
    assert untimed(record) == untimed(plain)
    said = re.findall(r"tracking stopped: RuntimeError: no (\w+)", capfd.readouterr().err)
    assert said == ([] if fails == "never" else [fails])


def test_a_missing_client_is_said_in_the_log(cell, plain, capfd):
    """A worker on another machine may lack what the launcher has."""
    record = run_cell(cell, CellOptions(tracking=dataclasses.asdict(Tracking("nothing", "x", "tiny"))))
    assert untimed(record) == untimed(plain)
    assert "tracking stopped: ModuleNotFoundError" in capfd.readouterr().err


def test_a_tracker_leaves_the_random_states_alone(cell, broken):
    def draws() -> list[float]:
        return [float(torch.rand(1)), float(np.random.rand()), random.random()]

    for tracking in (None, broken("never"), broken("log")):
        torch.manual_seed(3), np.random.seed(3), random.seed(3)
        follower = Follower(tracking, cell)
        follower.loss(EVERY, torch.tensor(1.0))
        follower.epoch(EVERY, 1.0)
        found = draws()
        if tracking is None:
            expected = found
        assert found == expected


def test_time_in_a_tracker_is_no_training(cell, broken, monkeypatch):
    tracking = broken("never")
    calls = []
    monkeypatch.setattr(Broken, "_maybe", lambda self, where: calls.append(where) or time.sleep(0.05))
    costs = run_cell(cell, CellOptions(tracking=tracking))["costs"]
    assert len(calls) > 10
    assert calls[-1] == "end"  # when the costs have been counted
    assert costs["seconds"] - costs["train_seconds"] > 0.05 * (len(calls) - 1)


def test_a_failed_cell_is_told_to_the_tracker(cell, broken, monkeypatch):
    tracking, ends = broken("never"), []
    monkeypatch.setattr(Broken, "end", lambda self, status, measures: ends.append((status, measures)))
    bad = dataclasses.replace(cell, hyperparameters=dict(cell.hyperparameters) | {"scp_lambda": 1e9})
    record = run_cell(bad, CellOptions(tracking=tracking))
    assert record["status"] == "diverged"
    ((status, measures),) = ends
    assert status == "diverged"
    assert "accuracy" not in measures


def test_settings_are_flat(cell):
    flat = settings(cell)
    assert flat["hp.scp_lambda"] == 0.1
    assert (flat["stream.dataset"], flat["network.hidden"], flat["seed"]) == ("digits", "[16]", 0)
    assert all(type(value) in (bool, int, float, str) for value in flat.values())


def test_mistakes(tmp_path, monkeypatch):
    with pytest.raises(StudyError, match="--track is 'comet'; it can be tensorboard, mlflow, wandb"):
        Tracking("comet").options("tiny", tmp_path)
    with pytest.raises(StudyError, match="--track-dir goes with --track"):
        tracking_of(None, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="where no folder can be made"):
        Tracking("tensorboard", str(tmp_path / "file" / "x")).options("tiny", tmp_path)
    monkeypatch.setattr("cl_ext.study.tracking.find_spec", lambda name: None)
    with pytest.raises(StudyError, match=re.escape("wandb is not installed; `pip install cl_ext[tracking]` brings it")):
        Tracking("wandb").options("tiny", tmp_path)
    path = write(tmp_path)
    code, text = call("run", path, "--out", tmp_path / "out", "--track", "wandb")
    assert (code, "is not installed" in text) == (2, True)
    assert not (tmp_path / "out").exists()


def test_a_study_is_followed_cell_by_cell(tmp_path):
    pytest.importorskip("tensorboard")
    path = write(tmp_path, TINY.replace("seeds: 0-1", "seeds: 0").replace("experiences: 5", "experiences: 2"))
    summary = run(Study.load(path), tmp_path / "out", tracking=Tracking("tensorboard"))
    assert (summary.states["done"], summary.failed) == (2, 0)
    cells = Study.load(path).cells()
    folders = {p.parent.name for p in (tmp_path / "out" / "tracking" / "tiny").rglob("events.*")}
    assert folders == {run_name(cell) for cell in cells}
    store = Store(tmp_path / "out")
    assert [store.status(cell.run_id) for cell in cells] == ["done", "done"]
    assert sorted(store.run_ids()) == sorted(cell.run_id for cell in cells)


def test_the_launcher_needs_no_tracker():
    """Neither torch nor a client is imported where a study is planned."""
    code = (
        "import sys, cl_ext.study.runner, cl_ext.study.tracking as t\n"
        "t.Tracking('tensorboard', sys.argv[1]).options('x', None)\n"
        "assert not {'torch', 'tensorboard', 'wandb', 'mlflow'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, "/tmp"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
