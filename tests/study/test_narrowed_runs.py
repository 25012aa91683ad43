"""A run of some methods or seeds only keeps what earlier runs of the study asked for."""

import dataclasses

from cl_ext.report.rows.gaps import asked_of, missing_cells
from cl_ext.study import Study, collect
from cl_ext.study.protocol import Protocol
from cl_ext.study.runner import described
from cl_ext.study.store import Store
from cl_ext.study.tune import search_of

import pytest

from tests.report.test_faulty_store import record

GRIDS = {"ewc": ("ewc_lambda", (1.0, 10.0)), "er": ("mem_size", (20, 40))}
TEXT = """\
study: mini
version: 1
title: A small study
stream: {name: split, dataset: digits, experiences: 2}
scenarios: [class]
network: {name: mlp, hidden: [10]}
budget: {optimizer: sgd, lr: 0.1, batch_size: 32, epochs: 1}
seeds: 0-2
methods: [naive, joint, ewc, er]
values: {ewc: {ewc_lambda: 10}}
"""


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "mini.yaml"
    path.write_text(TEXT)
    return Study.load(path)


def ran(store: Store, study: Study) -> None:
    """What a run leaves behind, without training."""
    cells = study.cells()
    store.write_study(study.name, described(study, store, cells))
    for cell in cells:
        made = record("er", cell.seed) | {"run_id": cell.run_id}
        store.write(cell, made, {})


def held(store: Store) -> set[tuple[str, int]]:
    frame = collect(store.root)
    frame = frame[frame["study"].ne("")]
    return set(zip(frame["method"], frame["seed"], strict=True))


def test_methods_one_after_another_are_one_leaderboard(tmp_path, study):
    store = Store(tmp_path / "store")
    ran(store, study.with_selection(["naive", "joint"]))
    ran(store, study.with_selection(["ewc"], [0]))
    assert held(store) == {(name, seed) for name in ("naive", "joint") for seed in range(3)} | {("ewc", 0)}
    asked = asked_of([store.root])
    assert asked["mini"]["methods"] == ["ewc", "joint", "naive"]
    missing = missing_cells(collect(store.root), asked=asked)
    assert sorted(zip(missing["label"], missing["seed"], strict=True)) == [("ewc", 1), ("ewc", 2)]


def test_further_seeds_stay_when_the_whole_study_runs(tmp_path, study):
    store = Store(tmp_path / "store")
    ran(store, study.with_selection(["er"], [7]))
    ran(store, study)
    assert ("er", 7) in held(store)
    assert {("er", seed) for seed in range(3)} <= held(store)


def test_what_the_file_no_longer_lists_or_values_otherwise_is_left_out(tmp_path, study):
    store = Store(tmp_path / "store")
    ran(store, study)
    fewer = dataclasses.replace(study, methods=("naive", "joint", "ewc"), values={"ewc": {"ewc_lambda": 20.0}})
    ran(store, fewer.with_selection(["naive"]))
    kept = held(store)
    assert ("er", 0) not in kept  # not in the file any more
    assert ("ewc", 0) not in kept  # of another strength
    assert ("joint", 2) in kept
    ran(store, fewer)
    assert ("ewc", 0) in held(store)
    assert len(collect(store.root).query("study == 'mini' and method == 'ewc'")) == 3


def test_a_search_asks_for_its_own_settings_alone(tmp_path, study):
    """Nothing of an earlier search of other methods in the store is missed."""
    store = Store(tmp_path / "store")
    for method in ("ewc", "er"):
        search = search_of(
            study, Protocol(methods=(method,), hyperparameters=GRIDS[method][:1], grids=dict([GRIDS[method]]))
        )
        store.write_study(search.name, described(search, store, search.cells()))
    told = store.studies()[search.name]
    assert told["methods"] == ["er"]
    assert told["cells"] == [cell.run_id for cell in search.cells()]
