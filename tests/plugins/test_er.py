"""ER: one mean over stream and memory, what is stored and when, what Avalanche's metrics see."""

from typing import Any

from cl_ext.nn.memory import RehearsalMemory
from cl_ext.plugins import ERPlugin
from cl_ext.plugins.rehearsal import fields_of

import pytest
import torch
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.training.plugins import EvaluationPlugin
from torch import Tensor
from torch.nn.functional import cross_entropy

from tests.plugins import common
from tests.plugins.test_gem import EPOCHS, Spy, stream, train

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified")
PLACES, DRAWN = 11, 5


def plugin(**changes: Any) -> ERPlugin:
    return ERPlugin(**{"mem_size": PLACES, "mem_batch_size": DRAWN, "seed": 3} | changes)


def copies(strategy: Any) -> list[Tensor]:
    return [part.clone() for part in strategy.mbatch]


class Watched:
    """Plugins around ER that keep what each step began with, trained on, and ended with."""

    def __init__(self, er: ERPlugin, offset: float = 0.0) -> None:
        self.before: list[list[Tensor]] = []
        self.steps: list[dict[str, Any]] = []
        self.after: list[tuple[list[Tensor], Tensor]] = []
        self.offset = offset
        early = Spy("before_forward", self._early)
        loss = Spy("before_backward", self._loss)
        late = Spy("after_training_iteration", lambda s: self.after.append((copies(s), s.mb_output.detach().clone())))
        self.plugins = [early, er, loss, late]

    def _early(self, strategy: Any) -> None:
        strategy.mbatch[0] = strategy.mbatch[0] + self.offset
        self.before.append(copies(strategy))

    def _loss(self, strategy: Any) -> None:
        values = {"batch": copies(strategy), "output": strategy.mb_output.detach().clone()}
        self.steps.append(values | {"loss": strategy.loss.item()})


@pytest.fixture(scope="module")
def watched() -> Watched:
    run = Watched(plugin())
    train(run.plugins, common.mlp, stream(task_labels=True))
    return run


def test_the_loss_is_one_mean_over_stream_and_memory(watched: Watched) -> None:
    """Each sample weighs 1 / (B + M): the stream's mean counts B / (B + M), less than half where M > B."""
    for (x, _, _), step in zip(watched.before, watched.steps, strict=True):
        output, y = step["output"], step["batch"][1]
        each = -output.log_softmax(1)[torch.arange(len(y)), y]
        assert step["loss"] == pytest.approx(float(each.sum()) / len(y), rel=1e-6)
        two_means = float(each[: len(x)].mean() + each[len(x) :].mean()) if len(y) > len(x) else step["loss"]
        assert len(y) == len(x) or step["loss"] != pytest.approx(two_means, rel=1e-3)


def test_the_streams_part_comes_first_and_the_rest_is_of_earlier_steps(watched: Watched) -> None:
    seen: set[tuple[float, ...]] = set()
    for step, (own, values) in enumerate(zip(watched.before, watched.steps, strict=True)):
        batch, size = values["batch"], len(own[0])
        assert all(torch.equal(part[:size], first) for part, first in zip(batch, own, strict=True))
        replayed = [tuple(row) for row in batch[0][size:].tolist()]
        assert len(replayed) == min(DRAWN, PLACES, len(seen) if step < 3 else PLACES)
        assert len(set(replayed)) == len(replayed) or step >= 3  # a second epoch may store a sample twice
        assert set(replayed) <= seen
        seen |= {tuple(row) for row in own[0].tolist()}


def test_replayed_samples_keep_their_labels_and_task_labels(watched: Watched) -> None:
    known = {tuple(x): (y, t) for e in stream(task_labels=True) for x, y, t in _rows(e)}
    for values in watched.steps:
        x, y, t = values["batch"]
        assert [known[tuple(row)] for row in x.tolist()] == list(zip(y.tolist(), t.tolist(), strict=True))
    assert len({int(t) for t in watched.steps[-1]["batch"][2]}) > 1


def _rows(experience: Any) -> Any:
    return [(x.tolist(), int(y), int(t)) for x, y, t in experience.dataset]


def test_after_the_step_the_batch_is_the_streams_alone(watched: Watched) -> None:
    for own, values, (batch, output) in zip(watched.before, watched.steps, watched.after, strict=True):
        assert all(torch.equal(part, first) for part, first in zip(batch, own, strict=True))
        assert torch.equal(output, values["output"][: len(own[0])])


