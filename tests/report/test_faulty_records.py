"""Records and stores that contradict themselves or each other: said, and never averaged in silence."""

import io
import json
import shutil
from pathlib import Path

from cl_ext.report import across, leaderboard
from cl_ext.report.pages import write_report
from cl_ext.report.rows.gaps import asked_of, disagreeing_cells, missing_cells
from cl_ext.report.rows.results import Results
from cl_ext.report.tables.texts import board_title
from cl_ext.study import StudyError, collect
from cl_ext.study.store import Store

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from tests.report.test_faulty_store import LEVELS, SEEDS, cell, record


def fill(root: Path, methods: tuple[str, ...] = ("naive", "joint", "er"), name: str = "whole") -> Store:
    store = Store(root)
    asked = [cell(method, seed) for method in methods for seed in SEEDS]
    for each in asked:
        store.write(each, record(each.method, each.seed), {})
    content = {"stream": "split digits", "scenarios": ["class"], "methods": list(methods), "seeds": list(SEEDS)}
    store.write_study(name, content | {"tuning": {}, "cells": [each.run_id for each in asked]})
    return store


def edit(store: Store, method: str, seed: int, **changes: object) -> None:
    place = store.folder(cell(method, seed).run_id) / "record.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | changes))


def report(*stores: Store, out: Path) -> tuple[str, str, str]:
    console = Console(width=160, file=io.StringIO(), color_system=None)
    write_report([store.root for store in stores], out, figures=False, console=console)
    return console.file.getvalue(), (out / "leaderboard.md").read_text(), (out / "leaderboard.html").read_text()


def test_stores_that_disagree_on_a_finished_cell_are_said_to(tmp_path):
    one = fill(tmp_path / "one")
    shutil.copytree(one.root, tmp_path / "other")
    other = Store(tmp_path / "other")
    low = [[0.1, 0.1], [0.9, 0.1], [0.2, 0.2]]
    edit(other, "er", 2, matrix={"task_aware": low, "task_agnostic": low})
    for stores, counts, told in (((one, other), 0.702, "0.2000 in"), ((other, one), 0.2, "0.7020 in")):
        found = disagreeing_cells(collect(*(store.root for store in stores)))
        assert found[["label", "seed"]].to_numpy().tolist() == [["er", 2]]
        assert found["accuracy"].item() == pytest.approx(counts)
        assert found["elsewhere"].item() == f"{told} {stores[1].root}"
        for text in report(*stores, out=tmp_path / "out"):
            assert told in text


def test_stores_that_agree_say_nothing(tmp_path):
    one = fill(tmp_path / "one")
    shutil.copytree(one.root, tmp_path / "other")
    assert disagreeing_cells(collect(one.root, tmp_path / "other")).empty
    terminal, page, html = report(one, Store(tmp_path / "other"), out=tmp_path / "out")
    assert "disagree" not in terminal + page
    assert 'id="disagreeing"' not in html


@pytest.mark.parametrize("content", ["{}", "[]", '{"schema": 1, "run_id": "x"}', '{"schema": 1, "status": "done"}'])
def test_a_record_without_what_every_record_has_is_missing(tmp_path, content):
    store = fill(tmp_path / "store")
    (store.folder(cell("er", 2).run_id) / "record.json").write_text(content)
    table = leaderboard(collect(store.root)).set_index("label")
    assert table.loc["er", "n"] == 4
    assert not table.loc["er", "complete"]


@pytest.mark.parametrize("content", ["{}", "[]", '{"method": "er"}', '{"method": "er'])
def test_a_description_that_cannot_be_read_leaves_its_cell_missing(tmp_path, content):
    store = fill(tmp_path / "store")
    (store.folder(cell("er", 2).run_id) / "spec.json").write_text(content)
    frame = collect(store.root)
    missing = missing_cells(frame, asked=asked_of([store.root]))
    assert missing[["label", "seed"]].to_numpy().tolist() == [["er", 2]]


def test_one_name_for_two_studies_is_one_sentence(tmp_path):
    one = fill(tmp_path / "one")
    frame = collect(one.root)
    other = frame.assign(run_id=frame["run_id"] + "x")
    with pytest.raises(StudyError, match="need different names"):
        leaderboard(pd.concat([frame, other], ignore_index=True))


def test_a_finished_cell_without_an_accuracy_makes_its_row_incomplete(tmp_path):
    store = fill(tmp_path / "store")
    undefined = [[0.1, 0.1], [0.9, 0.1], [None, None]]
    edit(store, "er", 2, matrix={"task_aware": undefined, "task_agnostic": undefined})
    results = Results(collect(store.root))
    er = results.table.set_index("label").loc["er"]
    assert er["n"] == er["seeds"] == 5
    assert er["accuracy_n"] == 4
    assert not er["complete"]
    assert not er["best"]
    assert pd.isna(er["tier"])
    assert er["from_naive_verdict"] == "incomplete"
    assert "1 without an accuracy" in report(store, out=tmp_path / "out")[1]


