"""RWalk against closed forms and an independent loop, in float64; every known fault of public codes must be caught."""

import warnings
from typing import Any

from cl_ext.nn.per_sample import sums_by_loop
from cl_ext.plugins import RWalkPlugin, SIPlugin, rwalk
from cl_ext.plugins.rwalk import close_segment_, segment_score, unit_range

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.core import SupervisedPlugin
from avalanche.training.plugins import ReplayPlugin
from torch import Tensor, nn
from torch.nn import functional

from tests.plugins import common

pytestmark = [
    pytest.mark.filterwarnings("ignore:No loggers specified"),
    pytest.mark.filterwarnings("ignore:RWalkPlugin. this experience has new classes only"),
]
LR, MOMENTUM, BATCH, EPOCHS = 0.1, 0.5, 5, 3
Named = dict[str, Tensor]


def _data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    y = torch.arange(6).repeat_interleave(6)  # 12 samples an experience: batches of 5, 5, 2, so 9 steps
    return torch.randn(36, 4, generator=generator, dtype=torch.float64) + y.unsqueeze(1) / 3, y


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 6)).double()


def _plugin_run(plugin: Any, criterion: Any = None, rate: float = LR, model: nn.Module | None = None) -> nn.Module:
    dataset = common.labelled(*_data())
    stream = nc_benchmark(dataset, dataset, 3, task_labels=False, shuffle=False).train_stream
    model = _network() if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=MOMENTUM)
    options = {"optimizer": optimizer, "train_mb_size": BATCH, "train_epochs": EPOCHS}
    options |= {"criterion": criterion or nn.CrossEntropyLoss()}
    runner = common.strategy(model, [plugin], **options)
    for experience in stream:
        runner.train(experience, shuffle=False)
    return model


def _reference_run(plugin: RWalkPlugin) -> tuple[Named, Named]:
    """RWalk from its equations, one tensor at a time, without foreach, hooks or plugins: weights and Omega."""
    model, (xs, ys) = _network(), _data()
    theta = dict(model.named_parameters())
    zeros = {n: torch.zeros_like(p).detach() for n, p in theta.items()}
    fisher, score, omega, star, velocity = (dict(zeros) for _ in range(5))

    def segment(path: Named, start: Named, f: Named) -> Named:
        kl = {n: 0.5 * f[n] * (theta[n].detach() - start[n]) ** 2 for n in theta}
        return {n: (path[n] / (kl[n] + plugin.epsilon)).clamp(min=0) for n in theta}

    for task in range(3):
        task_score, path, steps = dict(zeros), dict(zeros), 0
        start = {n: p.detach().clone() for n, p in theta.items()}
        x_task, y_task = xs[12 * task : 12 * task + 12], ys[12 * task : 12 * task + 12]
        for _ in range(EPOCHS):
            for x, y in zip(x_task.split(BATCH), y_task.split(BATCH), strict=True):
                gradients = torch.autograd.grad(functional.cross_entropy(model(x), y), list(theta.values()))
                g = dict(zip(theta, gradients, strict=True))
                per_sample = sums_by_loop(model, functional.cross_entropy, x, y)
                old_fisher = dict(fisher)
                for n, p in theta.items():
                    new = per_sample[n] / len(x) if plugin.fisher == "per_sample" else g[n] ** 2
                    fisher[n] = plugin.alpha * new + (1 - plugin.alpha) * old_fisher[n]
                    total = g[n] + 2 * plugin.rwalk_lambda * omega[n] * (p.detach() - star[n])
                    velocity[n] = MOMENTUM * velocity[n] + total
                    move = -LR * velocity[n]
                    path[n] = path[n] - g[n] * move
                    p.data += move
                steps += 1
                if steps % plugin.delta_t == 0:
                    part = segment(path, start, old_fisher)
                    task_score = {n: task_score[n] + part[n] for n in theta}
                    path, start = dict(zeros), {n: p.detach().clone() for n, p in theta.items()}
        if steps % plugin.delta_t:
            part = segment(path, start, old_fisher)
            task_score = {n: task_score[n] + part[n] for n in theta}
        score = task_score if task == 0 else {n: (score[n] + task_score[n]) / 2 for n in theta}
        star = {n: p.detach().clone() for n, p in theta.items()}
        omega = dict(zeros)
        for kind in (fisher, score):
            everything = torch.cat([v.flatten() for v in kind.values()])
            low, high = everything.min(), everything.max()
            omega = {n: omega[n] + (kind[n] - low) / (high - low) for n in theta}
    return star, omega


