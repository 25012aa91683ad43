"""What all regularisers with importances and anchors share: argument checks, the penalty's wiring, state, metrics.

A method that adds `strength * sum Omega (theta - theta*)^2` to the loss derives from `QuadraticPenaltyPlugin` and says
in `consolidate` what `Omega` is after an experience; the rest is here. The penalty's gradient is added in closed form
after the backward pass, so `strategy.loss` does not contain the penalty: it is shown as a metric instead.
"""

import math
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, get_args

from cl_ext.nn.parameters import QuadraticPenalty, head_names, largest_stable_strength, trainable_parameters

import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metric_results import MetricValue
from torch import Tensor, nn

Heads = Literal["include", "exclude"]


def check_number(owner: str, name: str, value: Any, low: float, high: float = math.inf, above: bool = False) -> float:
    """Returns `value` as a float of `[low, high]`, or of `(low, high]` where `above`; infinity and NaN never pass.

    Raises:
        TypeError: if it is not a number.
        ValueError: if it is out of range; the message names owner, argument, value and range.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{owner}: {name} must be a number, got {value!r}")
    span = f"{'(' if above else '['}{low:g}, {'inf)' if math.isinf(high) else f'{high:g}]'}"
    if not math.isfinite(value) or value < low or value > high or (above and value == low):
        raise ValueError(f"{owner}: {name} must be in {span}, got {value!r}")
    return float(value)


def check_count(owner: str, name: str, value: Any, low: int = 1) -> int:
    """Returns `value` if it is an integer of at least `low`.

    Raises:
        TypeError: if it is not an integer.
        ValueError: if it is smaller.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{owner}: {name} must be an integer, got {value!r}")
    if value < low:
        raise ValueError(f"{owner}: {name} must be an integer >= {low}, got {value!r}")
    return value


def check_choice(owner: str, name: str, value: Any, choices: Any) -> Any:
    """Returns `value` if it is one of the `Literal` type `choices`.

    Raises:
        ValueError: if it is not.
    """
    if value not in get_args(choices):
        raise ValueError(f"{owner}: {name} must be one of {', '.join(map(repr, get_args(choices)))}, got {value!r}")
    return value


class QuadraticPenaltyPlugin(SupervisedPlugin):
    """Adds the gradient of `strength * sum Omega (theta - theta*)^2`; `Omega` is what `consolidate` says.

    `theta*` are the weights at the end of the latest experience. At strength 0 nothing is added, so that training
    equals training without the plugin bit for bit. New parameters, and new entries of grown ones, are free until the
    end of the experience that brought them.

    Attributes:
        strength: what stands before the sum; a method whose penalty has a factor 1/2 passes half of its lambda.
        experiences: how many experiences have been consolidated.
    """

    name: str = ""
    """What the plugin's metrics start with."""

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
        self.experiences = 0
        self._penalty = QuadraticPenalty()
        self._parameters: dict[str, nn.Parameter] = {}
        self._stale = True

    @abstractmethod
    def consolidate(self, strategy: Any) -> None:
        """Sets `self._penalty.importance` from what the experience that just ended has taught.

        Called with the buffers aligned and with the anchors still those of the experience before.
        """

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
        return {
            "plugin": type(self).__name__,
            "experiences": self.experiences,
            "importances": self._penalty.importance.state_dict(),
            "anchors": self._penalty.anchor.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; hyper-parameters are the constructor's, not part of it.

        Raises:
            ValueError: if it is the state of another plugin.
        """
        if state.get("plugin") != type(self).__name__:
            raise ValueError(f"{type(self).__name__} cannot load the state of {state.get('plugin')!r}")
        self.experiences = int(state["experiences"])
        self._penalty.importance.load_state_dict(state["importances"])
        self._penalty.anchor.load_state_dict(state["anchors"])
        self._stale = True

    def _penalised(self, model: nn.Module) -> dict[str, nn.Parameter]:
        excluded = head_names(model) if self.heads == "exclude" else set()
        parameters = {name: p for name, p in trainable_parameters(model).items() if name not in excluded}
        if not parameters:
            raise ValueError(f"{type(self).__name__}: heads='exclude' leaves no trainable parameter to penalise")
        return parameters

    def align(self, model: nn.Module) -> None:
        """Makes every buffer fit the model's present parameters."""
        self._parameters = self._penalised(model)
        self._penalty.align(self._parameters)
        self._stale = False

    def _realign(self, model: nn.Module) -> None:
        """Aligns where an evaluation has changed the network's parameters since the last time."""
        if self._stale:
            now = list(self._penalised(model).values())
            if len(now) != len(self._tensors) or any(a is not b for a, b in zip(now, self._tensors, strict=True)):
                self.align(model)
            self._stale = False

    @property
    def _tensors(self) -> list[nn.Parameter]:
        return list(self._parameters.values())

    def publish(self, strategy: Any, quantity: str, value: float) -> None:
        """Hands a value to Avalanche's loggers under `<name>_<quantity>/train_phase/train_stream/ExpNNN`."""
        if not getattr(strategy.evaluator, "active", False):
            return
        label = f"{self.name}_{quantity}/train_phase/train_stream/Exp{strategy.clock.train_exp_counter:03d}"
        strategy.evaluator.publish_metric_value(MetricValue(self, label, value, strategy.clock.train_iterations))

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Fits the buffers to the adapted network, and warns where the penalty alone would make SGD diverge."""
        self.align(strategy.model)
        self._warn_unstable(strategy.optimizer)

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Remembers that evaluation may have grown the network."""
        self._stale = True

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Fits the buffers again where an evaluation came between."""
        self._realign(strategy.model)

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Adds the penalty's gradient to the parameters' `.grad`."""
        if self.strength > 0.0 and self.experiences > 0:
            self._penalty.add_gradient_(self._tensors, self.strength)

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Publishes the penalty, strength included: the part of the objective that `strategy.loss` lacks."""
        self._realign(strategy.model)
        value = self.strength * self._penalty.value(self._tensors) if self.experiences > 0 else 0.0
        self.publish(strategy, "Penalty", value)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Consolidates: the method's importances, the present weights as anchors."""
        self.align(strategy.model)
        self.consolidate(strategy)
        self._penalty.anchor.copy_(self._tensors)
        self.experiences += 1
        omega = self._penalty.importance.tensors
        entries = sum(tensor.numel() for tensor in omega)
        self.publish(strategy, "MeanImportance", float(torch.stack([o.sum() for o in omega]).sum()) / entries)
        self.publish(strategy, "MaxImportance", max(float(o.max()) for o in omega if o.numel()))

    def _warn_unstable(self, optimizer: Any) -> None:
        if not isinstance(optimizer, torch.optim.SGD) or self.strength == 0.0 or self.experiences == 0:
            return
        group = max(optimizer.param_groups, key=lambda g: g["lr"])
        bound = largest_stable_strength(
            self._penalty.importance.tensors, float(group["lr"]), group["momentum"], group["nesterov"]
        )
        if self.strength > bound:
            warnings.warn(
                f"{type(self).__name__}: SGD with learning rate {float(group['lr']):g} diverges on the penalty alone "
                f"above strength {bound:.3g}, because lr * 2 * strength * max(importance) is then over 2; the strength "
                f"is {self.strength:g}",
                stacklevel=2,
            )
