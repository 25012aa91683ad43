"""Which weights to prune, and how many: ranking by size, a cubic schedule, shares of what is free."""

import math

import torch
from torch import Tensor


def lowest(scores: Tensor, count: int) -> Tensor:
    """The `count` lowest entries, exactly so many: of equal ones those that come first.

    Args:
        scores: Any shape, n entries.
        count: From 0 to n.

    Returns:
        Booleans of the shape of `scores`.
    """
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    flat = scores.flatten()
    cutoff = flat.kthvalue(count).values
    below, at = flat < cutoff, flat == cutoff
    room = count - below.sum()
    return (below | (at & (at.cumsum(0) <= room))).view(scores.shape)


def smallest_owned(weight: Tensor, owned: Tensor, free: Tensor | None, share: float) -> Tensor:
    """What one layer gives up so that a share of its entries is free.

    Args:
        weight: Of any shape.
        owned: Booleans of its shape, the entries that may be given up.
        free: Booleans of its shape, entries that are free already and count among those that are; None where the share
            is one of the owned entries alone.
        share: In [0, 1]. Of n entries, round(share n) are free in the end.

    Returns:
        Booleans of the weight's shape: the owned entries of smallest absolute value that are to become free.
    """
    scores = torch.where(owned, weight.detach().abs(), math.inf)
    count = round(share * (int(owned.sum()) + (0 if free is None else int(free.sum()))))
    if free is not None:
        scores = torch.where(free, -1.0, scores)  # before any owned one, also one that is 0
    return lowest(scores, count) & owned


def cubic_sparsity(step: int, start: float, target: float, steps: int) -> float:
    """The sparsity at a step of gradual pruning (Zhu and Gupta 2017): `target + (start - target) (1 - step/steps)^3`.

    Args:
        step: From 0; beyond `steps` it stays at `target`.
        start: The sparsity at step 0.
        target: The sparsity from step `steps` on.
        steps: At least 0.
    """
    done = 1.0 if steps == 0 else min(1.0, step / steps)
    return target + (start - target) * (1.0 - done) ** 3


def equal_share(position: int, tasks: int) -> float:
    """What the `position`-th of T `tasks` gives up so that all own equally much: `(T - t) / (T - t + 1)`."""
    rest = max(0, tasks - position)
    return rest / (rest + 1)


def allowed_share(remaining: int | None) -> float:
    """What a CPG task may keep of the free weights at most where it misses its goal: 1 / (remaining + 1), in tenths.

    Args:
        remaining: Tasks to come; None where nobody knows, which counts as many.
    """
    return 0.1 if remaining is None else max(0.1, round(1 / (remaining + 1), 1))
