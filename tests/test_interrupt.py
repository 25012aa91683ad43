"""Ctrl-C is one sentence and exit code 130, in the first seconds too, while modules are imported."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from cl_ext._interrupt import interruptible

import psutil
import pytest

from tests.study.helpers import TINY, write

ROOT = Path(__file__).resolve().parent.parent
SENTENCE = "interrupted; finished cells are kept, and the same command goes on from here\n"
_AT = """\
import importlib.abc, runpy, sys

class Interrupts(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupts())
sys.argv = {argv!r}
runpy.{how}
"""


def interrupted_at(module: str, how: str, *argv: object) -> subprocess.CompletedProcess:
    """Runs a program in which Ctrl-C is pressed when it imports a module."""
    code = _AT.format(module=module, argv=["program", *map(str, argv)], how=how)
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("run", "typer"), ("run", "rich.table"), ("run", "pydantic"), ("run", "cl_ext.study.runner"),
        ("run", "cl_ext.study.progress"), ("tune", "cl_ext.report.tables.tuning"), ("tune", "cl_ext.study.choice"),
    ],
)  # fmt: skip
def test_while_a_command_imports(tmp_path, command, module):
    how = "run_module('cl_ext', run_name='__main__', alter_sys=True)"
    done = interrupted_at(module, how, command, write(tmp_path, TINY), "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (130, f"cl-ext: {SENTENCE}")


@pytest.mark.parametrize("module", ["pandas", "seaborn", "cl_ext.study.runner"])
def test_while_the_sweep_imports(tmp_path, module):
    how = f"run_path({str(ROOT / 'scripts' / 'sensitivity.py')!r}, run_name='__main__')"
    options = ("--method", "l2", "--hyperparameter", "l2_lambda", "--grid", "0,1", "--out", tmp_path / "out")
    done = interrupted_at(module, how, write(tmp_path, TINY), *options)
    assert (done.returncode, done.stderr) == (130, f"sensitivity: {SENTENCE}")


def test_while_the_fork_server_imports(tmp_path):
    """It has seconds of imports before its first cell; a terminal's Ctrl-C reaches it as it does the launcher."""
    command = [sys.executable, "-m", "cl_ext", "run", write(tmp_path, TINY), "--out", tmp_path / "out"]
    launcher = subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    end, servers = time.monotonic() + 120, []
    while not servers and time.monotonic() < end:
        time.sleep(0.05)
        children = psutil.Process(launcher.pid).children()
        servers = [child for child in children if "forkserver" in " ".join(child.cmdline())]
    time.sleep(0.5)
    os.killpg(launcher.pid, signal.SIGINT)
    _, message = launcher.communicate(timeout=60)
    assert servers
    assert (launcher.returncode, message) == (130, f"cl-ext: {SENTENCE}")
    assert not psutil.wait_procs(servers, timeout=60)[1], "it ends when its launcher has"


def test_other_errors_stay_what_they_are():
    with pytest.raises(ValueError, match="a fault"), interruptible("test"):
        raise ValueError("a fault")
