"""What every method that gives tasks their own part of a network owes: one table of invariants, one set of tests."""

from collections.abc import Callable, Iterator
from typing import Any

from cl_ext.nn.capacity import capacity
from cl_ext.nn.ownership import Hold
from cl_ext.plugins import HATPlugin, PackNetPlugin
from cl_ext.plugins.architecture import TaskPlugin
from cl_ext.plugins.masked import MaskedPlugin

import pytest
import torch
from avalanche.benchmarks import dataset_benchmark
from avalanche.benchmarks.utils import _make_taskaware_classification_dataset
from avalanche.training import Naive
from torch import Tensor

from tests.plugins import common
from tests.plugins.common import CASES, Case

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")

FAMILY = [case for case in CASES if issubclass(case.make, TaskPlugin)]
NOT_EXACT = ("den", "den-all-grow", "hat")
"""DEN pulls old units towards their old values and hides new ones; HAT's soft gates leak, its hard ones do not."""
EXACT = [case for case in FAMILY if case.name not in NOT_EXACT]
LABELS, SIZES = (7, 3, 9), (2, 3, 1)
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.05),
    "sgd-momentum-decay": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.05, nesterov=True),
    "adam-decay": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.05),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.05),
}

family = pytest.mark.parametrize("case", FAMILY, ids=lambda case: case.name)
exact = pytest.mark.parametrize("case", EXACT, ids=lambda case: case.name)
networks = pytest.mark.parametrize("network", [common.mlp, common.normed])


def _relabelled() -> Any:
    """Three experiences whose task labels are 7, 3 and 9, of two, three and one classes."""
    streams: dict[str, list[Any]] = {"train": [], "test": []}
    for name, per_class, seed in (("train", 10, 1), ("test", 4, 2)):
        first = 0
        for label, size in zip(LABELS, SIZES, strict=True):
            x, y = common.blobs(per_class, seed).tensors  # type: ignore[attr-defined]
            rows = (y >= first) & (y < first + size)
            data = common.labelled(x[rows], y[rows])
            streams[name].append(_make_taskaware_classification_dataset(data, task_labels=label))
            first += size
    return dataset_benchmark(streams["train"], streams["test"])


def _parts(runner: Naive) -> dict[int, dict[str, Tensor]]:
    """The tensors with which each task so far is predicted; copies."""
    model: Any = runner.model
    model.eval()
    return {task: {name: t.detach().clone() for name, t in model.effective(task).items()} for task in model.tasks}


def _logits(runner: Naive, x: Tensor) -> dict[int, Tensor]:
    model: Any = runner.model
    model.eval()
    with torch.no_grad():
        return {task: model(x, task) for task in model.tasks}


def _runner(case: Case, network: Any, optimizer: str = "sgd", **options: Any) -> Naive:
    torch.manual_seed(0)
    model = case.on(network)()
    return common.strategy(model, [case()], optimizer=OPTIMIZERS[optimizer](model.parameters()), **options)


def _changes(case: Case, network: Any, optimizer: str) -> Iterator[tuple[int, str]]:
    """Trains on the stream; yields each old task and tensor, or its logits, that later training has changed."""
    runner = _runner(case, network, optimizer)
    x = torch.randn(32, common.FEATURES, generator=torch.Generator().manual_seed(5))
    known: dict[int, tuple[dict[str, Tensor], Tensor]] = {}
    for number, experience in enumerate(common.benchmark("nc-tasks").train_stream):
        torch.manual_seed(number)
        runner.train(experience)
        parts, logits = _parts(runner), _logits(runner, x)
        for task, (before, answer) in known.items():
            after = parts[task]
            assert before.keys() == after.keys()
            yield from ((task, name) for name in before if not torch.equal(before[name], after[name]))
            width = answer.shape[1]
            if not torch.equal(answer, logits[task][:, :width]):
                yield task, "logits"
            assert bool((logits[task][:, width:] == float("-inf")).all())
        known = {task: (parts[task], logits[task]) for task in parts}


@exact
@networks
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_a_task_has_never_changes_bit_for_bit(case: Case, network: Any, optimizer: str) -> None:
    """Materialised parameters, statistics, masks, heads, and the logits of the same batch; under any optimizer."""
    with case.may_refuse(network):
        assert list(_changes(case, network, optimizer)) == []


def test_a_guard_that_does_nothing_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: masked gradients alone do not survive weight decay."""
    monkeypatch.setattr(Hold, "restore", Hold.mask_gradients)
    case = next(case for case in EXACT if case.make is PackNetPlugin)
    assert list(_changes(case, common.mlp, "sgd-momentum-decay"))


def test_shared_statistics_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: batch norm that tasks share."""
    case = next(case for case in EXACT if case.make is PackNetPlugin)
    own_tensors = PackNetPlugin.own_tensors

    def shared(self: PackNetPlugin) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in own_tensors(self).items() if "running" not in name}

    monkeypatch.setattr(PackNetPlugin, "own_tensors", shared)
    changed = list(_changes(case, common.normed, "sgd"))
    assert (0, "logits") in changed


