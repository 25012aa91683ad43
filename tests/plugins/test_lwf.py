"""LwF against a step-by-step re-derivation, Avalanche's form with a resting teacher, and known faults."""

import copy
from collections.abc import Callable
from typing import Any

from cl_ext._avalanche_methods.regularisation import MendedLwF
from cl_ext.methods.criterion import ScenarioCrossEntropy
from cl_ext.nn.distillation import Teacher
from cl_ext.plugins import LwFPlugin, RWalkPlugin
from cl_ext.streams import BatchedLoading, batched

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.models import MTSimpleMLP, as_multitask
from avalanche.training.plugins import ReplayPlugin
from torch import Tensor, nn

from tests.methods import helpers
from tests.plugins import common

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
TASKS = [[0, 1], [2, 3], [4, 5], [6, 7]]
STRENGTH, T = 2.0, 2.0


def kd(z: Tensor, z_t: Tensor) -> Tensor:
    """One group's term, by hand."""
    p, q = (z / T).exp(), (z_t / T).exp()
    return -((q / q.sum(1, keepdim=True)) * (p / p.sum(1, keepdim=True)).log()).sum(1).mean()


class Oracle(SupervisedPlugin):
    """Stands after LwF and compares each step's loss with the loss by hand, from a teacher of its own.

    Args:
        groups: from the number of finished experiences to the expected groups of old outputs.
    """

    def __init__(self, groups: Callable[[int], list[list[int]]]) -> None:
        super().__init__()
        self.groups, self.finished, self.steps, self.teacher = groups, 0, 0, None
        self.terms: list[float] = []
        self.replayed = 0

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.teacher = copy.deepcopy(strategy.model).eval()

    @torch.no_grad()
    def before_backward(self, strategy: Any, **kwargs: Any) -> None:
        expected = strategy._criterion(strategy.mb_output, strategy.mb_y)
        if self.finished:
            z, z_t = strategy.mb_output, self.teacher(strategy.mb_x)
            self.terms.append(float(sum(kd(z[:, g], z_t[:, g]) for g in self.groups(self.finished))))
            expected = expected + STRENGTH * self.terms[-1]
        torch.testing.assert_close(strategy.loss.squeeze(), expected, rtol=1e-5, atol=1e-6)
        self.steps += 1
        self.replayed += int(strategy.mb_y.lt(2 * self.finished).any())

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.finished += 1


def union(finished: int) -> list[list[int]]:
    return [list(range(2 * finished))]


def a_group_a_task(finished: int) -> list[list[int]]:
    return TASKS[:finished]


def everything(finished: int) -> list[list[int]]:
    return [list(range(common.CLASSES))]


def _run(
    plugin: Any, groups: Any = union, network: Any = common.mlp, kind: str = "nc", more: Any = (), **o: Any
) -> Any:
    oracle = Oracle(groups)
    runner = common.run([plugin, *more, oracle], network, kind, **o)
    assert oracle.steps > 20
    return oracle, runner


@pytest.mark.parametrize(
    ("network", "kind"),
    [(common.mlp, "nc"), (common.mlp, "ci"), (common.mlp, "nc-tasks"), (common.normed, "nc"), (common.Growing, "ci")],
)
def test_each_steps_loss_is_the_papers(network: Any, kind: str) -> None:
    """Class-incremental: the old classes only, one softmax, whatever the other outputs are."""
    plugin = LwFPlugin(STRENGTH)
    _run(plugin, union, network, kind)
    assert plugin.groups == {-1: [list(range(8))]}


def test_task_incremental_with_a_shared_head() -> None:
    """The loss keeps tasks apart, so each past task has a softmax of its own."""
    plugin = LwFPlugin(STRENGTH)
    _run(plugin, a_group_a_task, criterion=ScenarioCrossEntropy(TASKS))
    assert plugin.groups == {-1: TASKS}


def test_domain_incremental() -> None:
    """All outputs."""
    plugin = LwFPlugin(STRENGTH)
    stream = helpers.tiny_stream("domain")
    oracle = Oracle(lambda _: [[0, 1]])
    runner = common.strategy(helpers.NormedNetwork(2), [plugin, oracle])
    common.train(runner, stream.train_stream)
    assert oracle.steps > 20
    assert plugin.groups == {-1: [[0, 1]]}


