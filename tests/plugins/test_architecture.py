"""What every method that gives tasks their own part of a network owes: one table of invariants, one set of tests."""

from collections.abc import Iterator
from typing import Any

from cl_ext.models.expansion import expandable
from cl_ext.models.modular import pathnet
from cl_ext.nn.ownership import Hold
from cl_ext.plugins import HATPlugin, PackNetPlugin, PathNetPlugin
from cl_ext.plugins.masked import MaskedPlugin

import pytest
import torch
from torch import Tensor

from tests.plugins import common
from tests.plugins.common import Case
from tests.plugins.family import (
    EXPERTS,
    FAMILY,
    GATED,
    GROWN,
    LABELS,
    OPTIMIZERS,
    SIZES,
    classes_of,
    data,
    logits_of,
    made,
    parts_of,
    relabelled,
    samples,
    saved,
    strided,
)

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")

NOT_EXACT = ("den", "den-all-grow", "hat")
"""DEN pulls old units towards their old values and hides new ones; HAT's soft gates leak, its hard ones do not."""
EXACT = [case for case in (*FAMILY, *EXPERTS) if case.name not in NOT_EXACT]
ALL = [*FAMILY, *EXPERTS, *GATED, *GROWN]
ONE_EACH = list({case.make: case for case in reversed([*FAMILY, *GATED, *GROWN])}.values())

family = pytest.mark.parametrize("case", [*FAMILY, *EXPERTS], ids=lambda case: case.name)
exact = pytest.mark.parametrize("case", EXACT, ids=lambda case: case.name)
everyone = pytest.mark.parametrize("case", [*FAMILY, *GATED, *GROWN], ids=lambda case: case.name)
networks = pytest.mark.parametrize("network", [common.mlp, common.normed])


def _changes(case: Case, network: Any, optimizer: str) -> Iterator[tuple[int, str]]:
    """Trains on the stream; yields each old task and tensor, or its logits, that later training has changed."""
    runner = made(case, network, optimizer)
    model: Any = runner.model
    x = samples(network)
    known: dict[int, tuple[dict[str, Tensor], Tensor]] = {}
    for number, experience in enumerate(data(network).train_stream):
        torch.manual_seed(number)
        runner.train(experience)
        parts, logits = parts_of(model), logits_of(model, x)
        for task, (before, answer) in known.items():
            after, own = parts[task], classes_of(model, task)
            assert before.keys() == after.keys()
            yield from ((task, name) for name in before if not torch.equal(before[name], after[name]))
            if not torch.equal(answer[:, own], logits[task][:, own]):
                yield task, "logits"
            if case not in EXPERTS:  # an expert has an output for every class
                others = torch.ones(logits[task].shape[1], dtype=torch.bool).index_fill(0, own, False)
                assert bool((logits[task][:, others] == float("-inf")).all())
        known = {task: (parts[task], logits[task]) for task in parts}


@exact
@networks
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_a_task_has_never_changes_bit_for_bit(case: Case, network: Any, optimizer: str) -> None:
    """Materialised parameters, statistics, masks, heads, and the logits of the same batch; under any optimizer."""
    with case.may_refuse(network):
        assert list(_changes(case, network, optimizer)) == []


@exact
def test_what_a_task_of_a_cnn_has_never_changes(case: Case) -> None:
    """Convolutions with a stride and batch norm, channels that are pooled and flattened into linear layers."""
    assert list(_changes(case, strided, "sgd-momentum-decay")) == []


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


@everyone
@networks
def test_looking_at_the_whole_test_stream_changes_nothing(case: Case, network: Any) -> None:
    """Tasks to come included, between experiences and after each epoch: no head, column or state comes of it."""
    with case.may_refuse(network):
        stream = data(network)
        plain, watched = made(case, network), made(case, network, eval_every=1)
        for number, experience in enumerate(stream.train_stream):
            torch.manual_seed(number)
            plain.train(experience, eval_streams=[])
            watched.eval(stream.test_stream)
            torch.manual_seed(number)
            watched.train(experience, eval_streams=[stream.test_stream])
        assert common.same(common.weights(plain.model), common.weights(watched.model))


@everyone
@networks
def test_a_saved_network_answers_for_every_task_without_the_plugin(case: Case, network: Any) -> None:
    with case.may_refuse(network):
        runner = made(case, network)
        common.train(runner, data(network).train_stream)
        torch.manual_seed(1)
        fresh = case.on(network)()
        fresh.load_state_dict(runner.model.state_dict())
        x = samples(network, 8)
        known, found = logits_of(runner.model, x), logits_of(fresh, x)
        assert known.keys() == found.keys()
        for task, answers in known.items():
            width = min(answers.shape[1], found[task].shape[1])
            assert torch.equal(found[task][:, :width], answers[:, :width])


