"""Measures, tables and figures in a fresh process that has neither torch nor Avalanche."""

import subprocess
import sys

LOAD = """
import sys
class Barred:
    def find_spec(self, name, path=None, target=None):
        if name in {"torch", "avalanche"}:
            raise ImportError(f"{name} is barred here")
sys.meta_path.insert(0, Barred())
import cl_ext.metrics, cl_ext.report
heavy = {"pandas", "seaborn", "matplotlib", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""
USE = """
import tempfile
import pandas as pd
from cl_ext.report import figures, terminal_table, write_leaderboard
cell = {"study": "s", "stream": "d", "scenario": "class", "method": "naive", "seed": 0, "run_id": "a", "status": "done"}
frame = pd.DataFrame([{**cell, "error": None, "accuracy": 0.5, "cpu_seconds": 1.0, "extra_bytes": 0}])
matrix = [[0.1, 0.1], [0.9, 0.1], [0.2, 0.8]]
with tempfile.TemporaryDirectory() as out:
    assert {path.suffix for path in write_leaderboard(frame, out)} >= {".md", ".csv", ".tex"}
    assert figures(frame.assign(matrix_task_agnostic=[matrix]), out)
terminal_table(frame)
assert not {"torch", "avalanche"} & set(sys.modules)
"""


def test_torch_free():
    done = subprocess.run([sys.executable, "-c", LOAD + USE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
