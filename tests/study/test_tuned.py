"""What a search leaves: a record of all that was tried, and a study that loads and has what was chosen."""

import dataclasses
import json
import re
from pathlib import Path

from cl_ext.study import Store, Study, StudyError, collect, run
from cl_ext.study.protocol import Protocol
from cl_ext.study.tune import read, search_of
from cl_ext.study.tuned import merged_tuning, merged_values, tuned_text, tuning_record

import numpy as np
import pytest

from tests.study.helpers import TINY, write
from tests.study.search import TWO, call, found_of, peak, strength, write_record

DECADES = {"lfl": [10.0**e for e in range(-3, 4)], "scp": [10.0**e for e in range(-2, 6)]}


def test_the_record_of_a_search_has_every_setting(tmp_path, fake):
    fake(lambda cell: "diverged" if strength(cell) >= 1000 else peak(cell))
    path, out = write(tmp_path, TWO), tmp_path / "out"
    call("tune", path, "--out", out, "--seeds", "1000-1001", "--methods", "lfl", "--scenarios", "task")
    content = json.loads((out / "tuning.json").read_text())
    assert (content["seeds"], content["validation"]) == ([1000, 1001], 0.2)
    settings = content["configurations"]
    assert [one["values"]["lfl_lambda"] for one in settings] == DECADES["lfl"]
    assert [one["values"]["lfl_lambda"] for one in settings if one["chosen"]] == [1]
    chosen = settings[3]
    assert chosen["accuracy"] == pytest.approx(0.8)
    assert [chosen["seeds"][seed]["accuracy"] for seed in ("1000", "1001")] == pytest.approx([0.7, 0.9])
    assert Store(out).status(chosen["seeds"]["1001"]["run_id"]) == "done"
    assert settings[-1]["accuracy"] is None
    assert settings[-1]["seeds"]["1000"]["status"] == "diverged"


def test_the_record_is_json(tmp_path):
    study, protocol, found = found_of(tmp_path, {0.1: 0.8, 1.0: "timeout"})
    record = tuning_record(study, protocol, found)
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_the_study_itself_is_never_written_over(tmp_path, fake):
    executor, path = fake(peak), write(tmp_path, TWO)
    code, text = call("tune", path, "--out", tmp_path / "out", "--write", path)
    assert code == 2
    assert "the study itself" in text
    assert call("tune", path, "--out", tmp_path / "out", "--write", tmp_path)[0] == 2
    assert executor.ran == []
    assert path.read_text() == TWO
    assert call("tune", path, "--out", tmp_path / "out", "--write", tmp_path / "new" / "b.yaml")[0] == 0
    assert Study.load(tmp_path / "new" / "b.yaml").name == "tiny"


def with_values(tmp_path: Path, more: str) -> Study:
    return Study.load(write(tmp_path, TWO.replace("[task, class]", "[task, domain, class]") + more))


@pytest.mark.parametrize(
    ("given", "chosen", "merged"),
    [
        ("", {"task": 1.0}, {"task": 1.0}),
        ("values: {lfl: {lfl_lambda: 5}}", {"task": 1.0}, {"task": 1.0, "domain": 5, "class": 5}),
        ("values: {lfl: {lfl_lambda: {class: 5}}}", {"task": 1.0}, {"class": 5, "task": 1.0}),
        ("values: {lfl: {lfl_lambda: {class: 5}}}", {"task": 2.0, "domain": 2.0, "class": 2.0}, 2.0),
        ("values: {lfl: {lfl_lambda: 5}}", {"task": 5.0}, 5),
    ],
)
def test_untuned_scenarios_keep_their_value(tmp_path, given, chosen, merged):
    study = with_values(tmp_path, given)
    search, store = search_of(study, Protocol(methods=("lfl",), grids={"lfl_lambda": (1, 2, 5)})), Store(tmp_path)
    for cell in search.cells():
        if cell.scenario in chosen:
            write_record(store, cell, 0.9 if strength(cell) == chosen[cell.scenario] else 0.1)
    assert merged_values(study, read(search, store))["lfl"]["lfl_lambda"] == merged


def test_untuned_methods_keep_how_they_were_tuned(tmp_path):
    old = (
        "tuning: {protocol: by eye, configurations: 5, seeds: [7]}\n"
        "values: {scp: {scp_lambda: 3}, lfl: {lfl_lambda: 3}}\n"
    )
    study = with_values(tmp_path, old)
    protocol = Protocol(methods=("lfl",), scenarios=("task",))
    search, store = search_of(study, protocol), Store(tmp_path)
    for cell in search.cells():
        write_record(store, cell, 0.5)
    tuning = merged_tuning(study, protocol, read(search, store))
    assert tuning == {
        "protocol": {"lfl": {"task": protocol.text(), "domain": "by eye", "class": "by eye"}, "scp": "by eye"},
        "configurations": {"lfl": {"task": 7}},
        "seeds": {"lfl": {"task": [1000], "domain": [7], "class": [7]}, "scp": [7]},
    }
    again = dataclasses.replace(study, tuning=tuning)
    assert merged_tuning(again, Protocol(methods=("scp",)), []) == tuning


COMMENTED = """\
# A header.

study: tiny  # its name
# Old strengths: by hand.
# In two lines.
values:
  # inside
  lfl: {lfl_lambda: 3}

# About the stream.
stream: {name: split, dataset: digits, experiences: 5}
network: {name: mlp, hidden: [16]}
seeds: 0-1
methods: [naive, lfl]
tuning:
  protocol: >
    by hand
# The end.
"""


