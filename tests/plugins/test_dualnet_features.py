"""DualNet's features held with weights of the correlation matrix: loss, gradient, gate, drift, limits."""

import copy
from typing import Any

import cl_ext  # noqa: F401
from cl_ext.models import Network, dualnet
from cl_ext.models.slowfast import SlowFast, slow_fast_of
from cl_ext.nn.views import two_views
from cl_ext.plugins import DualNetPlugin
from cl_ext.plugins.dualnet_features import FeatureUses, feature_distance
from cl_ext.plugins.dualnet_slow import SlowPhase

import numpy as np
import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
KINDS = ["correlation", "identity", "shuffled", "variance"]
SMALL: dict[str, Any] = {"mem_size": 15, "mem_batch_size": 6, "ssl_batch_size": 8, "projection": (6, 4),
                         "slow_lr": 0.05, "beta": 0.5, "n_outer": 1, "fast_steps": 1}  # fmt: skip


def pair(normed: bool = False) -> Network:
    torch.manual_seed(5)
    norm = [nn.BatchNorm1d(7)] if normed else []
    body = nn.Sequential(nn.Linear(common.FEATURES, 7), *norm, nn.Tanh(), nn.Linear(7, 5), nn.Tanh())
    return dualnet(Network(body, nn.Linear(5, common.CLASSES)), (common.FEATURES,))


def trained(experiences: int = 2, plugins: tuple[Any, ...] = (), epochs: int = 2, **options: Any) -> Any:
    """Returns the strategy and its DualNet after some experiences."""
    plugin = DualNetPlugin(**(SMALL | options))
    runner = common.strategy(pair(), [plugin, *plugins], train_epochs=epochs)
    common.train(runner, common.benchmark().train_stream[:experiences])
    return runner, plugin


def metric(runner: Any, name: str, experience: int) -> list[float] | None:
    found = runner.evaluator.get_all_metrics().get(f"DualNet_{name}/train_phase/train_stream/Exp{experience:03d}")
    return None if found is None else found[1]


def uses(**options: Any) -> FeatureUses:
    arguments: dict[str, Any] = {"owner": "Test", "strength": 2.0, "kind": "identity", "decay": 0.9,
                                 "consolidation": "constant", "drift": False, "views": True, "seed": 0}  # fmt: skip
    return FeatureUses(**(arguments | options))


# ---- the loss --------------------------------------------------------------------------------------------------------


def test_the_distance_by_loops() -> None:
    z, z_old, w = torch.randn(5, 4), torch.randn(5, 4), torch.tensor([0.5, 2.0, 1.5, 0.0])
    known = torch.tensor([True, False, True, True, False])
    total = 0.0
    for n in (0, 2, 3):
        for i in range(4):
            total += float(w[i]) * float(z[n, i] - z_old[n, i]) ** 2
    assert float(feature_distance(z, z_old, w, known)) == pytest.approx(total / (3 * 4), rel=1e-5)
    assert feature_distance(z, z_old, w, torch.zeros(5, dtype=torch.bool)) == 0.0
    assert feature_distance(z, z, w, known) == 0.0


def _prepared() -> tuple[FeatureUses, Network, Tensor, Tensor]:
    """An earlier network is held, the present one is another, in double precision."""
    torch.manual_seed(1)
    model = pair().double()
    part = uses()
    part.end(slow_fast_of(model))
    part.weights = torch.tensor([0.2, 2.3, 1.0, 0.5, 1.0], dtype=torch.float64)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return part, model, torch.randn(6, common.FEATURES).double(), torch.tensor([True, True, False, True, True, True])


def test_one_pass_gives_the_networks_logits_and_the_slow_nets_own_features() -> None:
    part, model, x, _ = _prepared()
    trunk = slow_fast_of(model)
    output, z = part.replay(model, trunk, x)
    assert torch.equal(output, model(x))
    assert z is not None
    assert torch.equal(z, trunk.embed(x))
    assert not torch.allclose(z, trunk(x))  # the adapted ones are others
    assert not trunk.slow[-1]._forward_hooks
    with pytest.raises(RuntimeError):
        part.replay(model, trunk, x[:, :2])
    assert not trunk.slow[-1]._forward_hooks


