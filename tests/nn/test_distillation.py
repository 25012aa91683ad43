"""Distillation against its gradient, its limits and readable re-derivations, in float64."""

import json
from typing import Any

import cl_ext  # noqa: F401
from cl_ext.methods.criterion import ScenarioCrossEntropy
from cl_ext.nn.distillation import (
    InputTap,
    OutputGroups,
    Teacher,
    distillation_loss,
    grouped_distillation,
    head_of,
    is_multi_head,
    layout,
    snapshot,
)
from cl_ext.nn.sample_pass import trained_outputs

import pytest
import torch
from avalanche.models import IncrementalClassifier, MTSimpleMLP, MultiTaskModule
from torch import Tensor, nn
from torch.nn import functional

from tests.plugins import common

B, K = 7, 5
TEMPERATURES = pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 10.0])


def _pair(columns: int = K) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    z, z_t = (3 * torch.randn(B, columns, generator=generator, dtype=torch.float64) for _ in range(2))
    return z.requires_grad_(), z_t


def _gradient(loss: Tensor, z: Tensor) -> Tensor:
    return torch.autograd.grad(loss, z)[0]


def _readable(z: Tensor, z_t: Tensor, temperature: float) -> Tensor:
    """The paper's form: renormalised powers of probabilities, sample by sample, class by class."""
    total = z.new_zeros(())
    for row, teachers in zip(z.softmax(1), z_t.softmax(1), strict=True):
        p, q = row ** (1 / temperature), teachers ** (1 / temperature)
        for p_c, q_c in zip(p / p.sum(), q / q.sum(), strict=True):
            total = total - q_c * p_c.log()
    return total / len(z)


@TEMPERATURES
def test_gradient_is_the_difference_of_the_probabilities(temperature: float) -> None:
    z, z_t = _pair()
    found = _gradient(distillation_loss(z, z_t, temperature), z)
    expected = ((z / temperature).softmax(1) - (z_t / temperature).softmax(1)) / temperature / B
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=1e-16)


@TEMPERATURES
def test_it_is_the_papers_form(temperature: float) -> None:
    z, z_t = _pair()
    ours, paper = distillation_loss(z, z_t, temperature), _readable(z, z_t, temperature)
    torch.testing.assert_close(ours, paper, rtol=1e-12, atol=0)
    torch.testing.assert_close(_gradient(ours, z), _gradient(paper, z), rtol=1e-11, atol=1e-16)


@TEMPERATURES
def test_divergence_and_cross_entropy_have_the_same_gradient(temperature: float) -> None:
    z, z_t = _pair()
    q = (z_t / temperature).softmax(1)
    divergence = functional.kl_div((z / temperature).log_softmax(1), q, reduction="batchmean")
    entropy = -(q * q.log()).sum() / B
    torch.testing.assert_close(distillation_loss(z, z_t, temperature), divergence + entropy)
    torch.testing.assert_close(_gradient(distillation_loss(z, z_t, temperature), z), _gradient(divergence, z))


def test_student_equal_to_teacher_feels_nothing() -> None:
    z, _ = _pair()
    shifted = z.detach() + torch.arange(B, dtype=torch.float64)[:, None]  # a softmax does not see a constant
    for z_t in (z.detach(), shifted):
        assert float(_gradient(distillation_loss(z, z_t, 2.0), z).abs().max()) < 1e-16


def test_the_limit_of_high_temperatures() -> None:
    """T^2 KL -> |centred (z - z_t)|^2 / (2 C), the mean over samples."""
    z, z_t = (phi.detach() for phi in _pair())
    d = z - z_t
    expected = (d - d.mean(1, keepdim=True)).square().sum() / (2 * K) / B
    errors = []
    for temperature in (1e2, 1e3, 1e4):
        own = distillation_loss(z_t, z_t, temperature)
        errors.append(float(temperature**2 * (distillation_loss(z, z_t, temperature) - own) / expected - 1))
    assert abs(errors[2]) < 1e-3
    assert abs(errors[0]) > 5 * abs(errors[1]) > 5 * abs(errors[2])


def _with_square(z: Tensor, z_t: Tensor, temperature: float) -> Tensor:
    return temperature**2 * distillation_loss(z, z_t, temperature)


