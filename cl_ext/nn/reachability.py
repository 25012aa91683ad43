"""Which units of a chain of layers a head depends on: the backwards closure over weights that are not zero."""

from collections.abc import Sequence

import torch
from torch import Tensor


def connections(weight: Tensor, block: int = 1, eps: float = 0.0) -> Tensor:
    """Which units a layer's units read.

    Args:
        weight: (n, m * block), or (n, m, h, w) of a convolution; of a head, (C, m * block).
        block: columns a unit that is read: the positions of a flattened channel. 1 for a convolution.
        eps: a unit is read where an absolute weight is larger; a convolution's channel where an entry of its kernel is.

    Returns:
        (n, m) booleans.
    """
    if weight.dim() == 4:
        return weight.abs().amax((2, 3)) > eps
    return weight.abs().unflatten(1, (-1, block)).amax(2) > eps


def reached(layers: Sequence[Tensor], head: Tensor) -> list[Tensor]:
    """The units that the head depends on, by layer.

    A unit of the last layer is one if any row of the head reads it; a unit below if a unit that is one reads it.

    Args:
        layers: connections of the hidden layers 1 to H, (n_1, inputs), (n_2, n_1), ..., (n_H, n_{H-1}) booleans.
        head: connections of the head, (C, n_H) booleans.

    Returns:
        H vectors, (n_1,) to (n_H,) booleans.
    """
    found = [head.any(0)]
    for connected in reversed(layers[1:]):
        found.insert(0, connected[found[0]].any(0))
    return found


def block_mask(rows: Tensor, columns: Tensor | None, shape: Sequence[int], block: int = 1) -> Tensor:
    """The entries of a layer's weight between chosen units and chosen inputs.

    Args:
        rows: (n,) booleans: of the layer's units.
        columns: (m,) booleans: of the units it reads; None for all.
        shape: of the weight: (n, m * block) or (n, m, h, w).
        block: columns a unit that is read.

    Returns:
        Booleans of the weight's shape.
    """
    chosen = rows.view(-1, *[1] * (len(shape) - 1))
    if columns is not None:
        chosen = chosen & columns.repeat_interleave(block).view(1, -1, *[1] * (len(shape) - 2))
    return chosen.expand(tuple(shape)).contiguous()


def all_units(counts: Sequence[int], device: torch.device) -> list[Tensor]:
    """Every unit of every layer: (n,) booleans for each count."""
    return [torch.ones(count, dtype=torch.bool, device=device) for count in counts]
