"""The eight contracts of docs/architecture.md's plugins, over every case of `common.CASES`."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cl_ext.plugins import RWalkPlugin, SCPPlugin

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.logging import TextLogger
from avalanche.training.plugins import EvaluationPlugin, LRSchedulerPlugin, ReplayPlugin
from torch import nn

from tests.plugins import common
from tests.plugins.common import CASES, Case

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def _finite(model: nn.Module) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in model.parameters())


@each
def test_it_is_not_a_no_op(case: Case) -> None:
    plugin = case()
    ours = case.run([plugin], common.mlp)
    naive = case.run([], common.mlp)
    assert not common.same(case.result(ours), common.weights(naive.model))
    assert (plugin.extra_bytes() > 0) == case.keeps


@pytest.mark.parametrize("case", [case for case in CASES if case.off is not None], ids=lambda case: case.name)
@pytest.mark.parametrize("network", [common.mlp, common.normed, common.Growing])
def test_switched_off_it_is_naive_bit_for_bit(case: Case, network: Any) -> None:
    assert case.off is not None
    with case.may_refuse(network):
        ours = case.run([case(**case.off)], network, experiences=case.off_experiences)
        state = torch.get_rng_state()
        naive = case.run([], network, experiences=case.off_experiences)
        assert common.same(case.result(ours), common.weights(naive.model))
        assert torch.equal(state, torch.get_rng_state())


@each
@pytest.mark.parametrize("network", [common.mlp, common.normed])
@pytest.mark.parametrize("peval_mode", ["epoch", "iteration"])
def test_evaluation_changes_nothing(case: Case, network: Any, peval_mode: str) -> None:
    with case.may_refuse(network):
        plain = case.run([case()], network)
        evaluated = case.run([case()], network, eval_every=1, peval_mode=peval_mode)
        assert common.same(common.weights(plain.model), common.weights(evaluated.model))
        assert common.same(case.result(plain), case.result(evaluated))


@each
def test_evaluation_leaves_modes_and_random_state(case: Case) -> None:
    with case.may_refuse(common.normed):
        runner = case.run([case()], common.normed)
        common.layer(runner.model, nn.BatchNorm1d).eval()
        common.layer(runner.model, nn.Dropout).train()
        flags = [module.training for module in runner.model.modules()]
        before, state = common.weights(runner.model), torch.get_rng_state()
        runner.eval(common.benchmark(case.kind).test_stream)
        assert flags == [module.training for module in runner.model.modules()]
        assert common.same(before, common.weights(runner.model))
        assert torch.equal(state, torch.get_rng_state())


class _FrozenNorm(SupervisedPlugin):
    """A user's plugin that keeps batch norm in eval mode, and looks whether anyone changed that or another flag."""

    def __init__(self) -> None:
        super().__init__()
        self.flags: list[list[bool]] = []

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        common.layer(strategy.model, nn.BatchNorm1d).eval()

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        norm = common.layer(strategy.model, nn.BatchNorm1d)
        self.flags.append([module.training == (module is not norm) for module in strategy.model.modules()])


@each
def test_what_it_does_after_an_experience_restores_every_flag(case: Case) -> None:
    frozen = _FrozenNorm()
    with case.may_refuse(common.normed):
        case.run([case(), frozen], common.normed)
    if "normed" in case.refuses:
        return
    assert len(frozen.flags) == common.EXPERIENCES
    assert all(flags and all(flags) for flags in frozen.flags)


