"""DualNet against a second derivation in plain loops; which phase moves what; presets, limits, refusals."""

import copy
from dataclasses import dataclass, field
from typing import Any

import cl_ext  # noqa: F401
from cl_ext.models import Network, dualnet
from cl_ext.models.slowfast import slow_fast_of
from cl_ext.nn.divergence import DivergedError
from cl_ext.nn.views import two_views
from cl_ext.plugins import DualNetPlugin, ERPlugin
from cl_ext.plugins.dualnet_slow import SlowPhase

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training import Naive
from torch import Tensor, nn
from torch.nn import functional

from tests.methods.helpers import BUDGET, make, same, seed_all, state, tiny_stream
from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
EXPERIENCES, EPOCHS, LR, SLOW_LR, T, STRENGTH, GAMMA = 3, 2, 0.02, 0.05, 2.0, 1.5, 0.01


def two_scales(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Views without chance."""
    return 1.1 * x, x.flip(0).mul(0.3).flip(0) + x.abs()


def pair(normed: bool = True) -> Network:
    torch.manual_seed(5)
    layers = [nn.Linear(common.FEATURES, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh()]
    body = [layer for layer in layers if normed or not isinstance(layer, nn.BatchNorm1d)]
    return dualnet(Network(nn.Sequential(*body), nn.Linear(5, common.CLASSES)), (common.FEATURES,)).double()


def stream() -> Any:
    x, y = common.blobs(6, 1).tensors  # type: ignore[attr-defined]
    dataset = common.labelled(x.double(), y)
    return common.nc_benchmark(dataset, dataset, 4, task_labels=False, shuffle=False).train_stream[:EXPERIENCES]


class TaskLoss:
    """Cross-entropy over the two classes of each label's task."""

    def __call__(self, z: Tensor, y: Tensor) -> Tensor:
        own = (torch.arange(z.shape[1]) // 2).unsqueeze(0) == (y // 2).unsqueeze(1)
        return functional.cross_entropy(z.masked_fill(~own, float("-inf")), y)


class Watch(SupervisedPlugin):
    """Notes every batch of the stream, before anyone changes it."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[tuple[int, Tensor, Tensor]]] = []

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.batches.append([])

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self.batches[-1].append((strategy.clock.train_exp_epochs, strategy.mb_x.clone(), strategy.mb_y.clone()))


@dataclass
class Settings:
    """A setting of the plugin, and a fault for negative controls."""

    preset: str = "paper"
    aware: bool = False
    choices: dict[str, Any] = field(default_factory=dict)
    normed: bool = True
    fault: str = ""

    def plugin(self) -> DualNetPlugin:
        return DualNetPlugin(
            STRENGTH, 1000, 1000, self.aware, self.preset, n_outer=2, inner_steps=2, fast_steps=2, beta=0.3,
            slow_lr=SLOW_LR, ssl_batch_size=1000, gamma=GAMMA, projection=(6, 4), temperature=T, views=two_scales,
            **self.choices,
        )  # type: ignore[arg-type]  # fmt: skip

    def loss(self) -> Any:
        return TaskLoss() if self.aware else nn.CrossEntropyLoss()


def train(settings: Settings) -> tuple[dict[str, Tensor], dict[str, float], list[Any], DualNetPlugin]:
    """Returns the weights, the last epoch's metrics, the batches, and the plugin."""
    model, plugin, watch = pair(settings.normed), settings.plugin(), Watch()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.5)
    runner = common.strategy(
        model, [watch, plugin], optimizer=optimizer, train_epochs=EPOCHS, criterion=settings.loss()
    )
    common.train(runner, stream())
    last = f"/train_phase/train_stream/Exp{EXPERIENCES - 1:03d}"
    metrics = runner.evaluator.get_all_metrics()
    names = ("BarlowTwins", "Invariance", "Redundancy", "Memory", "Distillation")
    return common.weights(model), {n: metrics[f"DualNet_{n}{last}"][1][-1] for n in names}, watch.batches, plugin


def barlow(z1: Tensor, z2: Tensor, std: str) -> Tensor:
    """By loops over the features."""
    n, d = z1.shape
    unbiased = std == "unbiased"
    a, b = ((z - z.mean(0)) / z.std(0, unbiased=unbiased) for z in (z1, z2))
    total = torch.zeros((), dtype=z1.dtype)
    for i in range(d):
        for j in range(d):
            c = (a[:, i] * b[:, j]).sum() / n
            total = total + ((c - 1) ** 2 if i == j else GAMMA * c**2)
    return total


def derive(settings: Settings, batches: list[Any]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The same training with plain loops, from the spec's text; the memory holds everything and is read whole."""
    plugin, model, loss = settings.plugin(), pair(settings.normed), settings.loss()
    kl, source, std = plugin.kl, plugin.ssl_source, plugin.slow.std
    projector = plugin.slow._new_projector(5).double()
    trunk = slow_fast_of(model)
    slow = [*trunk.slow.parameters(), *projector.parameters()]
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.5)
    inner = torch.optim.SGD(slow, lr=SLOW_LR)
    held: list[dict[str, Any]] = []  # samples, the task they came in, their target's logits
    metrics: dict[str, list[float]] = {}
    for task, steps in enumerate(batches):
        model.train(plugin.recording == "train")
        rows = [h for h in held if h["task"] == task - 1] if settings.aware else held
        if rows and plugin.targets != "write":
            with torch.no_grad():
                logits = model(torch.stack([h["x"] for h in rows]))
            for h, z in zip(rows, logits, strict=True):
                h["z"] = z
        model.train()
        for epoch, x, y in steps:
            if epoch == 0:
                with torch.no_grad():
                    written = copy.deepcopy(model).eval()(x)
                for i in range(len(x)):
                    z = written[i] if plugin.targets == "write" else None
                    if plugin.targets == "boundary_stale":
                        z = torch.zeros(common.CLASSES).double()
                    held.append({"x": x[i], "y": y[i], "task": task, "z": z})
            past = [h for h in held if h["task"] < task] if settings.aware else held
            memory = torch.stack([h["x"] for h in past]) if past else None
            for _ in range(2):
                before = [w.detach().clone() for w in slow]
                statistics = [b.clone() for b in trunk.slow.buffers()]
                for _ in range(2):
                    if source == "memory":
                        views = two_scales(x if task == 0 else memory, None)  # type: ignore[arg-type]
                    else:
                        views = two_scales(x if memory is None else torch.cat([memory, x]), None)  # type: ignore[arg-type]
                    value = barlow(projector(trunk.embed(views[0])), projector(trunk.embed(views[1])), std)
                    inner.zero_grad()
                    value.backward()
                    inner.step()
                    metrics.setdefault(f"{task}{epoch}BarlowTwins", []).append(float(value.detach()))
                with torch.no_grad():
                    for w, old in zip(slow, before, strict=True):
                        w.copy_(old + 0.3 * (w - old))
                    if plugin.slow.norm != "keep":
                        share = 0.3 if plugin.slow.norm == "interpolate" else 0.0
                        for b, old in zip(trunk.slow.buffers(), statistics, strict=True):
                            b.copy_(old + share * (b - old))
            for _ in range(2):
                optimizer.zero_grad()
                total = loss(model(x), y)
                if task > 0 and past:
                    z, labels = model(memory), torch.stack([h["y"] for h in past])
                    total = total + loss(z, labels)
                    metrics.setdefault(f"{task}{epoch}Memory", []).append(float(loss(z, labels).detach()))
                    terms = []
                    for row, h in zip(z, past, strict=True):
                        if h["z"] is not None:
                            pick = slice(2 * (int(h["y"]) // 2), 2 * (int(h["y"]) // 2) + 2)
                            pick = pick if settings.aware else slice(None)
                            p = (h["z"][pick] / T).softmax(0)
                            if settings.fault == "hard targets":
                                p = (p == p.max()).double().clamp_min(1e-300)
                            term = (p * (p.log() - (row[pick] / T).log_softmax(0))).sum()
                            terms.append(term if kl == "batchmean" else term / len(p))
                    distillation = STRENGTH * torch.stack(terms).sum()
                    if kl != "mean_times_batch":
                        distillation = distillation / len(terms)
                    if settings.fault == "T^2":
                        distillation = distillation * T**2
                    total = total + distillation
                    metrics.setdefault(f"{task}{epoch}Distillation", []).append(float(distillation.detach()))
                total.backward()
                if settings.fault == "slow net detached":
                    for w in trunk.slow.parameters():
                        w.grad = None
                optimizer.step()
    last = f"{len(batches) - 1}{EPOCHS - 1}"
    means = {name.removeprefix(last): sum(v) / len(v) for name, v in metrics.items() if name.startswith(last)}
    return common.weights(model), means


def far(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    moved = [(ours[name] - theirs[name]).abs().max() for name in ours if ours[name].is_floating_point()]
    return float(torch.stack(moved).max())


DERIVED = [
    Settings("paper"),
    Settings("code"),
    Settings("paper", aware=True),
    Settings("code", aware=True),
    Settings("paper", choices={"targets": "write", "slow_norm": "restore"}),
    Settings("code", choices={"kl": "mean"}, normed=False),
]


@pytest.mark.parametrize("settings", DERIVED, ids=lambda s: f"{s.preset}-{'aware' if s.aware else 'free'}-{s.choices}")
def test_it_equals_the_second_derivation(settings: Settings) -> None:
    ours, metrics, batches, _ = train(settings)
    theirs, means = derive(settings, batches)
    assert far(ours, theirs) < 1e-9
    for name, value in means.items():
        assert abs(metrics[name] - value) < 1e-6 * max(1.0, abs(value)), name


@pytest.mark.parametrize("fault", ["hard targets", "T^2", "slow net detached"])
def test_negative_controls(fault: str) -> None:
    ours, _, batches, _ = train(Settings("paper"))
    assert far(ours, derive(Settings("paper", fault=fault), batches)[0]) > 1e-3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kl", "mean"),
        ("ssl_source", "memory"),
        ("std", "unbiased"),
        ("slow_norm", "interpolate"),
        ("slow_norm", "restore"),
        ("targets", "boundary_stale"),
        ("recording", "train"),
    ],
)
def test_every_choice_matters(name: str, value: str) -> None:
    assert far(train(Settings("paper"))[0], train(Settings("paper", choices={name: value}))[0]) > 1e-6


PAPER = {"kl": "batchmean", "targets": "boundary", "std": "biased", "norm": "keep", "source": "memory+stream",
         "recording": "eval", "strength": 2.0}  # fmt: skip
CODE = {"kl": "mean", "targets": "boundary", "std": "unbiased", "norm": "interpolate", "source": "memory",
        "recording": "train", "strength": 10.0}  # fmt: skip


@pytest.mark.parametrize(
    ("preset", "aware", "expected"),
    [
        ("paper", False, PAPER),
        ("paper", True, PAPER),
        ("code", False, CODE | {"kl": "mean_times_batch", "targets": "boundary_stale"}),
        ("code", True, CODE),
    ],
)
def test_presets(preset: Any, aware: bool, expected: dict[str, Any]) -> None:
    p = DualNetPlugin(task_aware=aware, preset=preset)
    found = {"kl": p.kl, "targets": p.targets, "std": p.slow.std, "norm": p.slow.norm, "source": p.ssl_source,
             "recording": p.recording, "strength": p.dualnet_lambda}  # fmt: skip
    assert found == expected
    assert p.mem_size == (50 if aware else 5000)
    assert DualNetPlugin(task_aware=aware, preset=preset, kl="mean", recording="eval").recording == "eval"


# ---- what moves ------------------------------------------------------------------------------------------------------


def _slow_phase(norm: Any, beta: float = 0.5) -> SlowPhase:
    return SlowPhase(2, 3, beta, 0.1, 2e-3, "biased", norm, (6, 4), two_views, 0)


@pytest.mark.parametrize(("norm", "beta", "moves"), [("keep", 0.5, True), ("interpolate", 0.5, True),
                                                     ("interpolate", 0.0, False), ("restore", 0.5, False)])  # fmt: skip
def test_the_slow_phase_moves_the_slow_net_alone(norm: Any, beta: float, moves: bool) -> None:
    model = pair().float()
    trunk, phase, x = slow_fast_of(model), _slow_phase(norm, beta), torch.randn(9, common.FEATURES)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = common.weights(model)
    phase.run(trunk, lambda: x)
    for name, value in model.state_dict().items():
        if "slow" not in name:
            stays = True
        else:
            stays = not moves if "running" in name or "num_batches" in name else beta == 0.0
        assert torch.equal(value, before[name]) == stays, name
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())
    fresh = _slow_phase(norm)._new_projector(5)
    assert phase.projector is not None
    moved = [not torch.equal(a, b) for a, b in zip(fresh.parameters(), phase.projector.parameters(), strict=True)]
    assert all(moved) == (beta > 0.0)


def test_look_ahead_of_one_is_plain_sgd() -> None:
    """Two rounds of three steps with beta 1 are six steps of SGD, bit for bit."""
    model, x = pair().float(), torch.randn(9, common.FEATURES)
    other = copy.deepcopy(model)
    phase = _slow_phase("keep", beta=1.0)
    phase.run(slow_fast_of(model), lambda: x)
    six = SlowPhase(6, 1, 1.0, 0.1, 2e-3, "biased", "keep", (6, 4), two_views, 0)
    six.run(slow_fast_of(other), lambda: x)
    assert common.same(common.weights(model), common.weights(other))


def test_the_supervised_gradient_reaches_both_nets() -> None:
    model = pair(normed=False).float()
    runner = common.strategy(model, [DualNetPlugin(mem_size=0, n_outer=0, fast_steps=1)])
    before = common.weights(model)
    common.train(runner, common.benchmark().train_stream[:1])
    assert not any(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_a_slow_batch_of_one_sample_is_left_out() -> None:
    model, phase = pair().float(), _slow_phase("keep")
    before = common.weights(model)
    phase.run(slow_fast_of(model), lambda: torch.randn(1, common.FEATURES))
    assert common.same(before, common.weights(model))
    assert phase.means() == {}


class Order(SupervisedPlugin):
    """Notes the callbacks of a step, and the size of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.sizes: list[int] = []

    def before_forward(self, strategy: Any, **kwargs: Any) -> None:
        self.seen.append("forward")

    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        self.sizes.append(len(strategy.mb_output))

    def before_update(self, strategy: Any, **kwargs: Any) -> None:
        self.seen.append("before")

    def after_update(self, strategy: Any, **kwargs: Any) -> None:
        self.seen.append("after")


@pytest.mark.parametrize("first", [True, False])
def test_every_fast_step_goes_through_all_callbacks_in_their_order(first: bool) -> None:
    """Another plugin, before or after it in the list, never sees a step begin before the last one has ended."""
    order, plugin = Order(), DualNetPlugin(mem_size=0, n_outer=0, fast_steps=3)
    runner = common.strategy(pair().float(), [order, plugin] if first else [plugin, order], train_epochs=1)
    common.train(runner, common.benchmark().train_stream[:1])
    assert order.seen == ["forward", "before", "after"] * (3 * 3)  # 20 samples in batches of 7


def test_three_fast_steps_are_three_steps_on_each_batch() -> None:
    watch, model = Watch(), pair().float()
    other = copy.deepcopy(model)
    runner = common.strategy(model, [watch, DualNetPlugin(mem_size=0, n_outer=0, fast_steps=3)])
    common.train(runner, common.benchmark().train_stream[:1])
    optimizer = torch.optim.SGD(other.parameters(), lr=0.05, momentum=0.9)
    for _, x, y in watch.batches[0]:
        for _ in range(3):
            optimizer.zero_grad()
            functional.cross_entropy(other(x), y).backward()
            optimizer.step()
    assert common.same(common.weights(model), common.weights(other))


def test_samples_that_others_add_are_not_added_twice() -> None:
    """Experience replay beside it puts 5 samples behind the stream's 7 in every fast step, not 5 more in each."""
    order, er = Order(), ERPlugin(mem_size=40, mem_batch_size=5)
    plugin = DualNetPlugin(mem_size=0, n_outer=0, fast_steps=3)
    runner = common.strategy(pair().float(), [order, er, plugin], train_epochs=1)
    common.train(runner, common.benchmark().train_stream[:2])
    assert set(order.sizes[3:]) == {12, 11}


# ---- limits and refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_the_rows_limit_is_fine_tuning_of_the_pair(scenario: str) -> None:
    off = {"n_outer": 0, "mem_size": 0, "fast_steps": 1}
    built = make("dualnet", scenario, off)
    plain = copy.deepcopy(built.strategy.model)
    context = make("dualnet", scenario, off).strategy
    naive = Naive(
        model=plain, optimizer=torch.optim.SGD(plain.parameters(), lr=BUDGET.lr), criterion=context._criterion,
        train_mb_size=BUDGET.batch_size, train_epochs=BUDGET.epochs, evaluator=None,
        plugins=[p for p in context.plugins if not isinstance(p, DualNetPlugin)],
    )  # fmt: skip
    for runner in (built.strategy, naive):
        seed_all()
        for experience in tiny_stream(scenario).train_stream:
            runner.train(experience, eval_streams=[], reset_optimizer_state=False, num_workers=0)
    assert same(state(built.strategy.model), state(plain))


@pytest.mark.parametrize("scenario", ["task", "class"])
def test_the_row_starts_from_the_studys_network(scenario: str) -> None:
    """The slow net and the head have the weights that every other row's network has."""
    ours, naive = make("dualnet", scenario).strategy.model, make("naive", scenario).strategy.model
    theirs = list(naive.parameters())
    own = [*slow_fast_of(ours).slow.parameters(), *ours.classifier.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(own, theirs, strict=True))
    plugin = next(p for p in make("dualnet", scenario).strategy.plugins if isinstance(p, DualNetPlugin))
    assert plugin.task_aware == (scenario == "task")
    assert plugin.mem_size == (20 if scenario == "task" else 60)


def test_divergence_is_noticed() -> None:
    plugin = DualNetPlugin(mem_size=8, slow_lr=1e38, beta=1.0, projection=(6, 4))
    runner = common.strategy(pair(normed=False).float(), [plugin])
    with pytest.raises(DivergedError, match="slow phase's loss is nan: slow_lr 1e"):
        common.train(runner, common.benchmark().train_stream)


def test_an_ordinary_network_is_refused() -> None:
    with pytest.raises(TypeError, match=r"make the pair with cl_ext\.models\.dualnet"):
        common.run([DualNetPlugin()], common.mlp)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dualnet_lambda": -1.0}, ValueError, r"DualNetPlugin: dualnet_lambda must be in \[0, inf\), got -1.0"),
        ({"mem_size": -1}, ValueError, "mem_size must be an integer >= 0, got -1"),
        ({"mem_batch_size": 0}, ValueError, "mem_batch_size must be an integer >= 1"),
        ({"preset": "both"}, ValueError, "preset must be one of 'paper', 'code', got 'both'"),
        ({"n_outer": -1}, ValueError, "n_outer must be an integer >= 0"),
        ({"inner_steps": 0}, ValueError, "inner_steps must be an integer >= 1"),
        ({"fast_steps": 0}, ValueError, "fast_steps must be an integer >= 1"),
        ({"beta": 1.5}, ValueError, r"beta must be in \[0, 1\], got 1.5"),
        ({"slow_lr": 0.0}, ValueError, r"slow_lr must be in \(0, inf\), got 0.0"),
        ({"ssl_batch_size": 1}, ValueError, "ssl_batch_size must be an integer >= 2, got 1"),
        ({"gamma": -0.1}, ValueError, "gamma must be in"),
        ({"projection": (0, 4)}, ValueError, "projection must be an integer >= 1, got 0"),
        ({"temperature": 0.0}, ValueError, r"temperature must be in \(0, inf\)"),
        ({"kl": "sum"}, ValueError, "kl must be one of 'batchmean', 'mean', 'mean_times_batch', got 'sum'"),
        ({"ssl_source": "stream"}, ValueError, "ssl_source must be one of"),
        ({"std": "none"}, ValueError, "std must be one of 'biased', 'unbiased'"),
        ({"slow_norm": "copy"}, ValueError, "slow_norm must be one of 'keep', 'interpolate', 'restore'"),
        ({"targets": "now"}, ValueError, "targets must be one of 'boundary', 'boundary_stale', 'write'"),
        ({"recording": "test"}, ValueError, "recording must be one of 'eval', 'train'"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0"),
        ({"beta": "1"}, TypeError, "beta must be a number"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DualNetPlugin(**arguments)
