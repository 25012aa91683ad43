"""Features whose units every task gates in its own way: the scheme of HAT."""

import math
from typing import Any

from cl_ext.nn.chain import leaves
from cl_ext.nn.gates import gate, gated
from cl_ext.nn.scheme import Scheme
from cl_ext.nn.shelf import Shelf
from cl_ext.nn.task_norm import norms_of, parts_of, rested

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Gated(Scheme):
    """The output of each hidden layer is multiplied, unit by unit, by a task's gates `sigmoid(s e)`.

    A channel has one gate. Gates stand where a layer's output goes into the next layer, behind activation and pooling:
    gates are not negative, so that pooling gives the same behind them as before. The task in training is the one whose
    embedding requires a gradient: in train mode its slope is `s`; every other reading is at `s_test`. Batch norm is
    each task's own: the task in training has the network's, a finished one its copies.

    Attributes:
        embeddings: `e` (N,) by the task label as a word, the units of all layers one after another.
        norms: batch norm of the finished tasks, parameters and statistics.
        s: the slope in training.
        s_test: the slope at test time: s_max, or inf for gates that are 0 or 1.
    """

    label = "gated"
    s: Tensor
    s_test: Tensor

    def __init__(self, s_test: float = math.inf) -> None:
        super().__init__()
        self.embeddings = nn.ParameterDict()
        self.norms = Shelf()
        self.register_buffer("s", torch.tensor(1.0, dtype=torch.float64))
        self.register_buffer("s_test", torch.tensor(s_test, dtype=torch.float64))

    def embedding(self, task: int) -> nn.Parameter:
        """`e` (N,) of a task.

        Raises:
            ValueError: It has none.
        """
        if str(task) not in self.embeddings:
            raise ValueError(f"task {task} has no gates: it was not trained with HATPlugin")
        e: nn.Parameter = self.embeddings[str(task)]
        return e

    def begin(self, task: int, e: Tensor) -> nn.Parameter:
        """Gives a task its embedding (N,), to be trained; those of the others rest."""
        self.embeddings.requires_grad_(False)
        self.embeddings[str(task)] = nn.Parameter(e.clone())
        return self.embedding(task)

    def finish(self, features: nn.Module, task: int) -> None:
        """The task is trained: its gates rest, and its batch norm is kept."""
        e = self.embedding(task)
        e.requires_grad_(False)
        e.grad = None
        self.norms.put(task, {name: tensor.detach().clone() for name, tensor in norms_of(features).items()})

    def gates(self, task: int) -> Tensor:
        """(N,): a task's gates, as it is read now."""
        e = self.embedding(task)
        return gate(e, self.s if self.training and e.requires_grad else self.s_test)

    @torch.no_grad()
    def cumulative(self) -> Tensor | None:
        """(N,): at each unit the largest gate of the finished tasks; None before there is one."""
        gates = [gate(e.detach(), self.s_test) for e in self.embeddings.values() if not e.requires_grad]
        return torch.stack(gates).amax(0) if gates else None

    def read(self, features: nn.Module, x: Tensor, task: int) -> Tensor:
        """Features `(B, D)` of samples `(B, ...)`, each layer through the task's gates."""
        a = self.gates(task)
        norms = {} if self.embedding(task).requires_grad else self.norms.get(task)
        own: Tensor | None = None
        start, h = 0, x
        for name, module in leaves(features):  # type: ignore[arg-type]
            if isinstance(module, nn.Linear | nn.Conv2d):
                h = h if own is None else gated(h, own)
                end = start + len(module.weight)
                own, start = a[start:end], end
            if norms and isinstance(module, _BatchNorm):
                h = rested(module, h, {part: norms[f"{name}.{part}"] for part in parts_of(module)})
            else:
                h = module(h)
        assert own is not None  # a chain has a layer
        return gated(h, own)

    def effective(self, features: nn.Module, task: int) -> dict[str, Tensor]:
        """The weights with those of units whose gate is below a half, and of what reads them, at 0."""
        weights = super().effective(features, task)
        own_norms = self.norms.get(task)
        on = gate(self.embedding(task).detach(), self.s_test).gt(0.5)
        start, own = 0, on[:0]
        for name, module in leaves(features):  # type: ignore[arg-type]
            if isinstance(module, nn.Linear | nn.Conv2d):
                weight, before = weights[f"{name}.weight"], own
                own = on[start : start + len(weight)]
                start += len(weight)
                if len(before):
                    columns = before.repeat_interleave(weight.shape[1] // len(before))
                    weight.mul_(columns.view(-1, *(1,) * (weight.dim() - 2)))
                weight.mul_(own.view(-1, *(1,) * (weight.dim() - 1)))
                if module.bias is not None:
                    weights[f"{name}.bias"].mul_(own)
            elif isinstance(module, _BatchNorm):
                for part in (f"{name}.weight", f"{name}.bias"):
                    if part in weights:
                        weights[part] = own_norms.get(part, weights[part]) * own
        return weights

    def owned(self, features: nn.Module, task: int) -> dict[str, Tensor]:
        """By weight, booleans: what the units read whose gate the task was the first to open by more than a half."""
        labels = [int(key) for key in self.embeddings]
        gates = {label: gate(self.embedding(label).detach(), self.s_test).gt(0.5) for label in labels}
        own = gates[task].clone()
        for label in labels[: labels.index(task)]:
            own &= ~gates[label]
        found, start = {}, 0
        for name, module in leaves(features):  # type: ignore[arg-type]
            if isinstance(module, nn.Linear | nn.Conv2d):
                rows = own[start : start + len(module.weight)]
                start += len(module.weight)
                found[f"{name}.weight"] = rows.view(-1, *(1,) * (module.weight.dim() - 1)).expand_as(module.weight)
        return found

    def resize(self, features: nn.Module, state: dict[str, Any], prefix: str) -> None:
        """Makes the embeddings that a saved state has, all at rest."""
        start = f"{prefix}embeddings."
        self.embeddings = nn.ParameterDict(
            {
                name[len(start) :]: nn.Parameter(torch.zeros_like(e, device=self.s.device), requires_grad=False)
                for name, e in state.items()
                if name.startswith(start)
            }
        )
