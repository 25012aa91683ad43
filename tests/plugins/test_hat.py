"""HAT against the paper's equations with loops over units, what it protects, and what does not protect."""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cl_ext.models.expansion import ExpandableNetwork, expandable
from cl_ext.nn.gated import Gated
from cl_ext.nn.gates import UpdateMask
from cl_ext.nn.scheme import Scheme
from cl_ext.plugins import HATPlugin

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.core import SupervisedPlugin
from avalanche.training import Naive
from torch import Tensor, nn

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
LR, S_MAX, C = 0.05, 40.0, 0.5


def network(kind: str = "mlp") -> ExpandableNetwork:
    torch.manual_seed(0)
    if kind == "cnn":
        layers: Any = nn.Conv2d(1, 3, 2), nn.ReLU(), nn.MaxPool2d(2, 1), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten()
        return expandable(nn.Sequential(*layers, nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, common.CLASSES)))
    norm = [nn.BatchNorm1d(7)] if kind == "normed" else []
    layers = nn.Linear(common.FEATURES, 7), *norm, nn.ReLU(), nn.Linear(7, 5), nn.ReLU()
    return expandable(nn.Sequential(*layers, nn.Linear(5, common.CLASSES)))


def stream(kind: str = "mlp", double: bool = False, sizes: tuple[int, ...] = ()) -> Any:
    """Four tasks of two classes in a mixed order; images of 3 x 3 for a convolution; other sizes of tasks if given."""
    x, y = common.blobs(10, 1).tensors  # type: ignore[attr-defined]
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    x = x[order].double() if double else x[order]
    if kind == "cnn":
        x = torch.nn.functional.pad(x, (0, 3)).view(-1, 1, 3, 3)
    data = common.labelled(x, y[order])
    count = len(sizes) or common.EXPERIENCES
    return nc_benchmark(
        data, data, count, task_labels=True, shuffle=False, per_exp_classes=dict(enumerate(sizes)) or None
    ).train_stream


ADAM: dict[str, Any] = {"lr": 0.02, "weight_decay": 0.05}


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), **ADAM)


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, weight_decay=0.05, nesterov=True)


def trainer(model: ExpandableNetwork, plugins: list[Any], optimizer: Any = None, epochs: int = 3) -> Naive:
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=LR)
    return common.strategy(model, plugins, optimizer=optimizer, train_epochs=epochs)


def train(runner: Naive, experiences: Any) -> None:
    for experience in experiences:
        runner.train(experience, eval_streams=[])


def open_gates(plugin: HATPlugin, model: ExpandableNetwork, units: list[int]) -> Any:
    """A plugin behind HAT that pins the first task's gates: these units open, all others shut."""

    class Pin(SupervisedPlugin):
        def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            if plugin.experiences == 0:
                e = torch.full_like(plugin._e, -6.0)
                e[units] = 6.0
                plugin._e.data.copy_(e)

        after_update = before_training_epoch

    return Pin()


def answers(model: ExpandableNetwork, experience: Any) -> Tensor:
    """What the network says of an experience's samples, in eval mode."""
    task = int(experience.task_labels[0])
    x = torch.stack([sample[0] for sample in experience.dataset])
    model.eval()
    with torch.no_grad():
        return model(x, task)


# ---- against the paper's equations --------------------------------------------------------------------------------


