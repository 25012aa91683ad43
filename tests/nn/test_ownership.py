"""Owners of weights, and the guard that keeps what is owned exact under any optimizer."""

from typing import Any

from cl_ext.nn.ownership import TASKS, Hold, Ownership

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn


@given(
    seed=st.integers(0, 10_000),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=6),
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
)
def test_owners_partition_the_weights_whatever_is_released(
    seed: int, shares: list[float], rows: int, columns: int
) -> None:
    """A task that gives back a share of its own leaves earlier tasks' entries as they are; none is lost or shared."""
    generator = torch.Generator().manual_seed(seed)
    owners = Ownership.of({"a.weight": torch.zeros(rows, columns), "b.weight": torch.zeros(rows, 2, 3, 3)})
    total = rows * columns + rows * 18
    for task, share in enumerate(shares, start=1):
        before = {name: owners[name].clone() for name in owners.names}
        free = sum(int((tensor == 0).sum()) for tensor in before.values())
        assert owners.claim(task) == free
        for name in owners.names:
            given_back = owners.owned(name, task) & (torch.rand(owners[name].shape, generator=generator) < share)
            owners.release(name, given_back)
            earlier = (before[name] > 0) & (before[name] < task)
            assert torch.equal(owners[name][earlier], before[name][earlier])
        counts = owners.counts(len(shares))
        assert sum(counts) == total
        for name in owners.names:
            parts = [owners.free(name), *(owners.owned(name, t) for t in range(1, len(shares) + 1))]
            assert bool((torch.stack(parts).sum(0) == 1).all())
            assert torch.equal(owners.visible(name, task), torch.stack(parts[1 : task + 1]).any(0))


def test_growth_keeps_the_corner_and_frees_the_rest() -> None:
    owners = Ownership.of({"w": torch.zeros(2, 3)})
    owners.claim(1)
    owners.grow("w", (4, 5))
    assert owners["w"][:2, :3].eq(1).all()
    assert owners.counts(1) == [14, 6]


def test_more_tasks_than_a_byte_tells_apart_are_refused() -> None:
    owners = Ownership.of({"w": torch.zeros(2, 3)})
    with pytest.raises(ValueError, match="task 256"):
        owners.claim(TASKS + 1)


def test_a_state_is_read_into_an_empty_one() -> None:
    owners, fresh = Ownership.of({"a.weight": torch.zeros(3, 2)}), Ownership()
    owners.claim(1)
    owners.release("a.weight", torch.eye(3, 2, dtype=torch.bool))
    fresh.load_state_dict(owners.state_dict())
    assert fresh.names == ["a.weight"]
    assert torch.equal(fresh["a.weight"], owners["a.weight"])


OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1),
}


def _train(make: Any, guarded: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Trains with momentum first, then with entries that should rest; returns those, before and after, and the free."""
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    optimizer = make(layer.parameters())
    entries = torch.rand(4, 6) < 0.5
    hold: Hold | None = None
    before = layer.weight.detach().clone()
    for step in range(12):
        if step == 6:
            before = layer.weight.detach().clone()
            hold = Hold([layer.weight], [entries])
        optimizer.zero_grad()
        layer(torch.randn(5, 6)).square().sum().backward()
        if hold is not None:
            hold.mask_gradients()
            assert layer.weight.grad[entries].eq(0).all()  # type: ignore[index]
        optimizer.step()
        if hold is not None and guarded:
            hold.restore()
    after = layer.weight.detach()
    return before[entries], after[entries], (after - before)[~entries]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_held_entries_are_exact_under_momentum_decay_and_adam(name: str) -> None:
    before, after, moved = _train(OPTIMIZERS[name], guarded=True)
    assert torch.equal(before, after)
    assert bool((moved != 0).all())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_masked_gradients_alone_let_them_move(name: str) -> None:
    """The negative control: what most public code does."""
    before, after, _ = _train(OPTIMIZERS[name], guarded=False)
    assert not torch.equal(before, after)


def test_a_step_of_nan_leaves_held_entries_as_they_are() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    entries = torch.tensor([[True, False], [False, True]])
    hold = Hold([weight], [entries])
    with torch.no_grad():
        weight.fill_(float("nan"))
    hold.restore()
    assert weight[entries].tolist() == [1, 1]
    assert bool(weight[~entries].isnan().all())


def test_bytes_are_those_of_anchor_and_mask() -> None:
    assert Hold([nn.Parameter(torch.ones(3, 5))], [None]).extra_bytes() == 15 * 4 + 15 * 4
