"""What the methods share that give each task its own part of an expandable network."""

from collections.abc import Mapping
from typing import Any

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext.models.expansion import ExpandableNetwork
from cl_ext.nn.ownership import Hold
from cl_ext.plugins.base import MethodPlugin

import torch
from torch import Tensor, nn


class TaskPlugin(MethodPlugin):
    """A method that needs a task label of its own for each experience, in training and at test time.

    Attributes:
        tasks: the labels of the tasks that have been begun, in their order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[int] = []
        self._loss_unchecked = True
        self._ended: list[nn.Parameter] = []
        self._counted: list[int] = []
        self._heads: Hold | None = None

    def position(self, task: int) -> int:
        """The number of a task, from 1 in the order of training."""
        return self.tasks.index(task) + 1

    def protected(self, model: Any) -> list[int]:
        """The tasks whose parts of the network the plugin can protect: those that it has been trained on."""
        return self.tasks

    def begin_task(self, strategy: Any) -> int:
        """Notes the experience's task; returns its label.

        Raises:
            ValueError: if the experience before was interrupted; if this one has several labels, or one that an earlier
                experience had; if nothing can be
                trained; if the network has been trained on other tasks than the plugin, whose parts it would not
                protect then; or if the criterion's class weights do not fit.
        """
        owner = type(self).__name__
        if len(self.tasks) > self.experiences:
            raise ValueError(
                f"{owner}: training on experience {len(self.tasks)} (task label {self.tasks[-1]}) was interrupted; "
                "load the states of network and plugin from before it, or begin anew"
            )
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
        trained = {task for task in strategy.model.tasks if task != labels[0]}
        if trained != {*self.protected(strategy.model)} - {labels[0]} or not trained.issuperset(self.tasks):
            raise ValueError(
                f"{owner}: the network has been trained on the tasks {sorted(trained)}, the plugin on {self.tasks}: "
                "load the states of both, or begin with a network that has not been trained"
            )
        self._check_class_weights(strategy)
        self.tasks.append(labels[0])
        self._loss_unchecked, self._heads = True, None
        return labels[0]

    # ---- what the strategy brings --------------------------------------------------------------------------------

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Looks at the optimizer, before Avalanche asks it for the group of a head that is to come.

        Raises:
            ValueError: if it has several groups of parameters.
        """
        groups = len(strategy.optimizer.param_groups)
        if groups != 1:
            raise ValueError(
                f"{type(self).__name__} trains parameters that come with new tasks, and this optimizer has {groups} "
                "groups that they could belong to: give it all parameters in one group"
            )

    def _check_class_weights(self, strategy: Any) -> None:
        """Refuses weights for another number of classes than the logits of this task's training have."""
        weight = getattr(strategy._criterion, "weight", None)
        largest = max(int(c) for c in strategy.experience.classes_in_this_experience)
        classes = max(strategy.model.heads.width, largest + 1)
        if isinstance(weight, Tensor) and len(weight) != classes:
            raise ValueError(
                f"{type(self).__name__}: the criterion has weights for {len(weight)} classes, and the network has "
                f"logits of {classes} up to this task; use a criterion without class weights"
            )

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Looks once a task, at its first batch, whether the criterion reads classes that the task does not have.

        From then on the heads of earlier tasks are held.

        Raises:
            ValueError: if the loss is not finite because of them.
        """
        if not self._loss_unchecked:
            return
        self._loss_unchecked = False
        heads = strategy.model.heads
        self._ended = [parameter for task in self.tasks[:-1] for parameter in heads[task].parameters()]
        self._heads = Hold(self._ended, [None] * len(self._ended))
        self._counted = [parameter._version for parameter in self._ended]
        absent = torch.isneginf(strategy.mb_output)
        others_finite = bool((torch.isfinite(strategy.mb_output) | absent).all())
        if bool(absent.any()) and others_finite and not bool(torch.isfinite(strategy.loss)):
            raise ValueError(
                f"{type(self).__name__}: the loss is {float(strategy.loss.detach())}; logits of classes that a task "
                "does not have are -inf, and the criterion must not read them, as label smoothing and binary "
                "cross-entropy over all classes do; use cross-entropy"
            )

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Puts the heads of earlier tasks back.

        They have no gradient of their own, but a plugin that stands before this one (a penalty on all weights) took
        them for trainable when the experience began, and may have given them one.
        """
        # torch counts in-place changes; in an ordinary step there is none, and nothing to do
        if self._heads is not None and self._counted != [parameter._version for parameter in self._ended]:
            self._heads.restore()
            self._counted = [parameter._version for parameter in self._ended]

    # ---- state ---------------------------------------------------------------------------------------------------

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
