"""EWC against the explicit list of anchors, joint optima, Avalanche's plugin and autograd."""

from collections.abc import Callable
from typing import Any

from cl_ext.methods.criterion import ScenarioCrossEntropy
from cl_ext.plugins import EWCPlugin
from cl_ext.plugins.ewc import add_quadratic_, decay_, normalised

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training import plugins as avalanche
from avalanche.training.plugins import ReplayPlugin
from torch import Tensor, nn
from torch.utils.data import ConcatDataset

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
DOUBLE = torch.float64
Named = dict[str, Tensor]


# ---- pure functions -------------------------------------------------------------------------------------------------


def _quadratics(number: int, dtype: torch.dtype = DOUBLE, near: float = 1.0) -> list[tuple[Tensor, Tensor]]:
    """(F_j, theta_j): a Fisher over twelve decades, a third of it zero, and centres `near` apart."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.rand(40, generator=generator, dtype=DOUBLE)  # noqa: E731
    centre, found = 2 * draw() - 1, []
    for _ in range(number):
        weight = 10 ** (12 * draw() - 8) * (draw() > 1 / 3)
        weight[:3] = 0  # never important
        found.append((weight.to(dtype), (centre + near * (2 * draw() - 1)).to(dtype)))
    return found


def _merged(quadratics: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, float]:
    importance, anchor = torch.zeros_like(quadratics[0][0]), torch.full_like(quadratics[0][1], 7.0)
    constant = sum(add_quadratic_([importance], [anchor], [f], [theta]) for f, theta in quadratics)
    return importance, anchor, constant


def _list_form(quadratics: list[tuple[Tensor, Tensor]], t: Tensor) -> tuple[float, Tensor]:
    """The definition, value and gradient, in float64."""
    terms = [(f.double(), t.double() - theta.double()) for f, theta in quadratics]
    return float(sum((f * d.square()).sum() for f, d in terms)), sum(2 * f * d for f, d in terms)


@pytest.mark.parametrize("number", [1, 2, 5, 20])
def test_one_anchor_is_the_list_of_anchors(number: int) -> None:
    quadratics = _quadratics(number)
    importance, anchor, constant = _merged(quadratics)
    for t in (torch.zeros(40, dtype=DOUBLE), quadratics[0][1], 3 * quadratics[-1][1]):
        value, gradient = _list_form(quadratics, t)
        assert float((importance * (t - anchor).square()).sum()) + constant == pytest.approx(value, rel=1e-12)
        torch.testing.assert_close(2 * importance * (t - anchor), gradient, rtol=1e-11, atol=1e-12)


def test_in_float32_the_mean_does_not_cancel() -> None:
    """Where the centres lie close together, `A t^2 - 2 B t + C` is a small difference of large numbers."""
    quadratics = _quadratics(10, torch.float32, near=1e-4)
    importance, anchor, constant = _merged(quadratics)
    t = quadratics[-1][1] + 1e-4
    value, gradient = _list_form(quadratics, t)
    b, c = sum(f * theta for f, theta in quadratics), sum(f * theta.square() for f, theta in quadratics)
    assert float((importance * (t - anchor).square()).sum()) + constant == pytest.approx(value, rel=1e-4)
    assert float((importance * t.square() - 2 * b * t + c).sum()) != pytest.approx(value, rel=1e-2)
    size = sum(2 * f.double() * (t.double() - theta.double()).abs() for f, theta in quadratics)
    of_mean, of_sums = 2 * importance * (t - anchor), 2 * (importance * t - b)
    assert bool(((of_mean - gradient).abs() <= 2e-3 * size).all())
    assert not bool(((of_sums - gradient).abs() <= 5e-3 * size).all())


def test_where_nothing_is_important_the_anchor_is_the_newest() -> None:
    quadratics = _quadratics(3)
    importance, anchor, _ = _merged(quadratics)
    assert torch.equal(importance[:3], torch.zeros(3, dtype=DOUBLE))
    assert torch.equal(anchor[:3], quadratics[-1][1][:3])
    assert bool(torch.isfinite(anchor).all())


def test_the_first_anchor_is_exact() -> None:
    quadratics = _quadratics(1, torch.float32)
    importance, anchor, constant = _merged(quadratics)
    assert torch.equal(importance, quadratics[0][0])
    assert torch.equal(anchor, quadratics[0][1])
    assert constant == 0.0


def test_the_order_of_experiences_does_not_matter() -> None:
    quadratics = _quadratics(4)
    important = _merged(quadratics)[0] > 0
    for a, b in zip(_merged(quadratics)[:2], _merged(quadratics[::-1])[:2], strict=True):
        torch.testing.assert_close(a[important], b[important], rtol=1e-12, atol=1e-14)
    assert _merged(quadratics)[2] == pytest.approx(_merged(quadratics[::-1])[2], rel=1e-12)


def test_decay() -> None:
    """gamma F*_i with F*_i = gamma F*_{i-1} + F_i: gamma^3 F_1 + gamma^2 F_2 + gamma F_3."""
    first, second, third = (torch.rand(5, dtype=DOUBLE) for _ in range(3))
    importance = torch.zeros(5, dtype=DOUBLE)
    for fisher in (first, second, third):
        decay_([importance], [fisher], 0.7)
    torch.testing.assert_close(importance, 0.343 * first + 0.49 * second + 0.7 * third)
    decay_([importance], [first], 0.0)
    assert torch.equal(importance, torch.zeros(5, dtype=DOUBLE))


def test_normalised() -> None:
    one, two = normalised([torch.tensor([1.0, 4.0]), torch.tensor([[8.0]])])
    assert one.tolist() == [0.125, 0.5]
    assert two.tolist() == [[1.0]]
    assert normalised([torch.zeros(2)])[0].tolist() == [0.0, 0.0]


# ---- joint optima: losses h/2 (t - m)^2, for which the Fisher matrix is h -----------------------------------------


def _minimiser(h: Tensor, m: Tensor, importance: Tensor, anchor: Tensor) -> Tensor:
    """Of `h/2 (t - m)^2 + 1/2 importance (t - anchor)^2`: EWC at lambda 1."""
    return (h * m + importance * anchor) / (h + importance)


def _three_tasks(separate: bool, gamma: float = 1.0) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Returns EWC's weights after three quadratics, their joint optimum, and the weights after each."""
    generator = torch.Generator().manual_seed(5)
    h = torch.rand(3, 6, generator=generator, dtype=DOUBLE) * 4 + 0.5
    m = torch.randn(3, 6, generator=generator, dtype=DOUBLE)
    importance, anchor, path = torch.zeros(6, dtype=DOUBLE), torch.zeros(6, dtype=DOUBLE), []
    for h_j, m_j in zip(h, m, strict=True):
        theta = _minimiser(h_j, m_j, importance, anchor)
        path.append(theta)
        if separate:
            add_quadratic_([importance], [anchor], [h_j], [theta])
        else:
            decay_([importance], [h_j], gamma)
            anchor = theta.clone()
    return path[-1], (h * m).sum(0) / h.sum(0), path


