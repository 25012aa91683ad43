"""OGD's guarantee in float64 under three optimizers, its limits, and the known ways to lose it."""

from collections.abc import Callable
from typing import Any

from cl_ext.methods.criterion import ScenarioCrossEntropy
from cl_ext.nn.logit_gradients import by_task, logit_seeds
from cl_ext.nn.orthogonal import ExplicitBasis, FlatVector
from cl_ext.nn.orthogonal_factors import ImplicitBasis
from cl_ext.plugins import OGDPlugin

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.nn import functional

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
D, K, STORED, STEPS = 20, 4, 8, 500
Optimizer = Callable[[Any], torch.optim.Optimizer]


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.02)


def momentum(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.02, momentum=0.9)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01, weight_decay=0.1)


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)


def two_tasks() -> tuple[Any, Tensor]:
    """Returns a stream of 8 samples of classes 0, 1 and then 500 batches of 4 of classes 2, 3; and the first inputs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(STORED + 4 * STEPS, D, generator=generator, dtype=torch.float64) + 0.5
    y = torch.cat([torch.arange(STORED) % 2, 2 + torch.arange(4 * STEPS) % 2])
    x[STORED:, 0] += 2.0 * (y[STORED:] - 2.5)
    data = common.labelled(x, y)
    return nc_benchmark(data, data, 2, task_labels=False, shuffle=False).train_stream, x[:STORED]


class _Watch(SupervisedPlugin):
    """Records the stored samples' outputs after each step of the second experience, and the losses."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x, self.outputs, self.losses, self.on = x, [], [], False  # type: ignore[var-annotated]

    @torch.no_grad()
    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        if self.on:
            self.outputs.append(strategy.model(self.x))
            self.losses.append(float(strategy.loss))

    @property
    def drift(self) -> float:
        """How far any stored output moved, at most, over all steps."""
        return float((torch.stack(self.outputs) - self.outputs[0]).abs().max())

    @property
    def fall(self) -> float:
        """The mean loss of the first five steps less that of the last fifty."""
        return sum(self.losses[:5]) / 5 - sum(self.losses[-50:]) / 50


def watched(plugins: list[Any], make: Optimizer) -> _Watch:
    """Trains a linear softmax on both tasks; what is watched is the second."""
    torch.manual_seed(0)
    model = nn.Linear(D, K).double()
    stream, x = two_tasks()
    watch = _Watch(x)
    runner = common.strategy(model, [*plugins, watch], optimizer=make(model.parameters()), train_mb_size=4,
                             train_epochs=1)  # fmt: skip
    runner.train(stream[0])
    with torch.no_grad():
        watch.outputs.append(model(x))
    watch.on = True
    runner.train(stream[1])
    assert len(watch.losses) == STEPS
    return watch


@pytest.mark.parametrize("make", [sgd, momentum, adam, adamw])
def test_stored_outputs_of_a_linear_model_never_move(make: Optimizer) -> None:
    """500 steps; the first order is all there is. The loss falls, and without the plugin the outputs move."""
    watch = watched([OGDPlugin(variant="all")], make)
    assert watch.drift < 1e-10
    assert watch.fall > 0.2
    assert watched([], make).drift > 1.0


@pytest.mark.parametrize("variant", ["gtl", "ave"])
def test_the_stored_function_is_what_stays(variant: Any) -> None:
    watch = watched([OGDPlugin(variant=variant, basis="explicit")], momentum)
    outputs = torch.stack(watch.outputs)
    y = torch.arange(STORED) % 2
    moved = {"gtl": outputs[:, torch.arange(STORED), y], "ave": outputs.mean(2)}
    drift = {name: float((value - value[0]).abs().max()) for name, value in moved.items()}
    assert drift.pop(variant) < 1e-10
    assert min(drift.values()) > 0.1


class _ProjectsTheGradient(OGDPlugin):
    """The paper's g~ handed to the optimizer, as public codes do."""

    def after_backward(self, strategy: Any, **kwargs: Any) -> None:
        if self.directions:
            assert self.basis is not None
            assert self._step is not None
            torch._foreach_copy_(self._step.views, [p.grad for p in self._tensors])
            self.basis.project_(self._step)
            torch._foreach_copy_([p.grad for p in self._tensors], self._step.views)

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        pass


@pytest.mark.parametrize("make", [momentum, adam, adamw])
def test_negative_control_the_gradient_is_projected(make: Optimizer) -> None:
    """Momentum of the task before, Adam's scaling and weight decay leave the subspace."""
    assert watched([_ProjectsTheGradient(variant="all")], make).drift > 1e-2


def test_for_plain_sgd_the_step_and_the_gradient_are_the_same_thing() -> None:
    ours, paper = (watched([make(variant="all")], sgd) for make in (OGDPlugin, _ProjectsTheGradient))
    torch.testing.assert_close(torch.tensor(ours.losses), torch.tensor(paper.losses), rtol=1e-9, atol=0)


