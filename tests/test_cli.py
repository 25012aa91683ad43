"""The command line answers at once, in one sentence where something is wrong."""

import re
from pathlib import Path

from cl_ext.cli import app
from cl_ext.methods import METHODS
from cl_ext.study import Store

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.study.helpers import TINY, write
from tests.study.test_store import cell, record

ROOT = Path(__file__).resolve().parent.parent


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, re.sub(r"\s+", " ", result.output)


@pytest.fixture
def npz(tmp_path):
    """A user's own data: 4 classes of 6 x 6 images."""
    x, y = np.random.RandomState(0).randint(0, 255, (80, 6, 6)).astype(np.uint8), np.arange(80) % 4
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return tmp_path / "mine.npz"


def test_methods_lists_every_row_and_knows_each():
    code, text = call("methods")
    assert code == 0
    for name in METHODS.own_names:
        assert name in text
        assert call("methods", name)[0] == 0
    text = call("methods", "ewc_avalanche")[1]
    assert "ewc_lambda" in text
    assert "known fault" in text
    code, text = call("methods", "ewcc_avalanche")
    assert code == 2
    assert "did you mean 'ewc_avalanche'" in text


def test_streams_lists_the_data_sets():
    code, text = call("streams")
    assert code == 0
    for name in ("digits", "mnist", "cifar100", "core50", "permuted"):
        assert name in text


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_study_here_can_be_planned(path, tmp_path):
    """With the subsets' files made up, because a study's data may be absent."""
    x, y = np.zeros((200, 8, 8, 3), dtype=np.uint8), np.arange(200) % 100
    np.savez(tmp_path / "cifar100_50x10.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    np.savez(tmp_path / "cifar10_500x100.npz", x_train=x, y_train=y % 10, x_test=x, y_test=y % 10)
    code, text = call("plan", path, "--data-root", tmp_path, "--out", tmp_path / "out")
    assert code == 0, text
    assert re.search(r"\d+ cells: \d+ missing", text)
    assert re.search(r"^version: \d+$", path.read_text(), re.M)


def test_plan_says_what_is_done_failed_and_stale(tmp_path):
    path = write(tmp_path)
    from cl_ext.study import Study

    store = Store(tmp_path / "out")
    first, second, third, _ = Study.load(path).cells()
    store.write(first, record(first), {})
    store.write(second, record(second, "failed"), {})
    old = type(third).from_dict(third.to_dict() | {"revision": 0})
    store.write(old, record(old), {})
    code, text = call("plan", path, "--out", tmp_path / "out")
    assert code == 0
    assert "4 cells: 1 done, 1 failed, 1 missing, 1 stale" in text


def test_another_data_set(tmp_path, npz):
    path = write(tmp_path, TINY.replace("experiences: 5", "experiences: 2"))
    code, text = call("plan", path, "--dataset", npz, "--out", tmp_path / "out")
    assert code == 0
    assert "tiny-mine" in text
    for dataset, words in (("mnits", "did you mean mnist"), ("none.npz", "no file"), ("cifar100", "")):
        code, text = call("plan", path, "--dataset", dataset, "--out", tmp_path / "out")
        assert (code, words in text) == ((2 if words else 0), True)


def test_status_says_what_is_left(tmp_path):
    path = write(tmp_path)
    from cl_ext.study import Study
    from cl_ext.study.runner import describe

    study, store = Study.load(path), Store(tmp_path / "out")
    cells = study.cells()
    store.write_study(study.name, describe(study, cells))
    store.write(cells[0], record(cells[0]), {})
    with store.lock(cells[1].run_id):
        code, text = call("status", tmp_path / "out")
    assert code == 0
    assert "4 cells: 1 done, 3 missing; 1 running now" in text
    assert f"running: {cells[1].run_id}" in text
    assert "ends in" in text
    assert "nothing runs" in call("status", tmp_path / "out")[1]


def test_report_of_several_stores_merges(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        spec = cell(seed=seed)
        store = Store(tmp_path / name)
        store.write(spec, record(spec), {})
        store.write_study("mine", {"study": "mine", "stream": "split digits", "cells": [spec.run_id]})
    code, text = call("report", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "all", "--no-figures")
    assert code == 0, text
    page = (tmp_path / "all" / "leaderboard.md").read_text()
    assert re.search(r"\| \*naive\* .*\| 2; n < 5 \|", page)
    code, text = call("report", tmp_path)
    assert (code, "no store" in text) == (2, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--workers", "0"], "--workers is 0"),
        (["--device", "tpu"], "cpu or cuda"),
        (["--seeds", "x"], "--seeds"),
        (["--methods", "nive"], "did you mean 'naive'"),
        (["--time-limit", "-1"], "--time-limit"),
        (["--data-root", "/nowhere"], "no folder"),
    ],
)
def test_bad_options_are_one_sentence_and_run_nothing(tmp_path, options, words):
    code, text = call("run", write(tmp_path), "--out", tmp_path / "out", *options)
    assert code == 2
    assert words in text
    assert not (tmp_path / "out").exists()