def test_the_gradient_by_finite_differences() -> None:
    part, model, x, known = _prepared()
    trunk = slow_fast_of(model)

    def value() -> Tensor:
        z = part.replay(model, trunk, x)[1]
        assert z is not None
        return part.loss(z, x, known)

    value().backward()
    step, slow = 1e-6, list(trunk.slow.parameters())
    for weight in slow:
        assert weight.grad is not None
        for index in range(weight.numel()):
            entry = weight.detach().view(-1)
            kept = float(entry[index])
            entry[index] = kept + step
            above = float(value().detach())
            entry[index] = kept - step
            below = float(value().detach())
            entry[index] = kept
            assert float(weight.grad.view(-1)[index]) == pytest.approx((above - below) / (2 * step), abs=1e-7)
    assert max(float(weight.grad.abs().max()) for weight in slow if weight.grad is not None) > 1e-2
    rest = [*trunk.fast.parameters(), *model.classifier.parameters()]
    assert all(weight.grad is None for weight in rest)


def test_no_gradient_reaches_the_old_features() -> None:
    part, model, x, known = _prepared()
    assert part._old is not None
    before = common.weights(part._old)
    z = part.replay(model, slow_fast_of(model), x)[1]
    assert z is not None
    part.loss(z, x, known).backward()
    assert all(not weight.requires_grad and weight.grad is None for weight in part._old.parameters())
    assert common.same(before, common.weights(part._old))
    z_old = torch.randn(4, 3, requires_grad=True)
    z = torch.randn(4, 3, requires_grad=True)
    feature_distance(z, z_old, torch.ones(3), torch.ones(4, dtype=torch.bool)).backward()
    assert z_old.grad is None
    assert z.grad is not None


class _Step(SupervisedPlugin):
    """Keeps the network as it is before a step, and the step's number."""

    def __init__(self) -> None:
        super().__init__()
        self.starts: list[dict[str, Tensor]] = []
        self.ends: list[dict[str, Tensor]] = []

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        self.starts.append(common.weights(strategy.model))

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        self.ends.append(common.weights(strategy.model))


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_differs_by_the_gradient_of_the_distance_and_nothing_else(kind: Any) -> None:
    """Plain SGD is linear in the loss: the first step of the second experience with and without, by a second route."""
    lr, strength, runs = 0.05, 3.0, []
    for feature_lambda in (0.0, strength):
        watch, model = _Step(), pair().double()
        plugin = DualNetPlugin(**(SMALL | {"mem_size": 1000, "mem_batch_size": 1000, "ssl_batch_size": 1000}),
                               feature_lambda=feature_lambda, feature_weights=kind)  # fmt: skip
        runner = common.strategy(model, [plugin, watch], train_epochs=1, train_mb_size=20,
                                 optimizer=torch.optim.SGD(model.parameters(), lr=lr))  # fmt: skip
        x, y = common.blobs(10, 1).tensors  # type: ignore[attr-defined]
        dataset = common.labelled(x.double(), y)
        stream = common.nc_benchmark(dataset, dataset, 4, task_labels=False, shuffle=False).train_stream[:2]
        common.train(runner, stream)
        runs.append(watch)
    off, on = runs
    assert common.same(off.starts[0], on.starts[0])
    assert common.same(off.ends[0], on.ends[0])  # the first experience has nothing to hold
    assert common.same(off.starts[1], on.starts[1])
    old, now = pair().double(), pair().double()
    old.load_state_dict(on.ends[0])
    now.load_state_dict(on.starts[1])
    x = common.blobs(10, 1).tensors[0][:20].double()  # type: ignore[attr-defined]
    # the weights are those of the first experience's end: a run of that experience alone has them
    distance = (slow_fast_of(now).embed(x) - slow_fast_of(old).embed(x).detach()) ** 2
    first = _weights_after_one_experience(kind)
    gradients = torch.autograd.grad(
        strength * (distance * first).sum() / distance.numel(), list(slow_fast_of(now).slow.parameters())
    )
    expected = {
        name: -lr * g for (name, _), g in zip(slow_fast_of(now).slow.named_parameters(), gradients, strict=True)
    }
    for name, value in on.ends[1].items():
        short = name.split("slow.")[-1]
        moved = value - off.ends[1][name]
        theirs = expected[short] if "slow." in name else torch.zeros_like(moved)
        assert torch.allclose(moved, theirs, atol=1e-12), name
    assert max(float(g.abs().max()) for g in expected.values()) > 1e-5