def _element_mean(z: Tensor, z_t: Tensor, temperature: float) -> Tensor:
    """PyTorch's default reduction, over classes too."""
    return functional.kl_div((z / temperature).log_softmax(1), (z_t / temperature).softmax(1), reduction="mean")


def _hot_teacher(z: Tensor, z_t: Tensor, temperature: float) -> Tensor:
    return functional.cross_entropy(z / temperature, z_t.softmax(1))


@pytest.mark.filterwarnings("ignore:reduction")
@pytest.mark.parametrize("faulty", [_with_square, _element_mean, _hot_teacher])
def test_negative_control(faulty: Any) -> None:
    z, z_t = _pair()
    right, wrong = (_gradient(loss(z, z_t, 2.0), z) for loss in (_readable, faulty))
    assert float((right - wrong).norm() / right.norm()) > 0.1


def test_groups_are_one_softmax_each() -> None:
    """Unequal sizes, any order, and a student that has grown."""
    z, z_t = _pair(12)
    groups = [[3, 1], [0, 7, 9], [4, 5], [2, 8, 10]]
    ours = grouped_distillation(z, z_t[:, :11], layout(groups), 2.0)
    expected = torch.stack([_readable(z[:, g], z_t[:, g], 2.0) for g in groups]).sum()
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
    gradient = _gradient(ours, z)
    torch.testing.assert_close(gradient, _gradient(expected, z), rtol=1e-11, atol=1e-16)
    assert not gradient[:, [6, 11]].any()
    assert not torch.allclose(ours, grouped_distillation(z, z_t, layout([list(range(6))]), 2.0), rtol=0.05)


def test_one_group_of_all_is_the_plain_loss() -> None:
    z, z_t = _pair()
    assert torch.equal(grouped_distillation(z, z_t, layout([list(range(K))]), 2.0), distillation_loss(z, z_t, 2.0))


def test_samples_count_alike() -> None:
    z, z_t = _pair()
    whole = grouped_distillation(z, z_t, layout([[0, 1], [2, 3, 4]]), 2.0)
    each = [grouped_distillation(z[n : n + 1], z_t[n : n + 1], layout([[0, 1], [2, 3, 4]]), 2.0) for n in range(B)]
    torch.testing.assert_close(torch.stack(each).mean(), whole)


def _trained(loss: Any, experiences: list[list[int]], outputs: int = 6) -> OutputGroups:
    groups = OutputGroups()
    for labels in experiences:
        groups.add(labels, trained_outputs(loss, torch.zeros(len(labels), outputs), torch.tensor(labels)))
    return groups


SPLIT = [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("loss", "experiences", "expected"),
    [
        (ScenarioCrossEntropy([[0, 1], [2, 3], [4, 5]]), SPLIT, [[0, 1], [2, 3]]),
        (ScenarioCrossEntropy([[0, 3, 5], [1, 2], [4]]), [[0, 3, 5], [1, 2], [4]], [[0, 3, 5], [1, 2]]),
        (ScenarioCrossEntropy([[0], [1], [2], [5]]), [[0], [1], [2]], []),
        (nn.CrossEntropyLoss(), SPLIT, [[0, 1, 2, 3]]),
        (nn.CrossEntropyLoss(), [[0], [1]], [[0, 1]]),
        (nn.CrossEntropyLoss(), [[0]], []),
        (nn.CrossEntropyLoss(), [list(range(6))] * 3, [list(range(6))]),
        (nn.NLLLoss(), SPLIT, [[0, 1, 2, 3]]),
        (nn.MultiMarginLoss(), SPLIT, [[0, 1, 2, 3]]),
    ],
)
def test_what_the_loss_compares_is_distilled_together(loss: Any, experiences: Any, expected: Any) -> None:
    """Task-incremental a group a task, class-incremental the old classes, domain-incremental all outputs."""
    groups = _trained(loss, experiences)
    assert groups.groups() == expected
    restored = OutputGroups.restored(json.loads(json.dumps(groups.state())))
    assert restored.groups() == expected
    assert restored.state() == groups.state()


def test_the_loss_over_seen_classes_joins_them() -> None:
    loss = ScenarioCrossEntropy(None, seen_only=True)
    groups = OutputGroups()
    for labels in ([0, 1], [4, 2]):
        loss._seen.update(labels)
        groups.add(labels, trained_outputs(loss, torch.zeros(2, 6), torch.tensor(labels)))
    assert groups.groups() == [[0, 1, 2, 4]]


