"""The layers of a network and what follows each of them, found by watching one forward pass of a few samples.

A network's modules do not say what reads a layer's output: a ReLU may be a module or a function, in place or not, with
batch norm, pooling or a reshape between. A dispatch mode sees the operations themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cl_ext.nn.passes import logits
from cl_ext.nn.per_sample import sums_function

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# ReLU commutes with what only moves entries around or takes their maximum
_FOLLOWED = (
    "view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "transpose", "permute", "alias", "detach", "clone",
    "max_pool2d", "max_pool2d_with_indices", "native_dropout",
)  # fmt: skip
_NOT_RELU = (
    "tanh", "sigmoid", "gelu", "silu", "mish", "elu", "celu", "leaky_relu", "rrelu_with_noise", "hardtanh", "softplus",
    "hardswish", "hardsigmoid", "log_sigmoid_forward", "_prelu_kernel", "threshold", "clamp", "clamp_min", "softshrink",
    "hardshrink", "_softmax", "_log_softmax", "exp",
)  # fmt: skip


@dataclass
class LocalLayer:
    """A layer and what follows it.

    Attributes:
        module: the layer.
        own: its penalised parameters: the name inside it -> the name in the network.
        norm: the batch norm that its output goes through, or None.
        relu: whether ReLU follows, and nothing else reads the output.
    """

    module: nn.Module
    own: dict[str, str]
    norm: nn.Module | None = None
    relu: bool = False

    def activation(self, z: Tensor) -> Tensor:
        """Returns `h = a(z)`, a tensor of its own, for the layer's output z."""
        h = z
        if self.norm is not None:
            mean, variance, weight, bias, eps = _statistics(self.norm)
            h = functional.batch_norm(z, mean, variance, weight, bias, eps=eps)
        return h.relu() if self.relu else h.clone()

    def gradient(self, h: Tensor, factor: float) -> Tensor:
        """Returns `factor/2` times `d |h|^2 / d z`: `factor h`, times batch norm's scale, of h's shape."""
        d = factor * h
        if self.norm is None:
            return d
        _, variance, weight, _, eps = _statistics(self.norm)
        scale = (variance + eps).rsqrt() * (1.0 if weight is None else weight)
        return d * scale.view(1, -1, *[1] * (h.dim() - 2))


def _statistics(norm: Any) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, float]:
    return norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps


def refuse(what: str) -> NotImplementedError:
    """Returns the error for a network that has no local importances, with the reason and the way out."""
    return NotImplementedError(f"local importances can't be had: {what}; use MASPlugin, whose importance is global")


@dataclass
class _Reader:
    """What has happened to a layer's output."""

    norm: nn.Module | None = None
    norms: int = 0
    relu: bool = False
    used: bool = False


@dataclass
class _Watched:
    tensor: Tensor  # held, so that its id stays its own
    layers: list[nn.Module] = field(default_factory=list)


class _Consumers(TorchDispatchMode):
    """Sees which operation reads each layer's output, whether it is a module or a function that calls it."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: dict[nn.Module, _Reader] = {}
        self._watched: dict[int, _Watched] = {}

    def layer_ran(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """A forward hook of every layer and batch norm."""
        if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor):
            raise refuse(f"a {type(module).__name__} is not from one tensor to one tensor")
        if module in self.readers:
            raise refuse(f"a {type(module).__name__} runs twice in one forward pass")
        before = self._watched.get(id(inputs[0]))
        layers = [module]
        if isinstance(module, _BATCH_NORM):
            if module.running_mean is None:
                raise refuse("a batch norm has no running statistics, so its samples depend on each other")
            for layer in before.layers if before else []:
                self.readers[layer].norm = module
                layers.append(layer)
        self.readers[module] = _Reader()
        self._watched[id(output)] = _Watched(output, layers)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation and notes what it does to watched tensors."""
        result = func(*args, **(kwargs or {}))
        operation = func._schema.name.split("::")[-1].removesuffix("_")
        flat = [each for arg in args for each in (arg if isinstance(arg, list | tuple) else [arg])]
        for tensor in [each for each in flat if isinstance(each, Tensor)]:
            watched = self._watched.get(id(tensor))
            if watched is None:
                continue
            first = result[0] if isinstance(result, list | tuple) else result
            if operation in _FOLLOWED:
                self._watched[id(first)] = _Watched(first, watched.layers)
                continue
            self._read(watched.layers, operation)
            if first is tensor:  # done in place: it is another value from here on
                del self._watched[id(tensor)]
        return result

    def _read(self, layers: Sequence[nn.Module], operation: str) -> None:
        for layer in layers:
            reader = self.readers[layer]
            if operation in _NOT_RELU:
                raise refuse(f"a {type(layer).__name__} is followed by {operation.strip('_')}, which is not ReLU")
            if "batch_norm" in operation:
                reader.norms += 1
            elif operation == "relu":
                reader.relu = True
            else:
                reader.used = True


def local_layers(
    model: nn.Module, parameters: Mapping[str, Tensor], x: Tensor, t: Tensor | None
) -> dict[nn.Module, LocalLayer]:
    """Returns the layers that a forward pass runs, in that order, with what follows each.

    Every module with parameters of its own is a layer. Its `a` is batch norm, if its output goes into one, and ReLU, if
    that is all that reads it then; else the identity (the logits, a sum with a shortcut). Between may stand what ReLU
    commutes with: reshaping, max pooling, dropout, which is off.

    Args:
        model: the network, in eval mode.
        parameters: the penalised ones, by name.
        x: a few inputs, (B, ...).
        t: task labels, (B,), all the same, or None.

    Raises:
        NotImplementedError: if another activation follows a layer, a layer runs twice, shares a parameter or has no
            local form.
    """
    owned: dict[nn.Module, dict[str, str]] = {}
    owners: set[nn.Parameter] = set()
    for prefix, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False, remove_duplicate=False))
        for local, parameter in own.items():
            if parameter in owners:
                raise refuse(f"{prefix}.{local} is shared with another layer")
        owners.update(own.values())
        names = {local: f"{prefix}.{local}".lstrip(".") for local in own}
        if own or isinstance(module, _BATCH_NORM):
            owned[module] = {local: name for local, name in names.items() if name in parameters}
    consumers = _Consumers()
    handles = [module.register_forward_hook(consumers.layer_ran) for module in owned]
    try:
        with torch.no_grad(), consumers:
            logits(model, x, t)
    finally:
        for handle in handles:
            handle.remove()
    layers = {}
    for module, reader in consumers.readers.items():
        if reader.norms > (reader.norm is not None):
            raise refuse(f"a {type(module).__name__} is followed by a batch norm that is no module, or by two")
        if owned[module]:
            try:
                sums_function(module)
            except NotImplementedError as error:
                raise refuse(f"a {type(module).__name__} has no sums layer by layer") from error
        layers[module] = LocalLayer(module, owned[module], reader.norm, reader.relu and not reader.used)
    return layers