def _weights_after_one_experience(kind: Any) -> Tensor:
    model = pair().double()
    plugin = DualNetPlugin(**(SMALL | {"mem_size": 1000, "mem_batch_size": 1000, "ssl_batch_size": 1000}),
                           feature_lambda=1.0, feature_weights=kind)  # fmt: skip
    x, y = common.blobs(10, 1).tensors  # type: ignore[attr-defined]
    dataset = common.labelled(x.double(), y)
    stream = common.nc_benchmark(dataset, dataset, 4, task_labels=False, shuffle=False).train_stream[:1]
    common.train(common.strategy(model, [plugin], train_epochs=1, train_mb_size=20), stream)
    assert plugin.features.weights is not None
    return plugin.features.weights


# ---- the weights -----------------------------------------------------------------------------------------------------


def test_the_weights_are_those_of_all_views_features_by_loops() -> None:
    plugin = DualNetPlugin(**SMALL, feature_lambda=1.0, feature_decay=0.7)
    seen: list[tuple[Tensor, Tensor]] = []
    observe = plugin.features.observe

    def spy(z1: Tensor, z2: Tensor) -> None:
        seen.append((z1.detach().double(), z2.detach().double()))
        observe(z1, z2)

    plugin.features.observe = spy  # type: ignore[method-assign]
    runner = common.strategy(pair(), [plugin])
    common.train(runner, common.benchmark().train_stream[:2])
    assert len(seen) == 2 * 3 * 2 * 2  # experiences, batches of 20 samples, epochs, inner steps
    shares = np.array([0.3 * 0.7 ** (len(seen) - 1 - b) for b in range(len(seen))])
    shares /= shares.sum()
    C = sum(s * np.corrcoef(a.numpy(), b.numpy(), rowvar=False)[:5, 5:] for s, (a, b) in zip(shares, seen, strict=True))
    null = sum(s**2 / (len(a) - 1) for s, (a, _) in zip(shares, seen, strict=True))
    raw = [
        max(0.0, C[i, i]) * (1 - max(0.0, sum(C[i, j] ** 2 for j in range(5) if j != i) / 4 - null)) for i in range(5)
    ]
    assert plugin.features.weights is not None
    assert np.allclose(plugin.features.weights.numpy(), np.array(raw) / np.mean(raw), atol=1e-5)


def test_the_shuffled_control_has_the_same_weights_at_other_features() -> None:
    """The first experience is the same whatever the weights, for nothing is held yet."""
    parts = {kind: trained(1, feature_lambda=1.0, feature_weights=kind)[1].features for kind in KINDS}
    w = {kind: part.weights for kind, part in parts.items()}
    assert torch.equal(w["correlation"].sort().values, w["shuffled"].sort().values)
    assert not torch.equal(w["correlation"], w["shuffled"])
    assert torch.equal(w["identity"].expand(5), torch.ones(5))
    variance = parts["variance"].running.variance
    assert torch.allclose(w["variance"], variance / variance.mean())


def test_every_kind_trains_differently() -> None:
    ends = [common.weights(trained(2, feature_lambda=5.0, feature_weights=kind)[0].model) for kind in KINDS]
    ends.append(common.weights(trained(2)[0].model))
    assert not any(common.same(a, b) for i, a in enumerate(ends) for b in ends[:i])


def test_the_larger_the_strength_the_less_held_features_move() -> None:
    """Without a slow phase, on what the memory held when the experience began; with 50 these steps would oscillate."""
    moved = []
    for strength in (0.0, 1.0, 5.0):
        runner, plugin = trained(1, feature_lambda=strength, feature_weights="identity", n_outer=0, mem_batch_size=15)
        held = plugin._memory.sample(15)["x"]
        before = slow_fast_of(runner.model).embed(held).detach()
        torch.manual_seed(1)
        runner.train(common.benchmark().train_stream[1], eval_streams=[])
        moved.append(float((slow_fast_of(runner.model).embed(held).detach() - before).square().mean()))
    assert moved[0] > 1.5 * moved[1], moved
    assert moved[1] > 1.5 * moved[2], moved


