"""What every method's plugin shares: a state that can be saved, a cost in bytes, quantities for Avalanche's loggers."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from cl_ext.nn.divergence import DivergedError

from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metric_results import MetricValue


class MethodPlugin(SupervisedPlugin):
    """A method as a plugin of any Avalanche strategy with a `(B, K)` output.

    Attributes:
        experiences: how many experiences have been trained on to their end.
    """

    supports_distributed = False

    name: str = ""
    """What the plugin's metrics start with."""

    def __init__(self) -> None:
        super().__init__()
        self.experiences = 0

    @abstractmethod
    def extra_bytes(self) -> int:
        """Returns the memory held beside the network, in bytes."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole state between two experiences as tensors and JSON values; the tensors are copies."""
        return {"plugin": type(self).__name__, "experiences": self.experiences}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; hyper-parameters are the constructor's, not part of it.

        Raises:
            ValueError: if it is the state of another plugin.
        """
        if state.get("plugin") != type(self).__name__:
            raise ValueError(f"{type(self).__name__} cannot load the state of {state.get('plugin')!r}")
        self.experiences = int(state["experiences"])

    def check_loss(self, strategy: Any, value: float, strength: str) -> None:
        """Stops training at a loss that is not finite.

        Args:
            strategy: in training.
            value: the loss.
            strength: name of the attribute whose size may be why.

        Raises:
            DivergedError: if the loss is not finite; with the place, and the strength.
        """
        if not math.isfinite(value):
            where = f"experience {self.experiences + 1}, iteration {strategy.clock.train_exp_iterations}"
            raise DivergedError(
                f"the loss is {value} in {where}. {type(self).__name__}: {strength} is {getattr(self, strength):g}; a "
                "smaller one, or a smaller learning rate, may help"
            )

    def publish(self, strategy: Any, quantity: str, value: float) -> None:
        """Hands a value to Avalanche's loggers under `<name>_<quantity>/train_phase/train_stream/ExpNNN`."""
        if not getattr(strategy.evaluator, "active", False):
            return
        label = f"{self.name}_{quantity}/train_phase/train_stream/Exp{strategy.clock.train_exp_counter:03d}"
        strategy.evaluator.publish_metric_value(MetricValue(self, label, value, strategy.clock.train_iterations))
