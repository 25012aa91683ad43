"""Mends of PNN, PackNet and generative replay, and of the warnings: each beside Avalanche's own code."""

import warnings
from typing import Any

from cl_ext._avalanche_methods.architecture import (
    FrozenEntries,
    MendedVAE,
    TaskHead,
    pack,
    packed_layers,
    packed_logits,
)
from cl_ext._avalanche_methods.common import silence_deprecations
from cl_ext.methods import Budget
from cl_ext.models import NetworkSpec, build_network
from cl_ext.study.recorder import Evaluator

import pytest
import torch
from avalanche import _annotations
from avalanche.models import MlpVAE
from avalanche.models.packnet import PackNetModel, PackNetModule, PackNetPlugin
from avalanche.training.storage_policy import ReservoirSamplingBuffer
from avalanche.training.supervised import PackNet
from torch import Tensor, nn

from tests.methods.helpers import MLP, SHAPE, Spy, fit, make, seed_all, state, tiny_stream

DECAY = Budget(lr=0.1, weight_decay=0.05, epochs=3, batch_size=16)


def _column_change(look: Any) -> float:
    """How far the second column moves in its own experience, after a look at the test stream."""
    stream = tiny_stream("task")
    built = make("pnn_avalanche", "task")
    built.strategy.train(stream.train_stream[0], eval_streams=[])
    look(built, stream)
    starts: list[dict[str, Tensor]] = []
    built.strategy.plugins.insert(
        0, Spy("before_training_epoch", lambda strategy: starts.append(state(strategy.model.layers[0].columns[1])))
    )
    built.strategy.train(stream.train_stream[1], eval_streams=[])
    after = state(built.strategy.model.layers[0].columns[1])
    return max(float((after[name] - starts[0][name]).abs().max()) for name in after)


def test_pnn_columns_are_not_made_by_evaluation() -> None:
    def stock(built: Any, stream: Any) -> None:
        built.strategy.eval(stream.test_stream)

    def ours(built: Any, stream: Any) -> None:
        aware, _ = Evaluator(stream, True, torch.device("cpu"))(built)
        assert [accuracy == accuracy for accuracy in aware] == [True, False, False]  # not begun: undefined

    assert _column_change(stock) == 0
    assert _column_change(ours) > 0


def _packed(own_head: bool) -> PackNetModel:
    seed_all()
    network = build_network(MLP, SHAPE, 6)
    return pack(network) if own_head else PackNetModel(network)


@pytest.mark.parametrize("guarded", [False, True], ids=["stock", "mended"])
def test_packnet_frozen_weights_bear_weight_decay(guarded: bool) -> None:
    model = _packed(own_head=guarded)
    plugins = [PackNetPlugin(1, 0.5)] + ([FrozenEntries()] if guarded else [])
    fit(plugins, "task", model, experiences=1, budget=DECAY)
    frozen = [(layer, layer.task_index == 0, layer.wrappee.weight.detach().clone()) for layer in packed_layers(model)]
    heads = {name: tensor[:2].clone() for name, tensor in model.named_parameters() if "classifier" in name}
    _go_on(model, plugins)
    drift = max(float((layer.wrappee.weight.detach() - before)[mask].abs().max()) for layer, mask, before in frozen)
    assert (drift == 0) == guarded
    if guarded:
        rows = dict(model.named_parameters())
        assert all(rows[name][:2].equal(tensor) for name, tensor in heads.items())


def _go_on(model: PackNetModel, plugins: list[Any]) -> None:
    """Trains a packed model on the second experience."""
    fit(plugins, "task", model, first=1, experiences=2, budget=DECAY)


@pytest.mark.parametrize("own_head", [False, True], ids=["stock", "mended"])
def test_packnet_leaves_later_tasks_their_rows(own_head: bool) -> None:
    model = _packed(own_head)
    fit([PackNetPlugin(1, 0.5), FrozenEntries()], "task", model, experiences=1)
    before = {name: tensor.clone() for name, tensor in model.named_parameters() if "classifier" in name}
    _go_on(model, [PackNetPlugin(1, 0.5), FrozenEntries()])
    after = dict(model.named_parameters())
    still = sum(int((after[name] == tensor)[2:4].sum()) for name, tensor in before.items())
    assert (still == 0) == own_head