# ---- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normed", [False, True])
def test_at_its_defaults_and_with_the_drift_watched_nothing_changes(normed: bool) -> None:
    """Bit for bit the plugin whose slow phase shows its features to nobody, the global generator's state included."""
    ends = []
    cases: list[tuple[dict[str, Any], bool]] = [({}, True), ({}, False), ({"drift": True}, False)]
    for options, cut in [*cases, ({"feature_decay": 0.2}, False)]:
        torch.manual_seed(0)
        plugin = DualNetPlugin(**(SMALL | options))
        if cut:
            plugin.slow.features = None
        runner = common.strategy(pair(normed), [plugin])
        common.train(runner, common.benchmark().train_stream[:3])
        ends.append((common.weights(runner.model), torch.get_rng_state()))
    assert all(common.same(ends[0][0], weights) for weights, _ in ends)
    assert all(torch.equal(ends[0][1], state) for _, state in ends)


def test_switched_off_it_costs_nothing() -> None:
    _, plugin = trained(2)
    assert plugin.features.bytes() == 0
    _, held = trained(2, feature_lambda=1.0)
    slow = sum(p.nbytes for p in slow_fast_of(pair()).slow.parameters())
    assert held.features.bytes() == slow + 4 * (5 * 5 + 5) + 4 * 5
    assert held.extra_bytes() - plugin.extra_bytes() == held.features.bytes()


def test_saved_and_restored_between_experiences_it_goes_on_bit_equal() -> None:
    options: dict[str, Any] = {
        "feature_lambda": 2.0,
        "feature_weights": "shuffled",
        "consolidation": "invariance",
        "seed": 3,
    }
    whole, _ = trained(3, **options)
    runner, plugin = trained(2, **options)
    fresh = DualNetPlugin(**(SMALL | options))
    state = plugin.state_dict()
    fresh.load_state_dict(state)
    assert fresh.features.bytes() == plugin.features.bytes()
    again = fresh.state_dict()["features"]
    assert common.same(again["old"], state["features"]["old"])
    other = common.strategy(pair(), [fresh])
    other.make_optimizer(reset_optimizer_state=True)
    other.model.load_state_dict(runner.model.state_dict())
    other.optimizer.load_state_dict(copy.deepcopy(runner.optimizer.state_dict()))
    common.train(other, common.benchmark().train_stream[:3], first=2)
    assert common.same(common.weights(other.model), common.weights(whole.model))


# ---- consolidation ---------------------------------------------------------------------------------------------------


def _phase(beta: float, norm: Any = "keep") -> SlowPhase:
    return SlowPhase(2, 3, beta, 0.1, 2e-3, "biased", norm, (6, 4), two_views, 0)


def test_the_gate_is_the_matrix_mean_diagonal_cut_at_zero() -> None:
    part, z = uses(strength=0.0, consolidation="invariance"), torch.randn(30, 3)
    assert part.gate() == 1.0
    part.observe(z, torch.stack([z[:, 0], torch.randn(30), 0.5 * z[:, 2]], 1))
    assert part.running is not None
    assert part.gate() == pytest.approx(float(part.running.matrix.diagonal().mean()))
    assert 0.5 < part.gate() < 0.9
    for _ in range(60):
        part.observe(z, -z)
    assert part.gate() == 0.0
    assert uses(strength=0.0).gate() == 1.0


@pytest.mark.parametrize("norm", ["keep", "interpolate"])
@pytest.mark.parametrize("factor", [0.25, 0.0, 1.0])
def test_a_gated_round_is_one_with_a_smaller_beta(factor: float, norm: Any) -> None:
    x, ends = torch.randn(9, common.FEATURES), []
    for gated in (True, False):
        model, phase = pair(normed=True), _phase(0.5 if gated else 0.5 * factor, norm)
        if gated:
            phase.features = uses(strength=0.0, consolidation="invariance")
            phase.features.gate = lambda: factor  # type: ignore[method-assign]
        phase.run(slow_fast_of(model), lambda: x)
        ends.append(common.weights(model))
    assert common.same(*ends)