def _distance(plugin: RWalkPlugin) -> float:
    """Returns the largest difference to the reference, in weights and Omega."""
    model = _plugin_run(plugin)
    star, omega = _reference_run(plugin)
    pairs = [(star[n], p) for n, p in model.named_parameters()] + [(omega[n], plugin.importances[n]) for n in omega]
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


@pytest.mark.parametrize("fisher", ["per_sample", "batch"])
@pytest.mark.parametrize("delta_t", [1, 3, 4, 100])
def test_it_equals_the_reference(fisher: Any, delta_t: int) -> None:
    assert _distance(RWalkPlugin(2.0, alpha=0.6, delta_t=delta_t, fisher=fisher)) < 1e-12


class _PenaltyInPath(RWalkPlugin):
    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        super().after_backward(strategy, *args, **kwargs)
        self._path.keep_gradient_(self._tensors)


class _GrowingScore(RWalkPlugin):
    """agem: `s += (s + w) / 2`."""

    def consolidate(self, strategy: Any) -> None:
        old = [s.clone() for s in self._score.tensors]
        super().consolidate(strategy)
        if self.experiences:
            grown = [s + (s + w) / 2 for s, w in zip(old, self._task_score.tensors, strict=True)]
            self._score.copy_(grown)
            parts = zip(unit_range(self._fisher.tensors), unit_range(grown), strict=True)
            self._penalty.importance.copy_([f + s for f, s in parts])


class _LastSegmentDropped(RWalkPlugin):
    """Avalanche: the steps after the last boundary leave no score."""

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._steps = 0
        super().after_training_exp(strategy, *args, **kwargs)


class _FisherOfTheBoundary(RWalkPlugin):
    def _close_segment(self) -> None:
        self._update_fisher()
        super()._close_segment()


class _BatchGradientCalledFisher(RWalkPlugin):
    def _update_fisher(self) -> None:
        if self._fisher_is_due:
            self._fisher_is_due = False
            rwalk.batch_fisher_(self._fisher.tensors, self._path.gradient.tensors, self.alpha)


class _AnchorNotRefreshed(RWalkPlugin):
    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        old = [a.clone() for a in self._penalty.anchor.tensors]
        super().after_training_exp(strategy, *args, **kwargs)
        if self.experiences > 1:
            self._penalty.anchor.copy_(old)


class _MachineEpsilon(RWalkPlugin):
    """Avalanche: scores explode where F is still 0."""

    def _close_segment(self) -> None:
        kept, self.epsilon = self.epsilon, 1.2e-7
        super()._close_segment()
        self.epsilon = kept


class _RangePerParameter(RWalkPlugin):
    """Each parameter tensor mapped to [0, 1] by itself."""

    def consolidate(self, strategy: Any) -> None:
        super().consolidate(strategy)
        pairs = zip(self._fisher.tensors, self._score.tensors, strict=True)
        self._penalty.importance.copy_([unit_range([f])[0] + unit_range([s])[0] for f, s in pairs])


class _DividedByTheMaximum(RWalkPlugin):
    """Avalanche: the minimum stays."""

    def consolidate(self, strategy: Any) -> None:
        super().consolidate(strategy)
        fisher, score = self._fisher.tensors, self._score.tensors
        most_f, most_s = max(float(f.max()) for f in fisher), max(float(s.max()) for s in score)
        self._penalty.importance.copy_([f / most_f + s / most_s for f, s in zip(fisher, score, strict=True)])


