"""The units that a head depends on against boolean matrix products, and against which inputs move the output."""

from itertools import pairwise

from cl_ext.nn.reachability import block_mask, connections, reached

import numpy as np
import pytest
import torch
from torch import Tensor, nn


def sparse(shape: tuple[int, ...], keep: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < keep)


@pytest.mark.parametrize("seed", range(12))
def test_it_is_the_closure_of_boolean_matrices(seed: int) -> None:
    sizes = (5, 9, 7, 6)
    weights = [sparse((n, m), 0.15, 10 * seed + i) for i, (m, n) in enumerate(pairwise(sizes))]
    head = sparse((3, 6), 0.2, seed + 500)
    ours = reached([connections(w) for w in weights], connections(head))
    path = (head.numpy() != 0).any(0)
    for layer in (2, 1, 0):
        assert np.array_equal(ours[layer].numpy(), path)
        path = path @ (weights[layer].numpy() != 0) > 0
    assert any(0 < int(units.sum()) < len(units) for units in ours)


def test_negative_weights_count_and_small_ones_do_not() -> None:
    """Without the absolute value (a fault of a public port) the second unit is not found."""
    head = torch.tensor([[0.0, -2.0, 1e-3, 1e-5]])
    assert connections(head).tolist() == [[False, True, True, True]]
    assert connections(head, eps=1e-4).tolist() == [[False, True, True, False]]
    assert (head > 1e-4).tolist() != connections(head, eps=1e-4).tolist()


@pytest.mark.parametrize("seed", range(6))
def test_convolutions_and_flattened_channels_by_derivatives(seed: int) -> None:
    """What is reached is what the head's outputs can see: a unit's derivative is not 0."""
    first = nn.Conv2d(2, 6, 3, padding=1)
    second = nn.Conv2d(6, 5, 3, padding=1)
    third = nn.Linear(5 * 4, 7)
    head = nn.Linear(7, 3)
    with torch.no_grad():
        for i, layer in enumerate((first, second)):
            kept = (
                torch.rand(*layer.weight.shape[:2], 1, 1, generator=torch.Generator().manual_seed(9 * seed + i)) < 0.3
            )
            layer.weight.mul_(kept)
        third.weight.copy_(sparse((7, 20), 0.06, seed))
        head.weight.copy_(sparse((3, 7), 0.2, seed + 50))
    x = torch.randn(8, 2, 4, 4)
    a = first(x).requires_grad_()
    b = second(a).requires_grad_()
    c = third(nn.functional.max_pool2d(b, 2).flatten(1))
    out = head(c)
    # a sum of random multiples, so that no two paths cancel
    (out * torch.randn_like(out)).sum().backward(inputs=[a, b])
    assert a.grad is not None
    assert b.grad is not None
    weights = [connections(first.weight), connections(second.weight), connections(third.weight, block=4)]
    ours = reached(weights, connections(head.weight))
    assert torch.equal(ours[0], a.grad.abs().amax((0, 2, 3)) > 0)
    assert torch.equal(ours[1], b.grad.abs().amax((0, 2, 3)) > 0)
    assert torch.equal(ours[2], head.weight.abs().amax(0) > 0)


def test_the_block_of_chosen_units_by_loops() -> None:
    rows, columns = torch.tensor([True, False, True]), torch.tensor([False, True])
    mask = block_mask(rows, columns, (3, 6), block=3)
    for i in range(3):
        for column in range(6):
            assert bool(mask[i, column]) == (bool(rows[i]) and bool(columns[column // 3]))
    convolution = block_mask(rows, columns, (3, 2, 3, 3))
    assert torch.equal(convolution[:, :, 1, 1], rows[:, None] & columns)
    assert convolution.sum() == 2 * 9
    assert torch.equal(block_mask(rows, None, (3, 4)).sum(1), torch.tensor([4, 0, 4]))
