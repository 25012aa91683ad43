"""Two averages of one network that are given the same inputs; where it pays, their first layers are one matrix product.

A matrix product is done in blocks of so many columns, so two products of 100 columns leave more of their last blocks
empty than one of 200. The weights of both first layers then lie in one tensor of which each network has its rows; all
else is as it was: modules, names, averages, and what a network gives that is called alone.
"""

from cl_ext.nn.averaging import AveragedNetwork
from cl_ext.nn.chain import is_sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

_BLOCK = 16
"""Columns a block on CPUs with vectors of 256 or 512 bits: widths that are multiples of it leave nothing empty."""

_INPUTS = 256
"""With fewer, taking the two halves of the product apart costs what the product saves."""

_WITHOUT_GAPS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid)
"""What gives a tensor without gaps for one with them, unless it writes in place."""


class AveragedPair:
    """Two averages that follow one network and predict for the same inputs."""

    def __init__(self, first: AveragedNetwork, second: AveragedNetwork) -> None:
        """Takes two averages; they stay usable on their own."""
        self.first, self.second = first, second
        self._joined: JoinedLayers | None = None

    def follow(self, model: nn.Module) -> None:
        """Has both follow `model`; see `AveragedNetwork.follow`."""
        self._joined = None
        self.first.follow(model)
        self.second.follow(model)
        assert self.first.network is not None
        assert self.second.network is not None
        first, second = _first_layer(self.first.network), _first_layer(self.second.network)
        if first is not None and second is not None and _pays(first):
            self._joined = JoinedLayers(first, second, gaps=_gaps_allowed(self.first.network, first))

    def __call__(self, x: Tensor, task_labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns both networks' logits, (B, K) each, without a graph; see `AveragedNetwork`.

        Args:
            x: inputs (B, ...).
            task_labels: (B,), for a network that asks for them.
        """
        if self._joined is None:
            return self.first(x, task_labels), self.second(x, task_labels)
        self._joined.begin()
        try:
            return self.first(x, task_labels), self.second(x, task_labels)
        finally:
            self._joined.end()


class JoinedLayers:
    """Two linear layers of the same shape; between `begin` and `end` the first one's product is the second one's too.

    The second layer takes its half of the product if it is called with the very input that the first one had: the same
    memory, not written to since. With any other it computes its own.
    """

    def __init__(self, first: nn.Linear, second: nn.Linear, gaps: bool = False) -> None:
        """Puts the layers' weights into one tensor, of which each layer has its rows.

        Args:
            first: the layer that is called first.
            second: the other one.
            gaps: whether what they give may be columns of a wider tensor; otherwise it has no gaps, as with any layer.
        """
        self._first, self._second, self._gaps = first, second, gaps
        self._size = first.out_features
        with torch.no_grad():
            self._weight = torch.cat([first.weight, second.weight])
            self._bias = None if first.bias is None else torch.cat([first.bias, second.bias])
        self._kept: tuple[Tensor, int, Tensor] | None = None
        for name, whole in (("weight", self._weight), ("bias", self._bias)):
            if whole is not None:
                getattr(first, name).data, getattr(second, name).data = whole.chunk(2)

    def begin(self) -> None:
        """From here on the layers' calls are joined."""
        self._first.__dict__["forward"] = self._both
        self._second.__dict__["forward"] = self._other

    def end(self) -> None:
        """From here on each layer is on its own."""
        self._first.__dict__.pop("forward", None)
        self._second.__dict__.pop("forward", None)
        self._kept = None

    def _both(self, x: Tensor) -> Tensor:
        first, weight = self._first.weight, self._weight
        start = weight.data_ptr()
        # of a copy of the networks, and of networks that were moved, the weights are not these rows any more
        if first.data_ptr() != start or self._second.weight.data_ptr() != start + first.nbytes:
            return linear(x, first, self._first.bias)
        product = linear(x, weight, self._bias)
        self._kept = x, x._version, product[..., self._size :]
        half = product[..., : self._size]
        return half if self._gaps else half.contiguous()

    def _other(self, x: Tensor) -> Tensor:
        kept, self._kept = self._kept, None
        if kept is None or not _same(x, kept[0], kept[1]):
            return linear(x, self._second.weight, self._second.bias)
        return kept[2] if self._gaps else kept[2].contiguous()


def _same(x: Tensor, other: Tensor, version: int) -> bool:
    """Whether both are the same memory read in the same way, and it is as it was at `version`."""
    if x._version != version:
        return False
    return x is other or (
        x.data_ptr() == other.data_ptr()
        and x.shape == other.shape
        and x.stride() == other.stride()
        and x.dtype == other.dtype
    )


def _first_layer(network: nn.Module) -> nn.Linear | None:
    """Returns the first module with weights or buffers of its own, if it is a linear layer."""
    first = next((module for module in network.modules() if module._parameters or module._buffers), None)
    return first if type(first) is nn.Linear else None


def _pays(layer: nn.Linear) -> bool:
    """Whether one product for two such layers is faster than two."""
    on_cpu = layer.weight.device.type == "cpu"
    return on_cpu and layer.in_features >= _INPUTS and layer.out_features % _BLOCK != 0


def _gaps_allowed(network: nn.Module, layer: nn.Linear) -> bool:
    """Whether nothing but an elementwise function reads the layer's output."""
    for sequence in network.modules():
        modules = list(sequence.children()) if is_sequence(sequence) else []
        if layer in modules[:-1]:
            reader = modules[modules.index(layer) + 1]
            return type(reader) in _WITHOUT_GAPS and not getattr(reader, "inplace", False)
    return False
