"""Phases inside an experience, driven from a plugin's callbacks on plain Naive."""

from collections.abc import Callable
from typing import Any

from cl_ext.nn.phases import point_optimizer, run_epochs, run_iterations, train_all, training_only

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training import Naive
from avalanche.training.plugins import LRSchedulerPlugin
from torch import nn

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
EPOCH = 3  # iterations: 20 samples in batches of 7


class _After(SupervisedPlugin):
    """Calls a function at an experience's end, and counts what other plugins see."""

    def __init__(self, call: Callable[[Any], Any]) -> None:
        super().__init__()
        self.call, self.results = call, []
        self.epochs = self.iterations = 0

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.results.append(self.call(strategy))

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        self.epochs += 1

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self.iterations += 1


def _run(call: Callable[[Any], Any], *others: Any, **options: Any) -> tuple[_After, Naive]:
    after = _After(call)
    runner = common.run([after, *others], experiences=2, **options)
    return after, runner


def test_a_phase_of_epochs_is_what_longer_training_is() -> None:
    """Two epochs and a phase of three more are five epochs, bit for bit."""
    after, runner = _run(lambda strategy: run_epochs(strategy, 3))
    longer = common.run([], experiences=2, train_epochs=5)
    assert common.same(common.weights(runner.model), common.weights(longer.model))
    assert (after.results, after.epochs, after.iterations) == ([3, 3], 10, 10 * EPOCH)


@pytest.mark.parametrize("iterations", [0, 1, EPOCH, EPOCH + 1, 5 * EPOCH - 1])
def test_a_phase_of_iterations_runs_as_many_and_no_more(iterations: int) -> None:
    after, runner = _run(lambda strategy: run_iterations(strategy, iterations))
    assert after.results == [iterations] * 2
    assert after.iterations == 2 * (2 * EPOCH + iterations)
    assert runner.clock.train_iterations == after.iterations
    assert not runner._stop_training


def test_early_stopping_ends_the_phase_alone() -> None:
    class Stopper(SupervisedPlugin):
        def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
            if strategy.clock.train_exp_epochs == 3:
                strategy.stop_training()

    after, runner = _run(lambda s: [run_epochs(s, 5), run_epochs(s, 2)], Stopper())
    assert after.results == [[2, 2]] * 2  # epochs 3 and 4; then 5 and 6
    assert not runner._stop_training


def test_a_stop_in_a_phase_of_iterations_ends_it() -> None:
    class Stopper(SupervisedPlugin):
        def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
            if strategy.clock.train_exp_iterations == 2 * EPOCH + 1:
                strategy.stop_training()

    after, runner = _run(lambda strategy: run_iterations(strategy, 10), Stopper())
    assert after.results == [2, 2]
    assert not runner._stop_training


def test_stop_is_asked_after_each_epoch() -> None:
    answers = iter([False, True] * 2)
    after, _ = _run(lambda strategy: run_epochs(strategy, 9, stop=lambda: next(answers)))
    assert after.results == [2, 2]


def test_only_the_chosen_parameters_move_and_all_is_as_before_afterwards() -> None:
    seen: list[Any] = []

    def phase(strategy: Any) -> None:
        last = strategy.model[-1]
        frozen = strategy.model[0].weight.clone()
        with training_only(strategy, [last.weight], lr=0.5, momentum=0.0):
            seen.append(strategy.optimizer.param_groups[0]["lr"])
            assert not strategy.model[0].weight.requires_grad
            bias, weight = last.bias.clone(), last.weight.clone()
            run_epochs(strategy, 1)
            assert strategy.model[0].weight.grad is None
        assert torch.equal(frozen, strategy.model[0].weight)
        assert torch.equal(bias, last.bias)
        assert not torch.equal(weight, last.weight)
        seen.append(strategy.optimizer.param_groups[0]["lr"])

    _, runner = _run(phase)
    assert seen == [0.5, 0.05] * 2
    assert all(parameter.requires_grad for parameter in runner.model.parameters())
    assert len(runner.optimizer.param_groups[0]["params"]) == 4


def test_what_the_user_froze_stays_frozen() -> None:
    def phase(strategy: Any) -> None:
        with training_only(strategy, [strategy.model[-1].weight]):
            run_epochs(strategy, 1)

    model = common.mlp()
    model[0].weight.requires_grad_(False)  # type: ignore[index]
    runner = common.strategy(model, [_After(phase)])
    common.train(runner, common.benchmark().train_stream[:1])
    assert not model[0].weight.requires_grad  # type: ignore[index]


def test_layers_that_a_phase_replaces_are_trained_and_known_at_the_next_experience() -> None:
    def phase(strategy: Any) -> None:
        model = strategy.model
        width = model[0].out_features + 3
        model[0], model[2] = nn.Linear(common.FEATURES, width), nn.Linear(width, common.CLASSES)
        train_all(strategy)
        before = model[0].weight.clone()
        run_epochs(strategy, 1)
        assert not torch.equal(before, model[0].weight)

    _, runner = _run(phase)
    group = runner.optimizer.param_groups[0]["params"]
    assert {id(p) for p in group} == {id(p) for p in runner.model.parameters()}


def test_a_scheduler_keeps_its_optimizer() -> None:
    model = common.mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    schedule = LRSchedulerPlugin(torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5))

    def phase(strategy: Any) -> float:
        with training_only(strategy, [strategy.model[-1].weight]):
            run_epochs(strategy, 1)
        assert strategy.optimizer is optimizer
        return float(optimizer.param_groups[0]["lr"])

    after = _After(phase)
    runner = common.strategy(model, [after, schedule], optimizer=optimizer)
    common.train(runner, common.benchmark().train_stream[:1])
    assert after.results == [0.25]  # two epochs; what the schedule did inside the phase is taken back with the rest


def test_an_optimizer_of_several_groups_and_an_empty_phase_are_refused() -> None:
    model = common.mlp()
    groups = [{"params": list(model[0].parameters())}, {"params": list(model[2].parameters())}]  # type: ignore[index]
    runner = common.strategy(model, [], optimizer=torch.optim.SGD(groups, lr=0.1))
    with pytest.raises(ValueError, match="has 2: give it all parameters in one"):
        point_optimizer(runner, model.parameters())
    with pytest.raises(ValueError, match="no parameters"):
        point_optimizer(common.strategy(common.mlp(), []), [])
