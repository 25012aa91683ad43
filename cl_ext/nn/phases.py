"""Phases inside one experience: a plugin trains some parameters for some epochs or iterations, then others.

A plugin runs phases from `before_training_exp` and `after_training_exp` of any strategy; the strategy's own epochs are
the main phase between them. Every epoch goes through the strategy's own callbacks, so that metrics, other plugins and
periodic evaluation see it. Learning-rate schedules are for the strategy's own epochs alone: see
`cl_ext.nn.schedules`, in whose `ScheduleState.phase` a method's phases run.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn


def run_epochs(strategy: Any, epochs: int, stop: Callable[[], bool] = lambda: False) -> int:
    """Trains for some epochs on the experience that the strategy has loaded.

    A call of `strategy.stop_training()` (early stopping) ends this phase alone.

    Args:
        strategy: Inside `before_training_exp` or `after_training_exp`.
        epochs: At least 0.
        stop: Asked after each epoch whether to stop.

    Returns:
        The epochs that ran.
    """
    for epoch in range(epochs):
        strategy._before_training_epoch()
        if strategy._stop_training:
            strategy._stop_training = False
            return epoch
        strategy.training_epoch()
        strategy._after_training_epoch()
        if stop():
            return epoch + 1
    return epochs


def run_iterations(strategy: Any, iterations: int) -> int:
    """Trains for a number of iterations, over as many epochs as they take; the last may be cut short.

    Args:
        strategy: Inside `before_training_exp` or `after_training_exp`.
        iterations: At least 0.

    Returns:
        The iterations that ran: fewer where somebody stopped training.
    """
    start = strategy.clock.train_exp_iterations
    limit = _Limit(start + iterations)
    # first, because the clock, which stands last, counts after every other plugin
    strategy.plugins.insert(0, limit)
    try:
        while strategy.clock.train_exp_iterations < start + iterations:
            limit.reached = False
            before = strategy.clock.train_exp_iterations
            if not run_epochs(strategy, 1):
                break
            stopped, strategy._stop_training = strategy._stop_training, False
            if strategy.clock.train_exp_iterations == before or (stopped and not limit.reached):
                break
    finally:
        strategy.plugins.remove(limit)
    return int(strategy.clock.train_exp_iterations - start)


class _Limit:
    """Stops training once the clock is about to reach a count of iterations."""

    supports_distributed = True

    def __init__(self, last: int) -> None:
        self.last = last
        self.reached = False

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if strategy.clock.train_exp_iterations + 1 >= self.last:
            self.reached = True
            strategy.stop_training()


def point_optimizer(strategy: Any, parameters: Iterable[nn.Parameter], **changes: float) -> None:
    """Makes the strategy's optimizer train these parameters, with a fresh state; the optimizer object stays.

    Schedulers and plugins hold the optimizer, so that its one group is refilled in place.

    Args:
        strategy: In training.
        parameters: At least one.
        changes: Options of the group to set, such as `lr`.

    Raises:
        ValueError: The optimizer has several groups of parameters, or there is nothing to train.
    """
    optimizer = strategy.optimizer
    if len(optimizer.param_groups) != 1:
        raise ValueError(
            "a method with phases refills the optimizer's group of parameters; the optimizer has "
            f"{len(optimizer.param_groups)}: give it all parameters in one"
        )
    chosen = list(parameters)
    if not chosen:
        raise ValueError("a phase has no parameters to train")
    optimizer.state.clear()
    optimizer.param_groups[0]["params"] = chosen
    optimizer.param_groups[0].update(changes)
    # what Avalanche compares with at the next experience, to find new and replaced parameters
    strategy.optimized_param_id = dict(strategy.model.named_parameters())


@contextmanager
def training_only(strategy: Any, parameters: Sequence[nn.Parameter], **changes: float) -> Iterator[None]:
    """Within, only these parameters are trained, and only they have gradients; afterwards all as before.

    Args:
        strategy: In training.
        parameters: At least one, each of the strategy's network.
        changes: Options of the optimizer's group within, such as `lr`.
    """
    options = options_of(strategy)
    point_optimizer(strategy, parameters, **changes)
    chosen = {id(parameter) for parameter in parameters}
    resting = [p for p in strategy.model.parameters() if id(p) not in chosen and p.requires_grad]
    for parameter in resting:
        parameter.requires_grad_(False)
        parameter.grad = None
    try:
        yield
    finally:
        for parameter in resting:
            parameter.requires_grad_(True)
        train_all(strategy, **options)


def train_all(strategy: Any, **changes: Any) -> None:
    """Makes the optimizer train all of the network's parameters, those that a phase added or replaced included."""
    point_optimizer(strategy, strategy.model.parameters(), **changes)


def options_of(strategy: Any) -> dict[str, Any]:
    """The options of the optimizer's one group."""
    return {name: value for name, value in strategy.optimizer.param_groups[0].items() if name != "params"}
