"""Gates on units, learnt by a task: hard attention to the task (Serra, Suris, Miron, Karatzoglou, ICML 2018).

Symbols as in the paper: `e` the embedding of a task, a number a unit; `s` the slope; `a = sigmoid(s e)` the gates; `A`
the cumulative gates of the tasks before, the maximum over them. The units of all layers stand in one row, `(N,)`.
"""

from collections.abc import Sequence

from cl_ext.nn.chain import Stage
from cl_ext.nn.ownership import Hold

import torch
from torch import Tensor

EXPONENT = 50.0
"""What `s e` is clamped to where its hyperbolic cosine is taken: a larger one overflows single precision."""


def gate(e: Tensor, s: Tensor | float) -> Tensor:
    """Gates `(N,)` in [0, 1]: sigmoid(s e); at s = inf 1 where e > 0, and 0 elsewhere."""
    a = torch.sigmoid(s * e)
    return a.nan_to_num(0.0) if not e.requires_grad else a  # inf * 0, in gates that are not trained


def slope(batch: int, batches: int, s_max: float) -> float:
    """The slope of an epoch's batch: from 1 / s_max at the first to s_max at the last.

    Args:
        batch: from 1 to `batches`.
        batches: of the epoch; a single one has s_max.
        s_max: above 0.
    """
    if batch >= batches:
        return s_max
    return 1 / s_max + (s_max - 1 / s_max) * (batch - 1) / (batches - 1)


def compensation(e: Tensor, s: float, s_max: float) -> Tensor:
    """`(N,)`: what the gradient of `e` is multiplied with, so that it is that of slope 1, times s_max.

    The derivative of sigmoid(s e) by e is s / (2 (cosh(s e) + 1)).
    """
    numerator = (s * e).clamp(-EXPONENT, EXPONENT).cosh() + 1
    return numerator / (e.cosh() + 1) * (s_max / s)


def used_share(a: Tensor, A: Tensor | None) -> Tensor:
    """R in [0, 1], a scalar: the share of the capacity that was free which the gates `a` (N,) use.

    Args:
        a: gates.
        A: cumulative gates of the tasks before, (N,); None at the first task. Where they leave nothing, R is 0.
    """
    if A is None:
        return a.mean()
    free = 1 - A
    return (a * free).sum() / free.sum().clamp(min=torch.finfo(free.dtype).eps)


def update_masks(stages: Sequence[Stage], A: Tensor) -> dict[str, Tensor]:
    """The share of each weight's update that is let through: `1 - min(A_i, A_j)`, for a bias `1 - A_i`.

    The first layer's inputs have no gates: there it is `1 - A_i` for weights, too.

    Args:
        stages: the chain of layers.
        A: cumulative gates of the tasks before, (N,).

    Returns:
        By the parameter's name: (n, m) for a linear layer, (n, m, 1, 1) for a convolution, (n,) for a bias.
    """
    masks = {}
    before: Tensor | None = None
    for stage, own in zip(stages, A.split([stage.units for stage in stages]), strict=True):
        weight = stage.layer.weight
        spread = (1,) * (weight.dim() - 2)
        out = own[:, None]
        both = out.expand(-1, weight.shape[1]) if before is None else torch.minimum(out, before)
        masks[f"{stage.name}.weight"] = (1 - both).reshape(*weight.shape[:2], *spread)
        if stage.layer.bias is not None:
            masks[f"{stage.name}.bias"] = 1 - own
        before = own.repeat_interleave(stage.block)
    return masks


def gated(h: Tensor, a: Tensor) -> Tensor:
    """Multiplies what a layer gives by its gates.

    Args:
        h: (B, n), (B, n, H, W), or (B, n * k) where n channels of k positions were flattened.
        a: (n,).
    """
    if h.dim() == 2 and h.shape[1] != len(a):
        return (h.view(len(h), len(a), -1) * a[:, None]).flatten(1)
    return h * a.view(-1, *(1,) * (h.dim() - 2))


class UpdateMask:
    """Lets a share of each step through: `W <- W_old + mask (W_new - W_old)`, whatever optimizer made `W_new`.

    For plain SGD that is the mask on the gradient. Under momentum, weight decay and Adam it is what a mask on the
    gradient is not: nothing moves where the mask is 0, and what moves is small where it is small. An entry with mask 0
    keeps its bits, whatever the step was, a NaN included; one with mask 1 has the optimizer's.

    Args:
        parameters: as they are before the first step.
        masks: for each parameter the share in [0, 1], of a shape that broadcasts to the parameter's.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], masks: Sequence[Tensor]) -> None:
        self._parameters: list[Tensor] = list(parameters)
        self._masks = list(masks)
        closed = [mask.eq(0).expand_as(parameter) for mask, parameter in zip(masks, parameters, strict=True)]
        self._closed = Hold(parameters, closed)
        self._old = [parameter.detach().clone() for parameter in parameters]

    def mask_gradients(self) -> None:
        """Sets the gradients of what cannot move to 0, for what reads gradients before the step (clipping)."""
        self._closed.mask_gradients()

    @torch.no_grad()
    def apply(self, finite: bool = False) -> None:
        """Takes back what the mask does not let through of the step that was just made.

        Args:
            finite: whether the step is known to have been finite; closed entries then need no second look.
        """
        # lerp gives both of its ends exactly, at 0 and at 1; masks broadcast
        for old, new, mask in zip(self._old, self._parameters, self._masks, strict=True):
            old.lerp_(new, mask)
        torch._foreach_copy_(self._parameters, self._old)
        if not finite:
            self._closed.restore()  # 0 times a step that is not finite is not 0

    def bytes(self) -> int:
        """Bytes of the masks and of the copies of the parameters."""
        return sum(t.nbytes for t in (*self._masks, *self._old)) + self._closed.extra_bytes()