class _StoresLossGradients(OGDPlugin):
    """Gradients of the loss for gradients of logits: for a fitted sample they are small, and one a sample."""

    def _store(self, model: nn.Module, groups: Any, loss: Any) -> None:
        from cl_ext.plugins import ogd

        def seeds(phi: Tensor, y: Tensor) -> Tensor:
            return (phi.softmax(1) - functional.one_hot(y, phi.shape[1])).unsqueeze(0)

        original = ogd.logit_seeds
        ogd.logit_seeds = lambda variant, loss: seeds
        try:
            super()._store(model, groups, loss)
        finally:
            ogd.logit_seeds = original


def test_negative_control_gradients_of_the_loss() -> None:
    assert watched([_StoresLossGradients(variant="gtl")], sgd).drift > 0.1


@pytest.mark.parametrize("variant", ["gtl", "all", "ave"])
def test_seeds(variant: Any) -> None:
    """Of four classes in two tasks the task-incremental loss reads two."""
    loss = ScenarioCrossEntropy([[0, 1], [2, 3]])
    seeds = logit_seeds(variant, loss)(torch.randn(2, 4), torch.tensor([3, 0]))
    expected = {
        "gtl": [[[0, 0, 0, 1], [1, 0, 0, 0]]],
        "ave": [[[0, 0, 0.5, 0.5], [0.5, 0.5, 0, 0]]],
        "all": [[[0] * 4, [1, 0, 0, 0]], [[0] * 4, [0, 1, 0, 0]], [[0, 0, 1, 0], [0] * 4], [[0, 0, 0, 1], [0] * 4]],
    }
    torch.testing.assert_close(seeds, torch.tensor(expected[variant], dtype=torch.float32))


def test_all_stores_one_direction_for_each_output_that_is_read() -> None:
    plugin = OGDPlugin(3, variant="all")
    loss = ScenarioCrossEntropy([[0, 1], [2, 3], [4, 5], [6, 7]])
    runner = common.strategy(common.mlp(), [plugin], criterion=loss)
    common.train(runner, common.benchmark().train_stream)
    assert plugin.directions == 3 * 2 * common.EXPERIENCES


def test_the_first_experience_is_naive_and_later_ones_are_not() -> None:
    ends: dict[bool, list[Any]] = {}
    for equipped in (True, False):
        torch.manual_seed(0)
        runner = common.strategy(common.mlp(), [OGDPlugin(9)] if equipped else [])
        ends[equipped] = []
        common.train(runner, common.benchmark().train_stream, after=lambda r=runner, e=ends[equipped]: e.append(
            common.weights(r.model)))  # fmt: skip
    assert [common.same(a, b) for a, b in zip(ends[True], ends[False], strict=True)] == [True, False, False, False]


def seeded(network: Any) -> nn.Module:
    torch.manual_seed(0)
    return network()


@pytest.mark.parametrize("network", [common.mlp, common.Growing])
def test_implicit_and_explicit_train_alike(network: Any) -> None:
    """Float32, four experiences, momentum, a head that grows."""

    def run(basis: Any) -> Any:
        plugin = OGDPlugin(6, variant="all", basis=basis)
        common.train(runner := common.strategy(seeded(network), [plugin]), common.benchmark().train_stream)
        return runner, plugin

    (implicit, a), (explicit, b) = run("auto"), run("explicit")
    assert isinstance(a.basis, ImplicitBasis)
    assert isinstance(b.basis, ExplicitBasis)
    assert a.directions == b.directions > 20
    for p, q in zip(implicit.model.parameters(), explicit.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)


def test_excluded_heads_move_freely() -> None:
    """The trunk's step has no part in the trunk's directions, and the head's is the optimizer's own."""
    torch.manual_seed(0)
    plugin, model = OGDPlugin(9, heads="exclude"), common.mlp()
    stream = common.benchmark().train_stream
    runner = common.strategy(model, [plugin], optimizer=torch.optim.SGD(model.parameters(), lr=0.05))
    runner.train(stream[0])
    assert plugin.basis is not None
    assert list(plugin._parameters) == ["0.weight", "0.bias"]
    seen: list[float] = []

    class Check(SupervisedPlugin):
        def before_update(self, strategy: Any, **kwargs: Any) -> None:
            self.head = model[2].weight.detach().clone()
            self.trunk = [p.detach().clone() for p in model[0].parameters()]

        def after_update(self, strategy: Any, **kwargs: Any) -> None:
            torch.testing.assert_close(model[2].weight, self.head - 0.05 * model[2].weight.grad, rtol=0, atol=1e-7)
            step = FlatVector(plugin._parameters)
            parts = [(p - o).detach().flatten() for p, o in zip(plugin._tensors, self.trunk, strict=True)]
            step.flat.copy_(torch.cat(parts))
            length = float(step.flat.norm())
            before = step.flat.clone()
            plugin.basis.project_(step)
            seen.append(float((step.flat - before).norm()) / length)

    runner.plugins.append(Check())
    runner.train(stream[1])
    assert 0 < max(seen) < 1e-4


