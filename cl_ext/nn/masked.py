"""The scheme of ownership masks: each task reads the weights that it and earlier tasks own, at its own width.

A task's part of the features is: the entries of each weight that tasks up to it own (where it has chosen among the
earlier ones: its choice), in the corner that was there when it was trained; its biases and batch norm. All of it is
exact for ever if owned entries never change. The task that is being trained reads the features as they are, because
entries that nobody owns are 0.
"""

from collections.abc import Mapping

from cl_ext.nn.ownership import Ownership
from cl_ext.nn.picking import Picks, pack_bits, unpack_bits
from cl_ext.nn.scheme import Scheme
from cl_ext.nn.shelf import Shelf
from cl_ext.nn.task_norm import resting_norms

import torch
from torch import Tensor, nn
from torch.func import functional_call


def weights_of(features: nn.Module) -> dict[str, nn.Parameter]:
    """The weights of linear layers and convolutions by name."""
    return _of_layers(features, "weight")


def biases_of(features: nn.Module) -> dict[str, nn.Parameter]:
    """The biases of linear layers and convolutions by name."""
    return _of_layers(features, "bias")


def _of_layers(features: nn.Module, kind: str) -> dict[str, nn.Parameter]:
    found = {
        f"{path}.{kind}" if path else kind: getattr(module, kind)
        for path, module in features.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
    return {name: parameter for name, parameter in found.items() if parameter is not None}


class MaskedScheme(Scheme):
    """Ownership masks, the tasks' own biases and batch norm, choices and widths.

    Attributes:
        owners: whose each entry of the weights is; by the tasks' positions, from 1.
        own: a task's biases and batch norm, as far as tasks have their own.
        sizes: a task's shapes of weights; a task stands here once its training is over.
        picks: where a task has chosen among earlier tasks' entries: by weight, its choice over those, a bit each
            (`picked` unpacks it).
        live: the choice that is being learned; in training only.
        norms_rest: whether the task in training reads batch norm as it is; in training only.
    """

    label = "masked"

    def __init__(self) -> None:
        super().__init__()
        self.owners = Ownership()
        self.own = Shelf()
        self.sizes = Shelf()
        self.picks = Shelf()
        self.live: Picks | None = None
        self.norms_rest = False

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> "MaskedScheme":
        """The scheme of these weights, all of them free."""
        made = cls()
        made.owners = Ownership.of(weights)
        return made

    @property
    def tasks(self) -> list[int]:
        """The labels of the tasks whose training is over, in their order."""
        return [int(key) for key in self.sizes.keys()]  # noqa: SIM118  (a shelf is no mapping)

    def visible(self, features: nn.Module, task: int) -> dict[str, Tensor]:
        """By weight that tasks own, booleans of the task's shape: the entries that the task reads."""
        position = self.tasks.index(task) + 1
        picks, seen = self.picked(task), {}
        for name, size in self.sizes.get(task).items():
            if name not in self.owners.names:
                continue
            owner = self.owners[name][_corner(size)]
            seen[name] = (owner > 0) & (owner <= position)
            if name in picks:
                seen[name] = seen[name].masked_scatter((owner > 0) & (owner < position), picks[name])
        return seen

    def owned(self, features: nn.Module, task: int) -> dict[str, Tensor]:
        """By weight, booleans: the entries whose owner the task is."""
        position = self.tasks.index(task) + 1
        return {name: self.owners.owned(name, position) for name in self.owners.names}

    def picked(self, task: int) -> dict[str, Tensor]:
        """By weight, `(n,)` booleans: which of the n entries of earlier tasks the task has chosen, in their order.

        Empty where it reads them all. There may be up to 7 further entries, False.
        """
        return {name: unpack_bits(packed) for name, packed in self.picks.get(task).items()}

    def materialise(self, features: nn.Module, task: int) -> dict[str, Tensor]:
        """The tensors with which a task whose training is over reads the features, contiguous, by name.

        Other tensors of the features are all tasks' and never change again.
        """
        seen, tensors = self.visible(features, task), self.own.get(task)
        for name, size in self.sizes.get(task).items():
            weight: Tensor = features.get_parameter(name)[_corner(size)]
            tensors[name] = (torch.where(seen[name], weight, 0.0) if name in seen else weight).contiguous()
        return tensors

    def read(self, features: nn.Module, x: Tensor, task: int) -> Tensor:
        """Features `(B, D)` of samples `(B, ...)`; D is the task's own width.

        Batch norm of a task whose training is over uses its running statistics in training mode, too.
        """
        z: Tensor
        if task in self.sizes:
            with resting_norms(features):
                z = functional_call(features, self.materialise(features, task), (x,))
        elif self.live is not None:
            chosen = {name: self.live.effective(name, features.get_parameter(name)) for name in self.live.masks}
            z = functional_call(features, chosen, (x,))
        elif self.norms_rest:
            with resting_norms(features):
                z = features(x)
        else:
            z = features(x)
        return z

    def effective(self, features: nn.Module, task: int) -> dict[str, Tensor]:
        """The weights that the task reads, in its shapes, others at 0; and its biases and batch norm's weights."""
        tensors = super().effective(features, task)
        if task in self.sizes:
            own = self.materialise(features, task)
            tensors |= {name: own[name].detach() for name in tensors if name in own}
        return tensors

    @torch.no_grad()
    def close(self, features: nn.Module, task: int, own: Mapping[str, Tensor]) -> None:
        """Ends a task's training: keeps its own tensors (copies), its choice and the shapes of the weights."""
        weights = weights_of(features)
        self.own.put(task, {name: tensor.clone() for name, tensor in own.items()})
        if self.live is not None:
            self.picks.put(task, {name: pack_bits(chosen) for name, chosen in self.live.chosen().items()})
        sizes = {name: torch.tensor(w.shape, dtype=torch.int32) for name, w in weights.items()}
        self.sizes.put(task, {name: size.to(weights[name].device) for name, size in sizes.items()})
        self.live = None
        self.norms_rest = False

    def extra_bytes(self) -> int:
        """Bytes of masks, choices, shapes and the tasks' own tensors."""
        return sum(tensor.nbytes for tensor in self.buffers())


def _corner(size: Tensor) -> tuple[slice, ...]:
    return tuple(slice(0, length) for length in size.tolist())
