"""Figures: all of them from 30 methods, 5 seeds and 2 scenarios with every gap; and what draws them."""

import copy
import logging

from cl_ext.report import figures
from cl_ext.report.drawing import plots, style
from cl_ext.report.drawing.labelled import spread
from cl_ext.report.drawing.runs import boards
from cl_ext.report.drawing.style import slug, wrapped
from cl_ext.report.drawing.tradeoffs import pareto_frontier

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from tests.report import synthetic

KINDS = [
    "intervals",
    "matrix",
    "difference",
    "stream",
    "forgetting",
    "learning",
    "together",
    "gap",
    "rank",
    "plasticity",
]
KINDS += ["memory", "cost", "profile", "improvement"]


def names(paths):
    return {path.name for path in paths}


def expected(scenarios=("task", "class"), kinds=KINDS):
    return {f"digits-{s}-{kind}.{end}" for s in scenarios for kind in kinds for end in ("pdf", "png")}


@pytest.fixture(name="coarse")
def _coarse(monkeypatch):
    """PNG files of few dots, where what matters is which files there are."""
    monkeypatch.setattr(style, "DOTS", 40)


def test_a_large_study(tmp_path):
    # 27 methods in one scenario; in the other a few, with those that the first lacks, and every kind of gap
    few = {"naive", "joint", "separate", "packnet", "cpg", "gem", "scp", "icarl", "ogd", "er", "der"}
    records = [r for r in synthetic.records() if r["scenario"] == "class" or r["method"] in few]
    assert {record["method"] for record in records} == set(synthetic.NAMES)
    before = {key: mpl.rcParams[key] for key in ("font.size", "pdf.fonttype", "axes.grid", "lines.linewidth")}
    paths = figures(synthetic.frame(records), tmp_path)
    over_boards = {
        f"across-all-{kind}.{end}" for kind in ("intervals", "profile", "improvement") for end in ("pdf", "png")
    }
    assert names(paths) == expected() | over_boards
    for path in paths:
        head = path.read_bytes()
        assert head.startswith(b"%PDF" if path.suffix == ".pdf" else b"\x89PNG")
        assert len(head) > 5000
        # Type 3 fonts are what Type 42 is there to avoid; fonts are named in plain text.
        assert b"/Subtype /Type3" not in head
    # one stream carries no diagram of ranks; nothing else is left out
    _, _, left_out = (tmp_path / "figures.md").read_text(encoding="utf-8").partition("## Left out\n\n")
    assert left_out.count("\n- ") == 0
    assert left_out.startswith("- `across-all-ranks` is left out: it needs methods that are complete on ten streams.")
    assert "and there are 1 " in left_out
    assert {key: mpl.rcParams[key] for key in before} == before


@pytest.mark.usefixtures("coarse")
def test_one_seed_one_scenario_and_missing_data(tmp_path, caplog):
    records = [
        {**record, "curves": {"accuracy": []}}
        for record in synthetic.records(seeds=1, names=["joint", "er"])
        if record["scenario"] == "class"
    ]
    with caplog.at_level(logging.WARNING):
        paths = figures(synthetic.frame(records), tmp_path)
    # no curves, and no naive to relate costs to
    kinds = ["intervals", "matrix", "stream", "forgetting", "plasticity", "memory", "profile", "improvement"]
    assert names(paths) == expected(["class"], kinds)
    note = (tmp_path / "figures.md").read_text(encoding="utf-8")
    assert "`digits-class-learning` is left out: it needs accuracies while training" in note
    assert "digits-class-cost is left out: it needs `train_cpu_seconds`" in caplog.text
    assert "digits-class-growth" not in note  # no method here grows: nothing is missing


def test_only_failures_and_nothing_at_all(tmp_path):
    records = [r for r in synthetic.records(names=["ogd"]) if r["scenario"] == "class"]
    assert figures(synthetic.frame(records), tmp_path) == []
    assert figures(synthetic.frame(records).iloc[:0], tmp_path) == []


@pytest.mark.usefixtures("coarse")
def test_one_experience(tmp_path):
    records = copy.deepcopy(synthetic.records(seeds=2, names=["naive", "er"]))
    for record in records:
        record["curves"] = None
        record["matrix"] = {"task_aware": [[0.1], [0.8]], "task_agnostic": [[0.1], [0.8]]}
    paths = figures(synthetic.frame(records), tmp_path)
    kinds = ["intervals", "matrix", "difference", "stream", "memory", "cost", "profile", "improvement"]
    assert names(paths) == expected(kinds=kinds)


