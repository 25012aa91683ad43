"""The scripts run as their first lines say."""

import subprocess
import sys
from pathlib import Path

from cl_ext.study import collect

from tests.study.helpers import TINY, write

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


def script(name: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_compare_runs_several_studies_and_reports_on_all(tmp_path):
    first = write(tmp_path, TINY.replace("0-1", "0"), "first.yaml")
    text = TINY.replace("0-1", "0").replace("study: tiny", "study: other").replace("name: split", "name: permuted")
    second = write(tmp_path, text.replace("scenarios: [class]", "scenarios: [domain]"), "second.yaml")
    done = script("compare", first, second, "--out", tmp_path / "all")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "all" / "leaderboard.md").read_text()
    assert "## tiny, class-incremental" in page
    assert "## other, domain-incremental" in page
    frame = collect(tmp_path / "all" / "tiny", tmp_path / "all" / "other")
    assert list(frame["status"]) == ["done"] * 4
    done = script("compare", first, tmp_path / "nowhere.yaml", "--out", tmp_path / "none")
    assert done.returncode == 2
    assert "there is no such file" in done.stderr
    assert not (tmp_path / "none").exists()
