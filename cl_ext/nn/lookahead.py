"""Look-ahead (Zhang et al., NeurIPS 2019): slow weights follow the fast ones of an inner optimizer.

    phi <- phi_0 + beta (phi_K - phi_0)

`phi_0` are the weights before K steps of the inner optimizer, `phi_K` those after (DualNet, equations 3 and 4).
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class Lookahead:
    """Remembers weights, and later pulls them back towards what they were.

    `torch.lerp` is exact at both ends: with beta 1 the weights are the inner optimizer's bit for bit, with beta 0 those
    remembered. `phi_0 + beta (phi_K - phi_0)` spelt out is not.

    Attributes:
        beta: in [0, 1].
    """

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self._start: list[Tensor] = []

    @torch.no_grad()
    def remember(self, weights: Sequence[Tensor]) -> None:
        """Takes `phi_0` from tensors of any shapes; later calls reuse the buffers while the shapes stay."""
        weights = [w.detach() for w in weights]
        if [_form(w) for w in weights] != [_form(w) for w in self._start]:
            self._start = [w.clone() for w in weights]
        elif weights:
            torch._foreach_copy_(self._start, weights)

    @torch.no_grad()
    def interpolate_(self, weights: Sequence[Tensor]) -> None:
        """Changes the tensors, `phi_K`, in place to `phi_0 + beta (phi_K - phi_0)`.

        An integer tensor (batch norm's counter) is cut off towards 0, as copying floats into it does.

        Args:
            weights: the tensors that were remembered, in the same order.

        Raises:
            ValueError: if they are not as many.
        """
        if len(weights) != len(self._start):
            raise ValueError(f"{len(self._start)} tensors were remembered, but {len(weights)} are to be interpolated")
        pairs = list(zip((w.detach() for w in weights), self._start, strict=True))
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        if floats:  # from phi_K to phi_0, so that the result lands in phi_K
            torch._foreach_lerp_([w for w, _ in floats], [start for _, start in floats], 1.0 - self.beta)
        for w, start in pairs:
            if not w.is_floating_point():
                w.copy_(torch.lerp(start.double(), w.double(), self.beta))

    def bytes(self) -> int:
        """Returns the memory of what is remembered."""
        return sum(start.nbytes for start in self._start)


def _form(tensor: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return tensor.shape, tensor.dtype, tensor.device
