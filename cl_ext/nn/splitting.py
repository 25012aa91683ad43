"""Units that drifted too far are split in two: the original goes back to what it was, a copy keeps what it became.

Symbols: W the weights now, `prev` those before the task, rho_i how far unit i moved, sigma the threshold.
"""

from typing import Literal

import torch
from torch import Tensor

Outgoing = Literal["replace", "duplicate"]


def drift(weight: Tensor, bias: Tensor | None, prev: Tensor, prev_bias: Tensor | None) -> Tensor:
    """How far each old unit moved: `rho_i = |(w_i, b_i) - (w_i, b_i)^prev|_2`, over the inputs that it had before.

    The bias counts as the weight of an input that is always 1: a unit that did not drift is then bit-equal to before.

    Args:
        weight: (n', m') or (n', m', h, w), the old units and inputs first.
        bias: (n',), or None.
        prev: (n, m) or (n, m, h, w), n <= n', m <= m'.
        prev_bias: (n,), or None.

    Returns:
        (n,) of at least 0.
    """
    moved = (weight[: prev.shape[0], : prev.shape[1]] - prev).flatten(1)
    if bias is not None and prev_bias is not None:
        moved = torch.cat([moved, (bias[: len(prev_bias)] - prev_bias)[:, None]], dim=1)
    return torch.linalg.vector_norm(moved, dim=1)


def drifted(rho: Tensor, sigma: float, most: int | None = None) -> Tensor:
    """The units with `rho > sigma` (k,), ascending; the `most` that moved farthest where there are more."""
    found = (rho > sigma).nonzero().flatten()
    if most is not None and len(found) > most:
        found = found[rho[found].argsort(descending=True, stable=True)[:most]].sort().values
    return found


def split_weight(
    weight: Tensor, prev: Tensor | None, rows: Tensor, columns: Tensor, outgoing: Outgoing = "replace"
) -> Tensor:
    """A layer's weight after the units `rows` were split, and the inputs `columns` of the layer below.

    Copies are appended. A copy has its original's row as it is now; the original's row is that of before the task, and
    0 for all inputs that are younger. How the copies of inputs are read:

    - "duplicate": by everyone but restored originals as the input that they copy, which is read too.
    - "replace": by units that are as young as the copies, in the place of the original, which they read no more. Older
      units, whose earlier tasks read the original, read it as before the task, and the copy with the rest of the
      weight. Nothing that the latest task computes changes, unless an old unit that reads a split one was not split:
      there the change is `prev_ij (h_j - h_j')`, j the original, j' its copy.

    Args:
        weight: (n', m') or (n', m', h, w), the old units and inputs first.
        prev: the old units' (n, m) or (n, m, h, w); None for a head, all of whose rows are young.
        rows: (r,), which of the old units were split.
        columns: (c,), columns of the split inputs; none for the first layer.
        outgoing: who reads what of the copies.

    Returns:
        (n' + r, m' + c) or (n' + r, m' + c, h, w).
    """
    new = torch.cat([weight, weight[rows]])
    copied = new[:, columns]  # what everyone reads of the copies, to begin with
    old = 0 if prev is None else len(prev)
    if outgoing == "replace":
        new[old : len(weight), columns] = 0
        new[len(weight) :, columns] = 0
        if prev is not None:
            new[:old, columns] = prev[:, columns]
            copied[:old] -= prev[:, columns]
    if prev is not None:
        new[rows] = 0
        new[rows, : prev.shape[1]] = prev[rows]
        copied[rows] = 0
    return torch.cat([new, copied], dim=1)


def split_bias(bias: Tensor, prev: Tensor, rows: Tensor) -> Tensor:
    """A layer's biases (n' + r,) after the units `rows` (r,) were split: originals as before, copies as now."""
    new = torch.cat([bias, bias[rows]])
    new[rows] = prev[rows]
    return new