class Watch(SupervisedPlugin):
    """Keeps each batch, its slope, and where each epoch begins."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[Tensor, Tensor]] = []
        self.slopes: list[float] = []
        self.epochs: list[int] = []

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.epochs.append(len(self.batches))

    def after_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.batches.append((strategy.mb_x.clone(), strategy.mb_y.clone()))
        self.slopes.append(float(strategy.model.scheme.s))


def by_units(
    model: ExpandableNetwork, embeddings: list[Tensor], watched: list[Watch], classes: list[list[int]], e_lr: float
) -> tuple[list[Tensor], list[Tensor]]:
    """The paper's training of an MLP of two hidden layers by plain SGD, with its masks on the gradients."""
    W1, b1, W2, b2 = (p.detach().clone() for p in model.features.parameters())
    n1, n2 = len(W1), len(W2)
    old = [0.0] * (n1 + n2)
    finished = []
    for e, watch, ids in zip(embeddings, watched, classes, strict=True):
        V, v = model.heads.template_weight[ids].clone(), model.heads.template_bias[ids].clone()  # type: ignore[index]
        e = e.clone()
        ends = [*watch.epochs[1:], len(watch.batches)]
        for begin, end in zip(watch.epochs, ends, strict=True):
            B = end - begin
            for b in range(1, B + 1):
                x, y = watch.batches[begin + b - 1]
                s = 1 / S_MAX + (S_MAX - 1 / S_MAX) * (b - 1) / (B - 1)
                variables = [t.requires_grad_() for t in (W1, b1, W2, b2, V, v, e)]
                a = torch.sigmoid(s * e)
                h1 = torch.relu(x @ W1.T + b1) * a[:n1]
                h2 = torch.relu(h1 @ W2.T + b2) * a[n1:]
                own = torch.tensor([ids.index(int(label)) for label in y])
                loss = nn.functional.cross_entropy(h2 @ V.T + v, own)
                numerator = sum(a[i] * (1 - old[i]) for i in range(n1 + n2))
                loss = loss + C * numerator / sum(1 - old[i] for i in range(n1 + n2))
                gradients = [g.clone() for g in torch.autograd.grad(loss, variables)]
                for i in range(n1):
                    gradients[1][i] *= 1 - old[i]
                    for j in range(W1.shape[1]):
                        gradients[0][i, j] *= 1 - old[i]
                for i in range(n2):
                    gradients[3][i] *= 1 - old[n1 + i]
                    for j in range(n1):
                        gradients[2][i, j] *= 1 - min(old[n1 + i], old[j])
                for i in range(n1 + n2):
                    at = e[i].item()
                    up = math.cosh(max(-50.0, min(50.0, s * at))) + 1
                    gradients[6][i] *= S_MAX / s * up / (math.cosh(at) + 1)
                W1, b1, W2, b2, V, v, e = (
                    t.detach() - (e_lr if t is e else LR) * g for t, g in zip(variables, gradients, strict=True)
                )
                e = e.clamp(-6, 6)
        old = [max(before, float(torch.sigmoid(S_MAX * value))) for before, value in zip(old, e, strict=True)]
        finished += [V, v, e]
    return [W1, b1, W2, b2], finished


@pytest.mark.parametrize("embedding_lr", [None, 0.2])
def test_three_tasks_of_sgd_are_those_of_the_equations(embedding_lr: float | None) -> None:
    model = network().double()
    initial = {name: t.clone() for name, t in model.state_dict().items() if isinstance(t, Tensor)}
    plugin = HATPlugin(C, S_MAX, embedding_lr=embedding_lr, seed=5)
    watched, embeddings, classes = [], [], []
    runner = trainer(model, [plugin])
    draws = torch.Generator().manual_seed(5)
    for experience in stream(double=True)[:3]:
        watched.append(Watch())
        embeddings.append(torch.randn(12, generator=draws).double())
        classes.append(sorted(experience.classes_in_this_experience))
        runner.plugins.insert(1, watched[-1])
        train(runner, [experience])
        runner.plugins.remove(watched[-1])
    fresh = network().double()
    fresh.load_state_dict({k: v for k, v in initial.items() if k in fresh.state_dict()}, strict=False)
    weights, parts = by_units(fresh, embeddings, watched, classes, embedding_lr or LR)
    for ours, theirs in zip(model.features.parameters(), weights, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-9)
        assert not torch.allclose(ours, torch.zeros(()).double())
    for task in range(3):
        V, v, e = parts[3 * task : 3 * task + 3]
        assert torch.allclose(model.heads[task].weight, V, atol=1e-9)
        assert torch.allclose(model.heads[task].bias, v, atol=1e-9)
        assert torch.allclose(model.scheme.embedding(task), e, atol=1e-9)


def test_every_epoch_ends_at_s_max() -> None:
    """H5, in a run: also where the last batch is smaller."""
    watch = Watch()
    train(trainer(network(), [HATPlugin(s_max=100.0), watch]), stream()[:2])
    starts = watch.epochs
    ends = [end - 1 for end in [*starts[1:], len(watch.slopes)]]
    assert len(starts) == 6
    assert all(watch.slopes[i] == 1 / 100 for i in starts)
    assert all(watch.slopes[i] == 100 for i in ends)


# ---- what is protected --------------------------------------------------------------------------------------------


@contextmanager
def gradients_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The official protection: gradients are masked, and the optimizer's step is left as it is."""
    with monkeypatch.context() as patch:
        patch.setattr(UpdateMask, "apply", lambda self, finite=False: None)
        yield


