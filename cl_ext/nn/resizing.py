"""Layers whose tensors get other shapes: units added, selected, or fitted to a saved state."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Layer = nn.Linear | nn.Conv2d


def set_parameter(module: nn.Module, name: str, value: Tensor) -> nn.Parameter:
    """Puts a new parameter in the place of `module.<name>`, trainable as that was; returns it."""
    old: nn.Parameter = getattr(module, name)
    new = nn.Parameter(value.detach().clone().contiguous(), requires_grad=old.requires_grad)
    setattr(module, name, new)
    note_sizes(module)
    return new


def note_sizes(module: nn.Module) -> None:
    """Makes a layer's own account of its sizes follow its tensors."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Conv2d):
        module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, _BatchNorm):
        sized = module.weight if module.weight is not None else module.running_mean
        if sized is not None:
            module.num_features = len(sized)


@torch.no_grad()
def add_outputs(layer: Layer, weight: Tensor, bias: Tensor | None = None) -> None:
    """Appends units to a layer.

    Args:
        layer: (n, m) or (n, m, h, w).
        weight: of the new units, (k, m) or (k, m, h, w).
        bias: (k,); zeros where None and the layer has biases.
    """
    set_parameter(layer, "weight", torch.cat([layer.weight, weight.to(layer.weight)]))
    if layer.bias is not None:
        new = layer.bias.new_zeros(len(weight)) if bias is None else bias.to(layer.bias)
        set_parameter(layer, "bias", torch.cat([layer.bias, new]))


@torch.no_grad()
def add_inputs(layer: nn.Module, weight: Tensor) -> None:
    """Appends input columns to a layer (or a head): `weight` is (n, k) or (n, k, h, w)."""
    old: Tensor = layer.weight  # type: ignore[assignment]
    set_parameter(layer, "weight", torch.cat([old, weight.to(old)], dim=1))


@torch.no_grad()
def select_outputs(layer: Layer, index: Tensor) -> None:
    """Keeps, reorders or repeats a layer's units: unit i of the result is `index[i]` of before."""
    set_parameter(layer, "weight", layer.weight[index])
    if layer.bias is not None:
        set_parameter(layer, "bias", layer.bias[index])


@torch.no_grad()
def select_inputs(layer: nn.Module, index: Tensor, block: int = 1) -> None:
    """Keeps, reorders or repeats what a layer reads, unit by unit.

    Args:
        layer: reads units of `block` columns each (the positions of a channel that was flattened).
        index: (k,), of units.
        block: columns a unit.
    """
    weight: Tensor = layer.weight  # type: ignore[assignment]
    set_parameter(layer, "weight", weight[:, columns_of(index, block)])


def columns_of(index: Tensor, block: int) -> Tensor:
    """The columns of units: `(k,)` to `(k * block,)`."""
    if block == 1:
        return index
    return (index[:, None] * block + torch.arange(block, device=index.device)).flatten()


@torch.no_grad()
def select_norm(norm: nn.Module, index: Tensor) -> None:
    """Keeps, reorders or repeats the channels of batch norm, statistics included."""
    for name in ("weight", "bias"):
        if getattr(norm, name) is not None:
            set_parameter(norm, name, getattr(norm, name)[index])
    for name in ("running_mean", "running_var"):
        if getattr(norm, name) is not None:
            setattr(norm, name, getattr(norm, name)[index].clone())
    note_sizes(norm)


@torch.no_grad()
def add_channels(norm: nn.Module, count: int) -> None:
    """Appends `count` channels to batch norm, as new ones begin: weight 1, bias 0, mean 0, variance 1."""
    for name, value in (("weight", 1.0), ("bias", 0.0)):
        old = getattr(norm, name)
        if old is not None:
            set_parameter(norm, name, torch.cat([old, old.new_full((count,), value)]))
    for name, value in (("running_mean", 0.0), ("running_var", 1.0)):
        old = getattr(norm, name)
        if old is not None:
            setattr(norm, name, torch.cat([old, old.new_full((count,), value)]))
    note_sizes(norm)


def fit_shapes(module: nn.Module, state: Mapping[str, Any], prefix: str = "") -> None:
    """Gives the parameters and buffers of a module and its children the shapes that a saved state has.

    Call it before the state is loaded: a network that grew can then be loaded into one that has not yet.
    """
    for path, owner in module.named_modules():
        start = f"{prefix}{path}." if path else prefix
        for name, tensor in [*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False)]:
            saved = state.get(start + name)
            if not isinstance(saved, Tensor) or saved.shape == tensor.shape:
                continue
            if isinstance(tensor, nn.Parameter):
                set_parameter(owner, name, tensor.new_zeros(saved.shape))
            else:
                setattr(owner, name, tensor.new_zeros(saved.shape))
        note_sizes(owner)