def test_online_at_gamma_1_is_the_joint_optimum() -> None:
    theta, joint, _ = _three_tasks(separate=False)
    torch.testing.assert_close(theta, joint, rtol=1e-13, atol=1e-14)


def test_separate_anchors_count_twice() -> None:
    """Huszar (2018): the second anchor holds the first task already. Two tasks are still the joint optimum."""
    theta, joint, path = _three_tasks(separate=True)
    assert float((theta - joint).abs().max()) > 0.1
    torch.testing.assert_close(path[1], _three_tasks(separate=False)[2][1], rtol=1e-13, atol=1e-14)


def test_negative_control_decay_is_not_the_joint_optimum() -> None:
    theta, joint, _ = _three_tasks(separate=False, gamma=0.9)
    assert float((theta - joint).abs().max()) > 0.01


# ---- the plugin against the explicit list -------------------------------------------------------------------------


class ListEWC(SupervisedPlugin):
    """The papers' penalty by autograd: every anchor kept (separate), or the latest and `gamma F*` (online)."""

    def __init__(self, ewc_lambda: float, gamma: float | None = None, **options: Any) -> None:
        super().__init__()
        self.ewc_lambda, self.gamma = ewc_lambda, gamma
        self.fisher = EWCPlugin(**options)
        self.tasks: list[tuple[Named, Named]] = []

    @staticmethod
    def _padded(old: Tensor, parameter: Tensor) -> Tensor:
        new = torch.zeros_like(parameter)
        new[tuple(slice(length) for length in old.shape)] = old
        return new

    def value(self, model: nn.Module) -> Tensor:
        total = torch.zeros((), dtype=next(model.parameters()).dtype)
        for importance, anchor in self.tasks:
            for name, p in model.named_parameters():
                if name in importance:
                    weight = self._padded(importance[name], p)
                    total = total + (weight * (p - self._padded(anchor[name], p)).square()).sum()
        return total

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        if self.tasks:
            strategy.loss = strategy.loss + self.ewc_lambda / 2 * self.value(strategy.model)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.fisher.experiences = strategy.clock.train_exp_counter
        data, criterion = strategy.experience.dataset, strategy._criterion
        new = self.fisher.new_fisher(strategy.model, data, criterion, strategy.train_mb_size)
        theta = {name: p.detach().clone() for name, p in strategy.model.named_parameters()}
        if self.gamma is not None:
            for importance, _ in self.tasks:
                new = {n: f + self._padded(importance[n], f) if n in importance else f for n, f in new.items()}
            self.tasks = [({n: self.gamma * f for n, f in new.items()}, theta)]
        else:
            self.tasks.append((new, theta))


