"""What every method with parts by task refuses in one sentence, where it would be wrong in silence."""

import copy
from typing import Any

from cl_ext.plugins import CPGPlugin, L2Plugin, OGDPlugin
from cl_ext.plugins.architecture import TaskPlugin

import pytest
import torch
from avalanche.core import SupervisedPlugin
from avalanche.training import Naive
from torch import Tensor, nn
from torch.nn import functional

from tests.plugins import common
from tests.plugins.common import CASES, Case
from tests.plugins.family import relabelled

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")

# a case a plugin: what is refused is the same for all of its settings
FAMILY = list({case.make: case for case in reversed(CASES) if issubclass(case.make, TaskPlugin)}.values())
family = pytest.mark.parametrize("case", FAMILY, ids=lambda case: case.make.__name__)


def _stream() -> Any:
    return common.benchmark("nc-tasks").train_stream


def _model(case: Case) -> Any:
    torch.manual_seed(0)
    return case.on(common.mlp)()


# ---- a network that has been trained, and a plugin that has not, or the other way round ----------------------------


@family
def test_a_network_that_was_trained_without_the_plugin(case: Case) -> None:
    model = _model(case)
    common.train(common.strategy(model, []), _stream()[:1])
    before = common.weights(model.heads)
    sentence = r"trained on the tasks \[0\], the plugin on \[\]: load the states of both|no other method has trained"
    with pytest.raises((ValueError, TypeError), match=sentence):
        common.strategy(model, [case()]).train(_stream()[1])
    assert all(torch.equal(value, model.heads.state_dict()[name]) for name, value in before.items())


@family
def test_a_network_that_another_plugin_of_the_kind_has_trained(case: Case) -> None:
    """PNN alone goes on: its columns say themselves which of them are to be frozen. Bit for bit, then."""
    model = _model(case)
    common.train(common.strategy(model, [case()]), _stream()[:1])
    x = torch.randn(5, common.FEATURES)
    known = model.eval()(x, 0)
    runner = common.strategy(model, [case()])
    if case.make.__name__ == "PNNPlugin":
        common.train(runner, _stream()[1:3])
        assert torch.equal(model.eval()(x, 0)[:, :2], known[:, :2])
        return
    with pytest.raises(ValueError, match=r"on the tasks \[0\], the plugin on \[\]: load the states of both"):
        runner.train(_stream()[1])


@family
def test_a_plugin_that_was_restored_without_its_network(case: Case) -> None:
    first, second = case(), case()
    common.train(common.strategy(_model(case), [first]), _stream()[:2])
    second.load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match=r"on the tasks \[\], the plugin on \[0, 1\]: load the states of both"):
        common.strategy(_model(case), [second]).train(_stream()[2])


@family
def test_both_restored_or_a_task_again_that_was_refused_go_on(case: Case) -> None:
    """What is refused is no more than that: states of both, and another try at a task that could not begin."""
    first, second = case(), case()
    runner = common.strategy(_model(case), [first])
    common.train(runner, _stream()[:2])
    model = _model(case)
    model.load_state_dict(runner.model.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    again = common.strategy(model, [second])
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameters"):
        again.train(_stream()[2])
    model.load_state_dict(runner.model.state_dict())
    model.requires_grad_(True)
    again.train(_stream()[2])
    assert second.tasks == [0, 1, 2]


# ---- criteria that read classes that a task does not have ----------------------------------------------------------


class _Binary(nn.Module):
    """Binary cross-entropy, a logit a class."""

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits, functional.one_hot(y, logits.shape[1]).float())


def _trained(case: Case, criterion: Any, stream: Any) -> Naive:
    runner = common.strategy(_model(case), [case()], criterion=criterion)
    common.train(runner, stream)
    return runner


@family
@pytest.mark.parametrize(
    ("criterion", "value"), [(nn.CrossEntropyLoss(label_smoothing=0.1), "inf"), (_Binary(), "nan")]
)
def test_criteria_that_read_absent_classes(case: Case, criterion: Any, value: str) -> None:
    """They are refused at the first batch that shows it, whichever method; before, losses were inf or NaN."""
    with pytest.raises(ValueError, match=f"the loss is {value}; logits of classes that a task does not have are -inf"):
        _trained(case, criterion, _stream())


