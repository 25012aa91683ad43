"""PathNet: what an evaluation trains, who wins, what is frozen and what begins anew, and what would not hold."""

import io
import math
from typing import Any

from cl_ext.models.expansion import ExpandableNetwork, expandable
from cl_ext.models.modular import pathnet
from cl_ext.nn.paths import PathFeatures, PathModule, Paths
from cl_ext.plugins import PathNetPlugin

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training import Naive
from torch import Tensor, nn

from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
STEPS = 9  # of an experience: three epochs of 20 samples in batches of 7


def network(modules: int = 4, active: int = 2, norm: bool = False) -> ExpandableNetwork:
    torch.manual_seed(0)
    between: list[nn.Module] = [nn.BatchNorm1d(12)] if norm else []
    layers = [nn.Linear(common.FEATURES, 12), *between, nn.ReLU(), nn.Linear(12, 10), nn.ReLU()]
    return pathnet(nn.Sequential(*layers, nn.Linear(10, common.CLASSES)), modules, active)


def features(model: ExpandableNetwork) -> PathFeatures:
    assert isinstance(model.features, PathFeatures)
    return model.features


def scheme(model: ExpandableNetwork) -> Paths:
    assert isinstance(model.scheme, Paths)
    return model.scheme


def stream() -> Any:
    return common.benchmark("nc-tasks").train_stream


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.02, weight_decay=0.05)


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.05, nesterov=True)


def trainer(model: ExpandableNetwork, plugins: list[Any], optimizer: Any = None) -> Naive:
    return common.strategy(model, plugins, optimizer=optimizer or momentum(model), train_epochs=3)


def train(runner: Naive, experiences: Any) -> None:
    for number, experience in enumerate(experiences):
        torch.manual_seed(number)
        runner.train(experience, eval_streams=[])


def answers(model: ExpandableNetwork, experience: Any) -> Tensor:
    x = torch.stack([sample[0] for sample in experience.dataset])
    model.eval()
    with torch.no_grad():
        return model(x, int(experience.task_labels[0]))


class Watch(SupervisedPlugin):
    """Stands behind PathNet and keeps, for each iteration, the path, what was right, the loss, and the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: list[Tensor] = []
        self.right: list[int] = []
        self.counts: list[int] = []
        self.losses: list[float] = []
        self.start: list[dict[str, Tensor]] = []
        self.momenta: list[int] = []
        self.end: list[dict[str, Tensor]] = []

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.paths.append(scheme(strategy.model).path(max(strategy.model.tasks)).clone())
        self.start.append(common.weights(strategy.model))
        self.momenta.append(len(strategy.optimizer.state))

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.right.append(int((strategy.mb_output.argmax(1) == strategy.mb_y).sum()))
        self.counts.append(len(strategy.mb_y))
        self.losses.append(float(strategy.loss.detach()))

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.end.append(common.weights(strategy.model))


# ---- the tournament -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "ends"),
    [
        ({"iterations": 2}, [2, 4, 6, 8]),
        ({"iterations": 4}, [4, 8]),
        ({"iterations": 5}, []),
        ({"generations": 2}, [2, 4, 6, 9]),
        ({"generations": 4}, [1, 2, 3, 4, 5, 6, 7, 9]),
        ({"generations": 50}, [1, 2, 3, 4, 5, 6, 7, 9]),
        ({"generations": 2, "population": 1}, []),
    ],
)
def test_evaluations_share_the_budgets_steps(options: dict[str, int], ends: list[int]) -> None:
    """Two evaluations a generation: 2 E G steps are the experience's own, and no step is added."""
    model, plugin, watch = network(), PathNetPlugin(**({"population": 5} | options)), Watch()
    runner = trainer(model, [plugin, watch])
    train(runner, stream()[:1])
    assert plugin._ends == ends
    assert len(watch.paths) == runner.clock.train_exp_iterations == STEPS
    starts = [0, *ends]
    for begin, end in zip(starts, [*ends, STEPS], strict=True):
        assert all(torch.equal(path, watch.paths[begin]) for path in watch.paths[begin:end])
    fresh = [i for i, count in enumerate(watch.momenta) if count == 0]
    assert fresh == [i for i in starts if i < STEPS]  # a fresh state of the optimizer at each evaluation