FAULTS = [
    _MachineEpsilon,
    _RangePerParameter,
    _DividedByTheMaximum,
    _PenaltyInPath,
    _GrowingScore,
    _LastSegmentDropped,
    _FisherOfTheBoundary,
    _BatchGradientCalledFisher,
    _AnchorNotRefreshed,
]


@pytest.mark.parametrize("faulty", FAULTS)
def test_negative_control(faulty: type[RWalkPlugin]) -> None:
    """The reference tells each known fault from the paper's form."""
    assert _distance(faulty(2.0, alpha=0.6, delta_t=4)) > 1e-4


def test_negative_control_missing_relu(monkeypatch: pytest.MonkeyPatch) -> None:
    def unclamped(score: Any, path: Any, fisher: Any, start: Any, theta: Any, scratch: Any, epsilon: float) -> None:
        for s, p, f, before, now in zip(score, path, fisher, start, theta, strict=True):
            s += p / (0.5 * f * (now.detach() - before).square() + epsilon)
            p.zero_()
            before.copy_(now.detach())

    monkeypatch.setattr(rwalk, "close_segment_", unclamped)
    assert _distance(RWalkPlugin(2.0, alpha=0.6, delta_t=4)) > 1e-4


class _ConstantFisher(RWalkPlugin):
    """F = 2 always, and Omega is the raw score alone: what makes RWalk the same as SI."""

    def _update_fisher(self) -> None:
        with torch.no_grad():
            for f in self._fisher.tensors:
                f.fill_(2.0)

    def consolidate(self, strategy: Any) -> None:
        super().consolidate(strategy)
        self._penalty.importance.copy_(self._score.tensors)


class _Quadratic(nn.Module):
    """h/2 theta^2 by parameter, whatever the data."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([0.7, -1.3, 2.0], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.theta.expand(len(x), 3)


def test_segment_sum_on_a_quadratic() -> None:
    """Gradient descent: s = sum over segments of h (x_i^2 - x_{i+1}^2) / (2 - eta h) / (1/2 F Delta^2 + eps)."""
    h, eta, f, epsilon, delta_t = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64), 0.1, 2.0, 1e-3, 4
    model = _Quadratic()
    plugin = _ConstantFisher(1.0, delta_t=delta_t, epsilon=epsilon, fisher="batch")
    runner = common.strategy(
        model,
        [plugin],
        optimizer=torch.optim.SGD(model.parameters(), lr=eta),
        criterion=lambda output, y: (0.5 * h * output.mean(0).square()).sum(),
        train_mb_size=2,
        train_epochs=1,
    )
    x0 = model.theta.detach().clone()
    runner.train(common.benchmark().train_stream[0])  # 20 samples: 10 steps, segments of 4, 4 and 2
    x = x0 * (1 - eta * h) ** torch.tensor([[0], [4], [8], [10]])
    drop = h * (x[:-1] ** 2 - x[1:] ** 2) / (2 - eta * h)
    expected = (drop / (0.5 * f * (x[1:] - x[:-1]) ** 2 + epsilon)).sum(0)
    torch.testing.assert_close(plugin.scores["theta"], expected, rtol=1e-11, atol=0)


def test_constant_fisher_and_one_segment_is_si() -> None:
    """With F = 2, one segment, eps = xi, no normalisation and no Fisher term, the score is SI's, written here anew."""
    xi, strength = 0.1, 0.7
    plugin = _ConstantFisher(strength, delta_t=10**9, epsilon=xi, fisher="batch")
    ours = _plugin_run(plugin)

    model, (xs, ys) = _network(), _data()
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=LR, momentum=MOMENTUM)
    omega, score = [torch.zeros_like(p) for p in parameters], None
    star = [p.detach().clone() for p in parameters]
    for task in range(3):
        w, start = [torch.zeros_like(p) for p in parameters], [p.detach().clone() for p in parameters]
        for _ in range(EPOCHS):
            for x, y in zip(xs[12 * task :][:12].split(BATCH), ys[12 * task :][:12].split(BATCH), strict=True):
                clean = torch.autograd.grad(functional.cross_entropy(model(x), y), parameters)
                for p, g, o, s in zip(parameters, clean, omega, star, strict=True):
                    p.grad = g + 2 * strength * o * (p.detach() - s)
                before = [p.detach().clone() for p in parameters]
                optimizer.step()
                for k, p in enumerate(parameters):
                    w[k] -= clean[k] * (p.detach() - before[k])
        ends = [p.detach().clone() for p in parameters]
        new = [(a / ((e - b) ** 2 + xi)).clamp(min=0) for a, e, b in zip(w, ends, start, strict=True)]
        # SI sums over tasks; RWalk's own recursion halves, which is no part of the limit
        score = new if score is None else [(a + b) / 2 for a, b in zip(score, new, strict=True)]
        omega, star = score, ends
    for p, q in zip(ours.parameters(), parameters, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-13)
    for mine, theirs in zip(plugin.scores.values(), score or [], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-13)