def test_resumed_in_a_fresh_process_it_goes_on_bit_equal(tmp_path: Path) -> None:
    for case in CASES:
        torch.manual_seed(0)
        plugin = case()
        runner = common.strategy(case.on(common.mlp)(), [plugin])
        stream = common.benchmark(case.kind).train_stream
        common.train(runner, stream[:2])
        state = {"model": runner.model.state_dict(), "optimizer": runner.optimizer.state_dict()}
        torch.save(state | {"plugin": plugin.state_dict()}, tmp_path / f"{case.name}.pt")
        json.dumps(plugin.state_dict(), default=lambda value: value.tolist())  # tensors and JSON values, nothing else
    command = [sys.executable, "-m", "tests.plugins.common", str(tmp_path)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], capture_output=True, timeout=600)
    for case in CASES:
        whole = case.result(case.run([case()], common.mlp))
        assert common.same(whole, torch.load(tmp_path / f"{case.name}.resumed.pt")), case.name


@each
def test_state_of_another_plugin_is_refused(case: Case) -> None:
    with pytest.raises(ValueError, match="cannot load the state of 'Other'"):
        case().load_state_dict({"plugin": "Other"})


@each
def test_same_seed_same_weights(case: Case) -> None:
    network = common.mlp if "normed" in case.refuses else common.normed
    first, second = case.run([case()], network), case.run([case()], network)
    assert common.same(case.result(first), case.result(second))


@each
@pytest.mark.parametrize(
    ("network", "kind"),
    [
        (common.mlp, "nc-tasks"),
        (common.mlp, "ci"),
        (common.normed, "nc-tasks"),
        (common.normed, "ci"),
        (common.Growing, "nc"),
        (common.Growing, "ci"),
        (common.MultiHead, "nc-tasks"),
    ],
)
def test_streams_and_heads(case: Case, network: Any, kind: str) -> None:
    with case.may_refuse(network, kind):
        runner = case.run([case()], network, kind)
        assert _finite(runner.model)
        assert not common.same(case.result(runner), common.weights(case.run([], network, kind).model))


@each
@pytest.mark.parametrize("network", [common.Growing, common.MultiHead])
def test_heads_that_evaluation_creates_early(case: Case, network: Any) -> None:
    torch.manual_seed(0)
    stream = common.benchmark("nc-tasks")
    with case.may_refuse(network):
        runner = common.strategy(case.on(network)(), [case()])
        common.train(runner, stream.train_stream, after=lambda: runner.eval(stream.test_stream))
        assert _finite(runner.model)


@each
@pytest.mark.parametrize(("per_class", "batch"), [(1, 2), (4, 7), (1, 1)])
def test_small_experiences(case: Case, per_class: int, batch: int) -> None:
    """One batch only, fewer iterations than any interval; a last batch of one; batches of one."""
    torch.manual_seed(0)
    runner = common.strategy(case.on(common.mlp)(), [case()], train_mb_size=batch, train_epochs=1)
    with case.may_refuse("one sample" if batch == 1 else ""):
        common.train(runner, common.benchmark(case.kind, per_class).train_stream)
        assert _finite(runner.model)


@each
def test_an_experience_of_one_sample(case: Case) -> None:
    torch.manual_seed(0)
    y = torch.arange(4)
    dataset = common.labelled(torch.randn(4, common.FEATURES), y)
    stream = common.nc_benchmark(dataset, dataset, 4, task_labels=case.kind == "nc-tasks", shuffle=False).train_stream
    runner = common.strategy(case.on(common.mlp)(), [case()], train_epochs=1)
    with case.may_refuse("one sample"):
        common.train(runner, stream)
        assert _finite(runner.model)


