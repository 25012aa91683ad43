"""Drop-transfer (Lee et al. 2017): dropout on what the weights have moved since the last experience.

A dropped input unit i falls back to the previous weights. With `m_i` 1/keep with probability keep and else 0, drawn for
each sample and each unit,

    W_i^eff = W_i^prev + m_i (W_i - W_i^prev),   E W^eff = W,   so   W^eff x = W (m x) + W^prev (x - m x)

which is what two hooks compute: the layer runs on `m x`, and the rest goes through the previous weights. A unit is an
entry of a linear layer's input and a channel of a convolution's. Biases are not dropped.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle


class DropTransfer:
    """Hooks on the linear and 2-D convolution layers of a network that work in train mode only."""

    def __init__(self, keep: float) -> None:
        """Makes it, attached to nothing.

        Args:
            keep: probability that a unit is kept, in (0, 1].
        """
        self.keep = keep
        self._generator = torch.Generator()
        self._previous: dict[nn.Module, Tensor] = {}
        self._rest: dict[nn.Module, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def __deepcopy__(self, memo: Any) -> "DropTransfer":
        return self  # a copy of a network in training keeps the hooks of the original

    def seed(self, seed: int) -> None:
        """Starts the masks' own generator."""
        self._generator.manual_seed(seed)

    def attach(self, model: nn.Module, previous: Mapping[str, Tensor]) -> None:
        """Hooks the layers whose weights are in `previous`, in place of those hooked before.

        Args:
            model: the network.
            previous: parameter name -> its previous value, of its shape.
        """
        self.detach()
        for layer, module in model.named_modules():
            name = f"{layer}.weight".lstrip(".")
            if type(module) in (nn.Linear, nn.Conv2d) and name in previous:
                self._previous[module] = previous[name]
                self._handles += [
                    module.register_forward_pre_hook(self._before),
                    module.register_forward_hook(self._after),
                ]

    def detach(self) -> None:
        """Takes all hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._previous, self._rest = [], {}, {}

    def mask(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Draws m: 1/keep with probability keep, else 0."""
        kept = torch.rand(shape, generator=self._generator) < self.keep
        return kept.to(like) / self.keep

    def _before(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor] | None:
        if not module.training:
            return None
        (x,) = inputs
        shape = tuple(x.shape) if isinstance(module, nn.Linear) else (*x.shape[:-2], 1, 1)
        kept = x * self.mask(shape, x)
        self._rest[module] = x - kept
        return (kept,)

    def _after(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        rest = self._rest.pop(module, None)
        if rest is None:
            return None
        if isinstance(module, nn.Conv2d):
            return output + module._conv_forward(rest, self._previous[module], None)
        return output + functional.linear(rest, self._previous[module])
