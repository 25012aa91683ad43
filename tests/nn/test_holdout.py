"""Samples put aside: how many, of which classes, and that nothing else notices."""

import cl_ext  # noqa: F401
from cl_ext.nn.holdout import accuracy, held_out, split

import pytest
import torch
from avalanche.models import MultiTaskModule
from torch import Tensor, nn

from tests.plugins.common import benchmark


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("size", "share", "count"), [(100, 0.1, 10), (100, 0.0, 0), (1, 0.5, 0), (2, 0.01, 1), (3, 0.99, 2), (40, 0.25, 10)]
)
def test_how_many_are_put_aside(size: int, share: float, count: int) -> None:
    aside = held_out(torch.arange(size) % 3, share, _generator())
    assert len(aside) == count
    assert aside.tolist() == sorted(set(aside.tolist()))
    assert all(0 <= position < size for position in aside.tolist())


def test_each_class_is_near_its_share() -> None:
    labels = torch.cat([torch.zeros(80), torch.ones(15), torch.full((5,), 2)]).long()[torch.randperm(100)]
    for seed in range(20):
        counts = torch.bincount(labels[held_out(labels, 0.2, _generator(seed))], minlength=3)
        assert all(abs(int(count) - expected) <= 1 for count, expected in zip(counts, (16, 3, 1), strict=True))


def test_the_generator_alone_decides() -> None:
    labels = torch.arange(60) % 2
    state = torch.get_rng_state()
    assert torch.equal(held_out(labels, 0.3, _generator(1)), held_out(labels, 0.3, _generator(1)))
    assert not torch.equal(held_out(labels, 0.3, _generator(1)), held_out(labels, 0.3, _generator(2)))
    assert torch.equal(state, torch.get_rng_state())
    drawn = torch.cat([held_out(labels, 0.1, _generator(seed)) for seed in range(60)])
    assert len(drawn.unique()) == 60  # every sample has its chance


def test_the_two_parts_are_a_partition() -> None:
    dataset = benchmark("nc-tasks").train_stream[0].dataset
    kept, aside = split(dataset, 0.25, _generator())
    assert (len(kept), len(aside)) == (15, 5)
    rows = [tuple(dataset[i][0].tolist()) for i in range(len(dataset))]
    parts = [tuple(part[i][0].tolist()) for part in (kept, aside) for i in range(len(part))]
    assert sorted(rows) == sorted(parts)
    assert split(dataset, 0.0, _generator())[0] is dataset


class _Constant(MultiTaskModule):
    """Says class 1 to everything, and draws random numbers doing so."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor, task_labels: Tensor | int) -> Tensor:
        torch.rand(1)
        return self.weight + torch.tensor([0.0, 1.0]).expand(len(x), 2)


def test_measuring_leaves_modes_and_random_states() -> None:
    model, dataset = _Constant(), benchmark("nc-tasks").train_stream[0].dataset
    model.train()
    model.drop.eval()
    flags, state = [module.training for module in model.modules()], torch.get_rng_state()
    assert accuracy(model, dataset, 0, 7, torch.device("cpu")) == 0.5
    assert flags == [module.training for module in model.modules()]
    assert torch.equal(state, torch.get_rng_state())
