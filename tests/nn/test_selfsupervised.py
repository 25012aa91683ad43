"""Barlow Twins against closed forms, numpy's correlation and the spec's noise floor; the faults that it avoids."""

import cl_ext  # noqa: F401
from cl_ext.nn.selfsupervised import (
    barlow_twins,
    cross_correlation,
    invariance_and_redundancy,
    make_projector,
    standardise,
)

import numpy as np
import pytest
import torch
from torch import Tensor

N, D = 30, 6


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _whitened(n: int = N, d: int = D) -> Tensor:
    """Columns of mean 0, orthogonal and of squared length n: biased deviation 1, no correlation."""
    z = _normal(n, d)
    return torch.linalg.qr(z - z.mean(0))[0] * n**0.5


def test_whitened_identical_views_cost_nothing_with_the_biased_deviation() -> None:
    z = _whitened()
    assert barlow_twins(cross_correlation(z, z)) < 1e-24


def test_whitened_identical_views_cost_d_over_n_squared_with_the_unbiased_one() -> None:
    z = _whitened(n=256, d=8)
    loss = barlow_twins(cross_correlation(z, z, "unbiased"))
    assert abs(float(loss) - 8 / 256**2) < 1e-12


def test_ten_samples_of_512_features_cost_52_though_the_views_are_identical() -> None:
    """The noise floor: rank 9, a diagonal of 0.9 (5.12 of the loss), and 47.1 of chance correlations."""
    losses = []
    for seed in range(20):
        z = _normal(10, 512, seed=seed)
        C = cross_correlation(z, z, "unbiased")
        assert torch.allclose(C.diagonal(), torch.full((512,), 0.9, dtype=torch.float64))
        losses.append(float(barlow_twins(C)))
    # C is z^T z / N of the standardised z, whose rank is that of the 10 x 10 z z^T
    assert torch.linalg.matrix_rank(standardise(z) @ standardise(z).T, tol=1e-6) == 9
    expected = 512 * 0.1**2 + 2e-3 * 512 * 511 * 0.9**2 / 9
    assert abs(np.mean(losses) - expected) < 4 * np.std(losses) / 20**0.5
    assert abs(expected - 52.3) < 0.1


@pytest.mark.parametrize(("std", "factor"), [("biased", 1.0), ("unbiased", (N - 1) / N)])
def test_it_is_pearsons_correlation(std: str, factor: float) -> None:
    z1, z2 = _normal(N, D, seed=1), _normal(N, D, seed=2) + 3.0
    expected = np.corrcoef(z1.numpy(), z2.numpy(), rowvar=False)[:D, D:] * factor
    assert np.allclose(cross_correlation(z1, z2, std).numpy(), expected, atol=1e-12)  # type: ignore[arg-type]


def test_symmetries_of_the_matrix() -> None:
    z1, z2, order = _normal(N, D, seed=1), _normal(N, D, seed=2), torch.tensor([3, 0, 5, 1, 2, 4])
    C = cross_correlation(z1, z2)
    scale, shift = _normal(D, seed=3).exp(), _normal(D, seed=4)
    assert torch.allclose(cross_correlation(z1 * scale + shift, z2), C)
    assert torch.allclose(cross_correlation(z1, -z2), -C)
    assert torch.allclose(cross_correlation(z2, z1), C.T)
    assert torch.allclose(cross_correlation(z1[:, order], z2[:, order]), C[order][:, order])


def test_the_loss_by_loops() -> None:
    C = _normal(D, D)
    diagonal = sum((float(C[i, i]) - 1) ** 2 for i in range(D))
    pairs = [float(C[i, j]) ** 2 for i in range(D) for j in range(D) if i != j]
    assert abs(float(barlow_twins(C, 0.3)) - (diagonal + 0.3 * sum(pairs))) < 1e-12
    means = invariance_and_redundancy(C)
    assert torch.allclose(means, torch.tensor([float(C.diagonal().mean()), sum(pairs) / len(pairs)]).double())


def test_the_gradient_by_finite_differences() -> None:
    z1, z2 = _normal(5, 3, seed=1).requires_grad_(), _normal(5, 3, seed=2).requires_grad_()
    for std in ("biased", "unbiased"):
        assert torch.autograd.gradcheck(lambda a, b, s=std: barlow_twins(cross_correlation(a, b, s), 0.5), (z1, z2))


def test_a_feature_that_does_not_vary_costs_one_and_has_no_gradient() -> None:
    """Written down plainly, (z - mean) / std is 0/0 there: the released code's NaN."""
    z = _whitened()
    z[:, 2] = 7.0
    z.requires_grad_()
    loss = barlow_twins(cross_correlation(z, z))
    (gradient,) = torch.autograd.grad(loss, z)
    assert abs(float(loss.detach()) - 1.0) < 1e-12
    assert torch.isfinite(gradient).all()
    naive = (z - z.mean(0)) / z.std(0)
    assert torch.isnan(naive).any()


def test_one_sample_has_no_deviation() -> None:
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        standardise(torch.ones(1, 3))
    with pytest.warns(UserWarning, match="degrees of freedom"):  # what the released code goes on with
        assert torch.isnan(torch.ones(1, 3).std(0)).all()


def test_the_projector_has_the_papers_size() -> None:
    assert sum(p.numel() for p in make_projector(512, 256, 512).parameters()) == 512 * 256 + 2 * 256 + 256 * 512
