"""The path integral of the task loss's gradient: how much each parameter's own moves lowered the loss.

`w_i = -sum_t g_i(t) (theta_i(t+1) - theta_i(t))`, with `g` the gradient of the task loss alone and the move the one
that the optimizer made, whatever else (penalty, weight decay, momentum) had a part in it. To first order `sum_i w_i` is
what the task loss fell by along the path. SI and RWalk make their importances from it.
"""

from collections.abc import Mapping, Sequence

from cl_ext.nn.parameters import ParameterBuffers

import torch
from torch import Tensor


@torch.no_grad()
def path_step_(
    path: Sequence[Tensor], gradients: Sequence[Tensor], before: Sequence[Tensor], after: Sequence[Tensor]
) -> None:
    """`w += -g (theta(t+1) - theta(t))`: the first-order drop of the loss that each parameter's move brought.

    Args:
        path: `w`, changed in place.
        gradients: `g` at `theta(t)`.
        before: `theta(t)`; overwritten.
        after: `theta(t+1)`.
    """
    torch._foreach_sub_(list(before), list(after))
    torch._foreach_addcmul_(list(path), list(gradients), list(before))


class PathIntegral:
    """`w` of parameters that may grow; new entries start at zero.

    A step is `keep_gradient_` before anything is added to the gradient, then `step_` once the optimizer has moved the
    weights. The gradient has to be a copy: penalties are added to `.grad` in place, and PyTorch does not promise that
    an optimizer leaves `.grad` alone (SGD's foreach form adds Nesterov's momentum to it).

    Attributes:
        w: the integral since the last `zero_`.
        gradient: the task loss's gradient of the latest step; an absent gradient counts as zero.
    """

    def __init__(self) -> None:
        self.w = ParameterBuffers()
        self.gradient = ParameterBuffers()

    def align(self, parameters: Mapping[str, Tensor]) -> None:
        """Makes both buffer sets fit `parameters`."""
        self.w.align(parameters)
        self.gradient.align(parameters)

    def zero_(self) -> None:
        """Starts a new integral."""
        self.w.zero_()

    def keep_gradient_(self, parameters: Sequence[Tensor]) -> None:
        """Copies the parameters' `.grad`."""
        self.gradient.copy_gradients_(parameters)

    def step_(self, before: Sequence[Tensor], after: Sequence[Tensor]) -> None:
        """Extends the path by one move; `before`, theta(t), is overwritten, `after` is theta(t+1)."""
        path_step_(self.w.tensors, self.gradient.tensors, before, after)

    def bytes(self) -> int:
        """Returns the memory of both buffer sets."""
        return self.w.bytes() + self.gradient.bytes()