def test_joined_sets_are_connected_components() -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(30):
        read = torch.rand(6, 12, generator=generator) < 0.17
        groups = OutputGroups()
        for rows in read.split(2):
            if not bool(rows.sum(1).eq(1).all()):  # such a loss is taken to leave the comparison to the network
                groups.add(range(12), rows)
        kept = torch.cat([rows for rows in read.split(2) if not bool(rows.sum(1).eq(1).all())]).double()
        reach = torch.linalg.matrix_power(kept.T @ kept + torch.eye(12, dtype=torch.float64), 12) > 0
        expected = {tuple(row.nonzero().flatten().tolist()) for row in reach}
        assert groups.groups() == sorted(list(group) for group in expected if len(group) > 1)


def test_the_head() -> None:
    model = common.mlp()
    assert head_of(model) is model[2]
    assert head_of(model, "0") is model[0]
    growing, many = common.Growing(), common.MultiHead()
    assert head_of(growing) is growing.head
    assert head_of(many) is many.heads
    with pytest.raises(ValueError, match="Sequential has no module '9'; it has 0, 1, 2"):
        head_of(model, "9")
    with pytest.raises(ValueError, match="ReLU has no linear layer"):
        head_of(nn.ReLU())
    with pytest.raises(ValueError, match="Sequential has 2 heads, IncrementalClassifier"):
        head_of(nn.Sequential(IncrementalClassifier(2), IncrementalClassifier(2)))


def test_the_tap_gives_the_features() -> None:
    model, x, tap = common.mlp(), torch.randn(B, common.FEATURES), InputTap()
    tap.open(model[2])
    model(x)
    assert torch.equal(tap.take(B), model[:2](x))
    assert not model[2]._forward_pre_hooks
    tap.open(model[2])
    for part in x.split(3):  # a network that runs its head task by task
        model(part)
    torch.testing.assert_close(tap.take(B), model[:2](x))
    tap.open(model[2])
    with pytest.raises(ValueError, match="was given 0 rows of features for a batch of 7"):
        tap.take(B)
    assert not model[2]._forward_pre_hooks


def test_a_snapshot_is_frozen_resting_and_without_hooks() -> None:
    torch.manual_seed(0)
    model = common.normed()
    model[3].eval()
    seen: list[Any] = []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    flags, state = [module.training for module in model.modules()], torch.get_rng_state()
    copy = snapshot(model)
    assert flags == [module.training for module in model.modules()]
    assert torch.equal(state, torch.get_rng_state())
    assert common.same(common.weights(copy), common.weights(model))
    assert not any(p.requires_grad for p in copy.parameters())
    assert not any(module.training for module in copy.modules())
    assert len(model[0]._forward_hooks) == 1
    copy(torch.randn(3, common.FEATURES))
    assert not seen
    with torch.no_grad():
        model[0].weight.zero_()
    assert bool(copy[0].weight.any())


def test_a_teacher_changes_by_nothing_it_is_asked() -> None:
    torch.manual_seed(0)
    model = common.normed()
    teacher = Teacher(model, head_of)
    before, state = common.weights(teacher.network), torch.get_rng_state()
    x = torch.randn(B, common.FEATURES, generator=torch.Generator().manual_seed(0)) + 5
    first, second = teacher(x, None), teacher(x, None)
    assert torch.equal(first.logits, second.logits)
    assert torch.equal(first.logits, teacher.network(x))
    assert torch.equal(teacher.network[-1](first.features), first.logits)
    assert common.same(before, common.weights(teacher.network))
    assert torch.equal(state, torch.get_rng_state())
    assert not first.logits.requires_grad
    assert teacher.bytes() == sum(tensor.nbytes for tensor in model.state_dict().values())


def test_multi_head_networks() -> None:
    class Strange(MultiTaskModule):
        pass

    assert not is_multi_head(common.mlp())
    assert is_multi_head(common.MultiHead())
    assert is_multi_head(MTSimpleMLP())
    with pytest.raises(NotImplementedError, match="Strange asks for task labels without exactly one MultiHeadClass"):
        is_multi_head(Strange())