class _SILimit(_ConstantFisher):
    """And scores are summed over experiences, as SI's are."""

    def consolidate(self, strategy: Any) -> None:
        old = [o.clone() for o in self._penalty.importance.tensors]
        super().consolidate(strategy)
        self._penalty.importance.copy_([o + s for o, s in zip(old, self._task_score.tensors, strict=True)])


def test_its_limit_is_the_si_plugin() -> None:
    walk, si = _SILimit(0.7, delta_t=10**9, epsilon=0.1, fisher="batch"), SIPlugin(0.7, xi=0.1)
    first, second = _plugin_run(walk), _plugin_run(si)
    for p, q in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-14)
    for name, omega in si.importances.items():
        torch.testing.assert_close(walk.importances[name], omega, rtol=1e-12, atol=1e-15)


class _FisherOnly(RWalkPlugin):
    def consolidate(self, strategy: Any) -> None:
        super().consolidate(strategy)
        self._penalty.importance.copy_(unit_range(self._fisher.tensors))


@pytest.mark.parametrize("fisher", ["per_sample", "batch"])
def test_without_its_score_it_is_ewc_plus_plus(fisher: Any) -> None:
    """EWC++ with its Fisher normalised, written here anew: a running Fisher, and no path at all."""
    strength, alpha = 2.0, 0.6
    plugin = _FisherOnly(strength, alpha=alpha, fisher=fisher)
    ours = _plugin_run(plugin)

    model, (xs, ys) = _network(), _data()
    theta = dict(model.named_parameters())
    optimizer = torch.optim.SGD(theta.values(), lr=LR, momentum=MOMENTUM)
    running = {n: torch.zeros_like(p) for n, p in theta.items()}
    omega, star = dict(running), {n: p.detach().clone() for n, p in theta.items()}
    for task in range(3):
        for _ in range(EPOCHS):
            for x, y in zip(xs[12 * task :][:12].split(BATCH), ys[12 * task :][:12].split(BATCH), strict=True):
                size = 1 if fisher == "per_sample" else BATCH
                samples = zip(x.split(size), y.split(size), strict=True)
                losses = [functional.cross_entropy(model(a), b) for a, b in samples]
                each = [torch.autograd.grad(loss, theta.values(), retain_graph=True) for loss in losses]
                for i, (n, p) in enumerate(theta.items()):
                    new = sum(g[i] ** 2 for g in each) / len(each)
                    running[n] = alpha * new + (1 - alpha) * running[n]
                    p.grad = sum(g[i] for g in each) / len(each) + 2 * strength * omega[n] * (p.detach() - star[n])
                optimizer.step()
        everything = torch.cat([f.flatten() for f in running.values()])
        low, high = everything.min(), everything.max()
        omega = {n: (f - low) / (high - low) for n, f in running.items()}
        star = {n: p.detach().clone() for n, p in theta.items()}
    for n, p in ours.named_parameters():
        torch.testing.assert_close(p, theta[n], rtol=0, atol=1e-12)
        torch.testing.assert_close(plugin.importances[n], omega[n], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("scores", "paper", "growing"),
    [((1, 2, 3), 2.25, 5.25), ((1, 0, 0), 0.25, 2.25), ((0, 1, 0), 0.25, 0.75), ((0, 0, 1), 0.5, 0.5)],
)
def test_score_recursion(scores: tuple[float, ...], paper: float, growing: float) -> None:
    """Scores 1, 2, 3 give ((1 + 2)/2 + 3)/2 = 2.25; the released code's growing average gives 5.25."""

    class Fed(RWalkPlugin):
        def consolidate(self, strategy: Any) -> None:
            for score in self._task_score.tensors:
                score.fill_(float(scores[self.experiences]))
            super().consolidate(strategy)

    class FedGrowing(Fed, _GrowingScore):
        pass

    for make, expected in ((Fed, paper), (FedGrowing, growing)):
        plugin = make(0.0)
        _plugin_run(plugin)
        assert {float(v) for s in plugin.scores.values() for v in s.flatten()} == {expected}


