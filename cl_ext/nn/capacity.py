"""How large a network is, how much of it is used, and by which task: counted from its tensors."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def nonzero(tensors: Iterable[Tensor]) -> int:
    """How many entries of the tensors are not zero."""
    return sum(int(tensor.count_nonzero()) for tensor in tensors)


@torch.no_grad()
def capacity(networks: Iterable[nn.Module]) -> dict[str, Any]:
    """Counts parameters, which are what an optimizer can train.

    A network's buffers are none: a finished task's own biases and batch norm, ownership masks, the auto-encoders of
    Expert Gate, running statistics, the weights with which heads or columns begin. What of it a method adds to the
    network is in its plugin's `extra_bytes()`.

    Args:
        networks: What is needed to predict. One that has `effective(task)`, the tensors with which it predicts for a
            task, and `tasks`, the labels of the tasks so far, is counted by task, too.

    Returns:
        `parameters`: all; `nonzero`: those that are not exactly 0; `by_task`: label -> the entries that are not 0 of
        the tensors with which the task's samples are predicted, shared ones included. A network without task-wise parts
        has an empty `by_task`.
    """
    counts: dict[str, Any] = {"parameters": 0, "nonzero": 0, "by_task": {}}
    for network in networks:
        parameters = list(network.parameters())
        counts["parameters"] += sum(parameter.numel() for parameter in parameters)
        counts["nonzero"] += nonzero(parameters)
        effective: Any = getattr(network, "effective", None)
        if callable(effective):
            for task in network.tasks:  # type: ignore[union-attr]
                used = nonzero(effective(task).values())
                counts["by_task"][str(task)] = counts["by_task"].get(str(task), 0) + used
    return counts


@torch.no_grad()
def unit_use(network: Any) -> dict[str, list[list[float]]]:
    """Which task uses which units of a chain of layers, and how much of them.

    Args:
        network: Has `stages`, `tasks` and `scheme.effective(features, task)`.

    Returns:
        Layer -> a row a task, in the order of training, of one share in [0, 1] a unit: the part of the unit's incoming
        weights that the task reads and that are not 0; 0 for a unit that the task does not have. The widths are
        today's.
    """
    return _by_unit(network, [network.scheme.effective(network.features, task) for task in network.tasks])


@torch.no_grad()
def unit_owners(network: Any) -> dict[str, list[list[float]]]:
    """Which task owns which units: as `unit_use`, with the part of a unit's incoming weights that the task owns.

    Args:
        network: Has `stages`, `tasks` and `scheme.owned(features, task)`.

    Returns:
        As `unit_use`; empty where the tasks own nothing.
    """
    by_task = [network.scheme.owned(network.features, task) for task in network.tasks]
    return _by_unit(network, by_task) if any(by_task) else {}


def _by_unit(network: Any, by_task: Sequence[Mapping[str, Tensor]]) -> dict[str, list[list[float]]]:
    found = {}
    for stage in network.stages:
        rows = []
        for tensors in by_task:
            share = torch.zeros(stage.units)
            weight = tensors.get(f"{stage.name}.weight")
            if weight is not None:
                used = weight.flatten(1).count_nonzero(1).cpu()
                share[: len(used)] = used / stage.layer.weight[0].numel()
            rows.append([round(float(value), 4) for value in share])
        found[stage.name] = rows
    return found
