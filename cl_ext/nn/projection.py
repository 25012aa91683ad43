"""Projections of a gradient onto the half-spaces in which old losses do not rise: GEM and A-GEM.

Symbols as in Lopez-Paz and Ranzato 2017 and Chaudhry et al. 2019: `g` (P,) the step's gradient, `G` (t, P) those of t
old losses, `g~` the gradient to step along, `v` (t,) the dual variables, `gamma` the margin. A step of plain SGD along
`-g~` lowers, to first order, every old loss with `<g~, g_k> > 0`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cl_ext.nn.divergence import DivergedError

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor, nn

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Projection:
    """What a projection did.

    Attributes:
        gradient: `g~`, (P,); `g` itself, the same object, where no constraint was violated.
        violated: how many of the t constraints `<g, g_k> >= 0` did not hold.
        norm_ratio: `|g~| / |g|`; 1 where nothing was projected.
    """

    gradient: Tensor
    violated: int
    norm_ratio: float


def _ratio(square: float, projected: float) -> float:
    """`sqrt(projected / square)` of two squared norms; a sum of terms may end a little below zero."""
    return math.sqrt(max(projected, 0.0) / square) if square > 0.0 else 1.0


def dual_solution(gram: Array, dots: Array, margin: float, regularisation: float) -> Array:
    """Returns `argmin_v 1/2 v^T (G G^T + epsilon I) v + (G g)^T v` subject to `v >= gamma`, in float64.

    With `v = u + gamma` and a factor `A^T A = G G^T + epsilon I` it is the non-negative least-squares problem
    `min_{u >= 0} 1/2 |A u - b|^2`, `A^T b = -(G g + (G G^T + epsilon I) gamma)`. The factor comes from the eigenvalues,
    so that parallel or zero rows of G are no special case, with epsilon = 0 neither.

    Args:
        gram: `G G^T`, (t, t).
        dots: `G g`, (t,).
        margin: gamma >= 0, the lower bound of every dual variable (not of the dot products).
        regularisation: epsilon >= 0, absolute: it has the unit of a squared gradient.

    Returns:
        v, (t,).
    """
    p = (gram + gram.T) / 2 + regularisation * np.eye(len(gram))
    linear = dots + p @ np.full(len(dots), margin)
    eigenvalues, vectors = np.linalg.eigh(p)
    smallest = len(p) * np.finfo(np.float64).eps * max(eigenvalues[-1], 0.0)
    kept = eigenvalues > smallest
    if not kept.any():  # G = 0 and epsilon = 0
        return np.full(len(dots), margin)
    root, basis = np.sqrt(eigenvalues[kept]), vectors[:, kept].T
    factor = root[:, None] * basis
    factor[:, p.diagonal() <= smallest] = 0.0  # a zero row of G: rounding would give it a huge v
    u, _ = nnls(factor, -(basis @ linear) / root, maxiter=100 * len(p))
    return np.asarray(u + margin)


@torch.no_grad()
def project_gem(g: Tensor, G: Tensor, margin: float = 0.5, regularisation: float = 1e-3) -> Projection:
    """Returns GEM's projection (Lopez-Paz and Ranzato 2017, equations 8 to 12): the nearest `g~` with `G g~ >= 0`.

    `g~ = g + G^T v` with v of `dual_solution`, where any `<g, g_k> < 0`; else g. What holds is
    `<g~, g_k> >= -epsilon v_k`.

    Args:
        g: (P,).
        G: (t, P), t >= 1.
        margin: gamma >= 0.
        regularisation: epsilon >= 0.

    Raises:
        DivergedError: if a constraint is violated and a gradient is not finite.
    """
    dots = torch.mv(G, g).double().cpu()
    violated = int((dots < 0).sum())
    if not violated:
        return Projection(g, 0, 1.0)
    square = float(torch.dot(g, g))
    gram = (G @ G.T).double().cpu()
    if not (math.isfinite(square) and bool(torch.isfinite(gram).all()) and bool(torch.isfinite(dots).all())):
        raise DivergedError("GEM cannot project: the gradient of the step or of a memory is not finite or too large")
    v = dual_solution(gram.numpy(), dots.numpy(), margin, regularisation)
    projected = torch.addmv(g, G.T, torch.from_numpy(v).to(g))
    return Projection(projected, violated, _ratio(square, square + float(v @ (2 * dots.numpy() + gram.numpy() @ v))))


@torch.no_grad()
def project_agem(g: Tensor, g_ref: Tensor) -> Projection:
    """Returns A-GEM's projection (Chaudhry et al. 2019, equation 11): `g~ = g - (<g, g_ref> / |g_ref|^2) g_ref`.

    Only where `<g, g_ref> < 0`; else, and where `|g_ref|^2` is 0, it is g.

    Args:
        g: (P,).
        g_ref: (P,), the gradient of the loss on the memory.
    """
    dot = float(torch.dot(g, g_ref))
    if not dot < 0.0:
        return Projection(g, 0, 1.0)
    reference = float(torch.dot(g_ref, g_ref))
    if reference == 0.0:  # below the smallest number
        return Projection(g, 0, 1.0)
    square = float(torch.dot(g, g))
    projected = torch.add(g, g_ref, alpha=-dot / reference)
    return Projection(projected, 1, _ratio(square, square - dot / reference * dot))


class FlatGradients:
    """Gradients of the same parameters, one a row of a matrix that exists already, for inner products in one call.

    Attributes:
        rows: (R, P).
    """

    def __init__(self) -> None:
        self.rows = torch.empty(0, 0)
        self._shapes: list[torch.Size] = []
        self._views: list[list[Tensor]] = []

    def align(self, parameters: Sequence[Tensor], rows: int) -> None:
        """Makes room for `rows` gradients of `parameters`; what was written before is lost where they are others."""
        shapes = [p.shape for p in parameters]
        size = sum(shape.numel() for shape in shapes)
        like = parameters[0]
        dtype = torch.promote_types(like.dtype, torch.float32)
        if self.rows.shape != (rows, size) or self.rows.device != like.device or self.rows.dtype != dtype:
            self.rows = torch.empty(rows, size, dtype=dtype, device=like.device)
        elif self._shapes == shapes:
            return
        self._shapes = shapes
        self._views = [split_like(row, parameters) for row in self.rows]

    @torch.no_grad()
    def write_(self, row: int, gradients: Sequence[Tensor | None]) -> None:
        """Writes one gradient, given by parameter; None counts as zero."""
        pairs = list(zip(self._views[row], gradients, strict=True))
        absent = [view for view, gradient in pairs if gradient is None]
        if absent:
            torch._foreach_zero_(absent)
        present = [(view, gradient) for view, gradient in pairs if gradient is not None]
        if present:
            torch._foreach_copy_([view for view, _ in present], [gradient for _, gradient in present])

    def bytes(self) -> int:
        """Returns the memory of the matrix, in bytes."""
        return self.rows.numel() * self.rows.element_size()


def split_like(flat: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Returns views of a flat vector (P,) in the shapes of `parameters`, in their order."""
    return [part.view(p.shape) for part, p in zip(flat.split([p.numel() for p in parameters]), parameters, strict=True)]


@torch.no_grad()
def assign_gradient_(parameters: Sequence[nn.Parameter], flat: Tensor) -> None:
    """Sets the `.grad` of `parameters` to a flat gradient (P,), in place.

    A parameter without a gradient (a head that the batch did not use) gets one only where it is not zero: a gradient of
    zeros instead of none would let weight decay and momentum move it.
    """
    pairs = list(zip(parameters, split_like(flat, parameters), strict=True))
    present = [(p.grad, part) for p, part in pairs if p.grad is not None]
    if present:
        torch._foreach_copy_([gradient for gradient, _ in present], [part for _, part in present])
    for parameter, part in pairs:
        if parameter.grad is None and bool(part.any()):
            parameter.grad = part.to(parameter.dtype, copy=True)