@pytest.mark.parametrize("make", [common.mlp, common.normed])
def test_what_cannot_be_stored_is_refused_before_it_is_allocated(make: Any) -> None:
    stream = common.benchmark().train_stream
    runner = common.strategy(make(), [OGDPlugin(9, memory_limit=1000)])
    with pytest.raises(MemoryError, match=r"OGDPlugin: 9 directions in the .*plicit basis take .* above memory_limit"):
        runner.train(stream[0])
    assert runner.clock.train_iterations == 0  # before any training was wasted
    later = common.strategy(make(), [OGDPlugin(9, variant="all", memory_limit=22_000)])
    with pytest.raises(MemoryError, match="72 directions"):  # how many outputs the loss reads is known at the end
        later.train(stream[0])


def test_when_full_the_first_to_come_stay() -> None:
    bounded, free = OGDPlugin(6, max_directions=8), OGDPlugin(6)
    for plugin in (bounded, free):
        common.train(common.strategy(seeded(common.mlp), [plugin]), common.benchmark().train_stream[:1])
    assert isinstance(bounded.basis, ImplicitBasis)
    assert isinstance(free.basis, ImplicitBasis)
    assert torch.equal(bounded.basis.factors["0"].a, free.basis.factors["0"].a)
    first = bounded.basis.factors["0"].a.clone()
    common.train(common.strategy(seeded(common.mlp), [bounded]), common.benchmark().train_stream[1:])
    assert bounded.directions == 8
    assert torch.equal(bounded.basis.factors["0"].a[:6], first)


def test_a_basis_that_the_network_cannot_have() -> None:
    with pytest.raises(ValueError, match="the implicit basis needs every trainable parameter"):
        common.run([OGDPlugin(5, basis="implicit")], common.normed)


def test_samples_are_split_by_task() -> None:
    """A multi-head network takes one task's samples at a time."""
    data = torch.utils.data.TensorDataset(torch.arange(5.0), torch.arange(5), torch.tensor([0, 1, 0, 1, 1]))
    groups = by_task(data, torch.device("cpu"))
    assert [group.y.tolist() for group in groups] == [[0, 2], [1, 3, 4]]
    assert [int(group.t[0]) for group in groups if group.t is not None] == [0, 1]


def test_freezing_a_layer_on_the_way() -> None:
    """Directions are cut down to what still moves, and the frozen layer stays where it is."""
    torch.manual_seed(0)
    plugin, model = OGDPlugin(6, basis="explicit"), common.mlp()
    stream = common.benchmark().train_stream
    runner = common.strategy(model, [plugin])
    common.train(runner, stream[:2])
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    common.train(runner, stream, first=2)
    assert torch.equal(before, model[0].weight)
    assert isinstance(plugin.basis, ExplicitBasis)
    assert plugin.basis.rows.shape[1] == 16 * common.CLASSES + common.CLASSES
    torch.testing.assert_close(
        plugin.basis.rows @ plugin.basis.rows.t(), torch.eye(plugin.directions), rtol=0, atol=1e-6
    )


def test_metrics() -> None:
    plugin = OGDPlugin(6)
    runner = common.run([plugin])
    metrics = runner.evaluator.get_all_metrics()
    counts = metrics["OGD_Directions/train_phase/train_stream/Exp003"][1]
    removed = [metrics[f"OGD_RemovedShare/train_phase/train_stream/Exp{e:03d}"][1] for e in range(common.EXPERIENCES)]
    assert counts == [24.0]
    assert removed[0] == [0.0, 0.0]
    assert all(0.0 < share < 1.0 for values in removed[1:] for share in values)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_samples": -1}, ValueError, "OGDPlugin: n_samples must be an integer >= 0, got -1"),
        ({"n_samples": 2.0}, TypeError, "n_samples must be an integer, got 2.0"),
        ({"variant": "gt"}, ValueError, "variant must be one of 'gtl', 'all', 'ave', got 'gt'"),
        ({"basis": "qr"}, ValueError, "basis must be one of 'auto', 'explicit', 'implicit'"),
        ({"max_directions": 0}, ValueError, "max_directions must be an integer >= 1, got 0"),
        ({"memory_limit": -1}, ValueError, "memory_limit must be an integer >= 0, got -1"),
        ({"heads": "trunk"}, ValueError, "heads must be one of 'include', 'exclude'"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        OGDPlugin(**arguments)