@family
def test_class_weights(case: Case) -> None:
    with pytest.raises(ValueError, match="weights for 8 classes, and the network has logits of 2 up to this task"):
        _trained(case, nn.CrossEntropyLoss(weight=torch.ones(common.CLASSES)), _stream())


@family
def test_criteria_that_find_all_they_read_are_not_refused(case: Case) -> None:
    """The first task has the largest class: class weights fit, and all of its classes are there for smoothing."""
    goal = {"goal": 0.0} if case.make is CPGPlugin else {}
    wide = relabelled(sizes=(8,))
    for criterion in (nn.CrossEntropyLoss(weight=torch.ones(8)), nn.CrossEntropyLoss(label_smoothing=0.1), _Binary()):
        runner = common.strategy(_model(case), [case(**goal)], criterion=criterion)
        common.train(runner, wide.train_stream)
        assert torch.isfinite(runner.loss)


@family
def test_the_loss_is_looked_at_once_a_task(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cost in each step: of all batches of a task only the first is looked at."""
    looks: list[int] = []
    isneginf = torch.isneginf

    def counted(logits: Tensor) -> Tensor:
        looks.append(len(logits))
        return isneginf(logits)

    monkeypatch.setattr("cl_ext.plugins.architecture.torch.isneginf", counted)
    _trained(case, nn.CrossEntropyLoss(), _stream()[:3])
    assert len(looks) == 3


def test_a_loss_that_diverges_is_not_called_the_criterions_fault() -> None:
    case = next(case for case in FAMILY if case.make.__name__ == "PackNetPlugin")
    with pytest.raises(ValueError, match="the loss is") as refused:
        _trained(case, nn.CrossEntropyLoss(label_smoothing=0.1), _stream())
    assert "label smoothing" in str(refused.value)
    runner = common.strategy(_model(case), [case()])
    common.train(runner, _stream()[:1])
    with torch.no_grad():
        next(runner.model.features.parameters()).fill_(float("nan"))  # type: ignore[operator, union-attr]
    runner.train(_stream()[1])  # NaN of the network's own, which HAT and the recorder name


# ---- optimizers ----------------------------------------------------------------------------------------------------


@family
def test_an_optimizer_with_several_groups(case: Case) -> None:
    model = _model(case)
    first, *others = model.parameters()
    optimizer = torch.optim.SGD([{"params": [first]}, {"params": others, "lr": 0.01}], lr=0.05)
    with pytest.raises(ValueError, match=r"has 2 groups .*: give it all parameters in one group"):
        common.strategy(model, [case()], optimizer=optimizer).train(_stream()[0])


# ---- other plugins, and interruptions ------------------------------------------------------------------------------


@family
@pytest.mark.parametrize("other", [L2Plugin, OGDPlugin], ids=lambda kind: kind.__name__)
def test_a_penalty_listed_before_the_method_leaves_ended_heads_alone(case: Case, other: Any) -> None:
    """It lists all weights as trainable when the experience begins, and anchors them before our later phases."""
    model = _model(case)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=0.01)
    before = other(5.0) if other is L2Plugin else other()
    runner = common.strategy(model, [before, case()], optimizer=optimizer)
    known: dict[int, dict[str, Tensor]] = {}
    for task, experience in enumerate(_stream()[:3]):
        runner.train(experience)
        for ended, head in known.items():
            for name, value in model.heads[ended].state_dict().items():
                assert torch.equal(value, head[name]), (ended, name)
        known[task] = common.weights(model.heads[task])


@family
def test_an_experience_that_was_interrupted_is_named(case: Case) -> None:
    class Stop(SupervisedPlugin):
        def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

    runner = common.strategy(_model(case), [case(), Stop()])
    with pytest.raises(KeyboardInterrupt):
        runner.train(_stream()[0])
    runner.plugins = [plugin for plugin in runner.plugins if not isinstance(plugin, Stop)]
    with pytest.raises(ValueError, match=r"experience 1 \(task label 0\) was interrupted; load the states"):
        runner.train(_stream()[0])