def test_packnet_can_be_looked_at_between_pruning_and_retraining() -> None:
    x = torch.randn(4, *SHAPE)
    seen: list[bool] = []

    def look(strategy: Any) -> None:
        model = strategy.model
        if model.state is not PackNetModule.State.POST_PRUNE:
            return
        if strategy.clock.train_exp_counter == 1:
            with pytest.raises(PackNetModule.StateError):
                model(x, torch.zeros(4, dtype=torch.long))
        before = state(model)
        logits = [packed_logits(model, x, task) for task in range(3)]
        assert not logits[0].equal(logits[1]) or strategy.clock.train_exp_counter == 0
        after = state(model)
        seen.append(all(before[name].equal(after[name]) for name in before))

    fit([PackNetPlugin(1, 0.5), Spy("after_training_epoch", look)], "task", pack(build_network(MLP, SHAPE, 6)))
    assert seen == [True, True]


def test_packnet_strategy_of_avalanche_drops_its_plugins() -> None:
    """Why the row is built from `Naive` and the plugin."""
    spy = Spy("before_forward", lambda strategy: None)
    model = _packed(own_head=False)
    strategy = PackNet(
        model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), post_prune_epochs=1, prune_proportion=0.5,
        train_mb_size=16, train_epochs=2, plugins=[spy], evaluator=None,
    )  # fmt: skip
    strategy.train(tiny_stream("task").train_stream[0], eval_streams=[])
    assert spy.seen == []


def test_packnet_predicts_a_task_with_its_own_weights() -> None:
    model = _packed(own_head=True)
    fit([PackNetPlugin(1, 0.5), FrozenEntries()], "task", model, experiences=1)
    x = torch.randn(4, *SHAPE)
    before = packed_logits(model, x, 0)
    _go_on(model, [PackNetPlugin(1, 0.5), FrozenEntries()])
    assert packed_logits(model, x, 0)[:, :2].equal(before[:, :2])
    assert isinstance(model.wrappee.classifier, TaskHead)


def test_packnet_refuses_batch_norm() -> None:
    with pytest.raises(ValueError, match="BatchNorm"):
        pack(build_network(NetworkSpec("resnet18", width=2), SHAPE, 6))


def test_vae_covers_the_range_of_the_data() -> None:
    for low, high in ((-2.0, -1.0), (0.0, 9.0)):
        mended = MendedVAE(SHAPE, 3, low, high).eval()
        assert low <= float(mended.generate(50).min()) <= float(mended.generate(50).max()) <= high
    stock = MlpVAE(SHAPE, nhid=3).eval()
    nn.init.constant_(list(stock.decoder.parameters())[-1], -50.0)  # as dark as it can be
    assert float(stock.generate(50).min()) > -0.43  # digits' background is -0.81


def test_vae_takes_flat_samples() -> None:
    with pytest.raises((ValueError, TypeError)):
        MlpVAE((20,), nhid=3).eval().generate(4)
    assert MendedVAE((20,), 3, 0.0, 1.0).eval().generate(4).shape == (4, 20)


def test_vae_takes_a_batch_of_one() -> None:
    x = torch.randn(1, *SHAPE)
    with pytest.raises(ValueError, match="more than 1 value"):
        MlpVAE(SHAPE, nhid=3).train()(x)
    assert [part.shape for part in MendedVAE(SHAPE, 3, 0.0, 1.0).train()(x)] == [(1, *SHAPE), (1, 3), (1, 3)]


def test_vae_samples_with_the_deviation_of_its_log_variance() -> None:
    mean, logvar = torch.zeros(200_000), torch.full((200_000,), 2.0)
    seed_all()
    assert float(MlpVAE(SHAPE, nhid=3).sampling(mean, logvar).std()) == pytest.approx(0.5 * 7.389, rel=0.02)
    assert float(MendedVAE(SHAPE, 3, 0.0, 1.0).sampling(mean, logvar).std()) == pytest.approx(2.718, rel=0.02)


def test_vae_samples_carry_no_graph() -> None:
    assert MlpVAE(SHAPE, nhid=3).eval().generate(4).requires_grad
    assert not MendedVAE(SHAPE, 3, 0.0, 1.0).eval().generate(4).requires_grad


def _update() -> list[Any]:
    class _Strategy:
        experience = tiny_stream("class").train_stream[0]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        ReservoirSamplingBuffer(5).update(_Strategy)
    return [warning for warning in caught if "deprecated" in str(warning.message)]


def test_avalanche_does_not_warn_about_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_annotations, "warnings", warnings)
    assert _update()  # although the filter says to ignore it
    silence_deprecations()
    assert not _update()
