"""A sequential network as a chain of units: which layer makes them, what follows it, and who reads them."""

from collections.abc import Iterator
from dataclasses import dataclass

from cl_ext.nn.resizing import Layer

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

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


def leaves(features: nn.Sequential, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules of a sequence of sequences, in order, with their paths."""
    for name, module in features.named_children():
        if isinstance(module, nn.Sequential):
            yield from leaves(module, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", module


def chain(features: nn.Module, width: int) -> list[Stage]:
    """The hidden layers of a sequential network.

    Args:
        features: Maps samples to features `(B, D)`: linear layers and convolutions with what lies between.
        width: D.

    Raises:
        TypeError: It is no such chain; the sentence names the module that is not allowed, and what is.
    """
    if not isinstance(features, nn.Sequential):
        raise TypeError(f"a chain of layers is needed, an nn.Sequential; this is a {type(features).__name__}")
    found: list[tuple[str, Layer, list[tuple[str, nn.Module]]]] = []
    for name, module in leaves(features):
        if isinstance(module, nn.Linear | nn.Conv2d):
            if isinstance(module, nn.Conv2d) and module.groups != 1:
                raise TypeError(f"the convolution {name!r} has {module.groups} groups; a chain takes those of one")
            found.append((name, module, []))
        elif isinstance(module, (*ELEMENTWISE, *SPATIAL, _BatchNorm)):
            if found:
                found[-1][2].append((name, module))
            elif isinstance(module, _BatchNorm):
                raise TypeError(f"the batch norm {name!r} stands before the first layer: it has no units to follow")
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
