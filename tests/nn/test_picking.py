"""Picking among earlier tasks' weights: its straight-through gradient, and what never moves."""

from cl_ext.nn.picking import INITIAL, THRESHOLD, Picks, mask_rate, pack_bits, unpack_bits

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional


def _setting() -> tuple[nn.Parameter, Tensor, Picks]:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(5, 4))
    earlier = torch.rand(5, 4) < 0.5
    picks = Picks({"w": weight}, {"w": earlier})
    with torch.no_grad():  # some are picked, some are not
        picks.masks["w"][earlier] += 0.01 * torch.randn(int(earlier.sum()))
    return weight, earlier, picks


def test_the_effective_weight_is_the_weight_where_the_mask_is_above_the_threshold() -> None:
    weight, earlier, picks = _setting()
    effective = picks.effective("w", weight)
    for i in range(5):
        for j in range(4):
            dropped = bool(earlier[i, j]) and float(picks.masks["w"].detach()[i, j]) <= THRESHOLD
            assert float(effective.detach()[i, j]) == (0.0 if dropped else float(weight.detach()[i, j]))
    assert bool((effective != weight).any())


def test_straight_through_gradients() -> None:
    """dL/dm = dL/dW_eff * W on earlier tasks' entries and 0 elsewhere; dL/dW = dL/dW_eff * B."""
    weight, earlier, picks = _setting()
    x, y = torch.randn(6, 4), torch.randn(6, 5)
    functional.mse_loss(functional.linear(x, picks.effective("w", weight)), y).backward()
    leaf = picks.effective("w", weight).detach().requires_grad_()
    functional.mse_loss(functional.linear(x, leaf), y).backward()
    assert leaf.grad is not None
    mask = picks.masks["w"]
    assert mask.grad is not None
    picked = (mask.detach() > THRESHOLD) | ~earlier
    assert torch.equal(mask.grad, leaf.grad * weight.detach() * earlier)
    assert torch.equal(weight.grad, leaf.grad * picked)
    assert bool((mask.grad[earlier] != 0).all())  # also where the weight is not picked: it can come back


def test_masks_of_free_and_own_entries_never_move() -> None:
    weight, earlier, picks = _setting()
    optimizer = torch.optim.Adam(picks.masks.values(), lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        picks.effective("w", weight).sin().sum().backward()
        optimizer.step()
    mask = picks.masks["w"].detach()
    assert torch.equal(mask[~earlier], torch.full_like(mask[~earlier], INITIAL))
    assert bool((mask[earlier] != INITIAL).all())


def test_resting_masks_have_no_gradient_and_reset_ones_pick_all() -> None:
    weight, earlier, picks = _setting()
    picks.train(False)
    picks.effective("w", weight).sum().backward()
    assert picks.masks["w"].grad is None
    picks.train(True)
    picks.effective("w", weight).sum().backward()
    assert picks.masks["w"].grad is not None
    assert not bool(picks.chosen()["w"].all())
    picks.reset()
    assert picks.chosen()["w"].shape == (int(earlier.sum()),)
    assert bool(picks.chosen()["w"].all())
    assert torch.equal(picks.effective("w", weight), weight)


@pytest.mark.parametrize(
    ("progress", "owns", "rate"),
    [(0.0, True, 1.0), (0.49, True, 1.0), (0.5, True, 0.2), (0.69, True, 0.2), (0.7, True, 0.0), (0.99, False, 0.2)],
)
def test_the_masks_learning_rate_falls_in_two_steps(progress: float, owns: bool, rate: float) -> None:
    assert mask_rate(progress, owns) == rate


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 64, 1001])
def test_a_choice_is_kept_in_a_bit_each(n: int) -> None:
    chosen = torch.rand(n, generator=torch.Generator().manual_seed(n)) < 0.5
    packed = pack_bits(chosen)
    assert packed.dtype == torch.uint8
    assert packed.tolist() == [sum(int(bit) << k for k, bit in enumerate(chosen[i : i + 8])) for i in range(0, n, 8)]
    assert torch.equal(unpack_bits(packed)[:n], chosen)
    assert not unpack_bits(packed)[n:].any()