@pytest.mark.parametrize("case", ONE_EACH, ids=lambda case: case.name)
def test_saved_mid_sequence_it_goes_on_bit_equal(case: Case) -> None:
    """On a CNN with batch norm, under momentum; `test_contract.py` does it in a fresh process, on an MLP."""
    stream, optimizer = data(strided).train_stream, "sgd-momentum-decay"
    whole = made(case, strided, optimizer)
    common.train(whole, stream[:2])
    state = saved(whole)
    common.train(whole, stream, first=2)
    torch.manual_seed(3)
    model, plugin = case.on(strided)(), case()
    model.load_state_dict(state["model"])
    rest = common.strategy(model, [plugin], optimizer=OPTIMIZERS[optimizer](model.parameters()))
    rest.make_optimizer(reset_optimizer_state=True)  # Avalanche's first call would wipe a loaded state
    rest.optimizer.load_state_dict(state["optimizer"])
    plugin.load_state_dict(state["plugin"])
    common.train(rest, stream, first=2)
    assert common.same(common.weights(whole.model), common.weights(model))


def _all_open(e: Tensor, s: Tensor | float) -> Tensor:
    return torch.ones_like(e) + 0.0 * e


@pytest.mark.parametrize("case", ONE_EACH, ids=lambda case: case.name)
@pytest.mark.parametrize("network", [common.mlp, common.normed, strided])
def test_one_task_is_plain_training(case: Case, network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights and logits, from the same seed, with what the method does beside training switched off.

    One path of one module for PathNet, gates of 1 for HAT, no pruning for PackNet and CPG, no penalty for DEN.
    """
    off: dict[str, Any] = dict(case.off or {})
    prepare = case.prepare
    if case.make is PathNetPlugin:
        off, prepare = {"population": 1}, lambda model: pathnet(model, 1, 1, width=1.0)
    elif case.make is HATPlugin:
        off = {"hat_lambda": 0.0}
        monkeypatch.setattr("cl_ext.nn.gated.gate", _all_open)
    plain = (lambda model: model) if case in (*GATED, *GROWN) else expandable
    answers, tensors = [], []
    for prepared, plugins in ((prepare, [case(**off)]), (plain, [])):
        torch.manual_seed(0)
        runner = common.strategy(prepared(network()), plugins)
        common.train(runner, data(network).train_stream[:1])
        answers.append(logits_of(runner.model, samples(network))[0][:, :2])
        tensors.append([p for p in runner.model.parameters() if p.dim() > 1])  # weights, in the order of the layers
    assert torch.equal(*answers)
    assert len(tensors[0]) == len(tensors[1])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*tensors, strict=True))


@family
def test_labels_in_any_order_and_heads_of_any_size(case: Case) -> None:
    """No answer outside the task's own classes; one class, two or three; labels 7, 3, 9."""
    stream = relabelled()
    runner = made(case, common.mlp)
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
    runner = made(case, common.normed)
    with case.may_refuse(common.normed):
        common.train(runner, common.benchmark("nc-tasks").train_stream)
    model: Any = runner.model.eval()
    x, labels = torch.randn(12, common.FEATURES), torch.arange(12) % 4
    mixed = model(x, labels)
    for task in range(4):
        alone = model(x[labels == task], task)
        assert torch.allclose(mixed[labels == task][:, : alone.shape[1]], alone, atol=1e-5)


@pytest.mark.parametrize(
    "case", [case for case in (*FAMILY, *EXPERTS) if case.make is not HATPlugin], ids=lambda case: case.name
)
def test_what_is_not_effective_does_not_matter(case: Case) -> None:
    """Parameters that a task's `effective` leaves out, or cuts off, can be anything: no logit of the task moves.

    Where entries are masked those that the task does not see can be anything, too. HAT's gates are soft: a unit that
    counts as unused may still say a little.
    """
    masked = issubclass(case.make, MaskedPlugin)
    runner = made(case, common.mlp)
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
    assert {case.make.__name__ for case in ALL} == names | {"ExpertGatePlugin", "Net2NetPlugin"}
    assert len(ONE_EACH) == 8
    assert {case.name for case in FAMILY} > set(NOT_EXACT)


def test_soft_methods_are_seen_to_change() -> None:
    """That a method is listed as not exact has a reason: the test of exactness would fail for it."""
    for name in NOT_EXACT:
        case = next(case for case in FAMILY if case.name == name)
        assert list(_changes(case, common.mlp, "sgd")), name
