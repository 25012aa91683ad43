"""Fields that came after the first records leave ids alone; a method's own optimizer; batches that are not full."""

from pathlib import Path

import cl_ext  # noqa: F401
from cl_ext.methods import Budget
from cl_ext.models import NetworkSpec
from cl_ext.study import Study, StudyError
from cl_ext.study.cell import CellOptions, make_stream, run_cell

import pytest

from tests.study.helpers import TINY, write

DIGITS = Path(__file__).parents[2] / "benchmarks" / "digits.yaml"


def cells(folder, text):
    return {cell.method: cell for cell in Study.load(write(folder, text)).cells() if cell.seed == 0}


def sizes(cell):
    """How many training samples each experience of a cell has."""
    return [len(experience.dataset) for experience in make_stream(cell, CellOptions()).train_stream]


def test_ids_of_a_released_study_are_what_they_were():
    """As they were before the network had `init` and the budget `drop_last`; rows without tuned values."""
    found = {(cell.method, cell.scenario, cell.seed): cell.run_id for cell in Study.load(DIGITS).cells()}
    assert found["naive", "task", 0] == "c609486f3d0dc36fcac8"
    assert found["naive", "class", 0] == "0c96f8caf171c357b48b"
    assert found["joint", "class", 0] == "50fb99f484bd3d71e6f9"
    assert found["gem", "class", 0] == "369e935a7a1fc3f7c3ba"
    assert found["gem", "task", 0] == "e86fe9a7ae357bdeef03"


@pytest.mark.parametrize(
    ("old", "default", "other"),
    [
        ("hidden: [16]", "hidden: [16], init: default", "hidden: [16], init: xavier"),
        ("epochs: 1", "epochs: 1, drop_last: false", "epochs: 1, drop_last: true"),
    ],
)
def test_a_younger_field_counts_only_where_it_is_not_at_its_default(tmp_path, old, default, other):
    before = cells(tmp_path, TINY)["naive"]
    assert cells(tmp_path, TINY.replace(old, default))["naive"].canonical() == before.canonical()
    changed = cells(tmp_path, TINY.replace(old, other))["naive"]
    assert changed.run_id != before.run_id
    assert NetworkSpec.from_dict(changed.network).to_dict() == changed.network
    assert Budget.from_dict(changed.budget).to_dict() == changed.budget


def test_a_methods_own_learning_rate_is_the_same_cell_as_in_a_study_of_that_rate(tmp_path):
    plain = cells(tmp_path, TINY)
    mixed = cells(tmp_path, TINY + "budgets: {joint: {lr: 0.03, momentum: 0.5}}\n")
    faster = cells(tmp_path, TINY.replace("lr: 0.1", "lr: 0.03, momentum: 0.5"))
    assert mixed["naive"].run_id == plain["naive"].run_id != faster["naive"].run_id
    assert mixed["joint"].run_id == faster["joint"].run_id != plain["joint"].run_id
    assert mixed["joint"].budget == plain["joint"].budget | {"lr": 0.03, "momentum": 0.5}


def test_budgets_stay_where_methods_and_seeds_are_chosen(tmp_path):
    study = Study.load(write(tmp_path, TINY + "budgets: {joint: {lr: 0.03}}\n")).with_selection(["joint"], [7])
    assert [(cell.method, cell.seed, cell.budget["lr"]) for cell in study.cells()] == [("joint", 7, 0.03)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("[naive]", ["line 8", "budgets is ['naive']", "a mapping of method to settings"]),
        ("{naiv: {lr: 1.0}}", ["line 8", "'naiv' is no method", "did you mean 'naive'"]),
        ("{naive: 0.1}", ["line 8", "budgets.naive is 0.1", "a mapping"]),
        ("{naive: {epochs: 3}}", ["line 8", "budgets.naive.epochs", "allowed: optimizer, lr, momentum, weight_decay"]),
        ("{naive: {lr: fast}}", ["line 8", "budgets.naive.lr is 'fast'", "a number"]),
        ("{naive: {lr: -1.0}}", ["line 8", "budget.lr is -1.0", "above 0"]),
        ("{naive: {optimizer: adam, momentum: 0.9}}", ["line 8", "momentum is for sgd"]),
    ],
)
def test_mistakes_in_budgets_are_one_sentence(tmp_path, given, words):
    with pytest.raises(StudyError) as caught:
        Study.load(write(tmp_path, TINY + f"budgets: {given}\n"))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("method", ["naive", "replay_avalanche", "er", "derpp", "gem", "joint"])
def test_a_last_batch_that_is_not_full_can_be_left_out(tmp_path, method):
    steps = {}
    for given in ("false", "true"):
        text = TINY.replace("epochs: 1", f"epochs: 1, drop_last: {given}").replace("[naive, joint]", f"[{method}]")
        (cell,) = cells(tmp_path, text).values()
        record = run_cell(cell)
        assert record["status"] == "done", record["error"]
        steps[given] = record["costs"]["steps"]
    parts = [sum(sizes(cell))] if method == "joint" else sizes(cell)
    assert any(n % 32 for n in parts)
    assert steps == {"false": sum(-(-n // 32) for n in parts), "true": sum(n // 32 for n in parts)}


def test_an_experience_without_a_full_batch_is_one_sentence(tmp_path):
    text = TINY.replace("batch_size: 32", "batch_size: 300, drop_last: true")
    cell = cells(tmp_path, text)["naive"]
    assert run_cell(cell)["error"]["message"] == (
        "budget.drop_last leaves out batches that are not full, and the smallest experience, of "
        f"{min(sizes(cell))} samples, has no full one of budget.batch_size = 300"
    )