def test_same_records_same_bytes(tmp_path):
    records = [record for record in synthetic.records(seeds=2, names=["er"]) if record["scenario"] == "task"]
    frame = synthetic.frame(records)
    first, second = figures(frame, tmp_path / "a"), figures(frame, tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_the_scenario_picks_the_matrix():
    records = copy.deepcopy(synthetic.records(seeds=1, names=["naive"]))
    for record in records:
        record["matrix"] = {"task_aware": [[0.5], [0.9]], "task_agnostic": [[0.1], [0.2]]}
    found = {board.place[2]: board.runs[0].matrix[-1, 0] for board in boards(synthetic.frame(records))}
    assert found == {"task": 0.9, "class": 0.2}


def test_instants_line_up_whatever_their_number():
    records = copy.deepcopy(synthetic.records(seeds=1, names=["er"]))[:1]
    points = [
        {"experience": e, "epoch": 1, "iteration": n} for e, n in [(2, 4), (1, 1), (1, 2), (2, 3), (2, 9), (2, 8)]
    ]
    records[0]["matrix"] = dict.fromkeys(("task_aware", "task_agnostic"), [[0.1] * 2] * 3)
    accuracies = [{key: [0.1 * p["iteration"], 0.0] for key in ("task_aware", "task_agnostic")} for p in points]
    records[0]["curves"] = {"accuracy": [p | a for p, a in zip(points, accuracies, strict=True)]}
    (board,) = boards(synthetic.frame(records))
    (run,) = board.runs
    assert run.curve.time.tolist() == [0.5, 1.0, 1.25, 1.5, 1.75, 2.0]
    np.testing.assert_allclose(run.curve.seen, [0.1, 0.2, 0.15, 0.2, 0.4, 0.45])


def test_pareto_frontier():
    points = pd.DataFrame(
        {"cost": [1, 2, 2, 3, 4, np.nan], "gain": [5.0, 4.0, 6.0, 6.0, 9.0, 99.0]}, index=list("abcdef")
    )
    assert list(pareto_frontier(points, "cost", "gain").index) == ["a", "c", "e"]


@pytest.mark.parametrize("wanted", [[0.5] * 8, [0.0, 0.0, 0.99, 1.0, 1.0], [0.1, 0.5, 0.9], np.linspace(0, 1, 11)])
def test_labels_are_spread(wanted):
    places = spread(np.asarray(wanted, dtype=float), 0.1)
    assert np.diff(places).min() > 0.1 - 1e-9
    assert places.min() >= -1e-9
    assert places.max() <= 1 + 1e-9


def test_names():
    assert slug("My study", "", "class", "matrix") == "my-study-class-matrix"
    assert wrapped("a b\nc", 7) == "a b\nc"


@pytest.mark.usefixtures("coarse")
def test_boards_that_figures_over_boards_leave_out_are_named(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(
        plots, "FIGURES", {"intervals": plots.FIGURES["intervals"]}
    )  # one board is not what this is about
    cells = synthetic.frame(
        [r for r in synthetic.records(seeds=1, names=["naive", "joint", "er"]) if r["scenario"] == "class"]
    )
    parts = [cells.assign(study=f"s{n}", run_id=cells["run_id"] + f"-{n}") for n in range(3)]
    parts[1] = parts[1][parts[1]["method"] != "joint"]
    with caplog.at_level(logging.WARNING):
        paths = figures(pd.concat(parts, ignore_index=True), tmp_path / "three")
    note = (tmp_path / "three" / "figures.md").read_text(encoding="utf-8")
    assert {"across-all-intervals.png", "across-all-profile.pdf"} <= names(paths)
    assert "- `across-all-...` is without s1, split digits, class (no finished cell of joint).\n" in note
    assert "- `across-all-improvement` is left out: it needs two methods complete on all boards; only er is.\n" in note
    assert "across-all-ranks" in note
    assert "across-all-ranks" not in caplog.text  # few stores have ten streams
    assert "across-all-improvement is left out" in caplog.text
    figures(pd.concat(parts[:2], ignore_index=True), tmp_path / "two")
    note = (tmp_path / "two" / "figures.md").read_text(encoding="utf-8")
    assert "- `across-all-...` is left out: it needs boards with complete rows of naive and joint; s1, split" in note
    figures(parts[1], tmp_path / "one")
    assert "across-all" not in (tmp_path / "one" / "figures.md").read_text(encoding="utf-8")


def test_two_processes_draw_the_same_bytes(tmp_path):
    """Two boards, each by a process of its own: the files, the notes on what is left out, and their order."""
    frame = synthetic.frame(synthetic.records(seeds=2, names=["naive", "ewc"]))
    one, two = (figures(frame, tmp_path / str(workers), workers=workers) for workers in (1, 2))
    assert [path.name for path in one] == [path.name for path in two]
    for first, second in zip(one, two, strict=True):
        assert first.read_bytes() == second.read_bytes(), first.name
    notes = [(tmp_path / str(workers) / "figures.md").read_text() for workers in (1, 2)]
    assert notes[0] == notes[1]
    with pytest.raises(ValueError, match="workers is 0"):
        figures(frame, tmp_path, workers=0)