def test_only_the_path_and_the_head_move_in_an_evaluation() -> None:
    """A2, in two tasks: of the path's modules those that an earlier task has stay."""
    model, plugin = network(), PathNetPlugin(6, generations=3, seed=2)
    runner = trainer(model, [plugin], adam(model))
    for number, experience in enumerate(stream()[:3]):
        old = scheme(model).used((2, 2, 4), list(range(number))) if number else torch.zeros(2, 4, dtype=torch.bool)
        watch = Watch()
        runner.plugins.insert(1, watch)
        train(runner, [experience])
        runner.plugins.remove(watch)
        moved_ever = set()
        for path, before, after in zip(watch.paths, watch.start, watch.end, strict=True):
            free = {
                f"features.layers.{layer}.{int(m)}"
                for layer in range(2) for m in path[layer] if not old[layer, m]
            }  # fmt: skip
            allowed = {*free, f"heads.heads.{number}"}
            moved = {name.rsplit(".", 1)[0] for name in after if not torch.equal(before[name], after[name])}
            moved = {name.removesuffix(".0") if name.startswith("features") else name for name in moved}
            assert moved <= allowed
            assert f"heads.heads.{number}" in moved
            moved_ever |= moved
        assert len(moved_ever) > 2


def test_the_worse_of_two_becomes_a_mutated_copy_of_the_better() -> None:
    """Winners and losers from accuracies that the test counts itself; at the end the fittest path is the task's."""
    model, watch = network(modules=11, active=2), Watch()
    judged: list[tuple[int, list[int], Tensor, Tensor]] = []

    class Seen(PathNetPlugin):
        def _judge(self, strategy: Any) -> None:
            before = self.genotypes.clone()
            super()._judge(strategy)
            judged.append((self._evaluation, list(self._pair), before, self.genotypes.clone()))

    plugin = Seen(5, generations=4, seed=1)
    train(trainer(model, [plugin, watch]), stream()[:1])
    starts, known = [0, *plugin._ends], {}
    assert len(judged) == 8
    for evaluation, pair, before, after in judged:
        rows = slice(starts[evaluation], starts[evaluation + 1])
        samples = sum(watch.counts[rows])
        loss = sum(n * value for n, value in zip(watch.counts[rows], watch.losses[rows], strict=True))
        number = pair[evaluation % 2]
        assert torch.equal(before[number], watch.paths[starts[evaluation]])
        known[number] = sum(watch.right[rows]) / samples, -loss / samples
        assert pair[0] != pair[1]
        if evaluation % 2 == 0:
            assert torch.equal(before, after)
            continue
        winner, loser = sorted(pair, key=lambda n: known[n], reverse=True)
        shift = (after[loser] - before[winner]) % 11
        assert torch.isin(shift, torch.tensor([0, 1, 2, 9, 10])).all()
        others = [n for n in range(5) if n != loser]
        assert torch.equal(before[others], after[others])
        del known[loser]
    best = max(known, key=lambda n: known[n])
    assert torch.equal(scheme(model).path(0), plugin.genotypes[best])