@family
@networks
def test_looking_at_the_whole_test_stream_changes_nothing(case: Case, network: Any) -> None:
    """Tasks to come included, between experiences and after each epoch: no head, column or state comes of it."""
    with case.may_refuse(network):
        stream = common.benchmark("nc-tasks")
        plain, watched = _runner(case, network), _runner(case, network, eval_every=1)
        for number, experience in enumerate(stream.train_stream):
            torch.manual_seed(number)
            plain.train(experience, eval_streams=[])
            watched.eval(stream.test_stream)
            torch.manual_seed(number)
            watched.train(experience, eval_streams=[stream.test_stream])
        assert common.same(common.weights(plain.model), common.weights(watched.model))


@family
@networks
def test_a_saved_network_answers_for_every_task_without_the_plugin(case: Case, network: Any) -> None:
    with case.may_refuse(network):
        runner = _runner(case, network)
        common.train(runner, common.benchmark("nc-tasks").train_stream)
        torch.manual_seed(1)
        fresh = case.on(network)()
        fresh.load_state_dict(runner.model.state_dict())
        fresh.eval()
        x = torch.randn(8, common.FEATURES)
        for task, logits in _logits(runner, x).items():
            width = min(logits.shape[1], fresh(x, task).shape[1])
            assert torch.equal(fresh(x, task)[:, :width], logits[:, :width])


@family
def test_labels_in_any_order_and_heads_of_any_size(case: Case) -> None:
    """No answer outside the task's own classes; one class, two or three; labels 7, 3, 9."""
    stream = _relabelled()
    runner = _runner(case, common.mlp)
    common.train(runner, stream.train_stream)
    model: Any = runner.model
    assert model.tasks == list(LABELS)
    first = 0
    for label, size, experience in zip(LABELS, SIZES, stream.test_stream, strict=True):
        x = torch.stack([sample[0] for sample in experience.dataset])
        answers = model.eval()(x, label).argmax(1)
        assert set(answers.tolist()) <= set(range(first, first + size))
        first += size
    metrics = runner.eval(stream.test_stream)
    assert metrics is not None


@family
def test_mixed_batches_answer_as_each_task_alone(case: Case) -> None:
    runner = _runner(case, common.normed)
    with case.may_refuse(common.normed):
        common.train(runner, common.benchmark("nc-tasks").train_stream)
    model: Any = runner.model.eval()
    x, labels = torch.randn(12, common.FEATURES), torch.arange(12) % 4
    mixed = model(x, labels)
    for task in range(4):
        alone = model(x[labels == task], task)
        assert torch.allclose(mixed[labels == task][:, : alone.shape[1]], alone, atol=1e-5)


@family
@networks
def test_the_capacity_meter_is_a_count_by_hand(case: Case, network: Any) -> None:
    with case.may_refuse(network):
        runner = _runner(case, network)
        common.train(runner, common.benchmark("nc-tasks").train_stream)
        model: Any = runner.model
        counts = capacity([model])
        assert counts["parameters"] == sum(len(p.flatten().tolist()) for p in model.parameters())
        assert counts["nonzero"] == sum(value != 0 for p in model.parameters() for value in p.flatten().tolist())
        assert list(counts["by_task"]) == [str(task) for task in model.tasks]
        for task in model.tasks:
            by_hand = sum(value != 0 for t in model.effective(task).values() for value in t.flatten().tolist())
            assert counts["by_task"][str(task)] == by_hand > 0


@pytest.mark.parametrize("case", [case for case in FAMILY if case.make is not HATPlugin], ids=lambda case: case.name)
def test_what_is_not_effective_does_not_matter(case: Case) -> None:
    """Parameters that a task's `effective` leaves out, or cuts off, can be anything: no logit of the task moves.

    Where entries are masked those that the task does not see can be anything, too. HAT's gates are soft: a unit that
    counts as unused may still say a little.
    """
    masked = issubclass(case.make, MaskedPlugin)
    runner = _runner(case, common.mlp)
    common.train(runner, common.benchmark("nc-tasks").train_stream)
    model: Any = runner.model.eval()
    x = torch.randn(6, common.FEATURES)
    moved = 0
    for task in model.tasks:
        before, used = model(x, task), model.effective(task)
        seen = model.scheme.visible(model.features, task) if masked else {}
        saved = {name: p.detach().clone() for name, p in model.named_parameters()}
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                keep = torch.zeros_like(parameter, dtype=torch.bool)
                if name in used:
                    entries = seen.get(name.removeprefix("features."), torch.ones_like(used[name], dtype=torch.bool))
                    keep[tuple(slice(0, size) for size in used[name].shape)] = entries
                moved += int((~keep).sum())
                parameter.copy_(torch.where(keep, parameter, torch.full_like(parameter, 3.0)))
        after = model(x, task)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(saved[name])
        assert torch.equal(before, after), task
    assert moved


def test_the_family_is_whole() -> None:
    names = {case.make.__name__ for case in FAMILY}
    assert names == {"PackNetPlugin", "CPGPlugin", "HATPlugin", "DENPlugin", "PNNPlugin", "PathNetPlugin"}
    assert {case.name for case in FAMILY} > set(NOT_EXACT)


def test_soft_methods_are_seen_to_change() -> None:
    """That a method is listed as not exact has a reason: the test of exactness would fail for it."""
    for name in NOT_EXACT:
        case = next(case for case in FAMILY if case.name == name)
        assert list(_changes(case, common.mlp, "sgd")), name
