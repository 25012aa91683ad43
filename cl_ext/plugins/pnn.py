"""Progressive neural networks (Rusu et al., arXiv 1606.04671, 2016): a new column a task, earlier ones frozen.

The columns and what they read of each other are the network's: `cl_ext.models.progressive`.
"""

from collections.abc import Mapping
from typing import Any

from cl_ext.models.columns import ProgressiveNetwork
from cl_ext.nn.lateral import Adapter
from cl_ext.nn.phases import train_all
from cl_ext.plugins.architecture import TaskPlugin
from cl_ext.plugins.checks import check_choice, check_count

import torch


class PNNPlugin(TaskPlugin):
    """Trains the newest column of a progressive network, its laterals and its head; all else is frozen.

    The optimizer starts anew at each task. Needs a task label of its own for each experience, in training and at test
    time, and a network that `cl_ext.models.progressive` has made.

    Attributes:
        tasks: the labels of the tasks that have been begun, in their order.
    """

    name = "PNN"

    def __init__(self, adapter: Adapter = "mlp", seed: int = 0) -> None:
        """Sets the hyper-parameters.

        Args:
            adapter: how a column reads those before it: "mlp" (the paper's adapters), "linear" (the paper's plain
                form), or "none", which makes the columns independent networks.
            seed: of the laterals' initial weights, >= 0.

        Raises:
            TypeError: if the seed is no integer.
            ValueError: if an argument is out of its range.
        """
        super().__init__()
        owner = type(self).__name__
        self.adapter: Adapter = check_choice(owner, "adapter", adapter, Adapter)
        self.seed = check_count(owner, "seed", seed, low=0)
        self._bytes = 0

    def extra_bytes(self) -> int:
        """Returns the bytes of the initial weights, with which columns begin; the columns are the network."""
        return self._bytes

    def state_dict(self) -> dict[str, Any]:
        """Returns the state between two experiences; the network's own state has its columns."""
        return super().state_dict() | {"bytes": self._bytes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        super().load_state_dict(state)
        self._bytes = int(state["bytes"])

    def protected(self, model: Any) -> list[int]:
        """The tasks that have a column, whichever plugin trained it."""
        owners: list[int] = model.owners
        return owners

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Makes the task's column, and freezes earlier columns and heads.

        Raises:
            TypeError: if the network is not progressive.
            ValueError: if the experience has no task label of its own, or nothing could be trained.
        """
        model = strategy.model
        if not isinstance(model, ProgressiveNetwork):
            raise TypeError(
                f"{type(self).__name__} needs a progressive network, which cl_ext.models.progressive(model) makes of "
                f"yours; it was given a {type(model).__name__}"
            )
        if not any(parameter.requires_grad for parameter in model.column(-1).parameters()):
            raise ValueError(f"{type(self).__name__}: the model has no trainable parameters in its hidden layers")
        task = self.begin_task(strategy)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.experiences)
        newest = model.begin(task, self.adapter, generator)
        earlier = [column for column in model.columns if column is not newest]
        earlier += [model.heads[old] for old in model.tasks if old != task]
        for module in earlier:
            for parameter in module.parameters():
                parameter.requires_grad_(False)
                parameter.grad = None
        train_all(strategy)
        self._bytes = sum(tensor.nbytes for tensor in model.initial.buffers())

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Publishes the network's size."""
        model: ProgressiveNetwork = strategy.model
        laterals = sum(p.numel() for p in model.column(-1).laterals.parameters())
        self.publish(strategy, "Columns", float(len(model.columns)))
        self.publish(strategy, "Laterals", float(laterals))
        self.publish(strategy, "Parameters", float(sum(p.numel() for p in model.parameters())))
        self.experiences += 1
