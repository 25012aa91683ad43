"""SI against closed forms and an independent loop, in float64; every known fault of public codes must be caught."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from cl_ext._avalanche_methods.regularisation import MendedSI
from cl_ext.plugins import SIPlugin
from cl_ext.plugins.si import task_importance

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.nn import functional

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
BATCH, EPOCHS, TASKS = 5, 3, 3
STRENGTH, XI = 0.5, 0.05
MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, MakeOptimizer] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5),
    "weight decay": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.5, nesterov=True, foreach=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
}


def _data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(6).repeat_interleave(6)  # 12 samples an experience: batches of 5, 5, 2
    return torch.randn(36, 4, generator=generator, dtype=torch.float64) + y.unsqueeze(1) / 3, y


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6)).double()


def _plugin_run(
    plugin: Any, optimizer: str = "momentum", model: nn.Module | None = None, tasks: int = TASKS, **options: Any
) -> nn.Module:
    dataset = common.labelled(*_data())
    stream = nc_benchmark(dataset, dataset, TASKS, task_labels=False, shuffle=False).train_stream
    model = _network() if model is None else model
    arguments: dict[str, Any] = {"train_mb_size": BATCH, "train_epochs": EPOCHS}
    arguments |= {"optimizer": OPTIMIZERS[optimizer](list(model.parameters()))} | options
    runner = common.strategy(model, [plugin], **arguments)
    for experience in stream[:tasks]:
        runner.train(experience, shuffle=False)
    return model


def _reference_run(optimizer_name: str, strength: float, xi: float) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """SI from its equations, one tensor at a time, without foreach or plugins: weights, Omega and the last w."""
    model, (xs, ys) = _network(), _data()
    theta = list(model.parameters())
    optimizer = OPTIMIZERS[optimizer_name](theta)
    omega = [torch.zeros_like(p) for p in theta]
    star = [p.detach().clone() for p in theta]
    for task in range(TASKS):
        w = [torch.zeros_like(p) for p in theta]
        x_task, y_task = xs[12 * task :][:12], ys[12 * task :][:12]
        for _ in range(EPOCHS):
            for x, y in zip(x_task.split(BATCH), y_task.split(BATCH), strict=True):
                clean = torch.autograd.grad(functional.cross_entropy(model(x), y), theta)
                old = [p.detach().clone() for p in theta]
                for i, p in enumerate(theta):
                    p.grad = clean[i] + 2 * strength * omega[i] * (old[i] - star[i])
                optimizer.step()
                for i, p in enumerate(theta):
                    w[i] -= clean[i] * (p.detach() - old[i])
        for i, p in enumerate(theta):
            omega[i] += torch.clamp(w[i] / ((p.detach() - star[i]) ** 2 + xi), min=0)
            star[i] = p.detach().clone()
    return star, omega, w


def _distance(plugin: SIPlugin, optimizer: str = "momentum") -> float:
    """Returns the largest difference to the reference, in weights and Omega."""
    model = _plugin_run(plugin, optimizer)
    weights, omega, _ = _reference_run(optimizer, STRENGTH, XI)
    pairs = [*zip(model.parameters(), weights, strict=True), *zip(plugin.importances.values(), omega, strict=True)]
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_equals_the_reference(optimizer: str) -> None:
    plugin = SIPlugin(STRENGTH, XI)
    assert _distance(plugin, optimizer) < 1e-12
    weights, _, w = _reference_run(optimizer, STRENGTH, XI)
    for ours, theirs in zip(plugin.anchors.values(), weights, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)
    for ours, theirs in zip(plugin.path_integral.values(), w, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)


class _PenaltyInPath(SIPlugin):
    """van de Ven, Avalanche: the gradient of loss and penalty."""

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        super().after_backward(strategy, *args, **kwargs)
        self._path.keep_gradient_(self._tensors)


class _GradientOfTheStepBefore(SIPlugin):
    """HW14: the move of a step meets the gradient of the one before."""

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        super().before_training_exp(strategy, *args, **kwargs)
        self._path.gradient.zero_()

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._earlier = [g.clone() for g in self._path.gradient.tensors]
        super().after_backward(strategy, *args, **kwargs)

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        present = [g.clone() for g in self._path.gradient.tensors]
        self._path.gradient.copy_(self._earlier)
        super().after_update(strategy, *args, **kwargs)
        self._path.gradient.copy_(present)


class _GradientReadAfterTheUpdate(SIPlugin):
    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._path.keep_gradient_(self._tensors)
        super().after_update(strategy, *args, **kwargs)


class _MoveFromTheGradient(SIPlugin):
    """The move taken for `-lr g`, which it is under plain SGD only."""

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        rate = strategy.optimizer.param_groups[0]["lr"]
        for w, g in zip(self._path.w.tensors, self._path.gradient.tensors, strict=True):
            w += rate * g * g


class _WeightDecayInPath(SIPlugin):
    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        super().after_backward(strategy, *args, **kwargs)
        decay = strategy.optimizer.param_groups[0]["weight_decay"]
        for g, p in zip(self._path.gradient.tensors, self._tensors, strict=True):
            g += decay * p.detach()


class _Quotients(SIPlugin):
    """Omega from the sum of the experiences' unclamped quotients, by what a subclass makes of it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._quotients: list[Tensor] = []

    def made_of(self, quotient: Tensor) -> Tensor:
        raise NotImplementedError

    def consolidate(self, strategy: Any) -> None:
        triples = list(zip(self._path.w.tensors, self._tensors, self._penalty.anchor.tensors, strict=True))
        new = [w / ((p.detach() - a).square() + self.xi) for w, p, a in triples]
        old = self._quotients or [torch.zeros_like(q) for q in new]
        self._quotients = [a + b for a, b in zip(old, new, strict=True)]
        self._penalty.importance.copy_([self.made_of(q) for q in self._quotients])


