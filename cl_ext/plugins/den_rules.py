"""What the phases of dynamically expandable networks do in a step: what they hold, add to gradients, and shrink."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cl_ext.models.expansion import ExpandableNetwork
from cl_ext.nn.chain import Stage
from cl_ext.nn.growth import silent_units
from cl_ext.nn.heads import Head
from cl_ext.nn.ownership import Hold
from cl_ext.nn.proximal import sparse_group_, sparsify_
from cl_ext.nn.reachability import block_mask
from cl_ext.nn.splitting import drift

import torch
from torch import Tensor, nn


@dataclass
class Before:
    """The shared weights as they were before a task, by hidden layer."""

    weights: list[Tensor]
    biases: list[Tensor | None]

    @classmethod
    def of(cls, stages: Sequence[Stage]) -> "Before":
        """Copies of a chain's weights."""
        layers = [stage.layer for stage in stages]
        return cls(
            [layer.weight.detach().clone() for layer in layers],
            [None if layer.bias is None else layer.bias.detach().clone() for layer in layers],
        )

    def extra_bytes(self) -> int:
        """Bytes of the copies."""
        return sum(tensor.nbytes for tensor in (*self.weights, *self.biases) if tensor is not None)


def _nothing(eta: float) -> None:
    """The step of a phase without sparsity."""


