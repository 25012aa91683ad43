"""Where values come from, by method and scenario: what each shape of `tuning` says, and that nothing is claimed."""

import itertools
import random
from pathlib import Path

from cl_ext.report import leaderboard
from cl_ext.report.tables.texts import DASH, tuning_notes, tuning_text
from cl_ext.study import Study, StudyError, collect, run
from cl_ext.study.origins import combined_tuning, tuning_of

import pandas as pd
import pytest
import yaml

from tests.study.helpers import write
from tests.study.search import TWO, call

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"
NOTHING = {"protocol": None, "configurations": None, "seeds": None}


def said(protocol: str | None = None, configurations: int | None = None, seeds: list[int] | None = None) -> dict:
    return {"protocol": protocol, "configurations": configurations, "seeds": seeds}


@pytest.mark.parametrize(
    ("tuning", "method", "scenario", "expected"),
    [
        ({}, "lfl", "task", NOTHING),
        # as before scenarios could be told apart: an entry holds for all of them
        ({"protocol": "a", "configurations": 9, "seeds": [7]}, "lfl", "task", said("a", None, [7])),
        ({"protocol": "a", "configurations": {"lfl": 5}, "seeds": [7]}, "lfl", "task", said("a", 5, [7])),
        ({"protocol": "a", "configurations": {"lfl": 5}, "seeds": [7]}, "lfl", "class", said("a", 5, [7])),
        ({"protocol": "a", "configurations": {"lfl": 5}, "seeds": [7]}, "scp", "class", NOTHING),
        ({"protocol": {"scp": "b"}, "configurations": {"lfl": 5}, "seeds": [7]}, "scp", "class", said("b")),
        # a scenario that is left out
        ({"protocol": "a", "configurations": {"lfl": {"task": 2}}, "seeds": [7]}, "lfl", "task", said("a", 2, [7])),
        ({"protocol": "a", "configurations": {"lfl": {"task": 2}}, "seeds": [7]}, "lfl", "class", NOTHING),
        ({"protocol": {"lfl": "a"}, "configurations": {"lfl": {"task": 2}}}, "lfl", "class", NOTHING),
        ({"protocol": {"lfl": {"class": "b"}}, "configurations": {"lfl": {"task": 2}}}, "lfl", "class", said("b")),
        ({"protocol": {"lfl": {"class": "b"}}, "configurations": {"lfl": {"task": 2}}}, "lfl", "task", said(None, 2)),
        # the others
        ({"protocol": {"all": "a", "lfl": "b"}, "configurations": {"lfl": 1, "scp": 2}}, "scp", "task", said("a", 2)),
        ({"protocol": {"all": "a", "lfl": "b"}, "configurations": {"lfl": 1, "scp": 2}}, "lfl", "task", said("b", 1)),
        ({"protocol": {"all": "a", "lfl": "b"}, "configurations": {"lfl": 1, "scp": 2}}, "ewc", "task", NOTHING),
    ],
)
def test_what_a_study_says_of_a_method_in_a_scenario(tmp_path, tuning, method, scenario, expected):
    assert tuning_of(tuning, method, scenario) == expected
    study = Study.load(write(tmp_path, TWO + f"tuning: {tuning!r}\n"))
    assert study.tuning == tuning, "the reader takes it"


def test_whatever_is_combined_says_what_went_in(tmp_path):
    """Random ways of choosing, in as few words as say the same."""
    study = Study.load(write(tmp_path, TWO.replace("[naive, lfl, scp]", "[naive, lfl, scp, si, mas]")))
    draw = random.Random(0)
    groups = list(itertools.product(("lfl", "scp", "si", "mas"), study.scenarios))
    shapes = set()
    for _ in range(150):
        ways = [said("x", 7, [1]), said("y", 8, [1]), said("z", None, [2]), said("x", 7, None)][: draw.randint(1, 4)]
        new = {group: draw.choice(ways) for group in groups if draw.random() < draw.choice((0.4, 1.0))}
        tuning = combined_tuning(study, new)
        for group in groups:
            assert tuning_of(tuning, *group) == new.get(group, NOTHING), (new, tuning)
        text = TWO + f"tuning: {tuning!r}\n"
        assert Study.load(write(tmp_path, text, "again.yaml")).tuning == tuning
        protocol = tuning.get("protocol")
        shapes.add(type(protocol).__name__ if not isinstance(protocol, dict) else "all" in protocol)
    assert shapes == {"str", True, False}, "one for all, one for most, each its own"


def test_what_was_said_before_stays_where_nothing_new_came(tmp_path):
    old = "tuning: {protocol: by eye, configurations: {lfl: 5}, seeds: [77]}\nvalues: {lfl: {lfl_lambda: {class: 1}}}\n"
    study = Study.load(write(tmp_path, TWO + old))
    assert combined_tuning(study, {}) == study.tuning
    tuning = combined_tuning(
        study, {("lfl", "task"): said("grid", 2, [1000]), ("scp", "task"): said("grid", 2, [1000])}
    )
    assert tuning_of(tuning, "lfl", "task") == tuning_of(tuning, "scp", "task") == said("grid", 2, [1000])
    assert tuning_of(tuning, "lfl", "class") == said("by eye", 5, [77])
    assert tuning_of(tuning, "scp", "class") == NOTHING


