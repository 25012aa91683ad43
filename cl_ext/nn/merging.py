"""Merging the weights of networks trained one after the other, and showing the merged ones for a while.

With `theta_k` the weights after experience k, `F_k` their precisions (a diagonal Fisher matrix; 1 for the plain mean)
and weights `alpha_k` that sum to 1,

    theta_merged = sum_k alpha_k F_k theta_k / sum_k alpha_k F_k                      entry by entry

The latest has the weight alpha and the n before it share the rest, so that two sums over the earlier ones are enough:
their precision `A = sum F_k` and their centre `c = sum F_k theta_k / A`. With `r = (1 - alpha) / (n alpha)`,

    theta_merged = theta_K + r A / (F_K + r A) (c - theta_K)

which is theta_K itself, bit for bit, where nothing was merged yet or alpha is 1.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from cl_ext.nn.parameters import ParameterBuffers
from cl_ext.nn.passes import batches, evaluation_mode, logits, preserved_random_state

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_BATCH = 128


class RunningMerge:
    """The earlier networks' precision, centre and number, entry by entry: an entry counts from when it exists.

    Attributes:
        centre: `c`.
        precision: `A`; the count itself where precisions are 1.
        count: `n`.
    """

    def __init__(self, weighted: bool) -> None:
        """Makes an empty one.

        Args:
            weighted: whether precisions other than 1 come.
        """
        self.centre = ParameterBuffers("zeros")
        self.count = ParameterBuffers("zeros")
        self.precision = ParameterBuffers("zeros") if weighted else self.count
        self._sets = {"centre": self.centre, "count": self.count} | ({"precision": self.precision} if weighted else {})

    def align(self, parameters: Mapping[str, Tensor]) -> None:
        """Makes the buffers fit `parameters`; new entries have been in no earlier network."""
        for buffers in self._sets.values():
            buffers.align(parameters)

    @torch.no_grad()
    def merged(self, theta: Sequence[Tensor], fisher: Sequence[Tensor | float], alpha: float | None) -> list[Tensor]:
        """Returns the merged weights; nothing changes.

        Args:
            theta: `theta_K`, the latest weights.
            fisher: `F_K`, > 0.
            alpha: weight of the latest in (0, 1]; None for equal weights. An entry that no earlier network had has 1.
        """
        merged = []
        parts = zip(theta, fisher, self.centre.tensors, self.precision.tensors, self.count.tensors, strict=True)
        for t, f, c, a, n in parts:
            rest = a if alpha is None else a * ((1.0 - alpha) / alpha) / n.clamp_min(1.0)
            merged.append(t.detach() + rest / (f + rest) * (c - t))
        return merged

    @torch.no_grad()
    def add_(self, theta: Sequence[Tensor], fisher: Sequence[Tensor | float]) -> None:
        """Lets `theta_K` join the earlier networks."""
        torch._foreach_add_(self.count.tensors, 1.0)
        for t, f, c, a in zip(theta, fisher, self.centre.tensors, self.precision.tensors, strict=True):
            if self.precision is not self.count:
                a.add_(f)
            c.add_((t - c) * (f / a))

    def bytes(self) -> int:
        """Returns the memory held, in bytes."""
        return sum(buffers.bytes() for buffers in self._sets.values())

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Returns copies of the buffers."""
        return {name: buffers.state_dict() for name, buffers in self._sets.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restores them; `align` has to follow."""
        for name, buffers in self._sets.items():
            buffers.load_state_dict(state[name])


def _places(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


@torch.no_grad()
def write_(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Writes tensors into a network's parameters and buffers by name.

    A tensor smaller than its place (the network has grown since) goes into the leading block; a name that the network
    has no longer is left out.
    """
    places = _places(model)
    for name, value in values.items():
        if name in places:
            places[name][tuple(slice(length) for length in value.shape)] = value


class WeightSwap:
    """Puts other weights into a network for a while; its own come back bit for bit."""

    def __init__(self) -> None:
        self._own: dict[str, Tensor] = {}

    def enter(self, model: nn.Module, values: Mapping[str, Tensor]) -> None:
        """Puts `values` in; what an interrupted swap left is put back first."""
        self.leave(model)
        places = _places(model)
        self._own = {name: places[name].detach().clone() for name in values if name in places}
        write_(model, values)

    def leave(self, model: nn.Module) -> None:
        """Puts the network's own back; entries that it has grown meanwhile stay as they are."""
        write_(model, self._own)
        self._own = {}

    @contextmanager
    def __call__(self, model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Has `values` in the network inside the block."""
        self.enter(model, values)
        try:
            yield
        finally:
            self.leave(model)

    def bytes(self) -> int:
        """Returns the memory held, in bytes."""
        return sum(tensor.nbytes for tensor in self._own.values())


def running_statistics(model: nn.Module) -> dict[str, Tensor]:
    """Returns copies of batch norm's running means and variances, by name."""
    return {name: value.clone() for layer, norm in _norms(model) for name, value in _statistics(layer, norm)}


def _norms(model: nn.Module) -> list[tuple[str, _BatchNorm]]:
    return [(n, m) for n, m in model.named_modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def _statistics(layer: str, norm: _BatchNorm) -> list[tuple[str, Tensor]]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    prefix = f"{layer}." if layer else ""
    return [(f"{prefix}running_mean", norm.running_mean), (f"{prefix}running_var", norm.running_var)]


@torch.no_grad()
def estimated_statistics(model: nn.Module, dataset: Any, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Returns batch norm's means and variances over a data set at the present weights, by name; nothing changes.

    Each is the mean over batches of the batch's own. A layer that is kept in eval mode keeps its statistics; so do all
    where there is no batch of two samples. Everything else runs in eval mode.
    """
    norms = [(layer, norm) for layer, norm in _norms(model) if norm.training]
    if not norms:
        return running_statistics(model)
    kept = [(norm, norm.momentum, [b.clone() for b in norm.buffers()]) for _, norm in norms]
    with preserved_random_state(), evaluation_mode(model):
        seen = 0
        for x, t in batches(dataset, _BATCH, torch.device(device)):
            if len(x) < 2:
                continue
            seen += 1
            for _, norm in norms:
                norm.train()
                norm.momentum = 1.0 / seen
            logits(model, x, t)
        found = running_statistics(model)
    for norm, momentum, buffers in kept:
        norm.momentum = momentum
        for buffer, value in zip(norm.buffers(), buffers, strict=True):
            buffer.copy_(value)
    return found
