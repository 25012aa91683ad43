"""OGD at averaged weights: what first-order theory says of the stored directions, its limits, and its controls."""

import copy
from collections.abc import Callable
from typing import Any

from cl_ext.nn.orthogonal import ExplicitBasis, FlatVector
from cl_ext.nn.orthogonal_factors import Factors, ImplicitBasis
from cl_ext.plugins import EMAOGDPlugin, OGDPlugin
from cl_ext.plugins.ogd_ema import POINTS, noise_like, signs_like

import pytest
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from tests.methods import helpers
from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
ALL = 10**6
Weights = dict[str, Tensor]
DECAYS: dict[str, Any] = {"plastic_alpha": 0.5, "stable_alpha": 0.9}


def seeded(network: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return network()


def linear() -> nn.Module:
    return nn.Linear(common.FEATURES, common.CLASSES)


def smooth() -> nn.Module:
    """Without kinks, so that there is a second order."""
    return nn.Sequential(nn.Linear(common.FEATURES, 16), nn.Tanh(), nn.Linear(16, common.CLASSES)).double()


def names(model: nn.Module) -> Weights:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def data_of(experience: Any, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    samples = [experience.dataset[n] for n in range(len(experience.dataset))]
    return torch.stack([s[0] for s in samples]).to(dtype), torch.tensor([s[1] for s in samples])


def small_stream(dtype: torch.dtype) -> Any:
    """Returns four experiences of 6 samples with inputs of a type."""
    parts = [data_of(experience, dtype) for experience in common.benchmark(per_class=3).train_stream]
    data = common.labelled(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))
    return common.nc_benchmark(data, data, common.EXPERIENCES, task_labels=False, shuffle=False).train_stream


def own_logits(model: nn.Module, weights: Weights, x: Tensor, y: Tensor) -> Tensor:
    return functional_call(model, weights, (x,)).gather(1, y.unsqueeze(1)).squeeze(1)


def gradients(model: nn.Module, weights: Weights, x: Tensor, y: Tensor) -> Tensor:
    """A second derivation of the directions, (n, P) of length one: autograd sample by sample in float64."""
    model = copy.deepcopy(model).double()
    leaves = {name: value.double().requires_grad_() for name, value in weights.items()}
    phi = own_logits(model, leaves, x.double(), y)
    rows = [torch.cat([g.flatten() for g in torch.autograd.grad(p, list(leaves.values()), retain_graph=True)])
            for p in phi]  # fmt: skip
    return functional.normalize(torch.stack(rows), dim=1)


def flat(weights: Weights) -> Tensor:
    return torch.cat([value.flatten() for value in weights.values()])


def projected(plugin: OGDPlugin, x: Tensor) -> Tensor:
    assert plugin.basis is not None
    vector = FlatVector(plugin._parameters)
    vector.flat.copy_(x)
    plugin.basis.project_(vector)
    return vector.flat.clone()


class _Watch(SupervisedPlugin):
    """Stands behind the plugin: records each step, and at each experience's end the three weights."""

    def __init__(self, plugin: EMAOGDPlugin) -> None:
        super().__init__()
        self.plugin = plugin
        self.steps: list[list[Tensor]] = []
        self.ends: list[dict[str, Weights]] = []
        self.all: list[Tensor] = []

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.steps.append([])

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        self.old = flat(names(strategy.model))
        self.all = self.all or [self.old]

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        self.all.append(flat(names(strategy.model)))
        self.steps[-1].append(self.all[-1] - self.old)

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        def values(average: Any) -> Weights:
            return {name: value.detach().clone() for name, value in average.values().items()}

        ends = {"task": names(strategy.model)}
        self.ends.append(ends | {"plastic": values(self.plugin.plastic), "stable": values(self.plugin.stable)})


def watched(plugin: EMAOGDPlugin, network: Callable[[], nn.Module]) -> tuple[Any, _Watch, Any]:
    """Trains on four experiences of 6 samples, 6 steps each."""
    watch, model = _Watch(plugin), seeded(network)
    stream = small_stream(next(model.parameters()).dtype)
    runner = common.strategy(model, [plugin, watch], train_mb_size=2)
    common.train(runner, stream)
    return runner, watch, stream


def _overlap(model: nn.Module, watch: _Watch, stream: Any, number: int, weights: Weights) -> float:
    """The largest `|v^T step| / |step|` of any later step with any direction of one experience at some weights."""
    later = torch.stack([step for steps in watch.steps[number + 1 :] for step in steps]).double()
    v = gradients(model, weights, *data_of(stream[number]))
    return float((functional.normalize(later, dim=1) @ v.t()).abs().max())


@pytest.mark.parametrize("basis", ["implicit", "explicit"])
def test_no_later_step_has_a_part_in_any_direction(basis: Any) -> None:
    """Float32, momentum; directions derived anew at each of the three weights. Plain OGD moves along the added ones."""
    plugin = EMAOGDPlugin(ALL, basis=basis, **DECAYS)
    runner, watch, stream = watched(plugin, lambda: smooth().float())
    assert plugin.directions == 3 * 6 * common.EXPERIENCES  # none was dropped
    for number in range(common.EXPERIENCES - 1):
        at = watch.ends[number]
        assert max(_overlap(runner.model, watch, stream, number, at[name]) for name in at) < 1e-5

    plain = EMAOGDPlugin(ALL, "task", basis=basis, **DECAYS)
    assert not plain.plastic.values()  # nothing is averaged for nothing
    runner, plain_watch, _ = watched(plain, lambda: smooth().float())
    # the first experience is the same for both
    assert _overlap(runner.model, plain_watch, stream, 0, watch.ends[0]["task"]) < 1e-5
    assert _overlap(runner.model, plain_watch, stream, 0, watch.ends[0]["stable"]) > 1e-2


@pytest.mark.parametrize("basis", ["implicit", "explicit"])
def test_the_projection_is_idempotent_and_takes_the_span_out(basis: Any) -> None:
    plugin = EMAOGDPlugin(ALL, basis=basis, **DECAYS)
    runner, watch, stream = watched(plugin, smooth)
    x = torch.randn(len(flat(names(runner.model))), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    once = projected(plugin, x)
    torch.testing.assert_close(projected(plugin, once), once, rtol=0, atol=1e-10)
    inside = gradients(runner.model, watch.ends[0]["stable"], *data_of(stream[0])).sum(0)
    assert float(projected(plugin, inside).norm()) < 1e-10 * float(inside.norm())


def _moved(model: nn.Module, weights: Weights, step: Tensor, lr: float, x: Tensor, y: Tensor) -> float:
    parts = step.split([value.numel() for value in weights.values()])
    new = {name: value - lr * part.view_as(value) for (name, value), part in zip(weights.items(), parts, strict=True)}
    return float((own_logits(model, new, x, y) - own_logits(model, weights, x, y)).abs().max())


def _slope(model: nn.Module, weights: Weights, step: Tensor, x: Tensor, y: Tensor) -> float:
    lr = torch.logspace(-4, -2, 5, dtype=torch.float64)
    moved = torch.tensor([_moved(model, weights, step, float(each), x, y) for each in lr], dtype=torch.float64)
    return float((moved[-1] / moved[0]).log() / (lr[-1] / lr[0]).log())


def _next_gradient(model: nn.Module, experience: Any) -> Tensor:
    x, y = data_of(experience, torch.float64)
    loss = functional.cross_entropy(model(x), y)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def test_outputs_at_every_point_move_by_the_square_of_the_learning_rate() -> None:
    """Log-log slope 2 where directions are stored, 1 elsewhere and without the projection."""
    slopes = {}
    for points in ("averages", "task"):
        plugin = EMAOGDPlugin(ALL, points, **DECAYS)
        runner = common.strategy(seeded(smooth), [plugin, watch := _Watch(plugin)])
        stream = small_stream(torch.float64)
        runner.train(stream[0])
        step, (x, y) = _next_gradient(runner.model, stream[1]), data_of(stream[0], torch.float64)
        if points == "averages":
            weights = watch.ends[0]
            slopes["none"] = _slope(runner.model, weights["task"], step, x, y)
        step = projected(plugin, step)
        slopes |= {f"{points} {at}": _slope(runner.model, weights[at], step, x, y) for at in weights}
    two = [slopes[name] for name in ("averages task", "averages plastic", "averages stable", "task task")]
    one = [slopes[name] for name in ("none", "task plastic", "task stable")]
    assert two == pytest.approx([2.0] * 4, abs=0.1)
    assert one == pytest.approx([1.0] * 3, abs=0.1)


def test_outputs_of_a_linear_model_do_not_move_at_all() -> None:
    plugin = EMAOGDPlugin(ALL, **DECAYS)
    stream = small_stream(torch.float64)
    runner = common.strategy(seeded(linear).double(), [plugin])
    runner.train(stream[0])
    raw, (x, y) = _next_gradient(runner.model, stream[1]), data_of(stream[0], torch.float64)
    assert _moved(runner.model, names(runner.model), raw, 1.0, x, y) > 0.01
    assert _moved(runner.model, names(runner.model), projected(plugin, raw), 1.0, x, y) < 1e-12


@pytest.mark.parametrize("points", ["averages", "noise", "signs"])
@pytest.mark.parametrize("basis", ["implicit", "explicit"])
def test_a_linear_model_has_nothing_to_add(points: Any, basis: Any) -> None:
    """Its gradients are the same at all weights: rank 0 from every added point, and plain OGD bit for bit."""
    plugin = EMAOGDPlugin(4, points, basis=basis, **DECAYS)
    runner, watch, stream = watched(plugin, linear)
    plain = OGDPlugin(4, basis=basis, tolerance=1e-3)
    plain_runner = common.strategy(seeded(linear), [plain], train_mb_size=2)
    common.train(plain_runner, stream)
    assert [plugin.kept[point] for point in plugin.points[1:]] == [0, 0]
    assert plugin.directions == plain.directions > 0
    assert common.same(common.weights(runner.model), common.weights(plain_runner.model))
    assert float((flat(watch.ends[-1]["stable"]) - flat(watch.ends[-1]["task"])).norm()) > 0.01


@pytest.mark.parametrize("basis", ["implicit", "explicit"])
def test_averages_that_copy_give_the_span_of_plain_ogd(basis: Any) -> None:
    """alpha = 0 and rate 1: theta_P = theta_S = theta*, so rank, projection and training are those of OGD."""
    plugin = EMAOGDPlugin(4, plastic_alpha=0.0, stable_alpha=0.0, basis=basis)
    runner, _, stream = watched(plugin, common.mlp)
    plain = OGDPlugin(4, basis=basis, tolerance=1e-3)
    common.train(other := common.strategy(seeded(common.mlp), [plain], train_mb_size=2), stream)
    assert plugin.directions == plain.directions == 4 * common.EXPERIENCES
    assert common.same(common.weights(runner.model), common.weights(other.model))
    x = torch.randn(5, len(flat(names(runner.model))), generator=torch.Generator().manual_seed(1))
    for row in x:
        torch.testing.assert_close(projected(plugin, row), projected(plain, row), rtol=0, atol=0)


@pytest.mark.parametrize("network", [common.mlp, common.normed, common.Growing])
def test_points_task_is_plain_ogd_bit_for_bit(network: Any) -> None:
    stream = common.benchmark().train_stream
    ends = {}
    for name, plugin in {
        "ogd": OGDPlugin(5, seed=3),
        "task": EMAOGDPlugin(5, "task", seed=3, tolerance=1e-6),
        "averages": EMAOGDPlugin(5, "averages", seed=3, tolerance=1e-6, **DECAYS),
    }.items():
        runner = common.strategy(seeded(network), [plugin])
        common.train(runner, stream)
        ends[name] = common.weights(runner.model)
    assert common.same(ends["task"], ends["ogd"])
    assert not common.same(ends["averages"], ends["ogd"])


def test_the_averages_take_the_projected_weights_and_go_on_over_experiences() -> None:
    """With alpha 1 and rate 1 an average is the arithmetic mean of all weights, the initial ones included."""
    plugin = EMAOGDPlugin(4, stable_alpha=1.0, plastic_alpha=0.3)
    _, watch, _ = watched(plugin, smooth)
    mean = torch.stack(watch.all).mean(0)
    assert plugin.stable.steps == len(watch.all) - 1 == 6 * common.EXPERIENCES
    torch.testing.assert_close(flat(watch.ends[-1]["stable"]), mean, rtol=0, atol=1e-10)
    theta = watch.all[0]
    for k, new in enumerate(watch.all[1:], 1):
        a = min(1 - 1 / (k + 1), 0.3)
        theta = a * theta + (1 - a) * new
    torch.testing.assert_close(flat(watch.ends[-1]["plastic"]), theta, rtol=0, atol=1e-10)


@pytest.mark.parametrize("points", ["noise", "signs"])
def test_controls_are_as_far_away_as_the_averages(points: Any) -> None:
    plugin = EMAOGDPlugin(4, points, **DECAYS)
    runner, watch, _ = watched(plugin, smooth)
    theta = flat(names(runner.model))
    shifts = {}
    for name in ("plastic", "stable"):
        far = flat(watch.ends[-1][name]) - theta
        shift = flat(dict(plugin.weights_at(f"{points}_{name}", runner.model))) - theta
        torch.testing.assert_close(shift.norm(), far.norm())
        cosine = float(shift @ far / far.norm() ** 2)
        assert abs(cosine) < 0.4  # 248 weights
        if points == "signs":
            torch.testing.assert_close(shift.abs(), far.abs(), rtol=0, atol=1e-12)
        else:
            assert float(shift.abs().min()) < float(far.abs().max())
        again = flat(dict(plugin.weights_at(f"{points}_{name}", runner.model))) - theta
        assert torch.equal(shift, again)
        plugin.experiences += 1
        assert not torch.equal(flat(dict(plugin.weights_at(f"{points}_{name}", runner.model))) - theta, again)
        plugin.experiences -= 1
        shifts[name] = shift
    assert abs(float(torch.cosine_similarity(shifts["plastic"], shifts["stable"], dim=0))) < 0.4


def test_draws_of_the_controls() -> None:
    """Noise has a uniform direction and signs are fair: means over 4,000 draws within five standard errors."""
    far, generator = torch.tensor([3.0, 0.0, -4.0]), torch.Generator().manual_seed(0)
    noise = torch.stack([noise_like(far, generator) for _ in range(4000)])
    torch.testing.assert_close(noise.norm(dim=1), torch.full((4000,), 5.0))
    torch.testing.assert_close(noise.t() @ noise / 4000, 25 / 3 * torch.eye(3), rtol=0, atol=5 * 7.5 / 4000**0.5)
    signs = torch.stack([signs_like(far, generator) for _ in range(4000)])
    assert torch.equal(signs.abs(), far.abs().expand(4000, 3))
    assert float(signs.mean(0).abs().max()) < 5 * 4 / 4000**0.5
    assert abs(float((signs[:, 0] * signs[:, 2]).mean())) < 5 * 12 / 4000**0.5


@pytest.mark.parametrize("points", list(POINTS))
def test_rows_of_equal_n_directions_are_given_equally_many(points: str) -> None:
    """12 an experience at any choice of points, as many as `ogd` of 12 samples; what is kept may be fewer."""
    result = helpers.run("ogd_ema", "domain", {"n_directions": 12, "points": points})
    plain = helpers.run("ogd", "domain", {"n_samples": 12})
    ours, theirs = (run.built.strategy.plugins for run in (result, plain))
    plugin = next(each for each in ours if isinstance(each, EMAOGDPlugin))
    ogd = next(each for each in theirs if isinstance(each, OGDPlugin))
    assert sum(plugin.given.values()) == sum(ogd.given.values()) == 12
    assert len(set(plugin.given.values())) == 1
    assert 24 < plugin.directions <= ogd.directions == 36


def test_directions_that_cannot_be_shared_out() -> None:
    with pytest.raises(ValueError, match="n_directions out over the 3 points of 'averages'; 50 cannot be divided"):
        helpers.make("ogd_ema", "domain", {"n_directions": 50})


class _Same(SupervisedPlugin):
    """Keeps the network as it is at an experience's end, before (`first`) or after the plugin's work."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Weights] = []

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.seen.append(common.weights(strategy.model) | {"random": torch.get_rng_state()})


@pytest.mark.parametrize("points", ["averages", "noise", "averages_only"])
def test_storing_leaves_the_network_and_the_random_state_as_they_were(points: Any) -> None:
    before, after, plugin = _Same(), _Same(), EMAOGDPlugin(5, points, **DECAYS)
    common.run([before, plugin, after], common.normed)
    assert all(common.same(a, b) for a, b in zip(before.seen, after.seen, strict=True))
    assert len(before.seen) == common.EXPERIENCES


def test_batch_norm_has_the_averages_own_statistics() -> None:
    plugin = EMAOGDPlugin(5, **DECAYS)
    runner = common.run([plugin], common.normed)
    values = plugin.weights_at("stable", runner.model)
    running = dict(runner.model.named_buffers())["1.running_mean"]
    assert float((values["1.running_mean"] - running).abs().max()) > 1e-3
    assert "1.running_mean" not in EMAOGDPlugin.weights_at(plugin, "noise_stable", runner.model)


def test_saved_and_restored_it_goes_on_bit_equal() -> None:
    """Coins, averages and directions: two experiences, a fresh plugin, two more."""
    options: dict[str, Any] = {"n_samples": 4, "plastic_rate": 0.5, "stable_rate": 0.4, **DECAYS}
    stream = common.benchmark().train_stream
    whole = EMAOGDPlugin(**options)
    common.train(straight := common.strategy(seeded(common.mlp), [whole]), stream)
    first, second = EMAOGDPlugin(**options), EMAOGDPlugin(**options)
    common.train(runner := common.strategy(seeded(common.mlp), [first]), stream[:2])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    runner.plugins[runner.plugins.index(first)] = second
    common.train(runner, stream, first=2)
    assert common.same(common.weights(runner.model), common.weights(straight.model))
    assert 0 < whole.plastic.updates < whole.plastic.steps
    for mine, theirs in ((whole.plastic, second.plastic), (whole.stable, second.stable)):
        assert common.same(dict(mine.values()), dict(theirs.values()))
        assert (mine.steps, mine.updates) == (theirs.steps, theirs.updates)


@pytest.mark.parametrize(("tolerance", "kept"), [(1e-3, 1), (1e-4, 2)])
def test_what_is_nearly_known_is_dropped(tolerance: float, kept: int) -> None:
    """Two unit vectors whose difference outside the span is 5e-4."""
    e = 5e-4
    parameters = {"weight": torch.zeros(1, 2, dtype=torch.float64)}
    pair = torch.tensor([[1.0, 0.0], [(1 - e * e) ** 0.5, e]], dtype=torch.float64)
    explicit, implicit = ExplicitBasis(tolerance), ImplicitBasis(tolerance)
    for basis in (explicit, implicit):
        basis.align(parameters)
    assert explicit.extend([pair], 2) == kept
    assert implicit.extend({"": Factors(pair, torch.ones(2, 1, dtype=torch.float64))}, 2) == kept


def test_bounds_count_every_point_and_theta_star_comes_first() -> None:
    runner = common.strategy(seeded(common.mlp), [EMAOGDPlugin(6, memory_limit=1000)])
    with pytest.raises(MemoryError, match="EMAOGDPlugin: 18 directions in the implicit basis"):
        runner.train(common.benchmark().train_stream[0])
    plugin = EMAOGDPlugin(6, max_directions=8, **DECAYS)
    common.train(common.strategy(seeded(common.mlp), [plugin]), common.benchmark().train_stream[:1])
    assert plugin.kept == {"task": 6, "plastic": 2, "stable": 0}
    assert plugin.given == {"task": 6, "plastic": 6, "stable": 6}


def test_metrics() -> None:
    metrics = common.run([EMAOGDPlugin(6, **DECAYS)]).evaluator.get_all_metrics()

    def last(name: str) -> float:
        return float(metrics[f"EMAOGD_{name}/train_phase/train_stream/Exp003"][1][-1])

    shares = [metrics[f"EMAOGD_Kept{p}/train_phase/train_stream/Exp000"][1][-1] for p in ("Task", "Plastic", "Stable")]
    assert shares[0] == 1.0
    assert all(0.0 < share <= 1.0 for share in shares)
    assert 0.0 < last("DistancePlastic") < last("DistanceStable") < 1.0
    assert last("Directions") <= 3 * 6 * common.EXPERIENCES


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_samples": -1}, ValueError, "EMAOGDPlugin: n_samples must be an integer >= 0, got -1"),
        ({"points": "ema"}, ValueError, "points must be one of 'task', 'averages', .* got 'ema'"),
        ({"plastic_alpha": 1.5}, ValueError, r"plastic_alpha must be in \[0, 1\], got 1.5"),
        ({"stable_alpha": "1"}, TypeError, "stable_alpha must be a number, got '1'"),
        ({"plastic_rate": -0.1}, ValueError, r"plastic_rate must be in \[0, 1\], got -0.1"),
        ({"stable_rate": float("nan")}, ValueError, r"stable_rate must be in \[0, 1\], got nan"),
        ({"tolerance": 0.0}, ValueError, r"tolerance must be in \(0, 1\], got 0.0"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        EMAOGDPlugin(**arguments)