def test_replayed_samples_are_distilled_too() -> None:
    oracle, _ = _run(LwFPlugin(STRENGTH), more=[ReplayPlugin(mem_size=8)])
    assert len(oracle.terms) == oracle.replayed > 10


def test_evaluation_in_between() -> None:
    _run(LwFPlugin(STRENGTH), union, common.Growing, "ci", eval_every=1, peval_mode="iteration")


class _TeacherTrains(LwFPlugin):
    """Avalanche: the copy is never put into eval mode."""

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        super().before_training_exp(strategy, *args, **kwargs)
        if self._teacher is not None:
            self._teacher.network.train()


class _WithSquare(LwFPlugin):
    """Hinton's factor T^2."""

    def _terms(self, student: Any, teacher: Any) -> dict[str, Tensor]:
        return {name: T**2 * value for name, value in super()._terms(student, teacher).items()}


class _AllClasses(LwFPlugin):
    """The new classes' outputs are held too."""

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        super().before_training_exp(strategy, *args, **kwargs)
        if self._teacher is not None:
            self._layouts = {-1: [(torch.arange(common.CLASSES), common.CLASSES)]}


class _Refreshed(LwFPlugin):
    """The teacher follows the student within the experience."""

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        super().before_training_epoch(strategy, *args, **kwargs)
        if self._teacher is not None:
            self._teacher = Teacher(strategy.model)


class _FirstTaskOnly(LwFPlugin):
    """Avalanche, with task labels and a shared head: only the classes of the first task."""

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        super().before_training_exp(strategy, *args, **kwargs)
        if self._teacher is not None:
            self._layouts = {-1: [(torch.arange(2), 2)]}


@pytest.mark.parametrize(
    ("faulty", "network", "groups", "criterion"),
    [
        (_TeacherTrains, common.normed, union, nn.CrossEntropyLoss()),
        (_WithSquare, common.mlp, union, nn.CrossEntropyLoss()),
        (_AllClasses, common.mlp, union, nn.CrossEntropyLoss()),
        (_Refreshed, common.mlp, union, nn.CrossEntropyLoss()),
        (_FirstTaskOnly, common.mlp, a_group_a_task, ScenarioCrossEntropy(TASKS)),
        (LwFPlugin, common.mlp, everything, nn.CrossEntropyLoss()),
    ],
)
def test_negative_control(faulty: Any, network: Any, groups: Any, criterion: Any) -> None:
    """The oracle of each step's loss sees every known fault."""
    with pytest.raises(AssertionError, match="Scalars are not close"):
        _run(faulty(STRENGTH), groups, network, criterion=criterion)


def _avalanche(network: Any, kind: str, **options: Any) -> dict[str, Tensor]:
    return common.weights(common.run([MendedLwF(STRENGTH, T)], network, kind, **options).model)


def decorated() -> nn.Module:
    """Avalanche's decorator runs the head task by task."""
    model = nn.Sequential()
    model.add_module("trunk", nn.Sequential(nn.Linear(common.FEATURES, 16), nn.Tanh()))
    model.add_module("classifier", nn.Linear(16, common.CLASSES))
    return as_multitask(model, "classifier")


def multi_task() -> nn.Module:
    model = MTSimpleMLP(common.FEATURES, 16)
    model.features[2] = nn.Identity()  # its second forward pass draws another dropout
    return model


@pytest.mark.parametrize(
    ("network", "kind", "criterion"),
    [
        (common.mlp, "nc", nn.CrossEntropyLoss()),
        (common.Growing, "nc", nn.CrossEntropyLoss()),
        (common.MultiHead, "nc-tasks", nn.CrossEntropyLoss()),
        (multi_task, "nc-tasks", nn.CrossEntropyLoss()),
        (decorated, "nc-tasks", nn.CrossEntropyLoss()),
        (common.mlp, "nc-tasks", ScenarioCrossEntropy(TASKS)),
    ],
)
def test_avalanche_with_a_resting_teacher_trains_the_same_weights(network: Any, kind: str, criterion: Any) -> None:
    """It adds the divergence, which differs by a constant, and runs multi-head networks a second time."""
    ours = common.weights(common.run([LwFPlugin(STRENGTH)], network, kind, criterion=criterion).model)
    theirs = _avalanche(network, kind, criterion=criterion)
    assert ours.keys() == theirs.keys()
    naive = common.weights(common.run([], network, kind, criterion=criterion).model)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-4)
    assert any(not torch.allclose(value, naive[name], rtol=1e-2, atol=1e-2) for name, value in ours.items())


