"""Proximal steps of sparse penalties, in place: exact zeros, which a subgradient never gives.

After a gradient step of size eta on the smooth part of a loss, the proximal step minimises

    1/2 |V - W|^2 + eta mu |V|_1 + eta gamma sum_g |V_g|_2        over V.

`soft_` is the first term's, `shrink_groups_` the second's; `sparse_group_` does both, groups last: for groups that hold
whole entries (or whole smaller groups) this is the exact solution (Jenatton et al. 2011), the other order is not.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


@torch.no_grad()
def soft_(weights: Sequence[Tensor], threshold: float) -> None:
    """Draws every entry to 0 by `threshold`, in place; entries of at most that size become exactly 0.

    Args:
        weights: of any shapes; views of larger tensors too.
        threshold: eta mu, >= 0; with 0 nothing happens.
    """
    if not weights or threshold == 0.0:
        return
    tensors = list(weights)
    inner = torch._foreach_clamp_max(tensors, threshold)
    torch._foreach_clamp_min_(inner, -threshold)
    torch._foreach_sub_(tensors, inner)


@torch.no_grad()
def shrink_groups_(weight: Tensor, threshold: float, dim: tuple[int, ...]) -> None:
    """Multiplies each group by `max(0, 1 - threshold / |group|)`, in place; small groups become exactly 0.

    Args:
        weight: of any shape; a view of a larger tensor too.
        threshold: eta gamma, >= 0; with 0 nothing happens.
        dim: the dimensions within a group: `(1,)` for the rows of a matrix, `(2, 3)` for a convolution's kernels.
    """
    if threshold == 0.0 or weight.numel() == 0:
        return
    norm = torch.linalg.vector_norm(weight, dim=dim, keepdim=True)
    scale = 1 - threshold / norm.clamp_min(threshold)  # 0 for norms up to the threshold, 0 itself included
    weight.mul_(scale)


@torch.no_grad()
def sparsify_(weights: Sequence[Tensor], threshold: float) -> None:
    """The proximal step of the l1 norm for matrices, and of the sum of kernels' norms for convolutions, in place.

    Args:
        weights: (n, m) or (n, m, h, w); views of larger tensors too.
        threshold: eta mu, >= 0.
    """
    soft_([weight for weight in weights if weight.dim() == 2], threshold)
    for weight in weights:
        if weight.dim() == 4:
            shrink_groups_(weight, threshold, (2, 3))


@torch.no_grad()
def sparse_group_(weight: Tensor, threshold: float, group_threshold: float) -> None:
    """The proximal step for rows that are sparse within and as a whole, in place.

    Args:
        weight: (n, m) or (n, m, h, w): a group is all that one unit reads.
        threshold: eta mu, of entries (of kernels, for a convolution), >= 0.
        group_threshold: eta gamma, of rows, >= 0.
    """
    sparsify_([weight], threshold)
    shrink_groups_(weight, group_threshold, tuple(range(1, weight.dim())))