def test_normalised_ranges() -> None:
    values = [torch.tensor([[-1.0, 3.0]]), torch.tensor([7.0]), torch.zeros(0)]
    mapped = unit_range(values)
    assert [v.tolist() for v in mapped] == [[[0.0, 0.5]], [1.0], []]
    assert unit_range([torch.zeros(2)])[0].tolist() == [0, 0]  # no 0/0
    assert unit_range([torch.full((2,), 3.0)])[0].tolist() == [1, 1]
    plugin = RWalkPlugin()
    _plugin_run(plugin)
    for kind in (plugin.running_fisher, plugin.scores):
        flat = torch.cat([v.flatten() for v in unit_range(list(kind.values()))])
        assert (float(flat.min()), float(flat.max())) == (0.0, 1.0)


def test_no_learning_gives_no_nan() -> None:
    plugin = RWalkPlugin(10.0)
    model = _plugin_run(plugin, criterion=lambda output, y: 0.0 * output.sum())
    assert all(bool((omega == 0).all()) for omega in plugin.importances.values())
    for parameter, initial in zip(model.parameters(), _network().parameters(), strict=True):
        assert torch.equal(parameter, initial)


def test_scaling_the_loss() -> None:
    """Loss times c, rate over c: the same weights, l times c, F times c^2; Omega the same where epsilon is nothing."""
    paths: dict[RWalkPlugin, list[Tensor]] = {}

    class Watched(RWalkPlugin):
        def _close_segment(self) -> None:
            paths.setdefault(self, []).append(torch.cat([w.flatten() for w in self._path.w.tensors]))
            super()._close_segment()

    c = 8.0
    plain, scaled = (Watched(0.0, delta_t=4, epsilon=1e-200) for _ in range(2))
    _plugin_run(plain)
    _plugin_run(scaled, lambda output, y: c * functional.cross_entropy(output, y), LR / c)
    assert len(paths[plain]) == 9  # 9 steps an experience: segments of 4, 4 and 1
    torch.testing.assert_close(torch.stack(paths[scaled]), c * torch.stack(paths[plain]), rtol=1e-9, atol=1e-16)
    for name, fisher in plain.running_fisher.items():
        torch.testing.assert_close(scaled.running_fisher[name], c**2 * fisher, rtol=1e-9, atol=1e-18)
        torch.testing.assert_close(scaled.importances[name], plain.importances[name], rtol=1e-7, atol=1e-9)


def test_a_sum_reduced_loss_has_the_same_fisher() -> None:
    mean, total = (RWalkPlugin(0.0, alpha=1.0) for _ in range(2))
    _plugin_run(mean, rate=0.0)
    _plugin_run(total, nn.CrossEntropyLoss(reduction="sum"), rate=0.0)
    for name, fisher in mean.running_fisher.items():
        torch.testing.assert_close(total.running_fisher[name], fisher, rtol=1e-11, atol=1e-14)


def test_an_interval_longer_than_the_task_is_one_segment() -> None:
    exact, longer = RWalkPlugin(2.0, delta_t=9), RWalkPlugin(2.0, delta_t=1000)
    first, second = _plugin_run(exact), _plugin_run(longer)
    assert common.same(common.weights(first), common.weights(second))
    assert common.same(exact.importances, longer.importances)


