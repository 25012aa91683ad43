"""How dynamically expandable networks select, expand, take out and split units of an expandable network."""

from collections.abc import Sequence
from typing import Any

from cl_ext.models.expansion import ExpandableNetwork
from cl_ext.nn.chain import Stage
from cl_ext.nn.growth import append_units, drawn, drawn_rows, keep_units, silent_units
from cl_ext.nn.heads import Head
from cl_ext.nn.passes import evaluation_mode, labelled_batches, logits, preserved_random_state
from cl_ext.nn.reachability import all_units, connections, reached
from cl_ext.nn.resizing import columns_of, select_norm, set_parameter
from cl_ext.nn.splitting import Outgoing, split_bias, split_weight
from cl_ext.plugins.den_rules import Before

import torch
from torch import Tensor, nn


def check_stages(stages: Sequence[Stage]) -> None:
    """Checks that a silent unit can be taken out, and that every hidden layer may grow and split.

    Raises:
        TypeError: if an activation does not map 0 to 0.
        ValueError: if a layer is frozen.
    """
    for stage in stages:
        for name, module in stage.after:
            if isinstance(module, nn.Sigmoid):
                raise TypeError(f"DENPlugin takes out units that say 0; {name!r} is a Sigmoid, which maps 0 to 1/2")
        if not all(parameter.requires_grad for parameter in stage.layer.parameters()):
            raise ValueError(
                f"DENPlugin: the model has no trainable parameters in {stage.name!r}; every hidden layer may grow and "
                "split, so that none can be frozen"
            )


def begun_record(
    task: int, stages: Sequence[Stage], selected: Sequence[int], head_reads: bool = True
) -> dict[str, Any]:
    """A task's record at its begin; `selected` units of each hidden layer."""
    layers = {
        stage.name: {"selected": count, "added": 0, "split": 0, "drift": 0.0, "units": stage.units}
        for stage, count in zip(stages, selected, strict=True)
    }
    return {"task": task, "head_reads": head_reads, "loss": None, "grew": False, "layers": layers}


@torch.no_grad()
def select(stages: Sequence[Stage], head: Head, eps: float) -> tuple[list[Tensor], bool]:
    """The units that a head depends on, by hidden layer (n_l,) booleans; all where the head reads none.

    Returns:
        The units, and whether the head read any.
    """
    blocks = [1] + [stage.block for stage in stages[:-1]]
    layers = [connections(stage.layer.weight, block, eps) for stage, block in zip(stages, blocks, strict=True)]
    found = reached(layers, connections(head.weight, stages[-1].block, eps))
    if not found[-1].any():
        return all_units([stage.units for stage in stages], head.weight.device), False
    return found, True


@torch.no_grad()
def grow(network: ExpandableNetwork, stages: Sequence[Stage], head: Head, k: int, generator: torch.Generator) -> None:
    """Appends k units to each hidden layer: rows drawn, biases 0; old units and the head read them with 0 at first."""
    for index, stage in enumerate(stages):
        append_units(stages, index, drawn_rows(stage.layer, k, generator), last=[head])
    _widen_template(network, stages[-1], k, generator)


def _widen_template(network: ExpandableNetwork, last: Stage, k: int, generator: torch.Generator) -> None:
    template = network.heads.template_weight
    count = k * last.block
    network.heads.add_inputs(drawn((len(template), count), template.shape[1] + count, template, generator))


@torch.no_grad()
def remove_silent(network: ExpandableNetwork, stages: Sequence[Stage], head: Head, before: Before) -> list[int]:
    """Takes out the new units whose incoming weights are all 0, from the top down; returns how many stay, by layer."""
    left: list[int] = []
    for index in reversed(range(len(stages))):
        stage, old = stages[index], len(before.weights[index])
        silent = silent_units(stage.layer)
        silent[:old] = False
        left.insert(0, stage.units - old - int(silent.sum()))
        if silent.any():
            kept = (~silent).nonzero().flatten()
            keep_units(stages, index, kept, last=[head])
            if index == len(stages) - 1:
                heads = network.heads
                heads.template_weight = heads.template_weight[:, columns_of(kept, stage.block)]
    return left


@torch.no_grad()
def split(
    network: ExpandableNetwork, stages: Sequence[Stage], head: Head, before: Before, chosen: Sequence[Tensor],
    outgoing: Outgoing, generator: torch.Generator,
) -> None:  # fmt: skip
    """Splits the units `chosen` (r_l,) of each hidden layer; see `cl_ext.nn.splitting`."""
    none = torch.zeros(0, dtype=torch.int64, device=head.weight.device)
    columns, news = none, []
    for stage, rows, prev in zip(stages, chosen, before.weights, strict=True):
        news.append(split_weight(stage.layer.weight, prev, rows, columns, outgoing))
        columns = columns_of(rows, stage.block)
    top = split_weight(head.weight, None, none, columns, outgoing)
    for stage, rows, new, bias in zip(stages, chosen, news, before.biases, strict=True):
        set_parameter(stage.layer, "weight", new)
        if stage.layer.bias is not None and bias is not None:
            set_parameter(stage.layer, "bias", split_bias(stage.layer.bias, bias, rows))
        if stage.norm is not None:
            kept = torch.arange(stage.units - len(rows), device=rows.device)
            select_norm(stage.norm[1], torch.cat([kept, rows]))
    set_parameter(head, "weight", top)
    if len(chosen[-1]):
        _widen_template(network, stages[-1], len(chosen[-1]), generator)


def mean_loss(strategy: Any, network: nn.Module) -> float:
    """The mean loss over the experience's training data, in eval mode, without regularisers and rehearsal."""
    total, count = 0.0, 0
    dataset = strategy.experience.dataset
    with preserved_random_state(), evaluation_mode(network), torch.no_grad():
        for x, y, labels in labelled_batches(dataset, strategy.eval_mb_size, strategy.device):
            total += float(strategy._criterion(logits(network, x, labels), y)) * len(y)
            count += len(y)
    return total / count
