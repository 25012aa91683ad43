"""A user's own method and own data appear in a leaderboard without touching our code: the documentation's own text."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from tests.study.helpers import TINY, write

PAGE = Path(__file__).resolve().parents[2] / "docs" / "your_method.md"


def package(folder: Path, code: str, entry: str) -> None:
    """What `pip install` of a user's package leaves, without running pip."""
    (folder / "my_method.py").write_text(code)
    info = folder / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[cl_ext.methods]\n{entry}\n")


def run(folder: Path, text: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "cl_ext", "run", str(write(folder, text)), "--out", str(folder / "out")]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_a_cell_that_dies_touches_no_other(tmp_path):
    """A method that kills its own process is tried twice, then a failure in the leaderboard; the others are done."""
    code = """
import os, signal
from cl_ext.methods import Method
def build(context):
    os.kill(os.getpid(), signal.SIGKILL)
ROW = Method("dies", source="my_package", paper="none", build="my_method:build")
"""
    package(tmp_path, code, "dies = my_method:ROW")
    done = run(tmp_path, TINY.replace("[naive, joint]", "[dies, naive]"))
    assert done.returncode == 1
    assert "killed by signal 9 (SIGKILL), 2 times" in done.stdout
    cells = pd.read_csv(tmp_path / "out" / "cells.csv").set_index("method")
    assert list(cells.loc["naive", "status"]) == ["done", "done"]
    assert list(cells.loc["dies", "status"]) == ["failed", "failed"]
    assert "2 failed of 2" in (tmp_path / "out" / "leaderboard.md").read_text()


def test_the_template_in_the_docs_runs(tmp_path):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.S)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 40, "the page promises forty lines"
    package(tmp_path, code, re.search(r"cl_ext\.methods =\n\s+(\S+ = \S+)", PAGE.read_text())[1])
    rng = np.random.RandomState(0)
    y = np.arange(400) % 10
    x = (rng.rand(400, 6, 5) * 60 + 20 * y[:, None, None]).astype(np.uint8)
    np.savez(tmp_path / "mine.npz", x_train=x[:300], y_train=y[:300] + 7, x_test=x[300:], y_test=y[300:] + 7)
    text = TINY.replace("digits", "mine.npz").replace("[naive, joint]", "[naive, stay_close]").replace("0-1", "0")
    text = text.replace("[class]", "[task]").replace("epochs: 1", "epochs: 5")
    text += "values: {stay_close: {distance_lambda: 0.5}}\n"
    done = run(tmp_path, text)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = pd.read_csv(tmp_path / "out" / "cells.csv").set_index("method")
    assert set(cells.index) == {"naive", "stay_close"}
    assert cells.loc["stay_close", "hp.distance_lambda"] == 0.5
    assert cells.loc["stay_close", "extra_bytes"] == 4 * cells.loc["naive", "parameters"]
    assert cells.loc["stay_close", "accuracy"] != cells.loc["naive", "accuracy"]
    assert "stay_close" in (tmp_path / "out" / "leaderboard.md").read_text()