def test_a_study_of_which_nothing_can_be_read_is_missing_as_a_whole(tmp_path):
    one, other = fill(tmp_path / "one"), fill(tmp_path / "other", ("ewc", "si"), "empty")
    shutil.rmtree(other.root / "cells")
    frame, asked = collect(one.root, other.root), asked_of([one.root, other.root])
    missing = missing_cells(frame, dict.fromkeys(LEVELS, ("class",)), asked)
    assert set(missing["study"]) == {"empty"}
    assert sorted(zip(missing["label"], missing["seed"], strict=True)) == sorted(
        (name, seed) for name in ("ewc", "si") for seed in SEEDS
    )
    # a method that cannot do the scenario is not missed there
    assert set(missing_cells(frame, {"ewc": ("class",), "si": ("task",)}, asked)["label"]) == {"ewc"}


def test_normalised_accuracy_is_between_fine_tuning_and_joint_training_of_the_same_seed():
    rows = [
        ("naive", 0, 0.2), ("naive", 1, 0.4), ("naive", 2, 0.5), ("joint", 0, 0.7), ("joint", 1, 0.9),
        ("joint", 2, 0.5), ("er", 0, 0.45), ("er", 1, 0.65), ("er", 2, 0.6), ("er", 3, 0.6),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["method", "seed", "accuracy"]).assign(
        study="s", stream="a", scenario="class", status="done"
    )
    other = frame.assign(stream="b", accuracy=frame["accuracy"] ** 2)
    cells = Results(pd.concat([frame, other], ignore_index=True)).cells
    own = cells[cells["stream"].eq("a")].set_index(["method", "seed"])["normalised_accuracy"]
    assert own.loc["er"].tolist() == pytest.approx([0.5, 0.5, np.nan, np.nan], nan_ok=True)
    assert own.loc["naive"].tolist() == pytest.approx([0, 0, np.nan], nan_ok=True)
    assert own.loc["joint"].tolist() == pytest.approx([1, 1, np.nan], nan_ok=True)
    squared = cells[cells["stream"].eq("b")].set_index(["method", "seed"])["normalised_accuracy"]
    assert squared["er", 0] == pytest.approx((0.45**2 - 0.04) / (0.49 - 0.04))


def test_a_failed_bound_leaves_its_seed_without_a_normalised_accuracy():
    frame = pd.DataFrame(
        [("naive", 0, "done", 0.2), ("joint", 0, "failed", 0.9), ("er", 0, "done", 0.5)],
        columns=["method", "seed", "status", "accuracy"],
    ).assign(study="s", stream="a", scenario="class")
    assert Results(frame).cells["normalised_accuracy"].isna().all()


def test_frames_that_were_put_together_keep_their_labels():
    def part(study: str, value: float) -> pd.DataFrame:
        rows = [(name, seed) for name in ("naive", "ewc") for seed in range(2)]
        made = pd.DataFrame(rows, columns=["method", "seed"]).assign(study=study, stream="a", scenario="class")
        made = made.assign(status="done", accuracy=0.5)
        return made.assign(**{"hp.ewc_lambda": np.where(made["method"].eq("ewc"), value, np.nan)})

    one, other = part("one", 1.0), pd.concat([part("two", 1.0), part("two", 9.0).query("method == 'ewc'")])
    labels = leaderboard(pd.concat([one, other])).groupby("study")["label"].agg(sorted).to_dict()
    assert labels == {
        "one": ["ewc", "naive"],
        "two": ["ewc (ewc_lambda=1.0)", "ewc (ewc_lambda=9.0)", "naive"],
    }


def test_accuracies_in_per_cent_are_refused():
    frame = pd.DataFrame([("naive", 0, "done", 45.0)], columns=["method", "seed", "status", "accuracy"])
    with pytest.raises(ValueError, match="an accuracy of 45; accuracies are fractions"):
        leaderboard(frame.assign(study="s", scenario="class"))


def boards(seeds: int, kind: str = "study") -> pd.DataFrame:
    levels = {"naive": 0.2, "joint": 0.9, "er": 0.6, "gem": 0.4}
    rows = [(name, seed, level + 0.01 * seed) for name, level in levels.items() for seed in range(seeds)]
    frame = pd.DataFrame(rows, columns=["method", "seed", "accuracy"]).assign(
        study="s", scenario="class", status="done"
    )
    return pd.concat([frame.assign(stream="a"), frame.assign(stream="b")]).assign(kind=kind)


@pytest.mark.parametrize(("seeds", "tiers"), [(1, [None, None]), (4, [None, None]), (5, [1, 2])])
def test_few_seeds_give_no_tiers_across_boards(seeds, tiers):
    ranked = across(boards(seeds)).ranked
    assert ranked["label"].tolist() == ["er", "gem"]
    assert [None if np.isnan(tier) else tier for tier in ranked["tier"]] == tiers


@pytest.mark.parametrize("kind", ["sweep", "search", "ablation"])
def test_only_studies_are_summed_up_across_boards(kind):
    mixed = pd.concat([boards(5), boards(5, kind).assign(study="other")])
    found = across(mixed)
    assert [place[0] for place in found.boards] == ["s", "s"]
    assert set(found.left_out["reason"]) == {f"it is a {kind}, not a study"}
    assert len(found.ranked) == 2
    title = board_title(leaderboard(mixed).query("study == 'other'"))
    assert kind in title


def test_a_scenario_without_a_board_is_named():
    with pytest.raises(ValueError, match="no board of the scenario 'klass'; there are class"):
        across(boards(2), "klass")