def test_avalanches_loss_is_smaller_by_the_teachers_entropy() -> None:
    torch.manual_seed(0)
    losses: dict[str, list[float]] = {"ours": [], "theirs": []}
    entropies: list[float] = []

    class Record(SupervisedPlugin):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def before_backward(self, strategy: Any, **kwargs: Any) -> None:
            losses[self.name].append(float(strategy.loss.detach()))
            plugin = strategy.plugins[0]
            if self.name == "ours":
                with torch.no_grad():
                    q = (plugin.teacher(strategy.mb_x)[:, :2] / T).softmax(1) if plugin.teacher else torch.ones(1, 1)
                entropies.append(float(-(q * q.log()).sum(1).mean()))

    for name, plugin in (("ours", LwFPlugin(STRENGTH)), ("theirs", MendedLwF(STRENGTH, T))):
        torch.manual_seed(0)
        runner = common.strategy(common.mlp(), [plugin, Record(name)])
        common.train(runner, common.benchmark().train_stream[:2])
    difference = torch.tensor(losses["ours"]) - torch.tensor(losses["theirs"])
    torch.testing.assert_close(difference, STRENGTH * torch.tensor(entropies), rtol=1e-4, atol=1e-5)
    assert float(difference.max()) > 0.1


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_the_rows_agree_in_every_scenario(scenario: str) -> None:
    ours, theirs = (helpers.run(name, scenario).weights for name in ("lwf", "lwf_avalanche"))
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-4)


class _Passes(SupervisedPlugin):
    """Counts forward passes of the student and looks at the teacher."""

    def __init__(self, plugin: LwFPlugin) -> None:
        super().__init__()
        self.plugin, self.student = plugin, 0

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        assert self.plugin.teacher is not strategy.model
        self.start = common.weights(strategy.model)
        self.handle = strategy.model.register_forward_pre_hook(lambda *_: self._count())

    def _count(self) -> None:
        self.student += 1

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.handle.remove()
        if self.plugin.teacher is not None:
            assert common.same(self.start, common.weights(self.plugin.teacher))
            assert not any(module.training for module in self.plugin.teacher.modules())
            assert not common.same(self.start, common.weights(strategy.model))


@pytest.mark.parametrize(
    ("network", "kind"), [(common.normed, "nc"), (common.MultiHead, "nc-tasks"), (common.Growing, "ci")]
)
def test_the_teacher_does_not_change_and_the_student_runs_once_a_step(network: Any, kind: str) -> None:
    plugin = LwFPlugin(STRENGTH)
    passes = _Passes(plugin)
    runner = common.run([plugin, passes], network, kind)
    assert passes.student == runner.clock.train_iterations
    assert plugin.teacher is not None


def test_batch_norm_and_random_state_are_the_students_own() -> None:
    """The teacher's passes draw no dropout mask and move no running statistic."""
    ours = common.run([LwFPlugin(STRENGTH)], common.normed)
    state = torch.get_rng_state()
    naive = common.run([], common.normed)
    assert torch.equal(state, torch.get_rng_state())
    assert int(ours.model[1].num_batches_tracked) == int(naive.model[1].num_batches_tracked)


def test_new_outputs_feel_no_distillation() -> None:
    """At an overwhelming strength the old outputs' gradient drowns the rest; the new rows move by the loss alone."""
    gradients: dict[float, Tensor] = {}

    class Keep(SupervisedPlugin):
        def __init__(self, strength: float) -> None:
            super().__init__()
            self.strength = strength

        def after_backward(self, strategy: Any, **kwargs: Any) -> None:
            if strategy.clock.train_exp_counter == 1 and self.strength not in gradients:
                gradients[self.strength] = strategy.model[2].weight.grad.clone()

    for strength in (0.0, 1e4):
        torch.manual_seed(0)
        runner = common.strategy(common.mlp(), [ReplayPlugin(mem_size=8), LwFPlugin(strength), Keep(strength)])
        common.train(runner, common.benchmark().train_stream[:2])
    # the first step: student equals teacher, so the distillation adds rounding only, and to rows 0 and 1 alone
    assert torch.equal(gradients[0.0][2:], gradients[1e4][2:])
    assert float((gradients[0.0][:2] - gradients[1e4][:2]).abs().max()) < 1e-2


