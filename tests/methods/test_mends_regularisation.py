"""Mends of SI, RWalk, MAS, LwF and LFL: each beside Avalanche's own plugin, which shows the fault."""

from typing import Any

from cl_ext._avalanche_methods.regularisation import MendedLFL, MendedLwF, MendedMAS, MendedRWalk, MendedSI
from cl_ext.methods import Budget
from cl_ext.models import NetworkSpec, build_network

import pytest
import torch
from avalanche.models import MTSimpleMLP
from avalanche.training.plugins import LFLPlugin, LwFPlugin, MASPlugin, RWalkPlugin, SynapticIntelligencePlugin
from torch import Tensor

from tests.methods.helpers import SHAPE, Spy, fit, same, state

LONG = Budget(lr=0.05, epochs=4, batch_size=16)


@pytest.mark.parametrize(("plugin", "equal"), [(SynapticIntelligencePlugin, True), (MendedSI, False)])
def test_si_keeps_copies_of_the_weights(plugin: Any, equal: bool) -> None:
    naive = state(fit([]).model)
    assert same(state(fit([plugin(1000.0)]).model), naive) == equal


def test_si_importances_follow_the_path() -> None:
    plugin = MendedSI(1.0)
    fit([plugin], experiences=1)
    assert max(float(p.data.abs().max()) for p in plugin.ewc_data[1].values()) > 0


@pytest.mark.parametrize(("plugin", "trains"), [(RWalkPlugin, False), (MendedRWalk, True)])
def test_rwalk_trains_in_train_mode(plugin: Any, trains: bool) -> None:
    spy = Spy("before_forward", lambda strategy: strategy.model.training)
    strategy = fit([plugin(delta_t=3), spy], experiences=1)
    assert all(spy.seen) == trains
    assert (int(strategy.model.norm.num_batches_tracked) > 0) == trains


@pytest.mark.parametrize(("plugin", "finite"), [(RWalkPlugin, False), (MendedRWalk, True)])
def test_rwalk_scores_an_experience_shorter_than_its_interval(plugin: Any, finite: bool) -> None:
    own = plugin(delta_t=100)
    strategy = fit([own], experiences=2)
    assert all(bool(p.isfinite().all()) for p in strategy.model.parameters()) == finite
    if finite:
        assert max(float(p.data.max()) for p in own.exp_scores.values()) > 0


def test_rwalk_scores_parameters_that_come_with_an_experience() -> None:
    inputs = int(torch.Size(SHAPE).numel())
    with pytest.raises(KeyError):
        fit([RWalkPlugin(delta_t=3)], "task", MTSimpleMLP(inputs, 8))
    plugin = MendedRWalk(delta_t=3)
    fit([plugin], "task", MTSimpleMLP(inputs, 8))
    assert any("classifiers.1" in name for name in plugin.exp_scores)


def _nothing(logits: Tensor, targets: Tensor) -> Tensor:
    return 0 * logits.sum()


def test_mas_does_not_stop_at_a_loss_of_zero() -> None:
    with pytest.raises(ValueError, match="Loss is not available"):
        fit([MASPlugin()], criterion=_nothing)
    spy = Spy("after_backward", lambda strategy: float(strategy.loss))
    fit([MendedMAS(), spy], criterion=_nothing)
    assert all(loss == 0 for loss in spy.seen)  # the weights stay at the anchor


def test_mas_penalty_is_the_same_at_a_loss_of_zero() -> None:
    seen = []
    for zero in (True, False):
        plugin = MendedMAS(2.0)
        strategy = fit([plugin], experiences=1)
        for parameter in strategy.model.parameters():
            parameter.data += 0.1
        strategy.loss = torch.zeros(()) if zero else torch.ones(())
        strategy.clock.train_exp_counter = 1
        plugin.before_backward(strategy)
        seen.append(float(strategy.loss) - (0.0 if zero else 1.0))
    assert seen[0] == pytest.approx(seen[1], rel=1e-5)
    assert seen[0] > 0


@pytest.mark.parametrize(("plugin", "passes"), [(MASPlugin, 2), (MendedMAS, 1)])
def test_mas_importance_pass_leaves_batch_norm_alone(plugin: Any, passes: int) -> None:
    strategy = fit([plugin()], experiences=1, budget=Budget(lr=0.05, epochs=1, batch_size=16))
    assert int(strategy.model.norm.num_batches_tracked) == passes * 3
    assert strategy.model.training  # as `train` left it
    assert "train" not in vars(strategy.model)


@pytest.mark.parametrize(("plugin", "rests"), [(LwFPlugin, False), (MendedLwF, True)])
def test_lwf_teacher_rests(plugin: Any, rests: bool) -> None:
    own = plugin(1.0, 2.0)
    spy = Spy("before_backward", lambda strategy: own.lwf.prev_model and own.lwf.prev_model.norm.running_mean.clone())
    fit([own, spy])
    means = [mean for mean in spy.seen if mean is not None]
    assert means[0].equal(means[-1]) == rests
    assert own.lwf.prev_model.training != rests


@pytest.mark.parametrize(("plugin", "taught"), [(LwFPlugin, [0]), (MendedLwF, [0, 1])])
def test_lwf_distils_all_past_tasks_through_one_head(plugin: Any, taught: list[int]) -> None:
    own = plugin(1.0, 2.0)
    strategy = fit([own], "task")
    x = torch.randn(5, *SHAPE)
    own.lwf.prev_model.eval()
    with torch.no_grad():
        logits = own.lwf.prev_model(x)
    assert float(own.lwf(x, logits, strategy.model)) == pytest.approx(0, abs=1e-6)
    for task in range(3):
        moved = logits.clone()
        moved[:, 2 * task] += 3
        penalty = float(own.lwf(x, moved, strategy.model))
        assert (penalty > 1e-3) == (task in taught), task


def test_lwf_without_task_labels_is_avalanches() -> None:
    network = [build_network(NetworkSpec("mlp", hidden=(8,)), SHAPE, 6) for _ in range(2)]
    network[1].load_state_dict(network[0].state_dict())
    stock, mended = fit([LwFPlugin(1.0, 2.0)], "class", network[0]), fit([MendedLwF(1.0, 2.0)], "class", network[1])
    assert same(state(stock.model), state(mended.model))


@pytest.mark.parametrize(("plugin", "trains"), [(LFLPlugin, False), (MendedLFL, True)])
def test_lfl_goes_on_in_train_mode(plugin: Any, trains: bool) -> None:
    network = build_network(NetworkSpec("resnet18", width=2), SHAPE, 6)
    spy = Spy("before_forward", lambda strategy: strategy.model.training)
    fit([plugin(1.0), spy], network=network)
    assert all(spy.seen) == trains
