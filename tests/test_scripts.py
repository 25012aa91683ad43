"""The scripts run as their first lines say."""

import json
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


def test_ablation_prints_differences_seed_by_seed(tmp_path):
    write(tmp_path, TINY)
    text = "ablation: a\nstudy: tiny.yaml\nreference: naive\nvariants:\n  none: {method: er, mem_size: 0}\n"
    done = script("ablation", write(tmp_path, text, "a.yaml"), "--out", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "a").glob("ablation-*")} == {"ablation-class.png", "ablation-class.pdf"}
    page = (tmp_path / "a" / "ablation.md").read_text()
    assert page in done.stdout
    row = next(line for line in page.splitlines() if line.startswith("| none"))
    assert "+0.00 [+0.00, +0.00] | 1 of 2 | underpowered" in row
    done = script("ablation", tmp_path / "nowhere.yaml", "--out", tmp_path / "b")
    assert done.returncode == 2
    assert "there is no such file" in done.stderr


def test_den_on_turned_digits_over_noise(tmp_path):
    """On the embedded digits, a few iterations: that it runs and counts, not how well it does."""
    options = ("--dataset", "digits", "--fraction", 60, "--tasks", 2, "--iterations", 2, "--seeds", "0-1")
    done = script("den_mnist_variation", *options, "--set", "tau=-1.0", "k=5", "--out", tmp_path / "found.json")
    assert done.returncode == 0, done.stderr
    assert "difference" in done.stdout
    first, second = json.loads((tmp_path / "found.json").read_text())
    assert [len(first[name]) for name in ("den", "den_at_first", "single")] == [2, 2, 2]
    assert all(0 <= area <= 1 for area in (*first["den"], *second["single"]))
    assert 0.5 < first["relative"]["all"] < 0.6  # one network of 312-128 and five units a layer, of two
    chosen, row = (
        script("den_mnist_variation", *options, "--set", *extra, "--seeds", 0, "--out", tmp_path / f"{extra[-1]}.json")
        for extra in (("k=5",), ("k=5", "--row-defaults"))
    )
    assert chosen.returncode == row.returncode == 0, chosen.stderr + row.stderr
    (same,), (other,) = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("k=5", "--row-defaults"))
    assert same["den"] == first["den"]  # tau is -1 as it is
    assert other["den"] != first["den"]
