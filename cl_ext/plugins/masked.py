"""What PackNet and CPG share: a task owns a part of each weight, and later tasks read it but never change it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from cl_ext.models.expansion import ExpandableNetwork
from cl_ext.nn.masked import MaskedScheme, biases_of, weights_of
from cl_ext.nn.ownership import Hold
from cl_ext.nn.schedules import ScheduleState
from cl_ext.nn.scheme import Scheme
from cl_ext.nn.task_norm import norms_of
from cl_ext.plugins.architecture import ExpandablePlugin
from cl_ext.plugins.checks import check_choice

import torch
from torch import Tensor, nn

Extra = Literal["per_task", "frozen"]


class MaskedPlugin(ExpandablePlugin):
    """A method in which each task owns entries of the weights.

    At a task's begin it owns everything that nobody owns. What earlier tasks own is put back after each step of the
    optimizer, so that it is exact under weight decay, momentum and Adam. Weights that the user froze are left alone.

    Attributes:
        biases: `per_task`, or `frozen` from the second task on; and so is `norm`, batch norm.
    """

    def __init__(self, biases: Extra = "per_task", norm: Extra = "per_task") -> None:
        super().__init__()
        owner = type(self).__name__
        self.biases: Extra = check_choice(owner, "biases", biases, Extra)
        self.norm: Extra = check_choice(owner, "norm", norm, Extra)
        self._network: ExpandableNetwork | None = None
        self._scheme: MaskedScheme | None = None
        self._hold: Hold | None = None
        self._begun: ScheduleState | None = None
        self._task = 0

    @property
    def scheme(self) -> MaskedScheme:
        """The network's scheme: whose the weights are, and what each task reads."""
        assert self._scheme is not None, "the plugin has not trained yet"
        return self._scheme

    @property
    def features(self) -> nn.Module:
        """The features that the tasks share."""
        assert self._network is not None, "the plugin has not trained yet"
        return self._network.features

    @property
    def begun(self) -> ScheduleState:
        """The rates and schedules with which the experience began."""
        assert self._begun is not None, "no experience has begun"
        return self._begun

    @property
    def now(self) -> int:
        """The position of the task that is being trained, or was last: from 1."""
        return len(self.tasks)

    def extra_bytes(self) -> int:
        """Returns the memory held beside the weights, in bytes: owners, choices, the tasks' biases and batch norm."""
        scheme = 0 if self._scheme is None else self._scheme.extra_bytes()
        return scheme + (0 if self._hold is None else self._hold.extra_bytes())

    def weights(self) -> dict[str, nn.Parameter]:
        """The weights that tasks own, by name."""
        every = weights_of(self.features)
        return {name: every[name] for name in self.scheme.owners.names}

    def own_tensors(self) -> dict[str, Tensor]:
        """What a task has for itself beside its weights and its head, by name: the features' present tensors."""
        own: dict[str, Tensor] = {}
        if self.biases == "per_task":
            own.update(biases_of(self.features))
        if self.norm == "per_task":
            own.update(norms_of(self.features))
        return own

    def owned(self) -> dict[str, Tensor]:
        """By weight, booleans: what the task that is being trained owns."""
        return {name: self.scheme.owners.owned(name, self.now) for name in self.scheme.owners.names}

    def network(self, strategy: Any) -> ExpandableNetwork:
        """The strategy's network.

        Raises:
            TypeError: if it is not expandable.
            ValueError: if there is nothing to train beside the heads.
        """
        network = super().network(strategy)
        if not any(parameter.requires_grad for parameter in network.features.parameters()):
            raise ValueError(f"{type(self).__name__}: the model has no trainable parameters in its features")
        return network

    def begin(self, strategy: Any) -> int:
        """Begins a task: it claims what is free, and earlier heads rest. Returns its label.

        Raises:
            ValueError: if the network cannot be trained by this plugin now.
        """
        owner, network = type(self).__name__, self.network(strategy)
        task = self.begin_task(strategy)
        if not isinstance(network.scheme, MaskedScheme):
            if type(network.scheme) is not Scheme:
                raise ValueError(f"{owner}: the network has the scheme {network.scheme.label!r} of another method")
            trainable = {name: w for name, w in weights_of(network.features).items() if w.requires_grad}
            network.scheme = MaskedScheme.of(trainable).to(strategy.device)
        if len(network.scheme.tasks) != self.now - 1:
            raise ValueError(
                f"{owner}: the network has been trained on the tasks {network.scheme.tasks}, the plugin on "
                f"{self.tasks[:-1]}; load the states of both"
            )
        self._network, self._scheme, self._task = network, network.scheme, task
        self.scheme.owners.claim(self.now)
        self._begun = ScheduleState(strategy)
        for other in network.heads.tasks:
            if other != task:
                network.heads[other].requires_grad_(False)
        if self.now > 1:
            self._freeze()
        self.hold()
        return task

    def _freeze(self) -> None:
        if self.biases == "frozen":
            for bias in biases_of(self.features).values():
                bias.requires_grad_(False)
        if self.norm == "frozen":
            for tensor in norms_of(self.features).values():
                tensor.requires_grad_(False)
            self.scheme.norms_rest = True

    def hold(self) -> None:
        """Holds from now on all that the present task does not own: earlier tasks' entries, and free ones, at 0."""
        weights, owned = self.weights(), self.owned()
        others = {name: ~entries for name, entries in owned.items()}
        some = [name for name in weights if bool(others[name].any())]
        self._hold = Hold([weights[name] for name in some], [others[name] for name in some]) if some else None

    @torch.no_grad()
    def give_up(self, entries: Mapping[str, Tensor]) -> int:
        """Makes entries of the weights free, and 0; returns how many they are."""
        weights, count = self.weights(), 0
        for name, chosen in entries.items():
            self.scheme.owners.release(name, chosen)
            weights[name].masked_fill_(chosen, 0.0)
            count += int(chosen.sum())
        return count

    @contextmanager
    def phase(self, strategy: Any, lr_factor: float = 1.0) -> Iterator[None]:
        """A further phase: the optimizer's state is fresh, the rate `lr_factor` times that of the experience's begin.

        Schedules rest within it, and all rates are as before it afterwards.
        """
        strategy.optimizer.state.clear()
        with self.begun.phase(strategy, lr_factor):
            yield

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Begins the experience's task."""
        self.begin(strategy)
        strategy.optimizer.state.clear()  # momentum of another task's steps

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Takes away the gradients of what is held, so that clipping and the like do not see them."""
        if self._hold is not None:
            self._hold.mask_gradients()

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Puts back what the optimizer must not move."""
        super().after_update(strategy)
        if self._hold is not None:
            self._hold.restore()

    def close(self, strategy: Any) -> None:
        """Ends the task: from now on its part is read from masks and copies, and never changes."""
        self.scheme.close(self.features, self._task, self.own_tensors())
        self._hold = self._begun = None
        free, *owned = self.scheme.owners.counts(self.now)
        total = free + sum(owned)
        self.publish(strategy, "Free", free / total)
        self.publish(strategy, "Owned", owned[-1] / total)
        self.experiences += 1
