"""The projections against an independent solver, their optimality conditions and closed forms, in float64."""

from typing import Any

from cl_ext.nn.divergence import DivergedError
from cl_ext.nn.projection import FlatGradients, assign_gradient_, dual_solution, project_agem, project_gem

import numpy as np
import pytest
import quadprog
import torch
from torch import Tensor, nn

P = 12
EPSILON = 1e-3


def _problem(seed: int, t: int = 3, p: int = P) -> tuple[Tensor, Tensor]:
    """A gradient, (p,), and t others, (t, p), of which it violates about half."""
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
    return torch.randn(p, **options), torch.randn(t, p, **options)


def _violating(seed: int, t: int = 3, p: int = P) -> tuple[Tensor, Tensor]:
    g, G = _problem(seed, t, p)
    G[0] -= (1.5 * (G[0] @ g) / (g @ g) + 0.5) * g if float(G[0] @ g) > -0.5 else 0.0
    assert float(G[0] @ g) < 0
    return g, G


def _quadprog(g: Tensor, G: Tensor, margin: float, epsilon: float) -> Tensor:
    """The authors' dual, solved by Goldfarb and Idnani's method."""
    t = len(G)
    v = quadprog.solve_qp(
        (G @ G.T).numpy() + epsilon * np.eye(t), -(G @ g).numpy(), np.eye(t), np.full(t, float(margin))
    )[0]
    return g + G.T @ torch.from_numpy(v)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("t", "p"), [(1, P), (2, P), (5, P), (20, 40), (6, 3)])
@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_gem_equals_an_independent_solver(seed: int, t: int, p: int, margin: float) -> None:
    g, G = _violating(seed, t, p)
    result = project_gem(g, G, margin, EPSILON)
    torch.testing.assert_close(result.gradient, _quadprog(g, G, margin, EPSILON), rtol=1e-8, atol=1e-8)
    assert result.violated == int((G @ g < 0).sum())
    assert result.norm_ratio == pytest.approx(float(result.gradient.norm() / g.norm()), rel=1e-9)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("epsilon", [0.0, EPSILON])
@pytest.mark.parametrize("margin", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["generic", "parallel", "zero row", "more rows than parameters"])
def test_the_dual_solution_satisfies_its_optimality_conditions(
    seed: int, epsilon: float, margin: float, kind: str
) -> None:
    """v >= gamma, slack = (G G^T + epsilon I) v + G g >= 0, (v - gamma) slack = 0."""
    g, G = _violating(seed, 4, 3 if kind.startswith("more") else P)
    if kind == "parallel":
        G[2] = 2 * G[0]
    if kind == "zero row":
        G[1] = 0
    gram, dots = (G @ G.T).numpy(), (G @ g).numpy()
    v = dual_solution(gram, dots, margin, epsilon)
    slack = (gram + epsilon * np.eye(4)) @ v + dots
    assert (v >= margin).all()
    assert slack.min() > -1e-11
    assert np.abs((v - margin) * slack).max() < 1e-11