@pytest.mark.parametrize(
    ("tuning", "sentence"),
    [
        ("configurations: {lfl: {tsk: 3}}", "tuning.configurations.lfl has the key 'tsk'; it takes task, domain and"),
        ("configurations: {lfl: {task: a}}", "tuning.configurations.lfl.task is 'a'; it takes a whole number"),
        ("seeds: {lfl: {task: 3}}", "tuning.seeds.lfl.task is 3; it takes a list of whole numbers"),
        ("protocol: {task: a}", "'task' is no method"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, tuning, sentence):
    with pytest.raises(StudyError, match=sentence):
        Study.load(write(tmp_path, TWO + f"tuning: {{{tuning}}}\n"))


def test_no_record_claims_a_search_that_was_not_made(tmp_path, fake):
    """One scenario is tuned; the other says what the study said of it, a dash where that is nothing."""
    hand = (
        "tuning: {protocol: by hand, configurations: {lfl: 5}, seeds: [77]}\nvalues: {lfl: {lfl_lambda: {class: 1}}}\n"
    )
    fake(lambda cell: 0.5)
    search = tmp_path / "search"
    assert call("tune", write(tmp_path, TWO + hand), "--scenarios", "task", "--out", search)[0] == 0
    run(Study.load(search / "tiny.yaml"), tmp_path / "out")
    frame = collect(tmp_path / "out").groupby(["method", "scenario"]).first()
    columns = ["tuning_configurations", "tuning_seeds"]
    assert frame.loc[("lfl", "task"), columns].tolist() == [7, "1000"]
    assert frame.loc[("lfl", "class"), columns].tolist() == [5, "77"]
    assert frame.loc[("lfl", "class"), "tuning_protocol"] == "by hand"
    assert frame.loc[("scp", "task"), columns].tolist() == [8, "1000"]
    assert frame.loc[("scp", "class"), [*columns, "tuning_protocol"]].isna().all()
    board = leaderboard(collect(tmp_path / "out")).set_index(["method", "scenario"])
    notes = tuning_notes(board)
    assert tuning_text(board.loc[("scp", "class")], notes) == DASH
    assert tuning_text(board.loc[("scp", "task")], notes) == "8 (b)"
    board.to_csv(tmp_path / "board.csv")
    csv = pd.read_csv(tmp_path / "board.csv").set_index(["method", "scenario"])
    assert csv.loc[("scp", "class"), [*columns, "tuning_protocol"]].isna().all()


def test_a_search_that_failed_claims_nothing(tmp_path, fake):
    """All of a method fails in one scenario: it is as if it had not been tried there; elsewhere it is said."""
    fake(lambda cell: "diverged" if (cell.method, cell.scenario) == ("lfl", "class") else 0.5)
    assert call("tune", write(tmp_path, TWO), "--out", tmp_path / "out")[0] == 1
    study = Study.load(tmp_path / "out" / "tiny.yaml")
    assert tuning_of(study.tuning, "lfl", "class") == NOTHING
    assert tuning_of(study.tuning, "lfl", "task")["configurations"] == 7
    fake(lambda cell: "diverged")
    assert call("tune", write(tmp_path, TWO), "--out", tmp_path / "none")[0] == 1
    assert Study.load(tmp_path / "none" / "tiny.yaml").tuning == {}


def test_the_studies_here_claim_only_what_their_comments_say():
    digits = Study.load(BENCHMARKS / "digits.yaml").tuning
    for method in ("rwalk", "scp", "si_avalanche", "ewc_avalanche"):
        assert tuning_of(digits, method, "class") == NOTHING, method
        assert tuning_of(digits, method, "task")["seeds"] == [1000, 1001]
    assert tuning_of(digits, "mas_avalanche", "class")["configurations"] == 8
    assert tuning_of(digits, "ewc", "class")["protocol"].startswith("grid of each method's strength")
    by_hand = tuning_of(digits, "generative_replay", "class")
    assert (by_hand["configurations"], by_hand["seeds"], by_hand["protocol"][:7]) == (8, [1000], "by hand")
    assert tuning_of(digits, "generative_replay", "task") == NOTHING
    assert tuning_of(digits, "clser", "class") == NOTHING
    for name in ("split_mnist", "split_fashion"):
        study = Study.load(BENCHMARKS / f"{name}.yaml")
        for method in study.values:
            assert tuning_of(study.tuning, method, "class") == NOTHING, (name, method)
            assert tuning_of(study.tuning, method, "domain")["configurations"] >= 4
    generative = Study.load(BENCHMARKS / "split_mnist_generative.yaml").tuning
    assert tuning_of(generative, "generative_replay", "domain") == NOTHING
    assert tuning_of(generative, "generative_replay", "class")["configurations"] == 5
    dualnet = yaml.safe_load((BENCHMARKS / "split_cifar10_small_dualnet.yaml").read_text())["tuning"]
    assert tuning_of(dualnet, "er", "class") == NOTHING
    assert tuning_of(dualnet, "dualnet", "class")["configurations"] == 11
