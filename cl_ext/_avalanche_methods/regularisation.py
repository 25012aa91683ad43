"""Mends of the methods that hold weights, outputs or features near their old values: SI, RWalk, MAS, LwF, LFL."""

from collections.abc import Iterable
from typing import Any

from cl_ext._avalanche_methods.common import evaluation_mode, flags_kept

import torch
from avalanche.models import MultiTaskModule
from avalanche.training import LearningWithoutForgetting
from avalanche.training.plugins import LFLPlugin, LwFPlugin, MASPlugin, RWalkPlugin, SynapticIntelligencePlugin
from torch import Tensor, nn


class MendedSI(SynapticIntelligencePlugin):
    """SI that keeps copies of the weights.

    Stock, `param.detach().cpu()` is a view of the live weights on the CPU: the path is 0, the importance is 0, and
    the method equals fine-tuning bit for bit.
    """

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        super().before_training_exp(strategy, **kwargs)
        _copy(self.ewc_data[0].values())

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        super().before_training_iteration(strategy, **kwargs)
        _copy(self.syn_data["old_theta"].values())


def _copy(parameters: Iterable[Any]) -> None:
    for parameter in parameters:
        parameter.data = parameter.data.clone()


class MendedRWalk(RWalkPlugin):
    """RWalk that trains in train mode, with experiences shorter than `delta_t` and with heads that come later.

    Stock, `model.eval()` at each iteration is never undone (no dropout, batch norm never updated); an experience of
    fewer than `delta_t` iterations has only zero scores, which are divided by their maximum; and a parameter that
    comes with an experience is a KeyError, because the tables are made before the network is adapted.
    """

    exp_scores: dict[str, Any] | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._scored = False

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Waits for the adapted network."""

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        super().before_training(strategy, *args, **kwargs)
        self._scored = False

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        with flags_kept(strategy.model):
            super().before_training_iteration(strategy, *args, **kwargs)

    def _update_score(self, strategy: Any) -> None:
        super()._update_score(strategy)
        self._scored = True

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if not self._scored:
            self._update_score(strategy)
        if self.exp_scores is not None:  # the mean of old and new, which for a new parameter is the new one
            self.exp_scores = {**self.checkpoint_scores, **self.exp_scores}
        super().after_training_exp(strategy, *args, **kwargs)
        for penalty in (self.exp_penalties or {}).values():
            penalty.data = penalty.data.nan_to_num(nan=0.0)  # weights that never moved: 0 / 0


class MendedMAS(MASPlugin):
    """MAS that takes its importances in evaluation mode and does not stop at a loss of exactly 0.

    Stock, the importance pass is a further epoch of batch norm updates with dropout on, and a loss of 0 raises
    "Loss is not available".
    """

    def _get_importance(self, strategy: Any) -> dict[str, Any]:
        with evaluation_mode(strategy.model):
            importance: dict[str, Any] = super()._get_importance(strategy)
        return importance

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        if strategy.loss:
            super().before_backward(strategy, **kwargs)
            return
        # a constant has no gradient, and the check sees that there is a loss
        strategy.loss = strategy.loss + 1.0
        super().before_backward(strategy, **kwargs)
        strategy.loss = strategy.loss - 1.0


class _SharedHeadDistillation(LearningWithoutForgetting):
    """Distils the classes of every past task through the one head that the tasks share."""

    def _lwf_penalty(self, out: Tensor, x: Tensor, curr_model: nn.Module) -> Any:
        if self.prev_model is None or isinstance(self.prev_model, MultiTaskModule):
            return super()._lwf_penalty(out, x, curr_model)
        with torch.no_grad():
            before = self.prev_model(x)
        return sum(self._distillation_loss(out, before, units) for units in self.prev_classes_by_task.values())


class MendedLwF(LwFPlugin):
    """LwF whose teacher rests and teaches all past tasks.

    Stock, the teacher stays in train mode, so that its batch norm goes on learning on the new task (and its dropout
    is on); and with task labels and a head that the tasks share only the classes of the task labelled 0 are distilled.
    """

    def __init__(self, alpha: float, temperature: float) -> None:
        super().__init__(alpha, temperature)
        self.lwf = _SharedHeadDistillation(alpha, temperature)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        super().after_training_exp(strategy, **kwargs)
        self.lwf.prev_model.eval().requires_grad_(False)


class MendedLFL(LFLPlugin):
    """LFL that goes on in train mode; stock, `model.eval()` at each step is never undone."""

    def compute_features(self, model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        with flags_kept(model):
            features: tuple[Tensor, Tensor] = super().compute_features(model, x)
        return features
