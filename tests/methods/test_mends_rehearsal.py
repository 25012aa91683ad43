"""Mends of A-GEM, MIR, GSS, BiC, ER-ACE and iCaRL: each beside Avalanche's own code, which shows the fault."""

from typing import Any

from cl_ext._avalanche_methods.rehearsal import (
    MendedACE,
    MendedAGEM,
    MendedBiC,
    MendedGSS,
    MendedMIR,
    RestingTeacher,
    exemplar_logits,
    name_class_order,
)
from cl_ext.models import Network, NetworkSpec, build_network

import pytest
import torch
from avalanche.models import TrainEvalModel
from avalanche.training import ACECriterion
from avalanche.training.plugins import AGEMPlugin, BiCPlugin, GSS_greedyPlugin, MIRPlugin, bic
from avalanche.training.supervised import ICaRL
from torch.nn import functional
from torch.optim.lr_scheduler import MultiStepLR

from tests.methods.helpers import SHAPE, NormedNetwork, Spy, fit, seed_all, tiny_stream


def _mlp() -> Network:
    return build_network(NetworkSpec("mlp", hidden=(8,)), SHAPE, 6)


def test_agem_takes_a_sample_of_each_experience() -> None:
    with pytest.raises(ValueError, match="batch_size=0"):
        fit([AGEMPlugin(8, 1)], network=_mlp(), experiences=3)
    plugin = MendedAGEM(8, 1)
    fit([plugin], network=_mlp(), experiences=3)
    assert len(next(plugin.buffer_dliter)[1]) == 3


@pytest.mark.parametrize(("plugin", "replayed"), [(MIRPlugin, {0, 1}), (MendedMIR, {0, 1, 2, 3})])
def test_mir_replays_the_last_experience(plugin: Any, replayed: set[int]) -> None:
    own = plugin(8, mem_size=60, subsample=60)
    fit([own], experiences=2)
    assert set(next(own.replay_loader)[1].tolist()) == replayed


@pytest.mark.parametrize(("plugin", "replays"), [(MIRPlugin, False), (MendedMIR, True)])
def test_mir_replays_in_domain_incremental_streams(plugin: Any, replays: bool) -> None:
    own = plugin(8, mem_size=60, subsample=60)
    fit([own], "domain")
    assert (own.replay_loader is not None) == replays


def _gss(plugin: Any, mem_size: int) -> Any:
    return plugin(mem_size, 2, SHAPE, 8) if plugin is MendedGSS else plugin(mem_size, 2, SHAPE)


@pytest.mark.parametrize(("plugin", "clean"), [(GSS_greedyPlugin, False), (MendedGSS, True)])
def test_gss_steps_along_the_gradient_of_its_loss(plugin: Any, clean: bool) -> None:
    def error(strategy: Any) -> float:
        strategy.model.eval()  # no dropout: the loss can be computed again
        x, y = strategy.mb_x, strategy.mb_y
        own = [p.grad.clone() for p in strategy.model.parameters()]
        wanted = torch.autograd.grad(strategy._criterion(strategy.model(x), y), list(strategy.model.parameters()))
        return max(float((a - b).abs().max()) for a, b in zip(own, wanted, strict=True))

    spy = Spy("after_backward", error)
    fit([_gss(plugin, 40), spy], network=_mlp(), experiences=1)
    assert (max(spy.seen) < 1e-6) == clean


@pytest.mark.parametrize(("plugin", "black"), [(GSS_greedyPlugin, True), (MendedGSS, False)])
def test_gss_replays_filled_slots_only(plugin: Any, black: bool) -> None:
    spy = Spy("before_forward", lambda strategy: bool((strategy.mb_x.flatten(1) == 0).all(1).any()))
    own = _gss(plugin, 150)
    fit([own, spy], experiences=2)
    assert any(spy.seen) == black


def test_gss_bears_a_memory_that_holds_less_than_a_step() -> None:
    for plugin in (GSS_greedyPlugin, MendedGSS):
        own = _gss(plugin, 60)
        stream = tiny_stream("class", samples=6)
        if plugin is GSS_greedyPlugin:
            with pytest.raises(ValueError, match="empty"):
                fit([own], network=_mlp(), benchmark=stream)
        else:
            fit([own], network=_mlp(), benchmark=stream)
            assert own.ext_mem_list_current_index > 6


def _bic(plugin: Any) -> Any:
    return plugin(mem_size=60, batch_size=16, batch_size_mem=8, stage_2_epochs=3)


def test_bic_runs_on_this_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bic, "MultiStepLR", MultiStepLR)
    with pytest.raises(TypeError, match="verbose"):
        fit([_bic(BiCPlugin)])
    plugin = _bic(MendedBiC)
    fit([plugin])
    assert plugin.bias_layer is not None
    assert float(plugin.bias_layer.beta) != 0


