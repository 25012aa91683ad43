"""The recorder sees everything and changes nothing."""

import dataclasses
import random

import cl_ext  # noqa: F401
from cl_ext.methods.context import Built
from cl_ext.study import Study
from cl_ext.study.cell import _size, run_cell
from cl_ext.study.recorder import DivergedError, Evaluator, Recorder, undisturbed

import numpy as np
import pytest
import torch
from torch import nn

from tests.study.helpers import TINY, write


@pytest.fixture
def cell(tmp_path):
    """One cell of the tiny study: naive, two epochs."""
    return Study.load(write(tmp_path, TINY.replace("epochs: 1", "epochs: 2"))).cells()[0]


def test_undisturbed_puts_everything_back():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    network[1].eval()
    for generator in (torch, np.random, random):
        (generator.manual_seed if generator is torch else generator.seed)(5)
    expected = torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()
    for generator in (torch, np.random, random):
        (generator.manual_seed if generator is torch else generator.seed)(5)
    with undisturbed(network):
        assert not any(module.training for module in network.modules())
        assert not network[0](torch.rand(3, 2)).requires_grad
        np.random.rand(), random.random()
    assert [module.training for module in network.modules()] == [True, True, False, True]
    assert (torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()) == expected


class _Benchmark:
    """Two experiences of classes {0, 2} and {1}, three test samples each, whose x are their own logits."""

    def __init__(self, logits, labels):
        datasets = [_Dataset(x, y) for x, y in zip(logits, labels, strict=True)]
        self.test_stream = [type("Experience", (), {"dataset": dataset}) for dataset in datasets]
        self.train_stream = [type("Experience", (), {"classes_in_this_experience": c}) for c in ([0, 2], [1])]


class _Dataset(torch.utils.data.Dataset):
    def __init__(self, x, y):
        self.x, self.y, self.collate_fn = torch.tensor(x), torch.tensor(y), torch.utils.data.default_collate

    def eval(self):
        return self

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i], 0


def _built(function=lambda x, task: x):
    return Built(strategy=None, logits=function, extra_bytes=lambda: 0, networks=lambda: [nn.Identity()])


LOGITS = [[[1.0, 5.0, 0.0], [0.0, 1.0, 2.0], [3.0, 0.0, 9.0]], [[0.0, 1.0, 2.0], [0.0, 3.0, 2.0], [9.0, 0.0, 0.0]]]
LABELS = [[0, 2, 0], [1, 1, 1]]


def test_both_matrices_come_from_the_same_logits():
    """By hand: among {0, 2} samples 1 and 2 are right, among all only 2; among {1} all, among all the second only."""
    evaluator = Evaluator(_Benchmark(LOGITS, LABELS), False, torch.device("cpu"))
    aware, agnostic = evaluator(_built())
    assert aware == [2 / 3, 1.0]
    assert agnostic == [1 / 3, 1 / 3]
    assert (evaluator.sizes, evaluator.class_counts) == ([3, 3], [2, 1])


def test_what_is_undefined_is_nan():
    evaluator = Evaluator(_Benchmark(LOGITS, LABELS), True, torch.device("cpu"))
    aware, agnostic = evaluator(_built())
    assert aware == [2 / 3, 1.0]
    assert np.isnan(agnostic).all()
    unknown = _built(lambda x, task: x.index_fill(1, torch.tensor([1]), float("-inf")))
    aware, _ = evaluator(unknown)
    assert aware[0] == 2 / 3
    assert np.isnan(aware[1])


def test_nan_logits_are_divergence():
    evaluator = Evaluator(_Benchmark(LOGITS, LABELS), False, torch.device("cpu"))
    with pytest.raises(DivergedError, match="experience 1 are NaN"):
        evaluator(_built(lambda x, task: x * float("nan")))


@pytest.mark.parametrize("plan", ["epoch", 4])
def test_evaluating_more_often_changes_nothing(cell, plan):
    """Common random numbers survive any evaluation plan: the matrix is the same to the bit."""
    seldom, often = run_cell(cell), run_cell(dataclasses.replace(cell, evaluation=plan))
    assert seldom["status"] == often["status"] == "done"
    assert seldom["matrix"] == often["matrix"]
    assert seldom["curves"]["loss"] == often["curves"]["loss"]
    points = often["curves"]["accuracy"]
    assert not seldom["curves"]["accuracy"]
    steps = often["costs"]["steps"]
    if plan == "epoch":
        assert [(p["experience"], p["epoch"]) for p in points] == [(i, e) for i in range(1, 6) for e in (1, 2)]
        assert points[-1]["task_agnostic"] == often["matrix"]["task_agnostic"][-1]
    else:
        assert [p["iteration"] for p in points] == list(range(4, steps + 1, 4))


def test_counting_operations_changes_nothing(cell, monkeypatch):
    counted = run_cell(cell)
    begin = Recorder.begin_experience
    monkeypatch.setattr(Recorder, "begin_experience", lambda self, number, count_flops: begin(self, number, False))
    plain = run_cell(cell)
    assert counted["costs"]["flops_per_step"] > 0
    assert plain["costs"]["flops_per_step"] is None
    assert counted["matrix"] == plain["matrix"]
    assert counted["curves"] == plain["curves"]


def test_costs_leave_evaluation_out(cell):
    record = run_cell(dataclasses.replace(cell, evaluation=1))
    costs = record["costs"]
    assert 0 < costs["train_cpu_seconds"] < costs["cpu_seconds"]
    assert costs["seconds_per_step"] == pytest.approx(costs["train_cpu_seconds"] / costs["steps"])


def test_extra_bytes_are_what_is_kept_and_what_the_network_has_grown_once():
    """Of a network of 3 x 4 + 3 single-precision parameters, where the study's has 10 bytes fewer, or more."""
    built = Built(None, lambda x, task: x, lambda: 7, lambda: [nn.Linear(4, 3)])
    assert _size(built, 60 - 10, 2, 1.5) == {
        "experience": 2, "parameters": 15, "nonzero": 15, "by_task": {}, "extra_bytes": 17, "train_cpu_seconds": 1.5,
    }  # fmt: skip
    assert _size(built, 60 + 10, 2, 1.5)["extra_bytes"] == 7
