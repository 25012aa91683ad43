"""Proximal steps against the optimality conditions of what they minimise, and against a numerical minimiser."""

from collections.abc import Callable

from cl_ext.nn.proximal import shrink_groups_, soft_, sparse_group_, sparsify_

import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor


def cost(v: Tensor, w: Tensor, l1: float, group: float) -> float:
    """`1/2 |v - w|^2 + l1 |v|_1 + group |v|_2` of one group."""
    return float(0.5 * ((v - w) ** 2).sum() + l1 * v.abs().sum() + group * v.norm())


def rows(count: int = 200, size: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def applied(step: Callable[..., None], w: Tensor, *arguments: object) -> Tensor:
    v = w.clone()
    step(v, *arguments)
    return v


@pytest.mark.parametrize(("l1", "group"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.9), (0.3, 0.4), (0.6, 1.2)])
def test_the_sparse_group_step_meets_the_optimality_conditions(l1: float, group: float) -> None:
    w = rows()
    v = applied(sparse_group_, w, l1, group)
    zero_rows = 0
    for x, z in zip(v, w, strict=True):
        inner = z.sign() * (z.abs() - l1).clamp_min(0)
        if not x.any():
            assert inner.norm() <= group + 1e-12  # 0 is a subgradient there
            zero_rows += 1
            continue
        assert inner.norm() > group
        on = x != 0
        assert torch.allclose(x[on] - z[on] + l1 * x[on].sign() + group * x[on] / x.norm(), torch.zeros_like(x[on]))
        assert (z[~on].abs() <= l1).all()
    if group > 1:
        assert 0 < zero_rows < len(w)


@pytest.mark.parametrize(("l1", "group"), [(0.3, 0.4), (0.6, 0.8)])
def test_no_numerical_minimiser_finds_less(l1: float, group: float) -> None:
    w = rows(20, 3, seed=1)
    v = applied(sparse_group_, w, l1, group)
    for x, z in zip(v, w, strict=True):
        found = minimize(lambda u, z=z: cost(torch.from_numpy(u), z, l1, group), z.numpy(), method="Nelder-Mead",
                         options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000})  # fmt: skip
        assert cost(x, z, l1, group) <= found.fun + 1e-9
        assert cost(x, z, l1, group) == pytest.approx(found.fun, abs=1e-4)


def test_the_other_order_is_no_proximal_step() -> None:
    """Negative control: groups first and then entries loses, and by more than rounding."""
    w, l1, group = rows(), 0.4, 0.8
    ours = applied(sparse_group_, w, l1, group)
    other = w.clone()
    shrink_groups_(other, group, (1,))
    soft_([other], l1)
    losses = torch.tensor(
        [cost(b, z, l1, group) - cost(a, z, l1, group) for a, b, z in zip(ours, other, w, strict=True)]
    )
    assert losses.min() > -1e-12
    assert losses.max() > 1e-2


def test_exact_zeros_and_nothing_else() -> None:
    w = torch.tensor([[0.3, -0.3, 0.300001, -5.0, 0.0]])
    soft_([w], 0.3)
    assert w.eq(0).tolist() == [[True, True, False, False, True]]
    assert not torch.signbit(w[0, 4])
    threshold = 0.7
    norms = torch.tensor([threshold, threshold * (1 + 1e-6), threshold * (1 - 1e-6), 0.0, 1e-30])
    groups = torch.nn.functional.normalize(rows(5, 4), dim=1).float() * norms[:, None]
    exact = torch.linalg.vector_norm(groups, dim=1)
    shrink_groups_(groups, threshold, (1,))
    assert groups.eq(0).all(1).tolist() == (exact <= threshold).tolist()
    assert torch.isfinite(groups).all()


def test_a_group_just_above_the_threshold_is_not_zero() -> None:
    threshold = torch.tensor(0.1)
    above = torch.nextafter(threshold, torch.tensor(1.0))
    w = above.reshape(1, 1).clone()
    shrink_groups_(w, float(threshold), (1,))
    assert w.item() != 0


def test_convolutions_shrink_by_kernels_then_by_filters() -> None:
    """The step of nested groups from the inner to the outer ones, entry by entry in plain loops."""
    w = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = w.clone()
    for i in range(4):
        for j in range(3):
            expected[i, j] *= max(0.0, 1 - 1.7 / float(expected[i, j].norm()))
        if expected[i].any():
            expected[i] *= max(0.0, 1 - 1.1 / float(expected[i].norm()))
    ours = applied(sparse_group_, w, 1.7, 1.1)
    assert torch.allclose(ours, expected)
    assert 0 < int(ours.flatten(2).any(2).sum()) < 12
    kernels = w.clone()
    sparsify_([kernels], 1.7)
    alone = w.clone().reshape(12, 4)
    shrink_groups_(alone, 1.7, (1,))
    assert torch.equal(kernels.reshape(12, 4), alone)


def test_many_tensors_and_views_at_once_are_each_alone() -> None:
    base = torch.randn(6, 8, generator=torch.Generator().manual_seed(3))
    before = base.clone()
    sparsify_([base[4:], base[:4, 5:]], 0.5)
    assert torch.equal(base[:4, :5], before[:4, :5])
    for part in ((slice(4, 6), slice(None)), (slice(0, 4), slice(5, 8))):
        old = before[part]
        assert torch.equal(base[part], old - old.clamp(-0.5, 0.5))


def test_a_threshold_of_zero_does_nothing() -> None:
    w = rows(3)
    for step in (lambda v: sparsify_([v], 0.0), lambda v: sparse_group_(v, 0.0, 0.0)):
        assert torch.equal(applied(step, w), w)
