"""CPG's growth: every hidden layer of a chain gets wider by the same factor, what is there stays in its corner."""

import math
from collections.abc import Sequence

from cl_ext.models.expansion import ExpandableNetwork
from cl_ext.nn.growth import append_units, drawn, drawn_rows
from cl_ext.nn.masked import MaskedScheme

import torch


def grown_widths(base: Sequence[int], multiplier: float) -> list[int]:
    """Units of the hidden layers at a multiplier `m` of the parameters: `int(v sqrt(m))` of v."""
    return [int(units * math.sqrt(multiplier)) for units in base]


def base_widths(network: ExpandableNetwork) -> list[int]:
    """Units of the hidden layers of a network that is to grow.

    Raises:
        TypeError: if it is no chain of layers.
        ValueError: if one of them is frozen.
    """
    try:
        stages = network.stages
    except TypeError as error:
        raise TypeError(f"CPGPlugin only grows chains of layers; set max_width to 1 for this one: {error}") from error
    for stage in stages:
        if not stage.layer.weight.requires_grad:
            raise ValueError(f"CPGPlugin cannot grow the frozen layer {stage.name!r}; set max_width to 1")
    return [stage.units for stage in stages]


@torch.no_grad()
def grow(
    network: ExpandableNetwork, scheme: MaskedScheme, widths: Sequence[int], task: int, generator: torch.Generator
) -> None:
    """Widens the hidden layers, in place; every new weight is free and as PyTorch's layers begin.

    The first layer's inputs and the heads' outputs never grow. Heads of other tasks go on reading the old units.

    Args:
        network: its features must be a chain.
        scheme: the network's.
        widths: units of each hidden layer, at least the present ones.
        task: whose head reads the new units, too.
        generator: draws the weights; a CPU one.
    """
    for index, units in enumerate(widths):
        stages = network.stages
        stage, count = stages[index], units - stages[index].units
        if count <= 0:
            continue
        rows = drawn_rows(stage.layer, count, generator)
        read = count * stage.block
        if index + 1 < len(stages):
            reader = stages[index + 1].layer.weight
            shape = (len(reader), read, *reader.shape[2:])
            fan_in = reader[0].numel() + math.prod(shape[1:])
            append_units(stages, index, rows, columns=drawn(shape, fan_in, reader, generator))
        else:
            template = network.heads.template_weight
            columns = drawn((len(template), read), template.shape[1] + read, template, generator)
            append_units(stages, index, rows)
            network.heads.add_inputs(columns, tasks=[task])
    for name in scheme.owners.names:
        scheme.owners.grow(name, network.features.get_parameter(name).shape)