def test_consolidation_changes_training_and_constant_does_not() -> None:
    plain = common.weights(trained(2)[0].model)
    assert common.same(plain, common.weights(trained(2, consolidation="constant")[0].model))
    assert not common.same(plain, common.weights(trained(2, consolidation="invariance")[0].model))


# ---- drift -----------------------------------------------------------------------------------------------------------


def test_the_drift_is_published_each_epoch_from_the_second_experience_on() -> None:
    cases: list[dict[str, Any]] = [{"drift": True}, {"feature_lambda": 1.0}]
    for options in cases:
        runner, _ = trained(3, epochs=2, **options)
        assert metric(runner, "FeatureDrift", 0) is None
        for experience in (1, 2):
            values = metric(runner, "FeatureDrift", experience)
            assert values is not None
            assert len(values) == 2
            assert all(-1.0 <= value < 1.0 for value in values)
    assert metric(trained(2)[0], "FeatureDrift", 1) is None
    features = metric(trained(2, feature_lambda=1.0)[0], "Features", 1)
    assert features is not None
    assert features[-1] > 0.0
    assert metric(trained(2)[0], "Features", 1) is None


class _Feature(nn.Module):
    """A stage that gives its input, scaled and shifted, or something else."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(common.FEATURES))
        self.order = torch.arange(common.FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x[:, self.order] + 1.0


def test_the_drift_of_known_changes() -> None:
    stage = _Feature()
    trunk = slow_fast_of(Network(nn.Sequential(_trunk(stage)), nn.Linear(common.FEATURES, 2)))
    part = uses(strength=0.0, drift=True)
    x = torch.randn(1500, common.FEATURES)
    memory = {"x": x, "known": torch.arange(1500) % 3 > 0}
    assert part.drift(trunk, lambda: memory) is None  # nothing before
    part.end(trunk)
    assert part.drift(trunk, lambda: memory) == pytest.approx(1.0)
    with torch.no_grad():
        stage.scale.mul_(3.0)
    assert part.drift(trunk, lambda: memory) == pytest.approx(1.0, abs=1e-5)
    with torch.no_grad():
        stage.scale[:2] *= -1
    assert part.drift(trunk, lambda: memory) == pytest.approx((common.FEATURES - 4) / common.FEATURES, abs=1e-5)
    with torch.no_grad():
        stage.scale.fill_(1.0)
    stage.order = stage.order.roll(1)  # the same features at other places
    mean = part.drift(trunk, lambda: memory)
    assert mean is not None
    assert abs(mean) < 4 / (500 * common.FEATURES) ** 0.5
    assert part.drift(trunk, lambda: None) is None
    assert part.drift(trunk, lambda: {"x": x, "known": torch.zeros(1500, dtype=torch.bool)}) is None


def _trunk(stage: nn.Module) -> nn.Module:
    fast = nn.Sequential(nn.Linear(common.FEATURES, common.FEATURES), nn.ReLU())
    return SlowFast([stage], [fast], nn.Sequential())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"feature_lambda": -1.0}, ValueError, r"DualNetPlugin: feature_lambda must be in \[0, inf\), got -1.0"),
        ({"feature_lambda": "1"}, TypeError, "feature_lambda must be a number"),
        ({"feature_weights": "random"}, ValueError, "feature_weights must be one of 'correlation', 'identity'"),
        ({"feature_decay": 1.0}, ValueError, r"feature_decay must be in \[0, 1\), got 1.0"),
        ({"feature_decay": 1.5}, ValueError, "feature_decay must be in"),
        ({"consolidation": "full"}, ValueError, "consolidation must be one of 'constant', 'invariance'"),
        ({"feature_lambda": 1.0, "n_outer": 0}, ValueError, "n_outer must be >= 1"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DualNetPlugin(**arguments)


def test_without_a_slow_phase_features_can_be_held_all_alike() -> None:
    runner, plugin = trained(2, feature_lambda=1.0, feature_weights="identity", n_outer=0)
    assert metric(runner, "Features", 1) is not None
    assert plugin.features.running is None