def test_training_accuracy_counts_no_replayed_sample() -> None:
    """Avalanche's own metric, by hand; negative control: over all samples of the step it differs."""
    run = Watched(plugin(mem_batch_size=PLACES))
    metric = EvaluationPlugin(accuracy_metrics(epoch=True))
    runner = train(run.plugins, common.mlp, stream()[:3], evaluator=metric, train_epochs=1)
    values = next(v for name, (_, v) in runner.evaluator.get_all_metrics().items() if "Top1_Acc_Epoch/train" in name)
    right, everything = [], []
    for own, step in zip(run.before, run.steps, strict=True):
        hits = step["output"].argmax(1) == step["batch"][1]
        right.append(hits[: len(own[0])])
        everything.append(hits)
    per_experience = [torch.cat(right[3 * e : 3 * e + 3]).double().mean().item() for e in range(3)]
    assert values == pytest.approx(per_experience, rel=1e-6)
    mixed = [torch.cat(everything[3 * e : 3 * e + 3]).double().mean().item() for e in range(3)]
    assert max(abs(a - b) for a, b in zip(mixed, per_experience, strict=True)) > 0.02


def test_the_memory_is_what_the_stream_alone_writes() -> None:
    """Batch after batch as presented, each epoch anew; the samples that are replayed are not offered again."""
    er = plugin()
    run = Watched(er)
    train(run.plugins, common.mlp, stream())
    expected = RehearsalMemory(PLACES, seed=3)
    for x, y, t in run.before:
        expected.add(x=x, y=y, t=t)
    assert expected.seen == EPOCHS * 80
    assert all(torch.equal(er.memory[name], part) for name, part in expected.fields.items())


def test_what_is_stored_is_the_batch_as_it_came_to_the_plugin() -> None:
    """An augmentation on the device, by a plugin before it, is in the memory, and is not applied to it again."""
    er = plugin(mem_size=40)
    run = Watched(er, offset=100.0)
    train(run.plugins, common.mlp, stream()[:2])
    assert float(er.memory["x"].mean()) == pytest.approx(100.0, abs=5.0)
    assert max(float(step["batch"][0].max()) for step in run.steps) < 150.0


def test_every_policy_and_the_memorys_cost() -> None:
    held = {}
    for policy in ("reservoir", "ring", "class_balanced"):
        er = plugin(policy=policy, mem_size=8)
        train([er], common.mlp, stream())
        held[policy] = sorted(er.memory["y"].tolist())
        assert er.extra_bytes() >= 8 * (common.FEATURES * 8 + 8 + 8)
    assert held["class_balanced"] == list(range(8))
    assert held["ring"] == [6] * held["ring"].count(6) + [7] * held["ring"].count(7)
    assert len(set(held["reservoir"])) > 2


def test_old_heads_are_trained_through_replayed_samples() -> None:
    """In a multi-head network a replayed sample goes through the head of its own task."""
    gradients: list[float] = []
    spy = Spy("after_backward", lambda s: gradients.append(_first_head(s.model)))
    train([plugin(), spy], common.MultiHead, stream(task_labels=True, dtype=torch.float32))
    assert max(gradients[EPOCHS * 3 :]) > 0.0
    plain: list[float] = []
    spy = Spy("after_backward", lambda s: plain.append(_first_head(s.model)))
    train([spy], common.MultiHead, stream(task_labels=True, dtype=torch.float32))
    assert max(plain[EPOCHS * 3 :]) == 0.0


def _first_head(model: Any) -> float:
    gradient = model.heads.classifiers["0"].classifier.weight.grad
    return 0.0 if gradient is None else float(gradient.abs().max())


def test_further_attributes_of_the_samples_are_replayed_too() -> None:
    batch = [torch.zeros(2, 3), torch.ones(2), torch.full((2,), 2), torch.full((2,), 3), torch.full((2,), 4)]
    assert [(name, float(part[0].max())) for name, part in fields_of(batch).items()] == [
        ("x", 0.0),
        ("y", 1.0),
        ("part2", 2.0),
        ("part3", 3.0),
        ("t", 4.0),
    ]
    assert list(fields_of(batch[:3])) == ["x", "y", "t"]
    assert list(fields_of(batch[:2])) == ["x", "y"]


def test_the_criterion_is_the_strategys_own() -> None:
    """Label smoothing reaches the replayed samples."""

    def smoothed(logits: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(logits, y, label_smoothing=0.3)

    run = Watched(plugin())
    train(run.plugins, common.mlp, stream()[:2], criterion=smoothed)
    for step in run.steps:
        assert step["loss"] == pytest.approx(float(smoothed(step["output"], step["batch"][1])), rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mem_size": -1}, ValueError, "ERPlugin: mem_size must be an integer >= 0, got -1"),
        ({"mem_size": 1.5}, TypeError, "ERPlugin: mem_size must be an integer, got 1.5"),
        ({"mem_batch_size": 0}, ValueError, "ERPlugin: mem_batch_size must be an integer >= 1, got 0"),
        ({"policy": "fifo"}, ValueError, "policy must be one of 'reservoir', 'ring', 'class_balanced', got 'fifo'"),
        ({"seed": -1}, ValueError, "ERPlugin: seed must be an integer >= 0, got -1"),
    ],
)
def test_bad_hyper_parameters(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ERPlugin(**arguments)