class _Wide(nn.Module):
    """A float64 network that takes float32 samples."""

    def __init__(self, inner: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.inner = inner().double()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.double())


def _wide() -> nn.Module:
    return _Wide(common.mlp)


OPTIONS: list[dict[str, Any]] = [
    {"mode": "separate"},
    {"mode": "separate", "fisher": "batch", "normalise": "max"},
    {"mode": "separate", "fisher": "sampled", "n_samples": 11, "seed": 3},
    {"mode": "online"},
    {"mode": "online", "gamma": 0.7, "fisher": "empirical"},
]


@pytest.mark.parametrize("network", [_wide, common.Growing], ids=["float64", "growing head"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(str(v) for v in o.values()))
def test_training_equals_the_explicit_list(options: dict[str, Any], network: Any) -> None:
    plain = {name: value for name, value in options.items() if name not in ("mode", "gamma")}
    gamma = options.get("gamma", 1.0) if options["mode"] == "online" else None
    double, plugin = ListEWC(3.0, gamma, **plain), EWCPlugin(3.0, **options)
    ours, theirs = common.run([plugin], network), common.run([double], network)
    rtol, atol = (1e-8, 1e-10) if network is _wide else (1e-3, 1e-4)
    for name, value in common.weights(theirs.model).items():
        torch.testing.assert_close(common.weights(ours.model)[name], value, rtol=rtol, atol=atol)
    with torch.no_grad():
        for p, q in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
            q.copy_(p.add_(0.01))
    assert plugin.penalty() == pytest.approx(
        float(double.value(theirs.model).detach()), rel=1e-8 if network is _wide else 1e-3
    )


def test_penalty_gradient_is_autograds() -> None:
    plugin, double = EWCPlugin(3.0), ListEWC(3.0)
    runner = common.run([plugin, double], _wide)
    model = runner.model
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    model.zero_grad()
    (1.5 * double.value(model)).backward()
    expected = [p.grad.clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad.zero_()
    plugin.after_backward(runner)
    for p, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, gradient, rtol=1e-10, atol=1e-13)


def test_the_penalty_that_is_shown_is_lambda_half_of_the_list() -> None:
    plugin, double, shown = EWCPlugin(3.0), ListEWC(0.0), []

    class Watch(SupervisedPlugin):
        def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
            shown.append(1.5 * float(double.value(strategy.model).detach()))

    runner = common.run([plugin, double, Watch()], _wide)
    metrics = runner.evaluator.get_all_metrics()
    values = [metrics[f"EWC_Penalty/train_phase/train_stream/Exp{e:03d}"][1] for e in range(4)]
    assert [value for each in values for value in each] == pytest.approx(shown, rel=1e-9, abs=1e-12)
    assert shown[-1] > 0


# ---- what is accumulated ----------------------------------------------------------------------------------------


class Watched(EWCPlugin):
    """Keeps each experience's Fisher."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fishers: list[Named] = []

    def new_fisher(self, *args: Any, **kwargs: Any) -> Named:
        self.fishers.append(super().new_fisher(*args, **kwargs))
        return {name: f.clone() for name, f in self.fishers[-1].items()}


def _combined(fishers: list[Named], factors: tuple[float, ...]) -> Named:
    return {name: sum(c * f[name] for c, f in zip(factors, fishers, strict=True)) for name in fishers[0]}


@pytest.mark.parametrize(
    ("options", "factors"),
    [
        ({"mode": "separate"}, (1.0, 1.0, 1.0, 1.0)),
        ({"mode": "online"}, (1.0, 1.0, 1.0, 1.0)),
        ({"mode": "online", "gamma": 0.5}, (0.0625, 0.125, 0.25, 0.5)),
    ],
)
def test_importances_after_four_experiences(options: dict[str, Any], factors: tuple[float, ...]) -> None:
    """Each once; the negative control is homework 14, whose guards are cumulated and then summed again."""
    plugin = Watched(1.0, **options)
    common.run([plugin])
    expected, twice = _combined(plugin.fishers, factors), _combined(plugin.fishers, (4.0, 2.0, 1.0, 1.0))
    for name, value in plugin.importances.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-12)
    assert not all(torch.allclose(twice[name], value, rtol=0.05) for name, value in plugin.importances.items())


def test_one_experience_makes_separate_and_online_equal_bit_for_bit() -> None:
    separate, online = EWCPlugin(5.0), EWCPlugin(5.0, mode="online")
    stream = common.benchmark().train_stream[:2]
    found = []
    for plugin in (separate, online):
        torch.manual_seed(0)
        runner = common.strategy(common.mlp(), [plugin])
        common.train(runner, stream[:1])
        first = {"importance": plugin.importances, "anchor": plugin.anchors}
        first = {f"{kind} {name}": v.clone() for kind, named in first.items() for name, v in named.items()}
        common.train(runner, stream, first=1)
        found.append(first | common.weights(runner.model))
    assert common.same(*found)
    assert common.same(separate.importances, online.importances)
    assert not common.same(separate.anchors, online.anchors)


def test_the_first_experience_is_unaffected() -> None:
    torch.manual_seed(0)
    ours = common.strategy(common.mlp(), [EWCPlugin(1e12)])
    torch.manual_seed(0)
    naive = common.strategy(common.mlp(), [])
    for runner in (ours, naive):
        common.train(runner, common.benchmark().train_stream[:1])
    assert common.same(common.weights(ours.model), common.weights(naive.model))


@pytest.mark.parametrize("mode", ["separate", "online"])
def test_memory_does_not_depend_on_the_number_of_experiences(mode: Any) -> None:
    plugin, sizes = EWCPlugin(1.0, mode=mode), []
    torch.manual_seed(0)
    runner = common.strategy(common.mlp(), [plugin])
    common.train(runner, common.benchmark().train_stream, after=lambda: sizes.append(plugin.extra_bytes()))
    parameters = sum(p.numel() * 4 for p in runner.model.parameters())
    assert sizes == [3 * parameters] * 4
    held = [v for v in plugin.state_dict().values() if isinstance(v, dict)]
    assert sum(tensor.numel() * 4 for named in held for tensor in named.values()) == 2 * parameters


def test_the_fisher_is_of_the_experiences_own_data() -> None:
    """Not of what ReplayPlugin mixes in."""
    plugin, replay = Watched(1.0), ReplayPlugin(mem_size=20)
    torch.manual_seed(0)
    runner = common.strategy(common.mlp(), [replay, plugin])
    stream = common.benchmark().train_stream
    common.train(runner, stream[:2])
    own = EWCPlugin().new_fisher(runner.model, stream[1].dataset, nn.CrossEntropyLoss(), 7)
    both: Any = ConcatDataset([stream[1].dataset, replay.storage_policy.buffer])
    mixed = EWCPlugin().new_fisher(runner.model, both, nn.CrossEntropyLoss(), 7)
    for name, fisher in plugin.fishers[1].items():
        torch.testing.assert_close(fisher, own[name])
    assert not all(torch.allclose(mixed[name], f, rtol=0.05) for name, f in plugin.fishers[1].items())


def test_each_experience_and_seed_draws_its_own_labels() -> None:
    torch.manual_seed(0)
    model, data, found = common.mlp(), common.benchmark().train_stream[0].dataset, []
    for seed, experiences in ((0, 0), (0, 0), (0, 1), (1, 0)):
        plugin = EWCPlugin(fisher="sampled", seed=seed)
        plugin.experiences = experiences
        found.append(plugin.new_fisher(model, data, nn.CrossEntropyLoss(), 7)["2.bias"].tolist())
    assert found[0] == found[1]
    assert len({tuple(f) for f in found}) == 3


def test_the_softmax_is_the_losss() -> None:
    """Task-incremental: the rows of other tasks' classes have no Fisher, whatever their logits."""
    plugin = Watched(1.0)
    common.run([plugin], criterion=ScenarioCrossEntropy([[0, 1], [2, 3], [4, 5], [6, 7]]))
    for task, fisher in enumerate(plugin.fishers):
        rows = fisher["2.weight"].abs().sum(1).ne(0).nonzero().flatten().tolist()
        assert rows == [2 * task, 2 * task + 1]


def test_a_strong_penalty_holds_what_is_important() -> None:
    """Adam's steps do not diverge: the weighted distance falls as lambda grows."""
    distances = []
    for ewc_lambda in (0.0, 100.0, 1e4):
        torch.manual_seed(0)
        model, plugin = common.mlp(), EWCPlugin(ewc_lambda)
        runner = common.strategy(model, [plugin], optimizer=torch.optim.Adam(model.parameters(), lr=1e-2))
        common.train(runner, common.benchmark().train_stream[:1])
        before = {name: (f.clone(), plugin.anchors[name].clone()) for name, f in plugin.importances.items()}
        common.train(runner, common.benchmark().train_stream[:2], first=1)
        now = common.weights(model)
        distances.append(sum(float((f * (now[name] - a).square()).sum()) for name, (f, a) in before.items()))
    assert distances[0] > 2 * distances[1] > 4 * distances[2]


def test_state_holds_the_constant() -> None:
    plugin = EWCPlugin(1.0)
    runner = common.run([plugin])
    assert plugin.state_dict()["constant"] > 0
    other = EWCPlugin(1.0)
    other.load_state_dict(plugin.state_dict())
    other.align(runner.model)
    assert other.penalty() == plugin.penalty()


# ---- peers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "factor"),
    [
        ({}, {"mode": "separate"}, 1.0),
        ({"mode": "online"}, {"mode": "online", "decay_factor": 1.0}, 1.0),
        # gamma weighs the latest Fisher here, as in the paper, and does not there
        ({"mode": "online", "gamma": 0.6}, {"mode": "online", "decay_factor": 0.6}, 0.6),
    ],
)
def test_avalanche(ours: dict[str, Any], theirs: dict[str, Any], factor: float) -> None:
    """Its Fisher is fisher="batch", its lambda half of ours; gamma apart, importances and training agree."""
    plugin = EWCPlugin(2.0, fisher="batch", **ours)
    peer = avalanche.EWCPlugin(factor * 1.0, **theirs)
    mine, other = common.run([plugin]), common.run([peer])
    for name, value in common.weights(other.model).items():
        torch.testing.assert_close(common.weights(mine.model)[name], value, rtol=1e-4, atol=1e-5)
    for name, value in plugin.importances.items():
        parts = peer.importances.values() if theirs["mode"] == "separate" else [peer.importances[3]]
        expected = factor * sum(part[name].data for part in parts)
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-6)