@pytest.mark.parametrize("seed", range(8))
def test_without_margin_and_regularisation_it_is_the_nearest_point(seed: int) -> None:
    """G g~ >= 0, and <g - g~, z - g~> <= 0 for every feasible z: the definition of a projection on a convex set."""
    g, G = _violating(seed)
    near = project_gem(g, G, 0.0, 0.0).gradient
    assert float((G @ near).min()) > -1e-12
    assert float(near.norm()) <= float(g.norm())
    others = torch.randn(4000, P, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    feasible = others[(others @ G.T >= 0).all(1)]
    assert len(feasible) > 100
    assert float(((feasible - near) @ (g - near)).max()) < 1e-11


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_what_the_regularisation_leaves_is_known(margin: float) -> None:
    g, G = _violating(3)
    v = dual_solution((G @ G.T).numpy(), (G @ g).numpy(), margin, EPSILON)
    dots = (G @ project_gem(g, G, margin, EPSILON).gradient).numpy()
    assert (dots >= -EPSILON * v - 1e-12).all()


@pytest.mark.parametrize("seed", range(8))
def test_one_constraint_is_a_gem(seed: int) -> None:
    g, G = _violating(seed, 1)
    torch.testing.assert_close(project_gem(g, G, 0.0, 0.0).gradient, project_agem(g, G[0]).gradient, rtol=0, atol=1e-14)


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_nothing_violated_nothing_changed(margin: float) -> None:
    """The very same vector, margin or not; a constraint met with equality is met."""
    g, G = _problem(0)
    G = torch.cat([G * torch.sign(G @ g)[:, None], torch.zeros(1, P, dtype=torch.float64)])
    before = g.clone()
    for result in (project_gem(g, G, margin), project_agem(g, G[0]), project_agem(g, torch.zeros_like(g))):
        assert result.gradient is g
        assert (result.violated, result.norm_ratio) == (0, 1.0)
    assert torch.equal(g, before)


def test_no_gradient_of_the_memory_at_all() -> None:
    for epsilon in (0.0, EPSILON):
        np.testing.assert_allclose(dual_solution(np.zeros((2, 2)), np.zeros(2), 0.5, epsilon), 0.5)
    g = torch.full((P,), 1e-30)
    assert project_agem(g, -g).gradient is g  # <g_ref, g_ref> is zero in float32
    assert project_gem(torch.zeros(P), torch.ones(2, P)).norm_ratio == 1.0


@pytest.mark.parametrize("scale", [1e-3, 7.0, 1e4])
def test_scaling(scale: float) -> None:
    """Without a margin g~ is homogeneous in g; it does not see the length of the constraints."""
    g, G = _violating(1)
    near = project_gem(g, G, 0.0, EPSILON).gradient
    torch.testing.assert_close(project_gem(scale * g, G, 0.0, EPSILON).gradient, scale * near, rtol=1e-10, atol=0)
    longer = project_gem(g, scale * G, 0.0, EPSILON * scale**2).gradient
    torch.testing.assert_close(longer, near, rtol=1e-9, atol=1e-12)
    agem = project_agem(g, G[0]).gradient
    torch.testing.assert_close(project_agem(scale * g, G[0] / scale).gradient, scale * agem, rtol=1e-12, atol=0)


@pytest.mark.parametrize("seed", range(20))
def test_agem(seed: int) -> None:
    """Parallel to g_ref nothing is left of a violation, across it nothing is changed."""
    g, G = _problem(seed, 1)
    result, reference = project_agem(g, G[0]), G[0]
    assert float(result.gradient @ reference) >= -1e-12
    assert float(result.gradient.norm()) <= float(g.norm())
    across = torch.eye(P, dtype=torch.float64) - torch.outer(reference, reference) / (reference @ reference)
    expected = across @ g if float(g @ reference) < 0 else g
    torch.testing.assert_close(result.gradient, expected, rtol=0, atol=1e-13)
    assert result.norm_ratio == pytest.approx(float(result.gradient.norm() / g.norm()), rel=1e-9)
    assert result.violated == int(float(g @ reference) < 0)


def _margin_on_the_dot_products(g: Tensor, G: Tensor) -> Tensor:
    """`min |z - g|` with `G z >= gamma` in place of `v >= gamma`."""
    z = quadprog.solve_qp(np.eye(P), g.numpy(), G.T.numpy().copy(), np.full(len(G), 0.5))[0]
    return torch.from_numpy(z)


def _no_margin(g: Tensor, G: Tensor) -> Tensor:
    return project_gem(g, G, 0.0).gradient


def _violated_rows_only(g: Tensor, G: Tensor) -> Tensor:
    """The others may be violated afterwards."""
    return project_gem(g, G[G @ g < 0], 0.5).gradient


def _one_after_the_other(g: Tensor, G: Tensor) -> Tensor:
    for row in G:
        g = project_agem(g, row).gradient
    return g


@pytest.mark.parametrize("faulty", [_margin_on_the_dot_products, _no_margin, _violated_rows_only, _one_after_the_other])
def test_negative_control(faulty: Any) -> None:
    """Each is far outside what the independent solver's oracle lets pass."""
    g, G = _violating(2)
    assert 0 < int((G @ g < 0).sum()) < 3
    assert float((faulty(g, G) - _quadprog(g, G, 0.5, EPSILON)).norm() / g.norm()) > 0.01


def test_negative_control_projecting_always() -> None:
    """The dual's margin moves a gradient that violates nothing."""
    g, G = _problem(0)
    G *= torch.sign(G @ g)[:, None]
    assert float((_quadprog(g, G, 0.5, EPSILON) - g).norm() / g.norm()) > 0.01
    assert project_gem(g, G, 0.5, EPSILON).gradient is g


def test_what_is_not_finite_is_told() -> None:
    g, G = _violating(0)
    G[1, 0] = float("nan")
    with pytest.raises(DivergedError, match="GEM cannot project"):
        project_gem(g, G)
    assert project_agem(g, G[1]).gradient is g


def test_flat_gradients_are_the_parameters_own() -> None:
    parameters = [torch.zeros(2, 3), torch.zeros(()), torch.zeros(4)]
    flat = FlatGradients()
    assert flat.bytes() == 0
    flat.align(parameters, 2)
    assert flat.bytes() == 2 * 11 * 4
    gradients = [torch.arange(6.0).view(2, 3), torch.tensor(7.0), None]
    flat.write_(1, [torch.ones(2, 3), torch.ones(()), torch.ones(4)])
    flat.write_(1, gradients)
    assert flat.rows[1].tolist() == [0, 1, 2, 3, 4, 5, 7, 0, 0, 0, 0]
    flat.align([torch.zeros(5, 2), torch.zeros(1)], 2)  # as many numbers, other shapes
    flat.write_(1, [torch.ones(5, 2), None])
    assert flat.rows[1].tolist() == [1] * 10 + [0]
    flat.align([torch.zeros(3, dtype=torch.float16)], 1)
    assert flat.rows.dtype == torch.float32


def test_an_absent_gradient_stays_absent_where_it_would_be_zero() -> None:
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.ones(2)
    held = parameters[0].grad
    flat = torch.tensor([5.0, 6.0, 0.0, 0.0, 0.0, 9.0])
    assign_gradient_(parameters, flat)
    assert parameters[0].grad is held
    assert held.tolist() == [5.0, 6.0]
    assert parameters[1].grad is None
    assert parameters[2].grad is not None
    flat.zero_()
    assert parameters[2].grad.tolist() == [0.0, 9.0]
