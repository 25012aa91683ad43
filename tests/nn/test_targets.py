"""The divergence's factors, which the authors' code has by accident, and who has a target, when, and from whom."""

import io
from typing import Any

import cl_ext  # noqa: F401
from cl_ext.nn.targets import TargetMemory, reduced_divergence, soft_target_divergence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

B, K, T = 6, 5, 2.0
ALL = torch.ones(B, dtype=torch.bool)


def _logits(seed: int, n: int = B, k: int = K) -> Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _pair(k: int = K) -> tuple[Tensor, Tensor]:
    return _logits(1, k=k), _logits(2, k=k)


def test_it_is_the_divergence_by_loops() -> None:
    z, z_t = _pair()
    for kl, row, row_t in zip(soft_target_divergence(z, z_t, T), z, z_t, strict=True):
        p = [float(v) for v in (row_t / T).exp() / (row_t / T).exp().sum()]
        q = [float(v) for v in (row / T).exp() / (row / T).exp().sum()]
        expected = sum(a * (torch.tensor(a).log() - torch.tensor(b).log()) for a, b in zip(p, q, strict=True))
        assert abs(float(kl) - float(expected)) < 1e-6


@pytest.mark.parametrize("classes", [5, 85])
def test_the_factors_of_the_authors_code(classes: int) -> None:
    """`nn.KLDivLoss()` is 1/C of batchmean (task-aware: .2 at 5 classes), that times B is B/C (task-free: .1176)."""
    z, z_t = _logits(1, 10, classes), _logits(2, 10, classes)
    known = torch.ones(10, dtype=torch.bool)
    kl = soft_target_divergence(z, z_t, T)
    p, log_q = (z_t / T).softmax(1), (z / T).log_softmax(1)
    batchmean = reduced_divergence(kl, known, classes, "batchmean")
    assert torch.allclose(batchmean, nn.KLDivLoss(reduction="batchmean")(log_q, p))
    with pytest.warns(UserWarning, match="reduction: 'mean'"):
        mean = nn.KLDivLoss()(log_q, p)
    assert torch.allclose(reduced_divergence(kl, known, classes, "mean"), mean)
    assert torch.allclose(reduced_divergence(kl, known, classes, "mean_times_batch"), mean * 10)
    ratio = reduced_divergence(kl, known, classes, "mean_times_batch") / batchmean
    assert abs(float(ratio) - 10 / classes) < 1e-9
    assert classes != 85 or abs(float(ratio) - 0.1176) < 1e-4


def test_the_gradient_is_that_of_cross_entropy_and_finite() -> None:
    """(softmax(z / T) - softmax(z_t / T)) / T for each sample; none reaches the targets."""
    z, z_t = _pair()
    z.requires_grad_()
    z_t.requires_grad_()
    soft_target_divergence(z, z_t, T).sum().backward()
    assert torch.allclose(z.grad, ((z / T).softmax(1) - (z_t / T).softmax(1)).detach() / T)
    assert z_t.grad is None


def test_a_softmax_over_some_classes_is_one_of_fewer_outputs() -> None:
    z, z_t = _pair()
    z.requires_grad_()
    read = torch.tensor([[True, True, False, False, False]] * 3 + [[False, False, True, True, True]] * 3)
    kl = soft_target_divergence(z, z_t, T, read)
    expected = [soft_target_divergence(z[i : i + 1, r], z_t[i : i + 1, r], T) for i, r in enumerate(read)]
    assert torch.allclose(kl, torch.cat(expected))
    kl.sum().backward()
    assert torch.isfinite(z.grad).all()
    assert torch.equal(z.grad[~read], torch.zeros(int((~read).sum())).double())
    classes = read.sum(1)
    assert torch.allclose(reduced_divergence(kl, ALL, classes, "mean"), (kl / classes).mean())


def test_outputs_that_the_targets_lack_have_probability_zero() -> None:
    z, z_t = _logits(1, k=K + 2), _logits(2)
    p = functional.pad((z_t / T).softmax(1), (0, 2))
    expected = nn.KLDivLoss(reduction="none")((z / T).log_softmax(1), p).sum(1)
    assert torch.allclose(soft_target_divergence(z, z_t, T), expected)


@pytest.mark.parametrize("reduction", ["batchmean", "mean", "mean_times_batch"])
def test_samples_without_a_target_do_not_count(reduction: Any) -> None:
    z, z_t = _pair()
    known = torch.tensor([True, False, True, True, False, False])
    kl = soft_target_divergence(z, z_t, T)
    some = reduced_divergence(kl, known, K, reduction)
    assert torch.allclose(some, reduced_divergence(kl[known], known[known], K, reduction))
    assert reduced_divergence(kl, ~ALL, K, reduction) == 0.0


# ---- the memory ------------------------------------------------------------------------------------------------------


def _batch(first: int, count: int) -> tuple[Tensor, Tensor]:
    """Samples whose input and label say which they are."""
    y = torch.arange(first, first + count)
    return y.float().view(-1, 1), y


def _network(bias: float) -> Any:
    """Logits from which sample and network can be read back."""
    return lambda x: torch.cat([x, torch.full_like(x, bias)], 1)


def _held(memory: TargetMemory) -> dict[int, tuple[list[float], bool]]:
    batch = memory.sample(10**6)
    if batch is None:
        return {}
    return {int(y): (z.tolist(), bool(k)) for y, z, k in zip(batch["y"], batch["z_t"], batch["known"], strict=True)}