@pytest.mark.parametrize("kind", ["mlp", "normed", "cnn"])
@pytest.mark.parametrize("optimizer", [adam, momentum])
def test_with_hard_gates_old_tasks_answer_bit_for_bit(kind: str, optimizer: Any) -> None:
    """H3, under weight decay, momentum and Adam; batch norm and heads included."""
    model = network(kind)
    runner = trainer(model, [HATPlugin(0.1, S_MAX, gates="hard")], optimizer(model))
    experiences = stream(kind)
    kept: list[Tensor] = []
    for number, experience in enumerate(experiences):
        before = [t.clone() for t in model.features.parameters()]
        train(runner, [experience])
        assert any(not torch.equal(a, b) for a, b in zip(before, model.features.parameters(), strict=True))
        kept.append(answers(model, experience))
        for earlier in range(number + 1):
            ids = sorted(experiences[earlier].classes_in_this_experience)
            assert torch.equal(answers(model, experiences[earlier])[:, ids], kept[earlier][:, ids])


@pytest.mark.parametrize("optimizer", [adam, momentum])
def test_masked_gradients_alone_do_not_keep_old_tasks(optimizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the above."""
    model = network()
    runner = trainer(model, [HATPlugin(0.1, S_MAX, gates="hard")], optimizer(model))
    first, second = stream()[:2]
    train(runner, [first])
    before = answers(model, first)
    with gradients_only(monkeypatch):
        train(runner, [second])
    assert not torch.allclose(answers(model, first)[:, :2], before[:, :2], atol=1e-3)


def test_soft_gates_leak_where_they_are_neither_open_nor_shut() -> None:
    """At a small slope gates are soft, and old tasks move."""
    model = network()
    runner = trainer(model, [HATPlugin(0.1, s_max=2.0)], momentum(model))
    first, second = stream()[:2]
    train(runner, [first])
    before = answers(model, first)
    train(runner, [second])
    assert not torch.allclose(answers(model, first)[:, :2], before[:, :2], atol=1e-3)


@pytest.mark.parametrize("optimizer", [adam, momentum])
def test_weights_between_open_units_keep_their_bits(optimizer: Any) -> None:
    """H4, soft gates that are saturated; every other weight may move, and does."""
    model, plugin = network(), HATPlugin(0.1)
    runner = trainer(model, [plugin, open_gates(plugin, model, [0, 2, 5, 7, 11])], optimizer(model))
    experiences = stream()
    train(runner, experiences[:1])
    old = [p.detach().clone() for p in model.features.parameters()]
    train(runner, experiences[1:3])
    first, second = torch.zeros(7), torch.zeros(5)
    first[[0, 2, 5]], second[[0, 4]] = 1, 1
    held = [
        first[:, None].expand(7, common.FEATURES), first, torch.minimum(second[:, None], first[None]), second
    ]  # fmt: skip
    for before, now, mask in zip(old, model.features.parameters(), held, strict=True):
        assert torch.equal(before[mask == 1], now[mask == 1])
        assert not torch.equal(before[mask == 0], now[mask == 0])


def test_a_task_that_takes_everything_leaves_nothing_to_train() -> None:
    """H6: the trunk stays, the later tasks train gates and heads alone, and R is 0."""
    model, plugin = network(), HATPlugin(5.0)
    runner = trainer(model, [plugin, open_gates(plugin, model, list(range(12)))], adam(model))
    experiences = stream()
    train(runner, experiences[:1])
    old = [p.detach().clone() for p in model.features.parameters()]
    train(runner, experiences[1:])
    assert all(torch.equal(a, b) for a, b in zip(old, model.features.parameters(), strict=True))
    assert plugin._used == 0
    template = model.heads.template_weight[[6, 7]]
    assert not torch.equal(model.heads[3].weight, template)


def test_later_tasks_pay_for_new_units_only() -> None:
    """With a strong regulariser a second task that may use the first one's units opens no others."""
    opened = {}
    for strength in (0.0, 50.0):
        model, plugin = network(), HATPlugin(strength, S_MAX)
        train(trainer(model, [plugin, open_gates(plugin, model, [0, 1, 2, 7, 8])], epochs=20), stream()[:2])
        scheme: Any = model.scheme
        shut = scheme.gates(0) < 0.5
        opened[strength] = int((scheme.gates(1)[shut] > 0.5).sum())
    assert opened[50.0] == 0 < opened[0.0]


def test_embeddings_with_a_rate_of_their_own_do_not_see_the_optimizer() -> None:
    """Weight decay and Adam move them otherwise: without any gradient (a task of open units, no R) they stay."""
    moved = {}
    for rate in (None, 0.1):
        model, plugin = network(), HATPlugin(0.0, embedding_lr=rate, seed=3)
        runner = trainer(model, [plugin], torch.optim.SGD(model.parameters(), lr=LR, weight_decay=0.5), epochs=1)
        frozen = stream()[0]
        with torch.no_grad():  # no unit says anything, so that no gate matters
            for parameter in model.features.parameters():
                parameter.zero_()
        train(runner, [frozen])
        e = torch.randn(12, generator=torch.Generator().manual_seed(3))
        moved[rate] = float((plugin._e - e).abs().max())
    assert moved[0.1] == 0 < moved[None]


def test_layers_that_a_user_froze_are_left_alone() -> None:
    model = network()
    first: Any = next(iter(model.features.children()))
    first.requires_grad_(False)
    before = [p.clone() for p in model.features.parameters()]
    train(trainer(model, [HATPlugin(0.1)], adam(model)), stream()[:3])
    after = list(model.features.parameters())
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[2], after[2])


