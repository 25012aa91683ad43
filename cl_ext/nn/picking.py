"""A binary choice among weights that stay as they are, learned with straight-through gradients (Piggyback, CPG).

Symbols: `W` weights, `m` real-valued masks, `B = 1[m > threshold]` where `W` is an earlier task's, 1 elsewhere.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

INITIAL = 0.01
"""Where masks begin: everything is picked."""
THRESHOLD = 0.005


class _Pick(torch.autograd.Function):
    """`W_eff = W * B`; `dL/dW = dL/dW_eff * B`, and straight through the threshold `dL/dm = dL/dW_eff * W`."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, earlier: Tensor) -> Tensor:
        picked = torch.gt(mask, THRESHOLD, out=torch.empty_like(mask))  # as 0.0 and 1.0: booleans are far slower
        ctx.save_for_backward(picked, earlier)
        return weight * picked

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        picked, earlier = ctx.saved_tensors
        needs_weight, needs_mask, _ = ctx.needs_input_grad
        return (
            gradient * picked if needs_weight else None,
            gradient * earlier if needs_mask else None,
            None,
        )


class Picks:
    """The masks of the task that is being trained, over weights of earlier tasks.

    They are of the weights' shapes. Where a weight is free or the task's own, its mask has no gradient and never moves
    from `INITIAL`, so that it is always picked.

    Args:
        weights: By name; entries of earlier tasks must not change while these masks are in use.
        earlier: By name, booleans of the weights' shapes: what earlier tasks own.

    Attributes:
        masks: By name, `m`.
    """

    def __init__(self, weights: Mapping[str, Tensor], earlier: Mapping[str, Tensor]) -> None:
        self.masks = {name: torch.full_like(w, INITIAL).requires_grad_() for name, w in weights.items()}
        self._earlier = dict(earlier)
        self._values = {name: torch.where(earlier[name], w.detach(), 0.0) for name, w in weights.items()}

    def effective(self, name: str, weight: Tensor) -> Tensor:
        """`W * B` of a weight, with straight-through gradients."""
        effective: Tensor = _Pick.apply(weight, self.masks[name], self._values[name])
        return effective

    def reset(self) -> None:
        """Picks everything again."""
        with torch.no_grad():
            for mask in self.masks.values():
                mask.fill_(INITIAL)

    def train(self, on: bool) -> None:
        """Whether backward passes compute gradients of the masks."""
        for mask in self.masks.values():
            mask.requires_grad_(on)
            if not on:
                mask.grad = None

    def chosen(self) -> dict[str, Tensor]:
        """By name `(n,)` booleans over the earlier tasks' entries, in the order of the flattened weight."""
        return {name: (mask.detach() > THRESHOLD)[self._earlier[name]] for name, mask in self.masks.items()}


def pack_bits(chosen: Tensor) -> Tensor:
    """(n,) booleans as (ceil(n / 8),) bytes, the first in the lowest bit; the last byte is filled with 0."""
    padded = torch.nn.functional.pad(chosen.to(torch.uint8), (0, -len(chosen) % 8)).view(-1, 8)
    return (padded << _places(chosen)).sum(1, dtype=torch.uint8)


def unpack_bits(packed: Tensor) -> Tensor:
    """The booleans of `pack_bits`, and what filled its last byte: 8 for each byte."""
    return ((packed[:, None] >> _places(packed)) & 1).bool().flatten()


def _places(like: Tensor) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=like.device)


def mask_rate(progress: float, owns: bool) -> float:
    """The factor of the masks' learning rate in CPG's training: 1, from half of it on 0.2, from 70 % on 0.

    Args:
        progress: The part of the training that is over, in [0, 1].
        owns: Whether the task owns weights; where it does not, masks are learned to the end.
    """
    if progress < 0.5:
        return 1.0
    return 0.2 if progress < 0.7 or not owns else 0.0