@dataclass
class Rules:
    """What a phase adds to a step: gradients of l2 and of the pull, proximal steps, and what is put back.

    Attributes:
        decayed: weights that `l2 / 2 |W|^2` draws to 0.
        l2: its strength.
        pulled: weights that `pull |W - before|^2` draws to where they were, the first corner of each.
        before: where these were.
        pull: its strength.
        shrink: the proximal step, given eta.
        hold: entries that the phase does not train.
    """

    decayed: Sequence[Tensor] = ()
    l2: float = 0.0
    pulled: Sequence[Tensor] = ()
    before: Sequence[Tensor] = ()
    pull: float = 0.0
    shrink: Callable[[float], None] = field(default=_nothing)
    hold: Hold | None = None

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Before the step: adds the gradients of l2 and of the pull, and clears those of held entries."""
        decayed: list[tuple[Tensor, Tensor]] = [(w.grad, w) for w in self.decayed if w.grad is not None]
        if self.l2 and decayed:
            torch._foreach_add_([g for g, _ in decayed], [w for _, w in decayed], alpha=self.l2)
        if self.pull:
            pairs = [(w, b) for w, b in zip(self.pulled, self.before, strict=True) if w.grad is not None]
            gradients = [w.grad[_corner(b)] for w, b in pairs]  # type: ignore[index]
            moved = torch._foreach_sub([w[_corner(b)] for w, b in pairs], [b for _, b in pairs])
            torch._foreach_add_(gradients, moved, alpha=2 * self.pull)
        if self.hold is not None:
            self.hold.mask_gradients()

    def finish(self, eta: float) -> None:
        """After the step: shrinks, and puts held entries back."""
        self.shrink(eta)
        if self.hold is not None:
            self.hold.restore()


def _corner(tensor: Tensor) -> tuple[slice, ...]:
    return tuple(slice(0, size) for size in tensor.shape)


def weights_of(stages: Sequence[Stage], head: Head) -> list[Tensor]:
    """The weights of the hidden layers and of a head, without biases."""
    return [stage.layer.weight for stage in stages] + [head.weight]


def trained(network: ExpandableNetwork, head: Head) -> list[nn.Parameter]:
    """All parameters that a task may train: the features' and its head's."""
    return [*network.features.parameters(), *head.parameters()]


def shrinking(weights: Sequence[Tensor], mu: float) -> Callable[[float], None]:
    """The proximal step of `mu |W|_1` (of kernels' norms, for convolutions)."""
    return lambda eta: sparsify_(weights, eta * mu) if mu else None


def hold_unselected(network: ExpandableNetwork, stages: Sequence[Stage], head: Head, chosen: Sequence[Tensor]) -> Hold:
    """Holds all that does not lie between selected units; of batch norm, what does not follow one."""
    free: dict[int, Tensor] = {}
    inputs, block = None, 1
    for stage, rows in zip(stages, chosen, strict=True):
        free[id(stage.layer.weight)] = block_mask(rows, inputs, stage.layer.weight.shape, block)
        for vector in _vectors(stage):
            free[id(vector)] = rows
        inputs, block = rows, stage.block
    classes = torch.ones_like(head.classes, dtype=torch.bool)
    free[id(head.weight)] = block_mask(classes, inputs, head.weight.shape, block)
    parameters = [parameter for parameter in trained(network, head) if id(parameter) in free]
    return Hold(parameters, [~free[id(parameter)] for parameter in parameters])


def hold_old(network: ExpandableNetwork, stages: Sequence[Stage], head: Head, before: Before) -> Hold:
    """Holds the weights that there were before the task; new units, what is read of them, and the head are free."""
    held: dict[int, Tensor] = {}
    for stage, weight in zip(stages, before.weights, strict=True):
        mask = torch.zeros_like(stage.layer.weight, dtype=torch.bool)
        mask[_corner(weight)] = True
        held[id(stage.layer.weight)] = mask
        for vector in _vectors(stage):
            held[id(vector)] = torch.arange(len(vector), device=vector.device) < len(weight)
    parameters = [parameter for parameter in network.features.parameters() if id(parameter) in held]
    return Hold(parameters, [held[id(parameter)] for parameter in parameters])


def hold_units(stages: Sequence[Stage], before: Before, units: Sequence[Tensor]) -> Hold:
    """Holds what chosen old units, (n_l,) booleans a hidden layer, read of old inputs, and their biases."""
    parameters: list[nn.Parameter] = []
    entries: list[Tensor] = []
    for stage, weight, rows in zip(stages, before.weights, units, strict=True):
        mask = torch.zeros_like(stage.layer.weight, dtype=torch.bool)
        mask[: len(rows), : weight.shape[1]] = rows.view(-1, *[1] * (weight.dim() - 1))
        parameters.append(stage.layer.weight)  # type: ignore[arg-type]
        entries.append(mask)
        if stage.layer.bias is not None:
            parameters.append(stage.layer.bias)  # type: ignore[arg-type]
            entries.append(torch.cat([rows, rows.new_zeros(stage.units - len(rows))]))
    return Hold(parameters, entries)


def hold_restored(stages: Sequence[Stage], before: Before, moved: Sequence[Tensor], split: Sequence[Tensor]) -> Hold:
    """Holds the old units that are as before the task: what has not `moved`, (n_l,), and what was `split`, (r_l,)."""
    units = [each == 0 for each in moved]
    for rows, chosen in zip(units, split, strict=True):
        rows[chosen] = True
    return hold_units(stages, before, units)


def old_tensors(stages: Sequence[Stage], before: Before) -> tuple[list[Tensor], list[Tensor]]:
    """The layers' weights and biases, and what they were before the task."""
    pairs: list[tuple[Tensor, Tensor]] = []
    for stage, weight, bias in zip(stages, before.weights, before.biases, strict=True):
        pairs.append((stage.layer.weight, weight))
        if stage.layer.bias is not None and bias is not None:
            pairs.append((stage.layer.bias, bias))
    return [parameter for parameter, _ in pairs], [tensor for _, tensor in pairs]


def pulled_back(
    stages: Sequence[Stage], head: Head, before: Before, l2: float, pull: float, mu: float, hold: Hold | None = None
) -> Rules:
    """What phases do that train all weights: l2, a pull to those of before, and l1."""
    weights = weights_of(stages, head)
    layers, old = old_tensors(stages, before)
    return Rules(weights, l2, layers, old, pull, shrinking(weights, mu), hold)


def drifts(stages: Sequence[Stage], before: Before) -> list[Tensor]:
    """How far the old units have moved: (n_l,) a hidden layer."""
    layers = [stage.layer for stage in stages]
    return [
        drift(layer.weight.detach(), None if layer.bias is None else layer.bias.detach(), weight, bias)
        for layer, weight, bias in zip(layers, before.weights, before.biases, strict=True)
    ]


def shrinking_new(
    stages: Sequence[Stage], head: Head, before: Before, mu: float, gamma: float
) -> Callable[[float], None]:
    """The proximal step of `mu |W^N|_1 + gamma sum_g |W^N_g|_2`, a group all that one new unit reads.

    A unit whose group is 0 gets a bias of 0 with it (with batch norm: shift and mean, too), so that it says 0 and can
    be taken out without a change.
    """
    olds = [len(weight) for weight in before.weights]
    columns = [weight.shape[1] for weight in before.weights]
    width = olds[-1] * stages[-1].block
    read = [stage.layer.weight[:old, column:] for stage, old, column in zip(stages, olds, columns, strict=True)]
    read = [*(view for view in read if view.shape[1]), head.weight[:, width:]]
    read = [view.detach() for view in read]

    @torch.no_grad()
    def step(eta: float) -> None:
        sparsify_(read, eta * mu)
        for stage, old in zip(stages, olds, strict=True):
            sparse_group_(stage.layer.weight[old:], eta * mu, eta * gamma)
            dead = silent_units(stage.layer)
            dead[:old] = False
            if stage.layer.bias is not None:
                stage.layer.bias.masked_fill_(dead, 0.0)
            if stage.norm is not None:
                for vector in (stage.norm[1].bias, stage.norm[1].running_mean):
                    if vector is not None:
                        vector.masked_fill_(dead, 0.0)  # type: ignore[operator]

    return step


def _vectors(stage: Stage) -> list[Tensor]:
    """The parameters with one entry a unit: biases, and those of batch norm."""
    found = [stage.layer.bias]
    if stage.norm is not None:
        found += [stage.norm[1].weight, stage.norm[1].bias]  # type: ignore[list-item]
    return [vector for vector in found if vector is not None]
