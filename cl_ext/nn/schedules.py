"""Learning-rate schedules and early stopping beside phases: both belong to the strategy's own epochs.

A schedule is Avalanche's `LRSchedulerPlugin` in `strategy.plugins`. A phase of a method trains at a constant rate, a
factor of the one with which the experience began; schedules rest within it. Where a method repeats the strategy's own
epochs, the schedule begins anew. Afterwards rates and schedules are as they were, so that the next experience begins
as it would without phases.

Avalanche's `EarlyStoppingPlugin` rests wherever a method trains beyond those epochs: it would load a state of before
the method pruned or grew the network. A stop that was asked for ends what ran then, and not what comes next.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)

import torch
from avalanche.training.plugins import EarlyStoppingPlugin, LRSchedulerPlugin
from torch import Tensor


def schedules(strategy: Any) -> list[LRSchedulerPlugin]:
    """The strategy's schedules, in the order of its plugins."""
    return [plugin for plugin in strategy.plugins if isinstance(plugin, LRSchedulerPlugin)]


def check_schedules(strategy: Any, owner: str) -> None:
    """Checks that no schedule asks for the experience's first epoch alone, which a method's own epochs would hide.

    Args:
        strategy: any.
        owner: the plugin that has epochs before the strategy's own, or repeats these.

    Raises:
        ValueError: if one has `first_epoch_only`.
    """
    if any(plugin.first_epoch_only for plugin in schedules(strategy)):
        raise ValueError(
            f"{owner} has epochs of its own, which LRSchedulerPlugin(first_epoch_only=True) would count as the "
            "experience's; use False"
        )


class ScheduleState:
    """The optimizer's options (learning rate, momentum, ...) and the states of the schedules, as they are now.

    Args:
        strategy: in training.
    """

    def __init__(self, strategy: Any) -> None:
        self._options = [
            {name: copy.deepcopy(value) for name, value in group.items() if name != "params"}
            for group in strategy.optimizer.param_groups
        ]
        self._states = [_copied(plugin.scheduler.state_dict(), strategy) for plugin in schedules(strategy)]

    def restore(self, strategy: Any) -> None:
        """Puts all of it back."""
        for group, options in zip(strategy.optimizer.param_groups, self._options, strict=True):
            group.update(copy.deepcopy(options))
        for plugin, state in zip(schedules(strategy), self._states, strict=True):
            plugin.scheduler.load_state_dict(_copied(state, strategy))

    @contextmanager
    def again(self, strategy: Any) -> Iterator[None]:
        """Within, the schedules begin anew from this state, and early stopping rests; afterwards all is as before."""
        before = ScheduleState(strategy)
        self.restore(strategy)
        strategy._stop_training = False
        try:
            with _without(strategy, EarlyStoppingPlugin):
                yield
        finally:
            before.restore(strategy)

    @contextmanager
    def phase(self, strategy: Any, lr_factor: float = 1.0) -> Iterator[None]:
        """Within, the rate stays at `lr_factor` times the one of this state, and no schedule sees anything.

        Afterwards rates and schedules are as before.
        """
        with self.again(strategy), _without(strategy, LRSchedulerPlugin):
            for group in strategy.optimizer.param_groups:
                group["lr"] = group["lr"] * lr_factor
            yield


@contextmanager
def _without(strategy: Any, kind: type) -> Iterator[None]:
    """Takes plugins of a kind out of the strategy's, and puts them back in their places on leaving."""
    resting = [(place, plugin) for place, plugin in enumerate(strategy.plugins) if isinstance(plugin, kind)]
    for _, plugin in resting:
        strategy.plugins.remove(plugin)
    try:
        yield
    finally:
        for place, plugin in resting:
            strategy.plugins.insert(place, plugin)


class ScheduleCopies:
    """Copies of the strategy's schedules for another optimizer, in a training beside the strategy's.

    A schedule that follows the loss of a validation stream rests: there is none.

    Args:
        strategy: at an experience's begin.
        optimizer: of the strategy's kind and options, with one group; its options become the strategy's.
    """

    def __init__(self, strategy: Any, optimizer: torch.optim.Optimizer) -> None:
        found = schedules(strategy)
        if found:
            torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)  # lets torch know that schedules follow its steps
        options = {name: v for name, v in strategy.optimizer.param_groups[0].items() if name != "params"}
        optimizer.param_groups[0].update(copy.deepcopy(options))
        self._plugins = [copy.deepcopy(plugin, {id(strategy.optimizer): optimizer}) for plugin in found]
        clock = SimpleNamespace(train_exp_counter=strategy.clock.train_exp_counter, train_exp_epochs=0)
        self._seen = SimpleNamespace(is_training=True, clock=clock, optimizer=optimizer, loss=None, mb_x=None)

    def after_iteration(self, loss: Tensor, x: Tensor) -> None:
        """Tells them of a step: its loss and its samples."""
        self._seen.loss, self._seen.mb_x = loss.detach(), x
        for plugin in self._plugins:
            plugin.after_training_iteration(self._seen)

    def after_epoch(self) -> None:
        """Tells them of an epoch's end."""
        for plugin in self._plugins:
            plugin.after_training_epoch(self._seen)
        self._seen.clock.train_exp_epochs += 1


def _copied(state: Any, strategy: Any) -> Any:
    """A copy of a schedule's state; an optimizer that stands in it stays the strategy's."""
    return copy.deepcopy(state, {id(strategy.optimizer): strategy.optimizer})