def test_one_path_of_one_module_is_plain_training() -> None:
    """A4: the ordinary network with a head a task, bit for bit, in its first experience."""

    def plain() -> nn.Module:
        torch.manual_seed(0)
        layers = nn.Linear(common.FEATURES, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2)
        return nn.Sequential(*layers, nn.Linear(12, common.CLASSES))

    ours = pathnet(plain(), 1, 1)
    train(trainer(ours, [PathNetPlugin(1)]), stream()[:1])
    naive = expandable(plain())
    train(trainer(naive, []), stream()[:1])
    pairs = zip(features(ours).module(0, 0).state_dict().values(), naive.features.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert torch.equal(ours.heads[0].weight, naive.heads[0].weight)


# ---- what is frozen, and what begins anew -------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [adam, momentum])
@pytest.mark.parametrize("norm", [False, True])
def test_old_tasks_answer_bit_for_bit(optimizer: Any, norm: bool) -> None:
    """A1, under weight decay, momentum and Adam, batch norm included."""
    model = network(norm=norm)
    runner = trainer(model, [PathNetPlugin(4, generations=2)], optimizer(model))
    experiences = stream()
    kept: list[Tensor] = []
    for number, experience in enumerate(experiences):
        train(runner, [experience])
        kept.append(answers(model, experience))
        for earlier in range(number + 1):
            own = slice(2 * earlier, 2 * earlier + 2)
            assert torch.equal(answers(model, experiences[earlier])[:, own], kept[earlier][:, own])
    parameters = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    assert any(name.startswith("features") for name in parameters)


def _flags_only(self: PathModule) -> None:
    """The public port's freezing: it sets an attribute of the module, which freezes nothing."""
    vars(self)["requires_grad"] = False


def _shared_statistics(self: PathModule) -> None:
    self.requires_grad_(False)


@pytest.mark.parametrize("fault", [_flags_only, _shared_statistics])
def test_what_freezes_nothing_is_caught(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PathModule, "rest", fault)
    monkeypatch.setattr(PathModule, "redraw", lambda self, generator: None)
    model = network(modules=1, active=1, norm=True)
    runner = trainer(model, [PathNetPlugin(1)])
    first, second = stream()[:2]
    train(runner, [first])
    before = answers(model, first)
    train(runner, [second])
    assert not torch.allclose(answers(model, first)[:, :2], before[:, :2], atol=1e-3)


def test_the_next_task_finds_new_weights_in_all_other_modules() -> None:
    """A6."""
    model, plugin = network(norm=True), PathNetPlugin(4, generations=2)
    runner = trainer(model, [plugin])
    experiences = stream()
    train(runner, experiences[:1])
    used = scheme(model).used((2, 2, 4), [0])
    assert 2 <= used.sum() <= 4
    before = common.weights(model)
    genotypes = plugin.genotypes.clone()
    seen: list[dict[str, Tensor]] = []

    class First(SupervisedPlugin):
        def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            seen.append(common.weights(strategy.model))
            strategy.stop_training()

    runner.plugins.insert(1, First())
    train(runner, experiences[1:2])
    assert not torch.equal(genotypes, plugin.genotypes)
    for name, old in before.items():
        if not name.startswith("features") or not name.endswith(("0.weight", "0.bias")):
            continue
        _, _, layer, number, *_ = name.split(".")
        assert torch.equal(old, seen[0][name]) == bool(used[int(layer), int(number)]), name
    means = [seen[0][f"features.layers.0.{m}.1.running_mean"] for m in range(4)]
    assert [bool(mean.eq(0).all()) for mean in means] == (~used[0]).tolist()


def test_a_full_network_leaves_heads_to_train() -> None:
    model = network(modules=1, active=1)
    runner = trainer(model, [PathNetPlugin(3, generations=2)])
    experiences = stream()
    train(runner, experiences[:1])
    before = [p.detach().clone() for p in model.features.parameters()]
    train(runner, experiences[1:3])
    assert all(torch.equal(a, b) for a, b in zip(before, model.features.parameters(), strict=True))
    assert not torch.equal(model.heads[2].weight, model.heads.template_weight[[4, 5]])


def test_layers_that_a_user_froze_are_left_alone() -> None:
    model = network()
    layer: Any = features(model).module(1, 2)[0]
    layer.requires_grad_(False)
    before = layer.weight.clone()
    train(trainer(model, [PathNetPlugin(4, generations=3)]), stream()[:3])
    assert torch.equal(before, layer.weight)


# ---- states and errors --------------------------------------------------------------------------------------------


def test_a_saved_network_answers_without_the_plugin() -> None:
    model, experiences = network(norm=True), stream()
    train(trainer(model, [PathNetPlugin(4, generations=2)]), experiences[:3])
    saved = io.BytesIO()
    torch.save(model.state_dict(), saved)
    saved.seek(0)
    fresh = network(norm=True)
    fresh.load_state_dict(torch.load(saved, weights_only=True))
    for experience in experiences[:3]:
        assert torch.equal(answers(model, experience), answers(fresh, experience))
    assert answers(fresh, experiences[3]).eq(-math.inf).all()


def test_what_has_no_modules_is_one_sentence() -> None:
    with pytest.raises(TypeError, match="needs an expandable network"):
        train(common.strategy(common.mlp(), [PathNetPlugin()]), stream()[:1])
    with pytest.raises(TypeError, match=r"a network of modules, which cl_ext\.models\.pathnet"):
        train(trainer(expandable(common.mlp()), [PathNetPlugin()]), stream()[:1])
    model = network()
    model.scheme.label = "other"
    model.heads.add(9, [0])
    with pytest.raises(TypeError, match="no other method has trained; this one is 'other'"):
        train(trainer(model, [PathNetPlugin()]), stream()[:1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"population": 0}, ValueError, "PathNetPlugin: population must be an integer >= 1, got 0"),
        ({"iterations": 0}, ValueError, "iterations must be an integer >= 1"),
        ({"generations": 0}, ValueError, "generations must be an integer >= 1"),
        ({"generations": 2.5}, TypeError, "generations must be an integer, got 2.5"),
        ({"seed": -1}, ValueError, "seed must be an integer >= 0, got -1"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PathNetPlugin(**arguments)
