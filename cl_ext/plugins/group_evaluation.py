"""How groups of tasks predict together where no task says which group is asked."""

from collections.abc import Callable
from typing import Any, Literal

from cl_ext.nn.averaging import AveragedNetwork
from cl_ext.nn.distillation import snapshot
from cl_ext.nn.divergence import check_weights
from cl_ext.nn.merging import WeightSwap, write_
from cl_ext.nn.task_groups import TaskGroups, mean_of_softmaxes, surest

import torch
from avalanche.models.utils import avalanche_forward
from torch import Tensor, nn

GroupEvaluationModel = Literal["stable", "working", "mean_weights", "max_softmax", "ensemble"]

_COMBINED: dict[str, Callable[[Tensor], Tensor]] = {"max_softmax": surest, "ensemble": mean_of_softmaxes}


class GroupEvaluation:
    """Callbacks of Avalanche's evaluation, and predictions elsewhere, of a plugin with groups and a stable average.

    "stable" (the average of all tasks), "working" and "mean_weights" (of the groups, by member count) are each one set
    of weights, which is put into the network while it is evaluated. "max_softmax" (for each sample the group that is
    surest) and "ensemble" (the mean of the groups' softmaxes) pass a batch through every group's network, and put the
    result in place of the network's own outputs, so that Avalanche's metrics and loss see it too.

    Attributes:
        eval_model: what evaluation sees; it may be set between two evaluations.
        groups: of tasks.
        stable: the average of all tasks.
    """

    name: str
    eval_model: GroupEvaluationModel
    groups: TaskGroups
    stable: AveragedNetwork
    _swap: WeightSwap
    _merged: nn.Module | None
    _stale: bool

    def _follow(self, model: nn.Module) -> None:
        """Has every average follow the network where it may have been changed: heads, masks, modes."""
        self.groups.follow(model)
        self.stable.follow(model)
        self._merged = None

    def _values(self) -> dict[str, Tensor]:
        """What `eval_model` puts into the network; empty where that is the working one, or several predict."""
        if self.eval_model == "stable":
            return self.stable.values()
        return self.groups.mean_values() if self.eval_model == "mean_weights" and len(self.groups) else {}

    def evaluated_networks(self, model: nn.Module) -> list[nn.Module]:
        """Returns the networks that `eval_model` lets predict; `model`, the working one, before the first step."""
        if self.stable.steps == 0 or self.eval_model == "working":
            return [model]
        if self.stable.network is None:
            self._follow(model)
        if self.eval_model == "stable":
            assert self.stable.network is not None
            return [self.stable.network]
        if self.eval_model == "mean_weights":
            if self._merged is None:
                self._merged = snapshot(model)
                write_(self._merged, self.groups.mean_values())
            return [self._merged]
        return [group.average.network for group in self.groups if group.average.network is not None]

    @torch.no_grad()
    def predict(self, model: nn.Module, x: Tensor, task_labels: Any) -> Tensor:
        """Returns the logits (B, K) with which `eval_model` predicts.

        Args:
            model: the working network.
            x: inputs, (B, ...).
            task_labels: (B,) or one number, for a network that asks for them.
        """
        z = [avalanche_forward(network, x, task_labels) for network in self.evaluated_networks(model)]
        return z[0] if len(z) == 1 else _COMBINED[self.eval_model](torch.stack(z))

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Puts the evaluated weights in, where `eval_model` is one set of weights.

        Raises:
            DivergedError: if they are not finite.
        """
        values = self._values()
        check_weights(values or dict(strategy.model.named_parameters()), f"{self.name}: the {self.eval_model} network")
        self._swap.enter(strategy.model, values)

    def before_eval_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Has the groups' networks follow heads that evaluation has just grown."""
        if self.eval_model in _COMBINED and self.stable.steps:
            self._follow(strategy.model)

    def after_eval_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Puts the groups' combined logits in place of the network's, where `eval_model` combines softmaxes."""
        if self.eval_model in _COMBINED and self.stable.steps:
            t = strategy.mbatch[-1] if len(strategy.mbatch) > 2 else None
            strategy.mb_output = self.predict(strategy.model, strategy.mbatch[0], t)

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Puts the working network's own weights back."""
        self._swap.leave(strategy.model)
        self._stale = True
