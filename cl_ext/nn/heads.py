"""A linear head for each task, over global class ids."""

from collections.abc import Iterable, Mapping
from typing import Any

from cl_ext.nn.resizing import fit_shapes, set_parameter

import torch
from torch import Tensor, nn
from torch.nn import functional


class Head(nn.Module):
    """The head of one task: rows of weights for its classes.

    Attributes:
        weight: (C, D).
        bias: (C,), or None.
        classes: (C,) int64, the global class id of each row, ascending.
    """

    bias: nn.Parameter | None
    classes: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, classes: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.clone()))
        self.register_buffer("classes", classes.clone())

    def forward(self, z: Tensor) -> Tensor:
        """Features `(B, D)` to the task's own logits `(B, C)`."""
        return functional.linear(z, self.weight, self.bias)


class TaskHeads(nn.Module):
    """Heads by task label, made when a task is first trained on, never by evaluation.

    The logits of classes that a task does not have are -inf, not 0: padding with 0 lets the argmax of an old task move
    to a class that it never had. Each head begins with the rows of a template, the classifier of the network that it
    was made of: the heads of a task-incremental stream then begin as one shared head of all classes would, and making
    one draws no random numbers.

    Args:
        template: A linear layer (D, K). A head's rows are those of its class ids, or, where an id is K or more, the
            first rows in turn.

    Attributes:
        heads: by the task label as a word.
    """

    template_weight: Tensor
    template_bias: Tensor | None

    def __init__(self, template: nn.Linear) -> None:
        super().__init__()
        self.heads = nn.ModuleDict()
        bias = template.bias
        self.register_buffer("template_weight", template.weight.detach().clone())
        self.register_buffer("template_bias", None if bias is None else bias.detach().clone())

    def __contains__(self, task: int) -> bool:
        return str(task) in self.heads

    def __getitem__(self, task: int) -> Head:
        head: Head = self.heads[str(task)]  # type: ignore[assignment]
        return head

    @property
    def tasks(self) -> list[int]:
        """The labels of the tasks that have a head, in the order in which these were made."""
        return [int(task) for task in self.heads]

    @property
    def width(self) -> int:
        """K: the largest class id of any head, and one."""
        return max((int(head.classes.max()) + 1 for head in self.heads.values()), default=1)  # type: ignore[operator]

    @torch.no_grad()
    def add(self, task: int, classes: Iterable[int]) -> Head:
        """Makes the head of a task, or adds rows for classes that the head lacks; returns it."""
        new = sorted({int(c) for c in classes})
        if task not in self:
            weight, bias = self._rows(new)
            self.heads[str(task)] = Head(weight, bias, torch.tensor(new, device=weight.device))
            return self[task]
        head = self[task]
        missing = sorted(set(new) - set(head.classes.tolist()))
        if missing:
            weight, bias = self._rows(missing)
            ids = torch.cat([head.classes, torch.tensor(missing, device=weight.device)])
            order = ids.argsort()
            head.classes = ids[order]
            set_parameter(head, "weight", torch.cat([head.weight, weight[:, : head.weight.shape[1]]])[order])
            if head.bias is not None and bias is not None:
                set_parameter(head, "bias", torch.cat([head.bias, bias])[order])
        return head

    @torch.no_grad()
    def add_inputs(self, columns: Tensor, tasks: Iterable[int] = ()) -> None:
        """The features have grown: heads to come read the new ones with the weights `columns`, old ones not at all.

        Args:
            columns: of the template, (K, k).
            tasks: whose heads read the new features, too, with the weights that their rows of `columns` say.
        """
        self.template_weight = torch.cat([self.template_weight, columns.to(self.template_weight)], dim=1)
        for task in tasks:
            head = self[task]
            rows = self._rows(head.classes.tolist())[0][:, -columns.shape[1] :]
            set_parameter(head, "weight", torch.cat([head.weight, rows], dim=1))

    def _rows(self, classes: list[int]) -> tuple[Tensor, Tensor | None]:
        rows = len(self.template_weight)
        index = classes if max(classes) < rows else [i % rows for i in range(len(classes))]
        return self.template_weight[index], None if self.template_bias is None else self.template_bias[index]

    def forward(self, z: Tensor, task: int, width: int = 0) -> Tensor:
        """Logits `(B, K)` of a task from features `(B, D)`; all -inf for a task without a head.

        Args:
            z: Features.
            task: Its label.
            width: The least K.
        """
        width = max(width, self.width)
        if task not in self:
            return z.new_full((len(z), width), float("-inf"))
        return self.spread(self[task](z), task, width)

    def spread(self, own: Tensor, task: int, width: int = 0) -> Tensor:
        """A task's own logits `(B, C)` as `(B, K)`, -inf at the classes that it does not have; K at least `width`."""
        width = max(width, self.width)
        if own.shape[1] == width:
            return own
        return own.new_full((len(own), width), float("-inf")).index_copy(1, self[task].classes, own)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """Makes the heads that the state has, in the state's shapes, before they are read."""
        start = f"{prefix}heads."
        tasks = list(dict.fromkeys(key[len(start) :].split(".")[0] for key in state_dict if key.startswith(start)))
        for task in [task for task in self.heads if task not in tasks]:
            del self.heads[task]
        for task in tasks:
            if task not in self.heads:
                rows = [state_dict.get(f"{start}{task}.{name}") for name in ("weight", "bias", "classes")]
                self.heads[task] = Head(*rows)  # type: ignore[arg-type]
        fit_shapes(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)
