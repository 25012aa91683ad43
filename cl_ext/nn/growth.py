"""Adding, removing and repeating units of a chain of layers; what reads them follows."""

import math
from collections.abc import Sequence

from cl_ext.nn.chain import Stage
from cl_ext.nn.resizing import (
    Layer,
    add_channels,
    add_inputs,
    add_outputs,
    select_inputs,
    select_norm,
    select_outputs,
)

import torch
from torch import Tensor, nn


def drawn(shape: Sequence[int], fan_in: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Weights as PyTorch's layers begin: U(-a, a) with a = 1 / sqrt(fan_in), from a generator on the CPU."""
    bound = 1 / math.sqrt(fan_in)
    values = torch.rand(tuple(shape), generator=generator, dtype=torch.float64) * (2 * bound) - bound
    return values.to(like)


def drawn_rows(layer: Layer, count: int, generator: torch.Generator) -> Tensor:
    """Weights of `count` new units of a layer, (count, m) or (count, m, h, w)."""
    return drawn((count, *layer.weight.shape[1:]), layer.weight[0].numel(), layer.weight, generator)


def readers(stages: Sequence[Stage], index: int, last: Sequence[nn.Module]) -> list[nn.Module]:
    """The layers that read a stage's units: the next stage's, or `last` (the heads) after the last stage."""
    return [stages[index + 1].layer] if index + 1 < len(stages) else list(last)


@torch.no_grad()
def append_units(
    stages: Sequence[Stage],
    index: int,
    rows: Tensor,
    bias: Tensor | None = None,
    columns: Tensor | None = None,
    last: Sequence[nn.Module] = (),
) -> None:
    """Appends units to a stage, in place; old entries keep their values and their places.

    Args:
        stages: the chain.
        index: of the stage that grows.
        rows: the weights of the k new units, (k, m) or (k, m, h, w).
        bias: (k,), zeros where None.
        columns: what the next stage reads of them, (n, k * block) or (n, k, h, w); zeros where None, so that nothing
            that it computes changes.
        last: the heads, whose columns for the new units are zero; used for the last stage only.
    """
    stage = stages[index]
    add_outputs(stage.layer, rows, bias)
    if stage.norm is not None:
        add_channels(stage.norm[1], len(rows))
    for reader in readers(stages, index, last):
        weight: Tensor = reader.weight  # type: ignore[assignment]
        count = len(rows) * stage.block
        add_inputs(reader, weight.new_zeros(len(weight), count, *weight.shape[2:]) if columns is None else columns)


@torch.no_grad()
def keep_units(stages: Sequence[Stage], index: int, kept: Tensor, last: Sequence[nn.Module] = ()) -> None:
    """Keeps, in order, the units `kept` (k,) of a stage, in place; an index that is repeated repeats its unit.

    A unit that is removed must say nothing to those who read it: its output is zero (rows and bias are), or they have
    zero weights for it. A repeated unit is read twice: see `cl_ext.nn.net2net` for what leaves the function as it is.
    """
    stage = stages[index]
    for reader in readers(stages, index, last):
        select_inputs(reader, kept, stage.block)
    select_outputs(stage.layer, kept)
    if stage.norm is not None:
        select_norm(stage.norm[1], kept)


def silent_units(layer: Layer) -> Tensor:
    """(n,) booleans: units whose incoming weights are all exactly zero."""
    return layer.weight.flatten(1).eq(0).all(1)