def test_segment_score() -> None:
    one = torch.ones(1)
    assert float(segment_score(2 * one, 3 * one, 4 * one, 1.0)) == pytest.approx(2 / (0.5 * 3 * 16 + 1))
    assert float(segment_score(-one, one, one, 1.0)) == 0.0


def test_the_fast_form_of_a_segment_equals_the_readable_one() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (5,)]
    path, fisher, start, theta, score = (
        [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes] for _ in range(5)
    )
    fisher = [f.square() for f in fisher]
    expected = [
        s + segment_score(p.clone(), f, now - before, 1e-3)
        for s, p, f, before, now in zip(score, path, fisher, start, theta, strict=True)
    ]
    close_segment_(score, path, fisher, start, theta, [torch.empty_like(s) for s in score], 1e-3)
    for fast, readable, p, before, now in zip(score, expected, path, start, theta, strict=True):
        torch.testing.assert_close(fast, readable, rtol=1e-14, atol=0)
        assert not p.any()
        assert torch.equal(before, now)


def test_only_the_main_forward_and_backward_run() -> None:
    calls: dict[str, int] = {"forward": 0, "backward": 0}

    def count(kind: str) -> None:
        calls[kind] += 1

    model = _network()
    model[0].register_forward_hook(lambda *_: count("forward"))
    model[0].bias.register_hook(lambda _: count("backward"))
    dataset = common.labelled(*_data())
    runner = common.strategy(model, [RWalkPlugin()], train_mb_size=BATCH, train_epochs=1)
    for experience in nc_benchmark(dataset, dataset, 3, task_labels=False, shuffle=False).train_stream:
        runner.train(experience)
    assert calls == {"forward": 9, "backward": 9}


@pytest.mark.parametrize("fisher", ["per_sample", "batch"])
def test_hidden_units_can_change_places(fisher: Any) -> None:
    """Permuting the hidden units permutes the importances and nothing else."""
    order = torch.tensor([3, 0, 4, 1, 2])
    model = _network()
    with torch.no_grad():
        model[0].weight.copy_(model[0].weight[order].clone())
        model[0].bias.copy_(model[0].bias[order].clone())
        model[2].weight.copy_(model[2].weight[:, order].clone())
    plain, moved = (RWalkPlugin(2.0, delta_t=4, fisher=fisher) for _ in range(2))
    _plugin_run(plain)
    _plugin_run(moved, model=model)
    expected = plain.importances
    torch.testing.assert_close(moved.importances["0.weight"], expected["0.weight"][order], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(moved.importances["0.bias"], expected["0.bias"][order], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(moved.importances["2.weight"], expected["2.weight"][:, order], rtol=1e-9, atol=1e-12)


ADVICE = "on a single head the network then keeps little but the last experience's classes"


def _advice(kind: str = "nc", network: Any = common.mlp, strength: float = 1.0, extra: Any = ()) -> int:
    """Returns how often a run over four experiences gives the advice."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        common.run([RWalkPlugin(strength), *extra], network, kind)
    return sum(ADVICE in str(warning.message) for warning in caught)


def test_new_classes_on_a_single_head_are_warned_of_once() -> None:
    assert _advice("nc") == 1
    assert _advice("ci") == 1
    assert _advice("nc", common.Growing) == 1


def test_no_advice_where_it_is_not_needed() -> None:
    assert _advice("nc-tasks", common.MultiHead) == 0  # task labels
    assert _advice("nc-tasks") == 0
    assert _advice(extra=[ReplayPlugin(mem_size=8)]) == 0
    assert _advice(strength=0.0) == 0

    class Mixed(SupervisedPlugin):
        """Puts a sample of an earlier class into each batch, from a memory of nobody's name."""

        def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            strategy.mbatch[1][0] = 0

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="No loggers specified")
        runner = common.strategy(common.mlp(), [Mixed(), RWalkPlugin()])
        for experience in common.benchmark().train_stream[:2]:
            runner.train(experience)
        domain = common.strategy(common.mlp(), [RWalkPlugin()])  # the same classes twice
        for _ in range(2):
            domain.train(common.benchmark().train_stream[0])