def test_heads_of_earlier_tasks_rest() -> None:
    model = network()
    runner = trainer(model, [HATPlugin()], adam(model))
    experiences = stream(sizes=(3, 2, 3))
    train(runner, experiences[:1])
    before = {name: t.clone() for name, t in model.heads[0].state_dict().items()}
    train(runner, experiences[1:])
    assert common.same(before, dict(model.heads[0].state_dict()))
    assert answers(model, experiences[0])[:, 3:].eq(-math.inf).all()
    # the negative control: what pads with zeros gives an old sample a class that its task never had
    logits = answers(model, experiences[0])
    assert (logits.argmax(1) < 3).all()
    assert (torch.where(logits.isneginf(), 0.0, logits - 100)).argmax(1).ge(3).all()


# ---- states -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mlp", "normed", "cnn"])
def test_a_saved_network_answers_without_the_plugin(kind: str) -> None:
    model, experiences = network(kind), stream(kind)
    train(trainer(model, [HATPlugin(gates="hard" if kind == "cnn" else "soft")]), experiences[:3])
    saved = io.BytesIO()
    torch.save(model.state_dict(), saved)
    saved.seek(0)
    fresh = network(kind)
    assert type(fresh.scheme) is Scheme
    fresh.load_state_dict(torch.load(saved, weights_only=True))
    assert isinstance(fresh.scheme, Gated)
    for experience in experiences[:3]:
        assert torch.equal(answers(model, experience), answers(fresh, experience))
    assert answers(fresh, experiences[3]).eq(-math.inf).all()


def test_batches_of_several_tasks_are_read_each_by_its_gates() -> None:
    model, experiences = network("normed"), stream("normed")
    train(trainer(model, [HATPlugin()]), experiences[:2])
    model.eval()
    x = torch.randn(6, common.FEATURES)
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    both = torch.stack([model(x, 0), model(x, 1)])
    assert torch.allclose(model(x, labels), both[labels, torch.arange(6)], atol=1e-6)


# ---- errors -------------------------------------------------------------------------------------------------------


def test_what_cannot_be_gated_is_one_sentence() -> None:
    with pytest.raises(TypeError, match="needs an expandable network"):
        train(common.strategy(common.mlp(), [HATPlugin()]), stream()[:1])
    block = nn.Sequential(nn.Linear(common.FEATURES, 4), nn.Softmax(1), nn.Linear(4, common.CLASSES))
    with pytest.raises(TypeError, match="is a Softmax"):
        train(trainer(expandable(block), [HATPlugin()]), stream()[:1])
    model = network()
    train(trainer(model, []), stream()[:1])
    with pytest.raises(TypeError, match="no other method has trained; this one is 'shared'"):
        train(trainer(model, [HATPlugin()]), stream()[1:2])
    model = network()
    train(trainer(model, [HATPlugin()]), stream()[:1])
    with pytest.raises(ValueError, match="have the slope 400, not 50"):
        train(trainer(model, [HATPlugin(s_max=50.0)]), stream()[1:2])
    runner = trainer(network(), [HATPlugin()])
    train(runner, stream()[:1])
    with pytest.raises(ValueError, match="a task label of its own"):
        train(runner, stream()[:1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"hat_lambda": -1.0}, ValueError, r"HATPlugin: hat_lambda must be in \[0, inf\), got -1.0"),
        ({"s_max": 0.0}, ValueError, r"s_max must be in \(0, inf\), got 0.0"),
        ({"s_max": "big"}, TypeError, "s_max must be a number, got 'big'"),
        ({"gates": "harder"}, ValueError, "gates must be one of 'soft', 'hard', got 'harder'"),
        ({"embedding_lr": 0.0}, ValueError, "embedding_lr must be in"),
        ({"clip": 0.0}, ValueError, "clip must be in"),
        ({"clamp": -6.0}, ValueError, "clamp must be in"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0, got -1"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        HATPlugin(**arguments)