def text_of(tmp_path: Path, text: str) -> str:
    study, protocol = Study.load(write(tmp_path, text)), Protocol()
    search, store = search_of(study, protocol), Store(tmp_path)
    for cell in search.cells():
        write_record(store, cell, 0.9 if strength(cell) == 0.001 else 0.1)
    return tuned_text(study, protocol, read(search, store), tmp_path)


def test_other_lines_of_the_file_stay_as_they_are(tmp_path):
    lines = text_of(tmp_path, COMMENTED).splitlines()
    assert lines[:3] == ["# A header.", "", "study: tiny  # its name"]
    assert lines[3].startswith("# Tuned by: cl-ext tune ")
    assert lines[4:8] == [
        "# What the study said of its values before:", "# Old strengths: by hand.", "# In two lines.", "tuning:",
    ]  # fmt: skip
    assert lines[11:] == [
        "values:", "  lfl: {lfl_lambda: 0.001}", "", "# About the stream.",
        "stream: {name: split, dataset: digits, experiences: 5}", "network: {name: mlp, hidden: [16]}", "seeds: 0-1",
        "methods: [naive, lfl]", "# The end.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "{study: tiny, stream: {name: split, dataset: digits, experiences: 5}, seeds: 0-1, methods: [lfl], "
        "values: {lfl: {lfl_lambda: 3}}, budget: {lr: 1e-3}}",
        "study: tiny\nvalues: {lfl: {lfl_lambda: &x 1}}\nstream: {name: split, dataset: digits, experiences: 5}\n"
        "seeds: 0-1\nmethods: [lfl]\nbudget: {lr: *x}\n",
    ],
    ids=["braces", "alias"],
)
def test_a_file_whose_lines_cannot_be_told_apart_is_written_anew(tmp_path, text):
    before = Study.load(write(tmp_path, text))
    after = Study.load(write(tmp_path, text_of(tmp_path, text), "after.yaml"))
    assert after.values == {"lfl": {"lfl_lambda": 0.001}}
    assert (after.budget, after.stream, after.seeds) == (before.budget, before.stream, before.seeds)


@pytest.mark.parametrize("value", [1e-7, 0.001, 0.3, 1.0, 1e5, 1e7, 1e12, 1 / 3, 12345678.5])
def test_numbers_come_back_as_they_were(tmp_path, value, fake):
    fake(lambda cell: 0.5)
    path = write(tmp_path, TWO)
    grid = f"lfl_lambda={value!r}"
    assert call("tune", path, "--methods", "lfl", "--grid", grid, "--out", tmp_path / "out")[0] == 0
    after = Study.load(tmp_path / "out" / "tiny.yaml")
    assert after.resolved("lfl", "task") == {"lfl_lambda": value}


def test_a_users_own_data_are_found_from_the_new_file(tmp_path, fake):
    fake(lambda cell: 0.5)
    x, y = np.zeros((20, 4, 4), dtype=np.uint8), np.arange(20) % 10
    (tmp_path / "here").mkdir()
    np.savez(tmp_path / "here" / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    path = write(tmp_path / "here", TWO.replace("dataset: digits", "dataset: mine.npz"))
    place = tmp_path / "there" / "b.yaml"
    assert call("tune", path, "--methods", "lfl", "--out", tmp_path / "out", "--write", place)[0] == 0
    assert Study.load(place).files == Study.load(path).files
    assert f'dataset: "{tmp_path / "here" / "mine.npz"}"' in place.read_text()
    beside = tmp_path / "here" / "b.yaml"
    assert call("tune", path, "--methods", "lfl", "--out", tmp_path / "out", "--write", beside)[0] == 0
    assert "dataset: mine.npz" in beside.read_text()


def test_the_frame_says_how_a_methods_values_were_chosen(tmp_path, fake):
    fake(lambda cell: 0.5)
    path = write(tmp_path, TWO.replace("[naive, lfl, scp]", "[naive, lfl, scp, replay_avalanche]"))
    assert call("tune", path, "--out", tmp_path / "search")[0] == 0
    tuned, store = tmp_path / "search" / "tiny.yaml", tmp_path / "out"
    run(Study.load(tuned), store)
    frame = collect(store).groupby("method").first()
    assert frame["tuning_configurations"].to_dict() == pytest.approx(
        {"naive": np.nan, "replay_avalanche": np.nan, "lfl": 7, "scp": 8}, nan_ok=True
    )
    assert frame.loc[["lfl", "scp"], "tuning_seeds"].tolist() == ["1000", "1000"]
    assert frame.loc["scp", "tuning_protocol"] == Protocol().text()
    assert frame.loc[["naive", "replay_avalanche"], "tuning_protocol"].isna().all()
    assert collect(tmp_path / "search")["tuning_protocol"].isna().all(), "a search's own cells are not tuned"


@pytest.mark.parametrize(
    ("tuning", "sentence"),
    [
        ("configurations: {lffl: 3}", "'lffl' is no method"),
        ("configurations: many", "tuning.configurations is 'many'; it takes a whole number"),
        ("seeds: {lfl: 3}", "tuning.seeds.lfl is 3; it takes a list of whole numbers"),
        ("protocol: [a]", "tuning.protocol is ['a']; it takes a text"),
    ],
)
def test_a_mistake_in_tuning_is_one_sentence(tmp_path, tuning, sentence):
    with pytest.raises(StudyError, match=re.escape(sentence)):
        Study.load(write(tmp_path, TINY + f"tuning: {{{tuning}}}\n"))
