"""Whole runs as a user starts them: what is done is kept, what is killed is run again, what fails is a record."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cl_ext.study import Store, Study, collect, plan
from cl_ext.study.store import FINISHED

import psutil
import pytest

from tests.study.helpers import TINY, write


def command(path: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "cl_ext", "run", str(path), "--out", str(out), *more]


def run(path: Path, out: Path, *more: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(path, out, *more), capture_output=True, text=True, check=False, timeout=300, env=os.environ | env
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One finished run of the tiny study."""
    folder = tmp_path_factory.mktemp("finished")
    path = write(folder, TINY.replace("[class]", "[task, class]").replace("[naive, joint]", "[naive, joint, separate]"))
    return path, folder / "out", run(path, folder / "out")


def test_a_run_ends_with_a_report(finished):
    path, out, done = finished
    assert done.returncode == 0, done.stderr
    assert "10 done" in done.stdout
    assert "joint" in done.stdout
    for name in ("leaderboard.md", "leaderboard.csv", "leaderboard.tex", "cells.csv"):
        assert (out / name).stat().st_size > 100
    assert list((out / "figures").glob("*.pdf"))
    assert {item.state for item in plan(Study.load(path), Store(out))} == {FINISHED}


def test_the_record_is_whole(finished):
    path, out, _ = finished
    cell = next(c for c in Study.load(path).cells() if (c.method, c.scenario) == ("naive", "class"))
    record = Store(out).record(cell.run_id)
    assert len(record["matrix"]["task_agnostic"]) == 6
    assert all(len(row) == 5 for which in record["matrix"].values() for row in which)
    assert sum(record["test_sizes"]) == 359
    assert [point["experience"] for point in record["curves"]["loss"]] == [1, 2, 3, 4, 5]
    costs = record["costs"]
    assert costs["steps"] == 46  # 9 or 10 batches of 32 in each of five experiences of about 288 samples
    # forward and backward of 64-16-10 at batch 32: 2 flops a multiply-add, the input needs no gradient
    assert costs["flops_per_step"] == 2 * 32 * (2 * 64 * 16 + 3 * 16 * 10)
    assert costs["parameters"] == 64 * 16 + 16 + 16 * 10 + 10
    assert costs["extra_bytes"] == 0
    environment = json.loads((Store(out).folder(cell.run_id) / "environment.json").read_text())
    assert environment["packages"]["torch"]


def test_sizes_are_recorded_before_and_after_each_experience(finished):
    path, out, _ = finished
    one = 64 * 16 + 16 + 16 * 10 + 10
    expected = {"naive": [one] * 6, "separate": [one, one, 2 * one, 3 * one, 4 * one, 5 * one]}
    for method, parameters in expected.items():
        cell = next(c for c in Study.load(path).cells() if (c.method, c.scenario) == (method, "task"))
        record = Store(out).record(cell.run_id)
        assert [size["experience"] for size in record["sizes"]] == list(range(6))
        assert [size["parameters"] for size in record["sizes"]] == parameters
        assert all(0 < size["nonzero"] <= size["parameters"] for size in record["sizes"])
        assert record["costs"]["parameters"] == parameters[-1]
        assert [size["extra_bytes"] for size in record["sizes"]] == [4 * (count - one) for count in parameters]
        seconds = [size["train_cpu_seconds"] for size in record["sizes"]]
        assert seconds == sorted(seconds)
        assert seconds[-1] == pytest.approx(record["costs"]["train_cpu_seconds"], rel=0.05, abs=0.02)
        assert record["structure"] == {}
    frame = collect(out)
    assert frame["parameters_nonzero"].notna().all()


def test_another_seed_gives_another_run(finished):
    """Weights and batch order follow the seed, in joint training too, where nothing else could differ."""
    path, out, _ = finished
    for method in ("naive", "joint"):
        cells = [c for c in Study.load(path).cells() if (c.method, c.scenario) == (method, "class")]
        first, second = (Store(out).record(c.run_id)["curves"]["loss"][0]["loss"] for c in cells)
        assert first != second


def test_undefined_is_nan_and_never_zero(finished):
    _, out, _ = finished
    frame = collect(out).set_index(["method", "scenario", "seed"])
    joint = frame.loc[("joint", "class", 0)]
    assert joint["accuracy"] > 0.5
    assert joint[["average_incremental_accuracy", "forgetting", "bwt", "learning_accuracy"]].isna().all()
    assert (
        frame.loc[("separate", "task", 0), "accuracy_task_agnostic"] != frame.loc[("separate", "task", 0), "accuracy"]
    )
    assert frame.loc[("separate", "task", 0)].isna()["accuracy_task_agnostic"]


def test_a_second_run_runs_nothing(finished):
    path, out, _ = finished
    before = {p: p.stat().st_mtime_ns for p in (out / "cells").glob("*/record.json")}
    done = run(path, out)
    assert "0 ran now" in done.stdout
    assert {p: p.stat().st_mtime_ns for p in (out / "cells").glob("*/record.json")} == before


