"""The wiring of a quadratic penalty: what all regularisers with importances and anchors share.

A method that adds `strength * sum Omega (theta - theta*)^2` to the loss derives from `QuadraticPenaltyPlugin` and says
in `consolidate` what `Omega` is after an experience; the rest is here. The penalty's gradient is added in closed form
after the backward pass, so `strategy.loss` does not contain the penalty: it is shown as a metric instead.
"""

import math
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from cl_ext.nn.divergence import DivergedError
from cl_ext.nn.parameters import QuadraticPenalty, covered_parameters, largest_stable_strength, same_parameters
from cl_ext.plugins.base import MethodPlugin
from cl_ext.plugins.checks import check_choice

import torch
from torch import Tensor, nn

Heads = Literal["include", "exclude"]


class QuadraticPenaltyPlugin(MethodPlugin):
    """Adds the gradient of `strength * sum Omega (theta - theta*)^2`; `Omega` is what `consolidate` says.

    `theta*` are the weights at the end of the latest experience. At strength 0 nothing is added, so that training
    equals training without the plugin bit for bit. New parameters, and new entries of grown ones, are free until the
    end of the experience that brought them.

    Attributes:
        strength: what stands before the sum; a method whose penalty has a factor 1/2 passes half of its lambda.
        experiences: how many experiences have been consolidated.
    """

    def __init__(self, strength: float, heads: Heads = "include") -> None:
        """Wires a penalty.

        Args:
            strength: >= 0.
            heads: "include" penalises every trainable parameter; "exclude" leaves out the network's heads
                (`cl_ext.nn.parameters.head_names`).
        """
        super().__init__()
        self.strength = strength
        self.heads: Heads = check_choice(type(self).__name__, "heads", heads, Heads)
        self._penalty = QuadraticPenalty()
        self._parameters: dict[str, nn.Parameter] = {}
        self._stale = True

    @abstractmethod
    def consolidate(self, strategy: Any) -> None:
        """Sets `self._penalty.importance` from what the experience that just ended has taught.

        Called with the buffers aligned and with the anchors still those of the experience before.
        """

    def anchor_(self, strategy: Any) -> None:
        """Sets the anchors after `consolidate`: `theta* := theta`, unless a method says otherwise."""
        self._penalty.anchor.copy_(self._tensors)

    def penalty(self) -> float:
        """Returns `sum Omega (theta - theta*)^2` at the present weights, without the strength."""
        return self._penalty.value(self._tensors)

    @property
    def importances(self) -> dict[str, Tensor]:
        """Omega by parameter name, each of its parameter's shape; the buffers themselves."""
        return self._penalty.importance.named()

    @property
    def anchors(self) -> dict[str, Tensor]:
        """theta* by parameter name, each of its parameter's shape; the buffers themselves."""
        return self._penalty.anchor.named()

    def extra_bytes(self) -> int:
        """Returns the memory held beside the network, in bytes."""
        return self._penalty.bytes()

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole state between two experiences as tensors and JSON values; the tensors are copies."""
        buffers = {
            "importances": self._penalty.importance.state_dict(),
            "anchors": self._penalty.anchor.state_dict(),
        }
        return super().state_dict() | buffers

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; hyper-parameters are the constructor's, not part of it.

        Raises:
            ValueError: if it is the state of another plugin.
        """
        super().load_state_dict(state)
        self._penalty.importance.load_state_dict(state["importances"])
        self._penalty.anchor.load_state_dict(state["anchors"])
        self._stale = True

    def _penalised(self, model: nn.Module) -> dict[str, nn.Parameter]:
        return covered_parameters(model, self.heads == "exclude", type(self).__name__)

    def align(self, model: nn.Module) -> None:
        """Makes every buffer fit the model's present parameters."""
        self._parameters = self._penalised(model)
        self._penalty.align(self._parameters)
        self._stale = False

    def _realign(self, model: nn.Module) -> None:
        """Aligns where an evaluation has changed the network's parameters since the last time."""
        if self._stale:
            if not same_parameters(self._penalised(model), self._parameters):
                self.align(model)
            self._stale = False

    @property
    def _tensors(self) -> list[nn.Parameter]:
        return list(self._parameters.values())

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Fits the buffers to the adapted network, and warns where the penalty alone would make SGD diverge."""
        self.align(strategy.model)
        if self.strength > 0.0 and self.experiences > 0:
            bound = self._bound(strategy.optimizer)
            if bound is not None and self.strength > bound:
                warnings.warn(self._instability(strategy.optimizer, bound), stacklevel=2)

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Remembers that evaluation may have grown the network."""
        self._stale = True

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Fits the buffers again where an evaluation came between."""
        self._realign(strategy.model)

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Stops where the loss is no longer finite and the penalty may be why; on the CPU only, elsewhere it waits.

        Raises:
            DivergedError: with the bound that the strength passed.
        """
        if self.experiences > 0 and self.strength > 0.0 and strategy.loss.device.type == "cpu":
            self._check_finite(strategy, "loss", strategy.loss.item())

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Adds the penalty's gradient to the parameters' `.grad`."""
        if self.strength > 0.0 and self.experiences > 0:
            self._penalty.add_gradient_(self._tensors, self.strength)

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Publishes the penalty, strength included: the part of the objective that `strategy.loss` lacks."""
        self._realign(strategy.model)
        value = self.strength * self.penalty() if self.experiences > 0 else 0.0
        self._check_finite(strategy, "penalty", value)
        self.publish(strategy, "Penalty", value)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Consolidates: the method's importances and anchors."""
        self.align(strategy.model)
        self.consolidate(strategy)
        self.anchor_(strategy)
        self.experiences += 1
        omega = self._penalty.importance.tensors
        entries = sum(tensor.numel() for tensor in omega)
        self.publish(strategy, "MeanImportance", float(torch.stack([o.sum() for o in omega]).sum()) / entries)
        self.publish(strategy, "MaxImportance", max(float(o.max()) for o in omega if o.numel()))

    def _bound(self, optimizer: Any) -> float | None:
        """Returns the strength above which the penalty alone makes SGD diverge; None where none is known (Adam)."""
        if not isinstance(optimizer, torch.optim.SGD):
            return None
        group = max(optimizer.param_groups, key=lambda g: g["lr"])
        return largest_stable_strength(
            self._penalty.importance.tensors, float(group["lr"]), group["momentum"], group["nesterov"]
        )

    def _instability(self, optimizer: Any, bound: float) -> str:
        rate = max(float(group["lr"]) for group in optimizer.param_groups)
        return (
            f"{type(self).__name__}: SGD with learning rate {rate:g} diverges on the penalty alone above strength "
            f"{bound:.3g}, because lr * 2 * strength * max(importance) is then over 2; the strength is "
            f"{self.strength:g}"
        )

    def _check_finite(self, strategy: Any, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        bound = self._bound(strategy.optimizer)
        if bound is not None and self.strength > bound:
            reason = self._instability(strategy.optimizer, bound)
        else:
            largest = max(float(omega.max()) for omega in self._penalty.importance.tensors if omega.numel())
            reason = (
                f"{type(self).__name__}: the strength is {self.strength:g} and the largest importance {largest:.3g}; "
                "a smaller strength or learning rate may help"
            )
        where = f"experience {self.experiences + 1}, iteration {strategy.clock.train_exp_iterations}"
        raise DivergedError(f"the {what} is {value} in {where}. {reason}")
