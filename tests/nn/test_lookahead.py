"""Look-ahead's two limits bit for bit, its rate in closed form, its fixed points."""

import cl_ext  # noqa: F401
from cl_ext.nn.lookahead import Lookahead

import pytest
import torch
from torch import Tensor, nn


def _weights(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 3, generator=generator) * 1e4, torch.randn(5, generator=generator) * 1e-4]


def _inner(weights: list[Tensor], steps: int = 7) -> None:
    """Plain SGD on a quadratic."""
    parameters = [nn.Parameter(w) for w in weights]  # they share memory
    optimizer = torch.optim.SGD(parameters, lr=0.3)
    for _ in range(steps):
        optimizer.zero_grad()
        sum((p.square() * (i + 0.5)).sum() for i, p in enumerate(parameters)).backward()
        optimizer.step()


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_both_ends_are_exact(beta: float) -> None:
    """beta 1: the inner optimizer's weights; beta 0: those of before."""
    weights, before, alone = _weights(), _weights(), _weights()
    lookahead = Lookahead(beta)
    for _ in range(3):
        lookahead.remember(weights)
        _inner(weights)
        lookahead.interpolate_(weights)
        _inner(alone)
    for w, b, a in zip(weights, before, alone, strict=True):
        assert torch.equal(w, a if beta == 1.0 else b)


def test_spelt_out_it_would_not_be() -> None:
    before, after = torch.tensor(1e4), torch.tensor(1.2345678)
    assert not torch.equal(before + 1.0 * (after - before), after)
    weights, lookahead = [before.clone()], Lookahead(1.0)
    lookahead.remember(weights)
    weights[0].copy_(after)
    lookahead.interpolate_(weights)
    assert torch.equal(weights[0], after)


def test_halving_twice_with_beta_a_half_gives_five_eighths() -> None:
    x, lookahead = torch.tensor(1.0), Lookahead(0.5)
    lookahead.remember([x])
    for _ in range(2):
        x.div_(2)
    lookahead.interpolate_([x])
    assert x.item() == 5 / 8


@pytest.mark.parametrize(("q", "K", "beta"), [(0.5, 2, 0.5), (0.9, 5, 0.05), (-0.7, 3, 0.8)])
def test_the_rate_of_n_cycles(q: float, K: int, beta: float) -> None:
    """With x <- q x inside, a cycle multiplies by 1 - beta + beta q^K."""
    x, lookahead = torch.tensor([3.0], dtype=torch.float64), Lookahead(beta)
    for _ in range(6):
        lookahead.remember([x])
        for _ in range(K):
            x.mul_(q)
        lookahead.interpolate_([x])
    assert abs(x.item() - 3.0 * (1 - beta + beta * q**K) ** 6) < 1e-14


def test_fixed_points_stay() -> None:
    """Weights that the inner steps leave alone stay bit for bit, whatever beta."""
    weights = _weights()
    lookahead = Lookahead(0.3)
    lookahead.remember(weights)
    lookahead.interpolate_(weights)
    assert all(torch.equal(a, b) for a, b in zip(weights, _weights(), strict=True))


def test_a_counter_is_cut_off() -> None:
    """Batch norm's counter in the authors' code: 0, then 2 forward passes, then back to 0."""
    norm, lookahead = nn.BatchNorm1d(3), Lookahead(0.05)
    lookahead.remember(list(norm.buffers()))
    for _ in range(2):
        norm(torch.randn(5, 3))
    moved = norm.running_mean.clone()
    lookahead.interpolate_(list(norm.buffers()))
    assert norm.num_batches_tracked.item() == 0
    assert torch.allclose(norm.running_mean, 0.05 * moved)


def test_buffers_are_reused_and_counted_and_shapes_may_change() -> None:
    weights, lookahead = _weights(), Lookahead(0.5)
    lookahead.remember(weights)
    held = [start.data_ptr() for start in lookahead._start]
    lookahead.remember(weights)
    assert held == [start.data_ptr() for start in lookahead._start]
    assert lookahead.bytes() == (12 + 5) * 4
    lookahead.remember([torch.ones(2)])
    assert lookahead.bytes() == 8
    with pytest.raises(ValueError, match="1 tensors were remembered, but 2"):
        lookahead.interpolate_(weights)