def test_at_a_boundary_all_that_is_held_gets_a_target_and_what_comes_later_none() -> None:
    memory = TargetMemory(100, per_task=False, targets="boundary")
    memory.add(*_batch(0, 5))
    assert all(not known for _, known in _held(memory).values())
    memory.begin_task(_network(1.0))
    memory.add(*_batch(5, 3))
    held = _held(memory)
    assert [held[i] for i in range(5)] == [([float(i), 1.0], True) for i in range(5)]
    assert not any(held[i][1] for i in range(5, 8))
    memory.begin_task(_network(2.0))
    assert _held(memory) == {i: ([float(i), 2.0], True) for i in range(8)}


def test_stale_targets_are_those_of_the_place() -> None:
    """The released task-free code: a place filled since has zeros, a uniform target, or its predecessor's logits."""
    memory = TargetMemory(6, per_task=False, targets="boundary_stale", seed=1)
    memory.add(*_batch(0, 4))
    memory.begin_task(_network(1.0))
    memory.add(*_batch(4, 2))
    held = _held(memory)
    assert held[4] == ([0.0, 0.0], True)
    uniform = soft_target_divergence(_logits(3, 1, 2), torch.tensor([held[4][0]]).double(), T)
    expected = nn.KLDivLoss(reduction="sum")((_logits(3, 1, 2) / T).log_softmax(1), torch.full((1, 2), 0.5).double())
    assert torch.allclose(uniform, expected)
    for first in range(6, 60, 6):
        memory.add(*_batch(first, 6))
    late = {y: z for y, (z, _) in _held(memory).items() if y >= 6}
    assert late
    assert any(z[1] == 1.0 and z[0] != y for y, z in late.items())  # a predecessor's
    assert all(z[0] < 4 for z in late.values())
    memory.begin_task(_network(2.0))
    assert all(z == [float(y), 2.0] for y, (z, _) in _held(memory).items())


def test_targets_that_are_written_stay() -> None:
    memory = TargetMemory(100, per_task=False, targets="write")
    x, y = _batch(0, 4)
    memory.add(x, y, _network(7.0)(x))
    memory.begin_task(_network(1.0))
    assert _held(memory) == {i: ([float(i), 7.0], True) for i in range(4)}


def test_a_ring_for_each_task_gives_the_newest_of_earlier_ones_and_records_once() -> None:
    memory = TargetMemory(3, per_task=True, targets="boundary")
    for task in range(3):
        for first in range(10 * task, 10 * task + 8, 2):
            memory.add(*_batch(first, 2))
        assert set(_held(memory)) == {10 * t + i for t in range(task) for i in (5, 6, 7)}
        memory.begin_task(_network(float(task)))
        assert len(memory) == 3 * (task + 1)
    assert _held(memory) == {10 * t + i: ([10.0 * t + i, float(t)], True) for t in range(3) for i in (5, 6, 7)}


def test_a_task_of_fewer_samples_has_a_smaller_ring() -> None:
    """The authors' code fills up with whatever was in that memory."""
    memory = TargetMemory(5, per_task=True, targets="boundary")
    memory.add(*_batch(0, 2))
    memory.begin_task(_network(0.0))
    assert set(_held(memory)) == {0, 1}


@pytest.mark.parametrize("per_task", [False, True])
@pytest.mark.parametrize("targets", ["boundary", "boundary_stale", "write"])
def test_a_head_may_grow(per_task: bool, targets: Any) -> None:
    memory = TargetMemory(20, per_task, targets)
    for task in range(3):
        x, y = _batch(4 * task, 4)
        z = torch.ones(4, task + 2) if targets == "write" else None
        memory.add(x, y, z)
        memory.begin_task(lambda x, k=task + 2: torch.ones(len(x), k))
    batch = memory.sample(100)
    assert batch is not None
    assert batch["z_t"].shape == (12, 4)
    assert torch.isfinite(soft_target_divergence(torch.zeros(12, 4), batch["z_t"], T)).all()


@pytest.mark.parametrize("per_task", [False, True])
def test_saved_and_loaded_it_goes_on_alike(per_task: bool) -> None:
    def filled() -> TargetMemory:
        return TargetMemory(4, per_task, "boundary", seed=3)

    memory, other = filled(), filled()
    for task in range(2):
        memory.add(*_batch(10 * task, 9))
        memory.begin_task(_network(float(task)))
    memory.add(*_batch(20, 3))
    memory.sample(2)
    stream = io.BytesIO()
    torch.save(memory.state_dict(), stream)
    other.load_state_dict(torch.load(io.BytesIO(stream.getvalue()), weights_only=True))
    for held in (memory, other):
        held.add(*_batch(30, 9))
        held.begin_task(_network(9.0))
    for _ in range(3):
        first, second = memory.sample(3), other.sample(3)
        assert first is not None
        assert second is not None
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert memory.bytes() == other.bytes()


def test_without_places_nothing_happens() -> None:
    for per_task in (False, True):
        memory = TargetMemory(0, per_task, "boundary")
        memory.add(*_batch(0, 4))
        memory.begin_task(_network(0.0))
        assert memory.sample(3) is None
        assert memory.bytes() == 0
