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


def test_the_template_in_the_docs_runs(tmp_path):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.S)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 40, "the page promises forty lines"
    (tmp_path / "my_method.py").write_text(code)
    info = tmp_path / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_package\nVersion: 1.0\n")
    entry = re.search(r"cl_ext\.methods =\n\s+(\S+ = \S+)", PAGE.read_text())[1]
    (info / "entry_points.txt").write_text(f"[cl_ext.methods]\n{entry}\n")
    rng = np.random.RandomState(0)
    y = np.arange(400) % 10
    x = (rng.rand(400, 6, 5) * 60 + 20 * y[:, None, None]).astype(np.uint8)
    np.savez(tmp_path / "mine.npz", x_train=x[:300], y_train=y[:300] + 7, x_test=x[300:], y_test=y[300:] + 7)
    text = TINY.replace("digits", "mine.npz").replace("[naive, joint]", "[naive, stay_close]").replace("0-1", "0")
    text = text.replace("[class]", "[task]").replace("epochs: 1", "epochs: 5")
    text += "values: {stay_close: {distance_lambda: 0.5}}\n"
    done = subprocess.run(
        [sys.executable, "-m", "cl_ext", "run", str(write(tmp_path, text)), "--out", str(tmp_path / "out")],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    cells = pd.read_csv(tmp_path / "out" / "cells.csv").set_index("method")
    assert set(cells.index) == {"naive", "stay_close"}
    assert cells.loc["stay_close", "hp.distance_lambda"] == 0.5
    assert cells.loc["stay_close", "extra_bytes"] == 4 * cells.loc["naive", "parameters"]
    assert cells.loc["stay_close", "accuracy"] != cells.loc["naive", "accuracy"]
    assert "stay_close" in (tmp_path / "out" / "leaderboard.md").read_text()
