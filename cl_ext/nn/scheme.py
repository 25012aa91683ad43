"""How each task reads the features that tasks share: the part of an expandable network that a method brings."""

from typing import Any

from torch import Tensor, nn


class Scheme(nn.Module):
    """All tasks read the features as they are.

    A method's own scheme holds what its inference needs (masks, gates, widths) as buffers and parameters, so that a
    network that is saved and loaded answers for every task without the plugin that trained it.

    Attributes:
        label: The word by which a saved network names its scheme.
    """

    label = "shared"

    def read(self, features: nn.Module, x: Tensor, task: int) -> Tensor:
        """Features `(B, D)` of samples `(B, ...)` for a task that has been trained, or is being trained.

        It may depend on its arguments and the scheme's tensors alone: no active task that outlives the call.
        """
        z: Tensor = features(x)
        return z

    def effective(self, features: nn.Module, task: int) -> dict[str, Tensor]:
        """The weights with which a task reads the features, by their names in `features`, as tensors of their own.

        What a task does not use is 0 or left out (a layer that the task reads at half its width has half the rows):
        what counts a task's parameters, and shows which units it uses, reads these.
        """
        return {name: parameter.detach().clone() for name, parameter in features.named_parameters()}

    def owned(self, features: nn.Module, task: int) -> dict[str, Tensor]:
        """By weight, booleans of its shape: what belongs to a trained task, so that no other task writes there.

        Empty where tasks own nothing. A task may read what it does not own.
        """
        return {}

    def resize(self, features: nn.Module, state: dict[str, Any], prefix: str) -> None:
        """Makes room for a saved state, before it is read; `features` have their saved shapes already."""