def test_avalanches_importance_of_the_same_weights() -> None:
    """Same weights, same order: equal to 1e-6."""
    runner = common.run([])
    data = common.benchmark().train_stream[0].dataset
    found = EWCPlugin(fisher="batch").new_fisher(runner.model, data, nn.CrossEntropyLoss(), 7)
    optimizer, peer = runner.optimizer, avalanche.EWCPlugin(1.0)
    theirs = peer.compute_importances(runner.model, nn.CrossEntropyLoss(), optimizer, data, "cpu", 7)
    for name, value in found.items():
        torch.testing.assert_close(value, theirs[name].data, rtol=1e-6, atol=1e-9)


# ---- arguments ------------------------------------------------------------------------------------------------------


def test_an_unstable_lambda_is_told_in_its_own_units() -> None:
    runner = common.strategy(common.mlp(), [EWCPlugin(1e6)])
    stream = common.benchmark().train_stream
    runner.train(stream[0])
    with pytest.warns(UserWarning, match="the strength is 500000, half of ewc_lambda"), pytest.raises(RuntimeError):
        runner.train(stream[1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"ewc_lambda": -1.0}, ValueError, r"EWCPlugin: ewc_lambda must be in \[0, inf\), got -1.0"),
        ({"ewc_lambda": "1"}, TypeError, "ewc_lambda must be a number, got '1'"),
        ({"mode": "both"}, ValueError, "mode must be one of 'separate', 'online', got 'both'"),
        ({"mode": "online", "gamma": 1.1}, ValueError, r"gamma must be in \[0, 1\], got 1.1"),
        ({"gamma": 0.9}, ValueError, "gamma must be 1 in mode 'separate', which has no decay, got 0.9"),
        ({"fisher": "true"}, ValueError, "fisher must be one of 'exact', 'sampled', 'empirical', 'predicted', 'batch'"),
        ({"n_samples": 0}, ValueError, "n_samples must be an integer >= 1, got 0"),
        ({"n_samples": 1.5}, TypeError, "n_samples must be an integer, got 1.5"),
        ({"normalise": "minmax"}, ValueError, "normalise must be one of 'none', 'max', got 'minmax'"),
        ({"heads": "no"}, ValueError, "heads must be one of 'include', 'exclude', got 'no'"),
        ({"batch_size": 0}, ValueError, "batch_size must be an integer >= 1, got 0"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0, got -1"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        EWCPlugin(**arguments)


def test_lambda_is_given_back() -> None:
    assert EWCPlugin(3.0).ewc_lambda == 3.0
    assert EWCPlugin(3.0).strength == 1.5
