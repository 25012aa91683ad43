"""What the methods share that give each task its own part of an expandable network."""

from collections.abc import Mapping
from typing import Any

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext.models.expansion import ExpandableNetwork
from cl_ext.plugins.base import MethodPlugin


class TaskPlugin(MethodPlugin):
    """A method that needs a task label of its own for each experience, in training and at test time.

    Attributes:
        tasks: the labels of the tasks that have been begun, in their order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[int] = []

    def position(self, task: int) -> int:
        """The number of a task, from 1 in the order of training."""
        return self.tasks.index(task) + 1

    def begin_task(self, strategy: Any) -> int:
        """Notes the experience's task; returns its label.

        Raises:
            ValueError: if the experience has several labels, or one that an earlier experience had.
        """
        owner = type(self).__name__
        labels = [int(label) for label in getattr(strategy.experience, "task_labels", [0])]
        if len(labels) != 1:
            raise ValueError(f"{owner} needs one task label an experience; this one has {labels}")
        if labels[0] in self.tasks:
            raise ValueError(
                f"{owner} needs a task label of its own for each experience; {labels[0]} was the label of experience "
                f"{self.position(labels[0])}, too"
            )
        if not any(parameter.requires_grad for parameter in strategy.model.parameters()):
            raise ValueError(f"{owner}: the model has no trainable parameters")
        self.tasks.append(labels[0])
        return labels[0]

    def state_dict(self) -> dict[str, Any]:
        """Adds the tasks; the network's own state holds masks, gates and heads."""
        return super().state_dict() | {"tasks": list(self.tasks)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        super().load_state_dict(state)
        self.tasks = [int(task) for task in state["tasks"]]


class ExpandablePlugin(TaskPlugin):
    """A `TaskPlugin` of an expandable network."""

    def network(self, strategy: Any) -> ExpandableNetwork:
        """The strategy's network.

        Raises:
            TypeError: if it is not expandable.
        """
        model = strategy.model
        if not isinstance(model, ExpandableNetwork):
            raise TypeError(
                f"{type(self).__name__} needs an expandable network, which cl_ext.models.expandable(model) makes of "
                f"yours; it was given a {type(model).__name__}"
            )
        return model
