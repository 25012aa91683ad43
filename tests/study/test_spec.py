"""A study's mistakes are one sentence with line, what was given and what is allowed; its cells are what it says."""

import json
import subprocess
import sys

from cl_ext.study import Study, StudyError
from cl_ext.study.reader import parse_seeds

import numpy as np
import pytest

from tests.study.helpers import TINY, write


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seeds: 0-1", "seed: 0-1", ["line 6", "seed", "did you mean seeds", "allowed"]),
        ("seeds: 0-1", "", ["seeds is missing"]),
        ("seeds: 0-1", "seeds: many", ["line 6", "many", "0-4"]),
        ("seeds: 0-1", "seeds: [-1]", ["line 6", "-1"]),
        ("lr: 0.1", "lr: fast", ["line 5", "budget.lr", "'fast'", "a number"]),
        ("lr: 0.1", "lr: -1.0", ["line 5", "budget.lr", "-1.0", "above 0"]),
        ("batch_size: 32", "batch_size: 3.5", ["line 5", "budget.batch_size", "3.5", "whole number"]),
        ("optimizer: sgd", "optimizer: sdg", ["line 5", "sdg", "sgd, adam"]),
        ("epochs: 1", "epochs: 2, online: true", ["line 5", "online", "epochs"]),
        ("experiences: 5", "experiences: 3", ["line 2", "10 classes", "3 experiences", "1, 2, 5, 10"]),
        ("dataset: digits", "dataset: digit", ["line 2", "digit", "digits"]),
        ("dataset: digits", "dataset: none.npz", ["line 2", "none.npz", "no file"]),
        ("name: split", "name: spilt", ["line 2", "spilt", "split"]),
        ("experiences: 5", "experiences: 5, angles: [0, 10]", ["line 2", "angles", "rotated"]),
        ("scenarios: [class]", "scenarios: [classes]", ["line 3", "classes", "task, domain and class"]),
        ("name: mlp", "name: mpl", ["line 4", "mpl", "mlp"]),
        ("hidden: [16]", "hidden: [0]", ["line 4", "hidden", "at least 1"]),
        ("hidden: [16]", "hidden: 16", ["line 4", "hidden", "a list"]),
        ("[naive, joint]", "[naive, jont]", ["line 7", "jont", "did you mean 'joint'"]),
        ("[naive, joint]", "[separate]", ["line 7", "separate", "class-incremental", "task-incremental"]),
        ("[naive, joint]", "none", ["line 7", "none", "all, or a list"]),
        ("[naive, joint]", "[naive]\nvalues: {naive: {lr: 1.0}}", ["line 8", "lr", "naive"]),
        ("[naive, joint]", "all\nvalues: {ewc_avalanche: {ewc_lambda: -1}}", ["line 8", "ewc_lambda", "at least 0"]),
        ("[naive, joint]", "all\nvalues: {ewc_avalanche: {ewc_lambda: {cls: 1}}}", ["line 8", "cls", "task, domain"]),
        ("[naive, joint]", "all\nevaluation: sometimes", ["line 8", "sometimes", "experience, epoch"]),
        ("study: tiny", "study: tiny\nstudy: twice", ["line 2", "twice"]),
        ("study: tiny", "study: [", ["no YAML"]),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(tmp_path, old, new, words):
    path = write(tmp_path, TINY.replace(old, new))
    with pytest.raises(StudyError) as caught:
        Study.load(path)
    message = str(caught.value)
    assert "\n" not in message
    for word in [str(path), *words]:
        assert word in message


def test_missing_file_is_said(tmp_path):
    with pytest.raises(StudyError, match=r"nowhere\.yaml: there is no such file"):
        Study.load(tmp_path / "nowhere.yaml")


def test_numbers_without_a_dot_are_numbers(tmp_path):
    study = Study.load(write(tmp_path, TINY.replace("lr: 0.1", "lr: 1e-3")))
    assert study.budget.lr == 1e-3