def test_the_same_cell_gives_the_same_record_elsewhere(finished, tmp_path):
    path, out, _ = finished
    done = run(path, tmp_path / "again", "--seeds", "1", "--workers", "1")
    assert done.returncode == 0, done.stderr
    again, first = Store(tmp_path / "again"), Store(out)
    assert len(again.run_ids()) == 5
    for run_id in again.run_ids():
        for key in ("matrix", "curves"):
            assert again.record(run_id)[key] == first.record(run_id)[key]


def test_kills_lose_running_cells_only(tmp_path):
    """kill -9 on a worker, then on the launcher, then the same command: all finishes, nothing finished runs twice."""
    path = write(tmp_path, TINY.replace("epochs: 1", "epochs: 60").replace("0-1", "0-2"))
    out, store = tmp_path / "out", Store(tmp_path / "out")
    launcher = subprocess.Popen(command(path, out), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    logs = out / "locks"

    def running() -> list[str]:
        return [p.stem for p in logs.glob("*.log")] if logs.is_dir() else []

    def wait_for(condition, seconds=120):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited too long"
            time.sleep(0.02)

    def workers():
        """The processes below the launcher that hold a cell's log open."""
        found = []
        for process in psutil.Process(launcher.pid).children(recursive=True):
            try:
                links = [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in (1, 2)]
            except OSError:
                continue
            if all(link.endswith(".log") for link in links):
                found.append(process)
        return found

    wait_for(workers)
    os.kill(workers()[0].pid, signal.SIGKILL)
    wait_for(lambda: len(store.run_ids()) >= 1)
    wait_for(running)
    children = psutil.Process(launcher.pid).children(recursive=True)
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, "workers end with their launcher"
    finished = {run_id: (store.folder(run_id) / "record.json").stat().st_mtime_ns for run_id in store.run_ids()}
    assert 1 <= len(finished) < 6
    assert all(store.status(run_id) == FINISHED for run_id in finished)

    done = run(path, out)
    assert done.returncode == 0, done.stderr + done.stdout
    assert f"{6 - len(finished)} ran now" in done.stdout
    assert all((store.folder(i) / "record.json").stat().st_mtime_ns == at for i, at in finished.items())
    assert {item.state for item in plan(Study.load(path), store)} == {FINISHED}
    assert not list((out / "cells").glob(".*"))


def test_an_interrupt_keeps_what_is_done(tmp_path):
    """Ctrl-C: the running cells are lost and nothing else, and the message says how to go on."""
    text = TINY.replace("epochs: 1", "epochs: 60").replace("[naive, joint]", "[naive]").replace("0-1", "0-19")
    path = write(tmp_path, text)
    out, store = tmp_path / "out", Store(tmp_path / "out")
    launcher = subprocess.Popen(
        command(path, out, "--workers", "1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a test run in the background of a shell inherits SIGINT ignored, which no user's terminal does
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    end = time.monotonic() + 120
    while not store.run_ids() and time.monotonic() < end:
        time.sleep(0.05)
    children = psutil.Process(launcher.pid).children(recursive=True)
    launcher.send_signal(signal.SIGINT)
    _, message = launcher.communicate(timeout=60)
    assert launcher.returncode == 130
    assert "finished cells are kept" in message
    assert "Traceback" not in message
    assert not psutil.wait_procs(children, timeout=20)[1]
    assert 1 <= len(store.run_ids()) < 20
    assert {item.state for item in plan(Study.load(path), store)} == {FINISHED, "missing"}


def test_a_time_limit_is_a_record_and_retry_runs_it_again(tmp_path):
    path = write(
        tmp_path, TINY.replace("epochs: 1", "epochs: 300").replace("[naive, joint]", "[naive]").replace("0-1", "0")
    )
    out = tmp_path / "out"
    done = run(path, out, "--time-limit", "2")
    assert done.returncode == 1
    assert "time limit of 2 s" in done.stdout
    frame = collect(out)
    assert list(frame["status"]) == ["timeout"]
    assert "0 ran now" in run(path, out).stdout
    assert "1 ran now" in run(path, out, "--retry-failed", "--time-limit", "1").stdout


def test_divergence_and_failure_are_records_with_their_reason(tmp_path):
    path = write(
        tmp_path, TINY.replace("lr: 0.1", "lr: 1.0e+30").replace("[naive, joint]", "[naive]").replace("0-1", "0")
    )
    done = run(path, tmp_path / "out")
    assert done.returncode == 1
    assert list(collect(tmp_path / "out")["status"]) == ["diverged"]
    text = TINY.replace("name: mlp, hidden: [16]", "name: cnn").replace("digits", "flat.npz").replace("0-1", "0")
    import numpy as np

    x, y = np.random.RandomState(0).rand(40, 7).astype(np.float32), np.arange(40) % 5
    np.savez(tmp_path / "flat.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    done = run(write(tmp_path, text, "flat.yaml"), tmp_path / "out2")
    assert done.returncode == 1
    frame = collect(tmp_path / "out2")
    assert set(frame["status"]) == {"failed"}
    assert frame["error"].str.contains("use an mlp").all()
    assert "failed" in (tmp_path / "out2" / "leaderboard.md").read_text()


def test_mistakes_exit_with_2(tmp_path):
    done = run(write(tmp_path, TINY.replace("seeds", "seed")), tmp_path / "out")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
