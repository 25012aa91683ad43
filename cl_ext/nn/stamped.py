"""Time stamps: each task reads the units that there were when it was trained, and none that came later."""

from collections.abc import Mapping, Sequence
from typing import Any

from cl_ext.nn.chain import Stage, chain
from cl_ext.nn.scheme import Scheme
from cl_ext.nn.shelf import Shelf
from cl_ext.nn.task_norm import parts_of, resting_norms

import torch
from torch import Tensor, nn


class Stamped(Scheme):
    """Task s reads the first `stamps[s, l]` units of each hidden layer l, with batch norm of its own.

    Units are appended and never removed once their task is over, so that a task's units are the first ones, and its
    network is cut out of the shared tensors: contiguous slices, no masks. A task without stamps is the one that is
    being trained: it reads the features as they are.

    Args:
        hide: Whether tasks are kept from later units; if not, all read every unit there is, and a head reads those of
            the last layer that it was trained on.

    Attributes:
        tasks: (T,) int64, labels.
        stamps: (T, H) int64, units of each hidden layer.
        widths: (T,) int64, features that the task's head reads.
    """

    label = "stamped"
    tasks: Tensor
    stamps: Tensor
    widths: Tensor
    hide: Tensor

    def __init__(self, hide: bool = True) -> None:
        super().__init__()
        self.norms = Shelf()
        self.register_buffer("tasks", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("stamps", torch.zeros(0, 0, dtype=torch.int64))
        self.register_buffer("widths", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("hide", torch.tensor(hide))

    def stamp(self, stages: Sequence[Stage], task: int) -> None:
        """Writes down the units that there are, and the batch norm, as the task's."""
        units = self.stamps.new_tensor([[stage.units for stage in stages]])
        self.tasks = torch.cat([self.tasks, units.new_tensor([task])])
        self.stamps = torch.cat([self.stamps.reshape(-1, len(stages)), units])
        self.widths = torch.cat([self.widths, units[:, -1] * stages[-1].block])
        norms: dict[str, Tensor] = {}
        for stage in stages:
            if stage.norm is not None:
                path, norm = stage.norm
                counted: Tensor | None = getattr(norm, "num_batches_tracked", None)
                found = parts_of(norm) | ({} if counted is None else {"num_batches_tracked": counted})
                norms |= {f"{path}.{name}": tensor.clone() for name, tensor in found.items()}
        self.norms.put(task, norms)

    def units(self, task: int) -> list[int] | None:
        """The units that a task reads, by layer; None for one that has no stamps yet."""
        row = self._row(task)
        return None if row is None else self.stamps[row].tolist()

    def _row(self, task: int) -> int | None:
        labels = self.tasks.tolist()
        return labels.index(task) if task in labels else None

    def read(self, features: nn.Module, x: Tensor, task: int) -> Tensor:
        """Features `(B, D_s)`: as wide as the task's head is."""
        row = self._row(task)
        if row is None:
            z: Tensor = features(x)
            return z
        own = self.tensors(features, task) if self.hide else self._all(features, task)
        with resting_norms(features):  # in train mode, too: rehearsal reads a task that is over as evaluation does
            z = torch.func.functional_call(features, own, (x,))
        return z if self.hide else z[:, : int(self.widths[row])]

    def tensors(self, features: nn.Module, task: int) -> dict[str, Tensor]:
        """The parameters and statistics of a stamped task's own network, by their names in `features`, contiguous.

        Raises:
            ValueError: The task has no stamps.
        """
        units = self.units(task)
        if units is None:
            raise ValueError(f"task {task} has no stamps")
        cut: dict[str, Tensor] = {}
        inputs: int | None = None
        for stage, count in zip(_stages(features), units, strict=True):
            weight = stage.layer.weight[:count]
            cut[f"{stage.name}.weight"] = (weight if inputs is None else weight[:, :inputs]).contiguous()
            if stage.layer.bias is not None:
                cut[f"{stage.name}.bias"] = stage.layer.bias[:count].contiguous()
            inputs = count * stage.block
        return cut | self._norm(task)

    def effective(self, features: nn.Module, task: int) -> dict[str, Tensor]:
        """The task's own slices (all units where later ones are not hidden), and its batch norm."""
        if self.units(task) is None or not self.hide:
            return super().effective(features, task)
        names = {name for name, _ in features.named_parameters()}
        return {name: t.detach().clone() for name, t in self.tensors(features, task).items() if name in names}

    def owned(self, features: nn.Module, task: int) -> dict[str, Tensor]:
        """By weight, booleans: what the units read that came with the task; later tasks may still retrain them."""
        row = self._row(task)
        if row is None:
            return {}
        before = self.stamps[row - 1].tolist() if row else [0] * self.stamps.shape[1]
        found = {}
        for stage, first, last in zip(_stages(features), before, self.stamps[row].tolist(), strict=True):
            found[f"{stage.name}.weight"] = torch.zeros_like(stage.layer.weight, dtype=torch.bool)
            found[f"{stage.name}.weight"][first:last] = True
        return found

    def _norm(self, task: int) -> dict[str, Tensor]:
        return dict(self.norms.get(task))

    def _all(self, features: nn.Module, task: int) -> dict[str, Tensor]:
        # the task's batch norm for its own units, the latest for those that came later
        now = dict(features.named_parameters()) | dict(features.named_buffers())
        return {
            name: tensor if tensor.dim() == 0 else torch.cat([tensor, now[name][len(tensor) :]])
            for name, tensor in self._norm(task).items()
        }

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        for name in ("tasks", "stamps", "widths"):
            saved = state_dict.get(prefix + name)
            if saved is not None:
                setattr(self, name, torch.zeros_like(saved))
        super()._load_from_state_dict(state_dict, prefix, *args)


def _stages(features: nn.Module) -> list[Stage]:
    # of the last stage only what lies before its reader is asked here, so that any width that fits will do
    last = [module for module in features.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    return chain(features, last.weight.shape[0])