def test_cells_are_the_product_with_stable_ids(tmp_path):
    cells = Study.load(write(tmp_path)).cells()
    assert [(c.method, c.seed) for c in cells] == [("naive", 0), ("joint", 0), ("naive", 1), ("joint", 1)]
    assert len({c.run_id for c in cells}) == 4
    # a golden id: a change of defaults or of the canonical form would orphan every record out there
    assert cells[0].run_id == "4316b6137e06f10ed89d"


def test_a_younger_field_is_in_the_description_only_where_it_is_not_at_its_default(tmp_path):
    def first_id(more):
        text = TINY.replace("dataset: digits", f"dataset: digits, {more}")
        return Study.load(write(tmp_path, text)).cells()[0].run_id

    assert first_id("normalise: true") == "4316b6137e06f10ed89d"
    assert len({"4316b6137e06f10ed89d", first_id("normalise: false"), first_id("samples: 10")}) == 3


def test_ids_forget_names_and_paths(tmp_path):
    first = Study.load(write(tmp_path)).cells()
    (tmp_path / "elsewhere").mkdir()
    text = TINY.replace("study: tiny", "study: other\ntitle: another title").replace("seeds: 0-1", "seeds: 0-2")
    second = Study.load(write(tmp_path / "elsewhere", text, "other.yaml")).cells()
    assert {c.run_id for c in first} < {c.run_id for c in second}


def test_json_round_trip_keeps_the_id(tmp_path):
    for cell in Study.load(write(tmp_path)).cells():
        assert type(cell).from_dict(json.loads(json.dumps(cell.to_dict()))).run_id == cell.run_id


def test_all_leaves_out_what_cannot_run(tmp_path):
    study = Study.load(write(tmp_path, TINY.replace("[naive, joint]", "all").replace("[class]", "[task, class]")))
    assert "separate" in study.methods
    assert {c.scenario for c in study.cells() if c.method == "separate"} == {"task"}
    with pytest.raises(StudyError, match="--methods: separate can't run"):
        Study.load(write(tmp_path)).with_selection(["separate"])


def test_values_by_scenario(tmp_path):
    text = TINY.replace("[naive, joint]", "[ewc_avalanche]").replace("[class]", "[task, class]")
    study = Study.load(write(tmp_path, text + "values: {ewc_avalanche: {ewc_lambda: {task: 10, class: 1e3}}}\n"))
    values = {c.scenario: c.hyperparameters["ewc_lambda"] for c in study.cells()}
    assert values == {"task": 10.0, "class": 1000.0}


def test_a_users_file_is_known_by_its_content(tmp_path):
    rng = np.random.RandomState(0)
    data = {f"{k}_{s}": v for s in ("train", "test") for k, v in
            (("x", rng.randint(0, 255, (40, 6, 6)).astype(np.uint8)), ("y", np.arange(40) % 4))}  # fmt: skip
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        np.savez(folder / "mine.npz", **data)
    text = TINY.replace("digits", "mine.npz").replace("experiences: 5", "experiences: 2")
    first, second = (Study.load(write(tmp_path / name, text)) for name in "ab")
    assert first.cells()[0].run_id == second.cells()[0].run_id
    assert first.cells()[0].stream["dataset"].startswith("sha256:")
    assert str(tmp_path) not in first.cells()[0].canonical()
    assert first.stream_label() == "split mine"


@pytest.mark.parametrize(("text", "seeds"), [("0-4", (0, 1, 2, 3, 4)), ("3", (3,)), ("0, 2,5-6", (0, 2, 5, 6))])
def test_seeds(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "4-0", "-1", "1.5"])
def test_bad_seeds(text):
    with pytest.raises(ValueError, match="such as 0-4"):
        parse_seeds(text)


def test_planning_imports_no_torch(tmp_path):
    path = write(tmp_path)
    code = (
        "import sys; from cl_ext.cli import app\n"
        f"app(['plan', {str(path)!r}, '--out', {str(tmp_path / 'out')!r}], standalone_mode=False)\n"
        "app(['methods'], standalone_mode=False)\n"
        "loaded = {'torch', 'avalanche', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules); assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "4 missing" in done.stdout
