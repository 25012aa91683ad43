"""A sequential network as a chain of units: which layer makes them, what follows it, and who reads them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeGuard

from cl_ext.nn.resizing import Layer

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity, nn.Dropout,
               nn.Dropout1d, nn.Dropout2d)  # fmt: skip
SPATIAL = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Flatten)


@dataclass(frozen=True)
class Stage:
    """A hidden layer of a chain.

    Attributes:
        name: the layer's path in the network.
        layer: makes the units: outputs of a linear layer, channels of a convolution.
        after: what follows up to the next layer, by path.
        block: how many columns of its reader a unit has: 1, or the positions of a channel that is flattened.
    """

    name: str
    layer: Layer
    after: tuple[tuple[str, nn.Module], ...]
    block: int

    @property
    def units(self) -> int:
        """How many units the layer has."""
        return self.layer.weight.shape[0]

    @property
    def norm(self) -> tuple[str, nn.Module] | None:
        """The batch norm between the layer and the next, with its path; None without."""
        return next(((name, module) for name, module in self.after if isinstance(module, _BatchNorm)), None)


def is_sequence(module: nn.Module) -> TypeGuard[nn.Sequential]:
    """Whether a module does what its parts do, one after another: a subclass may have a `forward` of its own."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def leaves(features: nn.Sequential, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules of a sequence of sequences, in order, with their paths; one that stands twice comes twice."""
    for name, module in features._modules.items():
        assert module is not None  # PyTorch takes None there, but a sequence with one cannot be run
        if is_sequence(module):
            yield from leaves(module, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", module


_KINDS = (nn.Linear, nn.Conv2d, _BatchNorm)
_STATISTICS = {"running_mean", "running_var", "num_batches_tracked"}


def check_layers(named: Iterable[tuple[str, nn.Module]]) -> None:
    """Refuses layers whose tensors are not PyTorch's own for them, or serve in two places.

    Args:
        named: Modules with their paths; one that stands twice comes twice. Those without tensors are left alone.

    Raises:
        TypeError: One is something else than a linear layer, a 2-d convolution or batch norm; its weight is made of
            other tensors (spectral norm, pruning, other parametrizations) or not made yet; or two share a tensor.
    """
    owners: dict[int, str] = {}
    for name, module in named:
        own = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
        made = getattr(module, "parametrizations", None)
        if not own and made is None:
            continue
        kind = next((kind for kind in _KINDS if isinstance(module, kind)), None)
        if kind is None or type(module).forward is not kind.forward:
            raise TypeError(
                f"{name!r} is a {type(module).__name__}; what has weights or statistics must be a linear layer, a 2-d "
                "convolution or batch norm of PyTorch's"
            )
        if made is not None or not own.keys() <= {"weight", "bias"} | (_STATISTICS if kind is _BatchNorm else set()):
            raise TypeError(f"the tensors of {name!r} are made of others ({', '.join(own) or 'a parametrization'}); "
                            "take that away first")  # fmt: skip
        for tensor in own.values():
            if is_lazy(tensor):
                raise TypeError(f"{name!r} has no size yet; give the network a batch first")
            first = owners.setdefault(id(tensor), name)
            if first != name:
                raise TypeError(f"{first!r} and {name!r} share their tensors; each layer needs its own")


def chain(features: nn.Module, width: int) -> list[Stage]:
    """The hidden layers of a sequential network.

    Args:
        features: Maps samples to features `(B, D)`: linear layers and convolutions with what lies between.
        width: D.

    Raises:
        TypeError: It is no such chain; the sentence names the module that is not allowed, and what is.
    """
    if not is_sequence(features):
        own = " with a forward of its own" if isinstance(features, nn.Sequential) else ""
        raise TypeError(f"a chain of layers is needed, an nn.Sequential; this is a {type(features).__name__}{own}")
    found: list[tuple[str, Layer, list[tuple[str, nn.Module]]]] = []
    every = list(leaves(features))
    check_layers(every)
    for name, module in every:
        if isinstance(module, nn.Linear | nn.Conv2d):
            if isinstance(module, nn.Conv2d) and module.groups != 1:
                raise TypeError(f"the convolution {name!r} has {module.groups} groups; a chain takes those of one")
            found.append((name, module, []))
        elif isinstance(module, (*ELEMENTWISE, *SPATIAL, _BatchNorm)):
            if isinstance(module, _BatchNorm):
                _check_norm(name, module, found[-1] if found else None)
            if found:
                found[-1][2].append((name, module))
        else:
            raise TypeError(
                f"{name!r} is a {type(module).__name__}; a chain takes linear layers, convolutions, batch norm, "
                "elementwise activations, dropout, pooling and flattening, one after another"
            )
    if not found:
        raise TypeError("the network has no hidden layer: no linear layer or convolution before its classifier")
    read = [layer.weight.shape[1] for _, layer, _ in found[1:]] + [width]
    stages = []
    for (name, layer, after), inputs in zip(found, read, strict=True):
        block, rest = divmod(inputs, layer.weight.shape[0])
        if rest or not block:
            raise TypeError(
                f"{name!r} has {layer.weight.shape[0]} units, and its reader {inputs} inputs: no whole block"
            )
        stages.append(Stage(name, layer, tuple(after), block))
    return stages


def _check_norm(name: str, norm: _BatchNorm, follows: tuple[str, Layer, list[tuple[str, nn.Module]]] | None) -> None:
    """Refuses batch norm that does not norm the units of the layer before it, each by itself and once."""
    if follows is None:
        raise TypeError(f"the batch norm {name!r} stands before the first layer: it has no units to follow")
    layer, units = follows[0], follows[1].weight.shape[0]
    if norm.num_features != units:
        raise TypeError(f"the batch norm {name!r} has {norm.num_features} features, and {layer!r} {units} units; a "
                        "chain takes one for each unit, before flattening")  # fmt: skip
    if any(isinstance(module, _BatchNorm) for _, module in follows[2]):
        raise TypeError(f"the batch norm {name!r} is the second behind {layer!r}; a chain takes one a layer")