class _NoClamp(_Quotients):
    """van de Ven, Avalanche: negative importances."""

    def made_of(self, quotient: Tensor) -> Tensor:
        return quotient


class _ClampAfterTheSum(_Quotients):
    def made_of(self, quotient: Tensor) -> Tensor:
        return quotient.relu()


class _ClippedFromAbove(SIPlugin):
    """Avalanche: at most 0.001."""

    def consolidate(self, strategy: Any) -> None:
        super().consolidate(strategy)
        for omega in self._penalty.importance.tensors:
            omega.clamp_(max=0.001)


class _TinyDamping(SIPlugin):
    """Avalanche: 1e-7."""

    def __init__(self, strength: float, _: float) -> None:
        super().__init__(strength, 1e-7)


class _PathNotReset(SIPlugin):
    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        kept = [w.clone() for w in self._path.w.tensors]
        super().before_training_exp(strategy, *args, **kwargs)
        if kept:
            self._path.w.copy_(kept)


class _AnchorNotRefreshed(SIPlugin):
    def anchor_(self, strategy: Any) -> None:
        if self.experiences == 0:
            super().anchor_(strategy)


@pytest.mark.parametrize(
    ("faulty", "optimizer"),
    [
        (_PenaltyInPath, "momentum"),
        (_GradientOfTheStepBefore, "sgd"),
        (_GradientReadAfterTheUpdate, "nesterov"),
        (_MoveFromTheGradient, "adam"),
        (_WeightDecayInPath, "weight decay"),
        (_NoClamp, "momentum"),
        (_ClampAfterTheSum, "momentum"),
        (_ClippedFromAbove, "momentum"),
        (_TinyDamping, "adam"),
        (_PathNotReset, "momentum"),
        (_AnchorNotRefreshed, "momentum"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*diverges on the penalty alone")
def test_negative_control(faulty: Any, optimizer: str) -> None:
    """The reference tells each known fault from the paper's form."""
    assert _distance(faulty(STRENGTH, XI), optimizer) > 1e-4


@pytest.fixture
def double_precision() -> Any:
    """Avalanche makes its tables in the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class _AvalancheQuirks(_PenaltyInPath, _NoClamp):
    """Total gradient, no clamp below, clipped at 0.001 from above, strength lambda/2: Avalanche's form, eps apart."""

    def made_of(self, quotient: Tensor) -> Tensor:
        return quotient.clamp(max=0.001)


@pytest.mark.filterwarnings("ignore:.*diverges on the penalty alone")
def test_with_its_quirks_it_is_avalanches(double_precision: None) -> None:
    """Avalanche's own plugin, with its views of the live weights mended to copies: the same weights and Omega."""
    strength, eps = 20.0, 1e-2
    quirky, theirs = _AvalancheQuirks(strength / 2, eps), MendedSI(strength, eps=eps)
    ours, avalanches, paper = _plugin_run(quirky), _plugin_run(theirs), _plugin_run(SIPlugin(strength / 2, eps))
    for name, omega in quirky.importances.items():
        torch.testing.assert_close(omega.flatten(), theirs.ewc_data[1][name].data, rtol=1e-9, atol=1e-12)
    for p, q, unlike in zip(ours.parameters(), avalanches.parameters(), paper.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-11)
        assert not torch.allclose(p, unlike, rtol=0, atol=1e-3)


class _Weights(nn.Module):
    """Three weights, whatever the data."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(values, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.theta.expand(len(x), len(self.theta))


def _ten_steps(plugin: Any, values: list[float], loss: Callable[[Tensor, int], Tensor], **sgd: float) -> _Weights:
    """Ten steps of SGD with rate 0.1 on `loss(theta, step)`."""
    model, steps = _Weights(values), iter(range(10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, **sgd)
    options = {"optimizer": optimizer, "train_mb_size": 2, "train_epochs": 1}
    runner = common.strategy(model, [plugin], criterion=lambda output, _: loss(output[0], next(steps)), **options)
    runner.train(common.benchmark().train_stream[0])  # 20 samples
    return model


def test_quadratic() -> None:
    """Gradient descent on h/2 d^2: w = h d0^2 (1 - r^{2T}) / (2 - eta h), r = 1 - eta h."""
    h, eta, steps, xi = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64), 0.1, 10, 0.1
    d0, r = torch.tensor([0.7, -1.3, 2.0], dtype=torch.float64), 1 - eta * h
    plugin = SIPlugin(1.0, xi)
    _ten_steps(plugin, d0.tolist(), lambda theta, _: (0.5 * h * theta.square()).sum())
    w = h * d0**2 * (1 - r ** (2 * steps)) / (2 - eta * h)
    torch.testing.assert_close(plugin.path_integral["theta"], w, rtol=1e-13, atol=0)
    drop = 0.5 * h * (d0**2 - (d0 * r**steps) ** 2)
    torch.testing.assert_close(plugin.path_integral["theta"], drop * 2 / (2 - eta * h), rtol=1e-13, atol=0)
    move = d0 * (r**steps - 1)
    torch.testing.assert_close(plugin.importances["theta"], w / (move**2 + xi), rtol=1e-13, atol=0)


def test_under_sgd_the_path_is_the_rate_times_squared_gradients() -> None:
    squares: list[Tensor] = []

    class Watched(SIPlugin):
        def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            super().after_backward(strategy, *args, **kwargs)
            squares.append(torch.cat([p.grad.flatten() ** 2 for p in strategy.model.parameters()]))

    plugin = Watched()
    _plugin_run(plugin, "sgd", tasks=1)
    w = torch.cat([w.flatten() for w in plugin.path_integral.values()])
    torch.testing.assert_close(w, 0.1 * torch.stack(squares).sum(0), rtol=1e-12, atol=1e-16)


def test_the_path_sums_to_the_fall_of_the_loss() -> None:
    """To first order in the rate: a tenth of the rate leaves a tenth of the gap."""
    x, y = _data()
    dataset = common.labelled(x, y)
    stream = nc_benchmark(dataset, dataset, 1, task_labels=False, shuffle=False).train_stream
    gaps = []
    for rate, epochs in ((0.1, 5), (0.01, 50)):
        model, plugin = _network(), SIPlugin()
        before = functional.cross_entropy(model(x), y).item()
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        runner = common.strategy(model, [plugin], optimizer=optimizer, train_mb_size=36, train_epochs=epochs)
        runner.train(stream[0])
        drop = before - functional.cross_entropy(model(x), y).item()
        total = sum(float(w.sum()) for w in plugin.path_integral.values())
        gaps.append(abs(total / drop - 1))
        published = runner.evaluator.get_all_metrics()["SI_PathIntegral/train_phase/train_stream/Exp000"][1]
        assert published == [pytest.approx(total)]
    assert gaps[1] < 3e-3
    assert gaps[1] == pytest.approx(gaps[0] / 10, rel=0.1)


def test_a_weight_that_only_shook_does_not_dominate() -> None:
    """A gradient of alternating sign moves its weight nowhere: with eps = 1e-7 that weight becomes the most important.

    Over 10 steps of rate 0.1 the first weight has w = 1e-4 and no move; the second has w = 1 and moves by 1.
    """

    def loss(theta: Tensor, step: int) -> Tensor:
        return 0.01 * (-1) ** step * theta[0] + theta[1]

    paper, tiny = SIPlugin(), SIPlugin(xi=1e-7)
    for plugin in (paper, tiny):
        _ten_steps(plugin, [0.0, 0.0], loss)
    expected = torch.tensor([1e-4 / 0.1, 1 / 1.1], dtype=torch.float64)
    torch.testing.assert_close(paper.importances["theta"], expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(tiny.importances["theta"][0].item(), 1e-4 / 1e-7, rtol=1e-6, atol=0)
    assert tiny.importances["theta"][0] > 900 * tiny.importances["theta"][1]


def test_moves_without_a_gradient_earn_nothing() -> None:
    """Weight decay on a weight that the loss does not touch, and momentum after the gradient has gone."""
    plugin = SIPlugin()
    model = _ten_steps(plugin, [1.0, 1.0], lambda theta, _: 0.0 * theta[0] + theta[1], weight_decay=0.1)
    assert float(model.theta[0]) < 0.95
    assert plugin.importances["theta"][0] == 0.0 < plugin.importances["theta"][1]
    plugin = SIPlugin()
    _ten_steps(plugin, [1.0], lambda theta, step: (float(step == 0) * theta).sum(), momentum=0.9)
    move = 0.1 * (1 - 0.9**10) / (1 - 0.9)
    torch.testing.assert_close(plugin.path_integral["theta"].item(), 0.1, rtol=1e-12, atol=0)
    torch.testing.assert_close(plugin.importances["theta"].item(), 0.1 / (move**2 + 0.1), rtol=1e-12, atol=0)


def test_task_importance() -> None:
    w, move = torch.tensor([1.0, -1.0, 0.0]), torch.tensor([2.0, 2.0, 0.0])
    assert task_importance(w, move, 1.0).tolist() == pytest.approx([0.2, 0.0, 0.0])
    assert (w.tolist(), move.tolist()) == ([1.0, -1.0, 0.0], [2.0, 2.0, 0.0])


def test_the_first_experience_is_naive_bit_for_bit() -> None:
    ours = _plugin_run(SIPlugin(1e6), tasks=1)
    naive = _network()
    _plugin_run(SupervisedPlugin(), model=naive, tasks=1)
    assert common.same(common.weights(ours), common.weights(naive))


def test_hidden_units_can_change_places() -> None:
    """Permuting the hidden units permutes the importances and nothing else."""
    order = torch.tensor([3, 0, 4, 1, 2])
    model = _network()
    with torch.no_grad():
        model[0].weight.copy_(model[0].weight[order].clone())
        model[0].bias.copy_(model[0].bias[order].clone())
        model[2].weight.copy_(model[2].weight[:, order].clone())
    plain, moved = SIPlugin(STRENGTH), SIPlugin(STRENGTH)
    _plugin_run(plain)
    _plugin_run(moved, model=model)
    expected = plain.importances
    torch.testing.assert_close(moved.importances["0.weight"], expected["0.weight"][order], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(moved.importances["0.bias"], expected["0.bias"][order], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(moved.importances["2.weight"], expected["2.weight"][:, order], rtol=1e-9, atol=1e-12)


def test_heads_that_a_batch_does_not_use() -> None:
    """Earlier heads get no gradient: their path is 0, their importance stays and so do their weights."""
    plugin = SIPlugin(5.0)
    torch.manual_seed(0)
    runner = common.strategy(common.MultiHead(), [plugin])
    stream = common.benchmark("nc-tasks").train_stream
    runner.train(stream[0])
    old = {n: (p.detach().clone(), plugin.importances[n].clone()) for n, p in runner.model.named_parameters()}
    heads = [name for name in old if "heads" in name and old[name][1].any()]
    assert heads
    runner.train(stream[1])
    now = dict(runner.model.named_parameters())
    for name in heads:
        assert torch.equal(now[name], old[name][0])
        assert not plugin.path_integral[name].any()
        assert torch.equal(plugin.importances[name], old[name][1])
    assert plugin.path_integral["trunk.0.weight"].any()


def test_importances_only_grow_with_a_growing_head() -> None:
    plugin, seen = SIPlugin(5.0), []
    torch.manual_seed(0)
    stream = common.benchmark()
    runner = common.strategy(common.Growing(), [plugin])

    def after() -> None:
        runner.eval(stream.test_stream)  # makes the next classes' units early
        seen.append({name: omega.clone() for name, omega in plugin.importances.items()})

    common.train(runner, stream.train_stream, after=after)
    for old, new in pairwise(seen):
        for name, omega in old.items():
            block = new[name][tuple(slice(length) for length in omega.shape)]
            assert bool((block >= omega).all())
            assert bool((block > omega).any())
    assert seen[-1]["head.classifier.weight"].shape[0] == common.CLASSES


@pytest.mark.parametrize("strength", [0.0, 0.5, 50.0, 1e6])
def test_a_second_task_ends_where_both_forces_cancel(strength: float) -> None:
    """Minimum of sum (theta - c)^2 / 2 + lambda Omega (theta - theta*)^2; at huge strength nothing moves."""
    plugin, stream = SIPlugin(strength), common.benchmark().train_stream
    model = _ten_steps(plugin, [0.7, -1.3, 2.0], lambda theta, _: 0.5 * theta.square().sum())
    star, omega = model.theta.detach().clone(), plugin.importances["theta"].clone()
    stiffness = 1.0 + 2.0 * strength * omega
    c = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=1 / float(stiffness.max()))
    options = {"optimizer": optimizer, "train_mb_size": 2, "train_epochs": 30}
    runner = common.strategy(model, [plugin], criterion=lambda o, _: 0.5 * (o[0] - c).square().sum(), **options)
    runner.train(stream[0])
    expected = (c + 2.0 * strength * omega * star) / stiffness
    torch.testing.assert_close(model.theta.detach(), expected, rtol=1e-9, atol=1e-9)
    if strength == 1e6:
        torch.testing.assert_close(expected, star, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"si_lambda": -1.0}, ValueError, r"SIPlugin: si_lambda must be in \[0, inf\), got -1.0"),
        ({"si_lambda": float("nan")}, ValueError, "si_lambda .* got nan"),
        ({"si_lambda": "1"}, TypeError, "si_lambda must be a number, got '1'"),
        ({"xi": 0.0}, ValueError, r"xi must be in \(0, inf\), got 0.0"),
        ({"xi": None}, TypeError, "xi must be a number, got None"),
        ({"heads": "none"}, ValueError, "heads must be one of 'include', 'exclude', got 'none'"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SIPlugin(**arguments)