def test_stronger_distillation_keeps_more() -> None:
    """The first experience's outputs move less, the stronger the strength."""
    drifts = []
    for strength in (0.0, 1.0, 10.0):
        torch.manual_seed(0)
        model = common.mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.03)
        runner = common.strategy(model, [LwFPlugin(strength)], optimizer=optimizer, train_epochs=5)
        stream = common.benchmark().train_stream
        common.train(runner, stream[:1])
        x = torch.stack([sample[0] for sample in stream[1].dataset])
        old = runner.model(x)[:, :2].detach().softmax(1)
        common.train(runner, stream[:2], first=1)
        drifts.append(float((runner.model(x)[:, :2].detach().softmax(1) - old).abs().mean()))
    assert drifts[0] > 1.3 * drifts[1] > 1.3 * 1.3 * drifts[2]


@pytest.mark.parametrize("loss", [None, TASKS], ids=["all classes", "task's classes"])
def test_cached_logits_are_the_teachers(loss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the data path the teacher runs over the data once, the weights are the same, and the cache is counted."""
    calls: list[int] = []
    plain_call = Teacher.__call__

    def counted(self: Teacher, x: Tensor, task_labels: Any) -> Any:
        calls.append(len(x))
        return plain_call(self, x, task_labels)

    monkeypatch.setattr(Teacher, "__call__", counted)

    def train(**options: Any) -> Any:
        criterion = ScenarioCrossEntropy(TASKS) if loss else nn.CrossEntropyLoss()
        plugin = LwFPlugin(STRENGTH, **options)
        torch.manual_seed(0)
        runner = common.strategy(common.normed(), [plugin, BatchedLoading(seed=1)], criterion=criterion)
        common.train(runner, batched(common.benchmark()).train_stream)
        return common.weights(runner.model), plugin

    cached, holder = train()
    assert not calls
    recomputed, other = train(cache=False)
    assert len(calls) == 3 * 2 * 3  # three experiences of two epochs of three batches
    for name, value in cached.items():
        torch.testing.assert_close(value, recomputed[name], rtol=1e-5, atol=1e-6)
    assert holder.extra_bytes() - other.extra_bytes() == 20 * common.CLASSES * 4


def test_cached_logits_of_replayed_samples() -> None:
    torch.manual_seed(0)
    plugins = [LwFPlugin(STRENGTH), ReplayPlugin(mem_size=8), Oracle(lambda n: [list(range(2 * n))]), BatchedLoading()]
    runner = common.strategy(common.mlp(), plugins)
    common.train(runner, batched(common.benchmark()).train_stream)
    assert plugins[2].replayed


def test_switched_off_it_costs_nothing() -> None:
    plugin = LwFPlugin(0.0)
    common.run([plugin], common.normed)
    assert plugin.teacher is None
    assert plugin.extra_bytes() == 0


def test_the_metric_is_the_epochs_mean() -> None:
    oracle, runner = _run(LwFPlugin(STRENGTH))
    values = runner.evaluator.get_all_metrics()["LwF_Distillation/train_phase/train_stream/Exp003"][1]
    steps = len(oracle.terms) // 6
    assert values == pytest.approx([STRENGTH * sum(oracle.terms[i:][:steps]) / steps for i in (-2 * steps, -steps)])
    assert runner.evaluator.get_all_metrics()["LwF_Distillation/train_phase/train_stream/Exp000"][1] == [0.0, 0.0]


@pytest.mark.parametrize("rwalk_first", [False, True])
def test_beside_a_plugin_with_hooks(rwalk_first: bool) -> None:
    """RWalk's hooks on the student do not come along to the teacher, nor hear it."""
    plugins: list[Any] = [LwFPlugin(STRENGTH), RWalkPlugin(0.0)]
    both = common.run(plugins[::-1] if rwalk_first else plugins)
    assert common.same(common.weights(both.model), common.weights(common.run([LwFPlugin(STRENGTH)]).model))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lwf_lambda": -1.0}, ValueError, r"LwFPlugin: lwf_lambda must be in \[0, inf\), got -1.0"),
        ({"lwf_lambda": "1"}, TypeError, "LwFPlugin: lwf_lambda must be a number, got '1'"),
        ({"temperature": 0.0}, ValueError, r"LwFPlugin: temperature must be in \(0, inf\), got 0.0"),
        ({"temperature": float("inf")}, ValueError, "temperature .* got inf"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LwFPlugin(**arguments)