@pytest.mark.parametrize(("plugin", "rests"), [(BiCPlugin, False), (MendedBiC, True)])
def test_bic_distillation_rests_where_new_equals_old(plugin: Any, rests: bool) -> None:
    old = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    new = old.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(_bic(plugin).cross_entropy(new, old), new)
    assert (float(gradient.abs().max()) < 1e-6) == rests


def test_bic_needs_more_samples_than_it_sets_aside() -> None:
    with pytest.raises(ValueError, match="bic sets 3 samples of each class aside"):
        fit([_bic(MendedBiC)], benchmark=tiny_stream("class", samples=6))


@pytest.mark.parametrize(("plugin", "whole"), [(BiCPlugin, False), (MendedBiC, True)])
def test_bic_gives_the_experience_back(plugin: Any, whole: bool) -> None:
    experience = tiny_stream("class").train_stream[0]
    before = experience.dataset

    class Stream:
        train_stream = (experience,)

    try:
        fit([_bic(plugin)], experiences=1, benchmark=Stream)
        assert (len(experience.dataset) == len(before)) == whole
    finally:
        experience.dataset = before


def test_ace_stays_finite_and_equals_avalanches_elsewhere() -> None:
    generator = torch.Generator().manual_seed(0)
    incoming, memory = torch.randn(9, 6, generator=generator), torch.randn(5, 6, generator=generator)
    y_in, y_memory = torch.tensor([4, 5, 5, 4, 4, 4, 5, 4, 5]), torch.tensor([0, 1, 2, 3, 1])
    mended = MendedACE(functional.cross_entropy)
    assert mended(incoming, y_in, memory, y_memory).allclose(ACECriterion()(incoming, y_in, memory, y_memory))
    incoming[1, 5] += 300
    assert ACECriterion()(incoming, y_in, memory, y_memory).isnan()
    assert mended(incoming, y_in, memory, y_memory).isfinite()


def _icarl(*plugins: Any) -> ICaRL:
    seed_all()
    network = NormedNetwork(6)
    return ICaRL(
        feature_extractor=network.features, classifier=network.classifier, memory_size=30, buffer_transform=None,
        fixed_memory=True, optimizer=torch.optim.SGD(network.parameters(), lr=0.05), train_mb_size=16, train_epochs=1,
        eval_mb_size=64, plugins=list(plugins), evaluator=None,
    )  # fmt: skip


class _Bare:
    """A stream without the two attributes that iCaRL asks for."""


def test_icarl_is_told_the_class_order() -> None:
    tiny_stream.cache_clear()
    stream = tiny_stream("class")
    with pytest.raises(AttributeError, match="n_classes_per_exp"):
        _icarl().train(stream.train_stream[0], eval_streams=[])
    name_class_order(stream, [[0, 1], [2, 3], [4, 5]])
    strategy = _icarl()
    strategy.train(stream.train_stream[0], eval_streams=[])
    assert strategy.model.eval_classifier.class_means.shape == (6, 12)
    kept = _Bare()
    kept.classes_order = [1, 0]  # type: ignore[attr-defined]
    name_class_order(kept, [[0, 1]])
    assert kept.classes_order == [1, 0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("plugins", [(), (RestingTeacher(),)], ids=["stock", "mended"])
def test_icarl_teacher_rests(plugins: tuple[Any, ...]) -> None:
    stream = tiny_stream("class")
    name_class_order(stream, [[0, 1], [2, 3], [4, 5]])
    strategy = _icarl(*plugins)
    teacher: list[TrainEvalModel] = []
    means: list[Any] = []

    def look(_: Any) -> None:
        if strategy._criterion.old_model is not None:
            teacher.append(strategy._criterion.old_model)
            means.append(teacher[-1].feature_extractor[2].running_mean.clone())

    strategy.plugins.insert(-1, Spy("before_backward", look))
    for experience in list(stream.train_stream)[:2]:
        strategy.train(experience, eval_streams=[])
    assert means[0].equal(means[-1]) == bool(plugins)
    assert teacher[0].training  # it answers with the trained classifier


def test_icarl_does_not_predict_classes_without_exemplars() -> None:
    stream = tiny_stream("class")
    name_class_order(stream, [[0, 1], [2, 3], [4, 5]])
    strategy = _icarl()
    x = torch.randn(4, *SHAPE)
    assert exemplar_logits(strategy, x, 6).isneginf().all()
    strategy.train(stream.train_stream[0], eval_streams=[])
    strategy.model.eval()
    strategy.model.feature_extractor = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 12))
    torch.nn.init.zeros_(strategy.model.feature_extractor[1].weight)
    torch.nn.init.constant_(strategy.model.feature_extractor[1].bias, -1.0)  # opposite to all means
    assert int(strategy.model(x).argmax(1)[0]) >= 2
    assert int(exemplar_logits(strategy, x, 6).argmax(1)[0]) < 2
    assert exemplar_logits(strategy, x, 6)[:, 2:].isneginf().all()