@pytest.mark.parametrize(
    ("make", "arguments", "error", "message"),
    [
        (RWalkPlugin, {"rwalk_lambda": -1.0}, ValueError, r"RWalkPlugin: rwalk_lambda must be in \[0, inf\), got -1.0"),
        (RWalkPlugin, {"rwalk_lambda": float("nan")}, ValueError, "rwalk_lambda .* got nan"),
        (RWalkPlugin, {"rwalk_lambda": "1"}, TypeError, "rwalk_lambda must be a number, got '1'"),
        (RWalkPlugin, {"alpha": 1.5}, ValueError, r"alpha must be in \[0, 1\], got 1.5"),
        (RWalkPlugin, {"delta_t": 0}, ValueError, "delta_t must be an integer >= 1, got 0"),
        (RWalkPlugin, {"delta_t": 2.5}, TypeError, "delta_t must be an integer, got 2.5"),
        (RWalkPlugin, {"epsilon": 0.0}, ValueError, r"epsilon must be in \(0, inf\), got 0.0"),
        (RWalkPlugin, {"fisher": "exact"}, ValueError, "fisher must be one of 'per_sample', 'batch', got 'exact'"),
        (RWalkPlugin, {"heads": "none"}, ValueError, "heads must be one of 'include', 'exclude'"),
        (SCPPlugin, {"scp_lambda": float("inf")}, ValueError, r"SCPPlugin: scp_lambda must be in \[0, inf\), got inf"),
        (SCPPlugin, {"scp_lambda": True}, TypeError, "scp_lambda must be a number, got True"),
        (SCPPlugin, {"alpha": -0.1}, ValueError, r"alpha must be in \[0, 1\], got -0.1"),
        (SCPPlugin, {"slices": 0}, ValueError, "slices must be an integer >= 1, got 0"),
        (SCPPlugin, {"mode": "mean"}, ValueError, "mode must be one of 'exact', 'sliced', 'minibatch'"),
        (SCPPlugin, {"init": 0}, ValueError, "init must be one of 'zero', 'first', got 0"),
        (SCPPlugin, {"batch_size": 0}, ValueError, "batch_size must be an integer >= 1, got 0"),
        (SCPPlugin, {"seed": -1}, ValueError, "seed must be an integer >= 0, got -1"),
    ],
)
def test_bad_hyper_parameters(make: Any, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(**arguments)


@each
def test_a_model_without_trainable_parameters_is_refused(case: Case) -> None:
    model = case.on(common.mlp)()
    runner = common.strategy(model, [case()])
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="has no trainable parameters"):
        runner.train(common.benchmark(case.kind).train_stream[0])


@each
def test_frozen_layers_are_left_alone(case: Case) -> None:
    torch.manual_seed(0)
    model = case.on(common.mlp)()
    first = common.layer(model, nn.Linear)
    first.requires_grad_(False)
    before = first.weight.clone()
    with case.may_refuse("frozen"):
        common.train(common.strategy(model, [case()]), common.benchmark(case.kind).train_stream)
        assert torch.equal(before, first.weight)
        assert _finite(model)


@each
def test_cost_and_quantities_are_reported(case: Case) -> None:
    plugin, text = case(), io.StringIO()
    assert plugin.extra_bytes() == 0
    runner = case.run([plugin], common.mlp, evaluator=EvaluationPlugin(loggers=[TextLogger(text)]))
    parameters = sum(p.numel() * 4 for p in runner.model.parameters())
    assert case.keeps <= plugin.extra_bytes() <= case.copies * parameters
    names = [name for name in runner.evaluator.get_all_metrics() if name.startswith(f"{plugin.name}_")]
    assert names
    assert all(f"/train_phase/train_stream/Exp{e:03d}" in " ".join(names) for e in range(1, common.EXPERIENCES))
    assert f"{plugin.name}_" in text.getvalue()


@each
def test_it_composes(case: Case) -> None:
    model = case.on(common.mlp)()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    schedule = LRSchedulerPlugin(torch.optim.lr_scheduler.StepLR(optimizer, 1))
    with case.may_refuse("composed"):
        runner = common.strategy(model, [ReplayPlugin(mem_size=8), schedule, case()], optimizer=optimizer)
        common.train(runner, common.benchmark(case.kind).train_stream)
        assert _finite(model)


@each
def test_network_and_plugin_can_be_copied_after_training(case: Case) -> None:
    """No hook, generator or iterator is left behind."""
    runner = case.run([case()], common.mlp)
    assert not any(module._forward_hooks for module in runner.model.modules())
    torch.save(runner.plugins[0], io.BytesIO())
