"""Progressive neural networks (Rusu et al., arXiv 1606.04671, 2016): a column a task, which reads those before it."""

import copy
from collections.abc import Sequence
from typing import Any

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext.models.expansion import TaskNetwork, classes_by_task
from cl_ext.models.ordinary import parts
from cl_ext.nn.chain import chain, leaves
from cl_ext.nn.heads import TaskHeads
from cl_ext.nn.lateral import Adapter, lateral
from cl_ext.nn.passes import evaluation_mode
from cl_ext.nn.shelf import Shelf

import torch
from avalanche.benchmarks import CLExperience
from torch import Tensor, nn

_OUT = "out"


class Column(nn.Module):
    """The hidden layers of one task, with what they read of earlier columns.

    Attributes:
        before: what stands before the first layer (flattening).
        layers: with weights, in order.
        after: what follows each of them: batch norm, activation, pooling, flattening, dropout.
        laterals: by the number of the layer that they add to, from 1 on, and "out"; none into layer 0, as all columns
            see the samples.
    """

    def __init__(self, features: nn.Sequential, width: int) -> None:
        """Takes the layers of a chain; they are not copied.

        Args:
            features: gives `(B, D)`.
            width: D.

        Raises:
            TypeError: it is no chain of layers.
        """
        super().__init__()
        stages = chain(features, width)
        self.before, self.layers, self.after = nn.Sequential(), nn.ModuleList(), nn.ModuleList()
        for _, module in leaves(features):
            if isinstance(module, nn.Linear | nn.Conv2d):
                self.layers.append(module)
                self.after.append(nn.Sequential())
            else:
                target = self.after[-1] if len(self.after) else self.before
                target.append(module)  # type: ignore[operator]
        self.units = [stage.units for stage in stages]
        self.laterals = nn.ModuleDict()

    def bare(self) -> "Column":
        """A copy without laterals and gradients, whose parameters are trainable where these are."""
        laterals, self.laterals = self.laterals, nn.ModuleDict()
        try:
            copied = copy.deepcopy(self)
        finally:
            self.laterals = laterals
        for parameter in copied.parameters():
            parameter.grad = None
        return copied

    def hidden(self, x: Tensor, earlier: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """What each layer gives, from `(B, ...)` samples.

        Args:
            x: the samples.
            earlier: what each layer of each earlier column gives.
        """
        found: list[Tensor] = []
        h = self.before(x)
        for number, (layer, after) in enumerate(zip(self.layers, self.after, strict=True)):
            y = layer(h)
            if str(number) in self.laterals:
                y = y + self.laterals[str(number)]([values[number - 1] for values in earlier])
            h = after(y)
            found.append(h)
        return found

    def out(self, earlier: Sequence[Sequence[Tensor]]) -> Tensor | None:
        """What is added to the head's logits, (B, C); None without laterals."""
        if _OUT not in self.laterals:
            return None
        return self.laterals[_OUT]([values[-1] for values in earlier])


class ProgressiveNetwork(TaskNetwork):
    """A column and a head a task; column k reads the columns before it at every layer but the first.

        h_i^k = f(W_i^k h_{i-1}^k + sum_{j<k} U_i^{k:j} h_{i-1}^j)                   adapter "linear"
        h_i^k = f(W_i^k h_{i-1}^k + U_i^k s(V_i^k [alpha_j h_{i-1}^j]_{j<k}))        adapter "mlp"

    and the same without f for the head's logits. A plugin makes the columns; without one all tasks share the first.
    Every column but the newest is run in eval mode and without gradients, whatever the mode of the network.

    Attributes:
        columns: in the order of the tasks.
        owners: the task label of each column; empty before the first task has begun.
        heads: by task label; logits are over global class ids. Made in training only.
    """

    def __init__(self, features: nn.Sequential, classifier: nn.Linear) -> None:
        """Makes the first column of the features; see `progressive`."""
        super().__init__()
        self.columns = nn.ModuleList([Column(features, classifier.in_features)])
        self.owners: list[int] = []
        self.heads = TaskHeads(classifier)
        self.initial = Shelf()  # each column begins with the weights that the first one began with
        self.initial.put("column", {name: tensor.clone() for name, tensor in self.column(0).state_dict().items()})

    @property
    def tasks(self) -> list[int]:
        """The labels of the tasks that have been trained on, in their order."""
        return self.heads.tasks

    def maps(self) -> tuple[dict[str, list[list[float]]], dict[str, list[list[float]]]]:
        """Which task uses, and which owns, which units: layer -> a row a task of 1 or 0 a unit, column after column.

        A task reads its own column and, through it, those before.
        """
        counts = [self.column(number).units for number in range(len(self.owners))]
        uses: dict[str, list[list[float]]] = {}
        owns: dict[str, list[list[float]]] = {}
        for layer in range(len(counts[0])):
            column = [number for number, units in enumerate(counts) for _ in range(units[layer])]
            uses[str(layer)] = [[float(number <= task) for number in column] for task in range(len(counts))]
            owns[str(layer)] = [[float(number == task) for number in column] for task in range(len(counts))]
        return uses, owns

    def column(self, index: int) -> Column:
        """The column of the index-th task; -1 for the newest."""
        found: Column = self.columns[index]  # type: ignore[assignment]
        return found

    def adaptation(self, experience: CLExperience) -> None:
        """Makes the heads of an experience that is about to be trained on; evaluation makes none."""
        super().adaptation(experience)
        if self.training:
            for task, classes in classes_by_task(experience).items():
                self.heads.add(task, classes)

    def begin(self, task: int, adapter: Adapter, generator: torch.Generator) -> Column:
        """Makes the column of a task that has a head; the first task has the column that is there.

        Args:
            task: its label; nothing happens if it has a column.
            adapter: how it reads the columns before it.
            generator: draws the laterals' weights, on the CPU.
        """
        if task not in self.owners:
            self.owners.append(task)
            if len(self.owners) > 1:
                self._add(adapter, len(self.heads[task].classes), generator)
        return self.column(self.owners.index(task))

    def _add(self, adapter: Adapter, outputs: int, generator: torch.Generator) -> None:
        """Makes the next column, which reads all there are, with a lateral to a head of some outputs."""
        earlier = len(self.columns)
        column = self.column(-1).bare()
        column.load_state_dict(self.initial.get("column"))
        column.train(self.training)
        if adapter != "none":
            readers: dict[str, Any] = {str(number): layer for number, layer in enumerate(column.layers)}
            readers[_OUT] = nn.utils.skip_init(nn.Linear, self.heads.template_weight.shape[1], outputs)
            readers[_OUT].to(self.heads.template_weight)
            for units, (name, reader) in zip(column.units, list(readers.items())[1:], strict=True):
                column.laterals[name] = lateral(adapter, reader, earlier, units, generator)
        self.columns.append(column)

    def _index(self, task: int) -> int:
        """The number of a task's column, from 0."""
        return self.owners.index(task) if task in self.owners else 0

    def forward_single_task(self, x: Tensor, task_label: int) -> Tensor:
        """Logits `(B, K)` of samples of one task."""
        width = 0 if self.training else self.max_class_label  # as in ExpandableNetwork
        if task_label not in self.heads:
            return x.new_full((len(x), max(width, self.heads.width)), float("-inf"))
        k = self._index(task_label)
        earlier: list[list[Tensor]] = []
        for index in range(k + 1):
            column = self.column(index)
            if index == len(self.columns) - 1:
                hidden = column.hidden(x, earlier)
            else:
                with torch.no_grad(), evaluation_mode(column):
                    hidden = column.hidden(x, earlier)
            if index < k:
                earlier.append(hidden)
        own = self.heads[task_label](hidden[-1])
        added = self.column(k).out(earlier)
        return self.heads.spread(own if added is None else own + added, task_label, width)

    def effective(self, task: int) -> dict[str, Tensor]:
        """The parameters with which a task's samples are predicted, by name: its column, those before it, its head."""
        starts = (*(f"columns.{index}." for index in range(self._index(task) + 1)), f"heads.heads.{task}.")
        return {name: p.detach() for name, p in self.named_parameters() if name.startswith(starts)}

    def get_extra_state(self) -> Tensor:
        """The columns' tasks, as a tensor: a state holds nothing else."""
        return torch.tensor(self.owners, dtype=torch.int64)

    def set_extra_state(self, state: Tensor) -> None:
        """Read before the rest, in `_load_from_state_dict`."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Makes the columns that the state has before they are read."""
        self.owners = state_dict.get(f"{prefix}_extra_state", torch.tensor([])).tolist()
        del self.columns[1:]
        for index in range(1, len(self.owners)):
            start = f"{prefix}columns.{index}.laterals."
            weight = state_dict.get(f"{start}{_OUT}.up.weight")
            mlp = f"{start}{_OUT}.alpha" in state_dict
            adapter: Adapter = "none" if weight is None else "mlp" if mlp else "linear"
            self._add(adapter, 0 if weight is None else len(weight), torch.Generator())
        super()._load_from_state_dict(state_dict, prefix, *args)


def progressive(model: nn.Module) -> ProgressiveNetwork:
    """Makes a progressive network whose columns are like an ordinary network.

    Args:
        model: An `nn.Sequential` that ends in a linear classifier, or a network with `features` and a linear
            `classifier`: a chain of linear layers or convolutions. It is copied. Its weights are those with which each
            column begins; the classifier's rows those with which the heads begin.

    Raises:
        TypeError: It is no such network; the sentence says what is allowed.
    """
    return ProgressiveNetwork(*parts(model, "progressive"))
