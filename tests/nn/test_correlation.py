"""Running correlation and weights of features against loops, closed forms, enumeration, and the matrix's symmetries."""

import itertools
from typing import Any

import cl_ext  # noqa: F401
from cl_ext.nn.correlation import (
    RunningCorrelation,
    feature_weights,
    kept_meaning,
    normalised,
    null_level,
    redundancy,
    shuffled,
)
from cl_ext.nn.selfsupervised import cross_correlation

import numpy as np
import pytest
import torch
from torch import Tensor

N, D = 40, 6


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _views(seed: int = 0, n: int = N) -> tuple[Tensor, Tensor]:
    """Two noisy views of features that depend on one another and are unequally invariant."""
    z = _normal(n, D, seed=seed) @ _normal(D, D, seed=99)
    noise = torch.linspace(0.1, 2.0, D, dtype=torch.float64)
    return z + noise * _normal(n, D, seed=seed + 1000), z + noise * _normal(n, D, seed=seed + 2000)


def _running(batches: list[tuple[Tensor, Tensor]], decay: float = 0.8) -> RunningCorrelation:
    running = RunningCorrelation(D, decay)
    for z1, z2 in batches:
        running.update(z1, z2)
    return running


BATCHES = [_views(seed, 20 + 5 * seed) for seed in range(7)]


# ---- the weights -----------------------------------------------------------------------------------------------------


def test_whitened_identical_views_weigh_all_features_alike() -> None:
    z = _normal(N, D)
    z = torch.linalg.qr(z - z.mean(0))[0] * N**0.5
    running = _running([(z, z)] * 3)
    assert torch.allclose(running.matrix, torch.eye(D, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(running.weights("correlation"), torch.ones(D, dtype=torch.float64), atol=1e-12)
    assert running.invariance() == pytest.approx(1.0)


def test_weights_by_loops() -> None:
    C, null = cross_correlation(*_views()), 0.02
    raw = []
    for i in range(D):
        others = sum(float(C[i, j]) ** 2 for j in range(D) if j != i) / (D - 1)
        raw.append(max(0.0, float(C[i, i])) * (1.0 - max(0.0, others - null)))
    expected = np.array(raw) / np.mean(raw)
    assert np.allclose(feature_weights(C, null).numpy(), expected, atol=1e-12)
    assert expected.max() / expected.min() > 1.5  # unequal enough for the test to say something


def test_an_invariant_feature_weighs_more_and_a_repeated_one_less() -> None:
    z = _normal(4000, 4)
    z[:, 1] = z[:, 0] + 0.1 * z[:, 1]  # 0 and 1 repeat one another
    noisy = z.clone()
    noisy[:, 3] += 2.0 * _normal(4000, seed=5)  # 3 changes with the view
    w = feature_weights(cross_correlation(z, noisy), null_level(4000))
    assert w[2] > w[0] > w[3]
    assert abs(float(w[0] / w[2]) - 2 / 3) < 0.02  # one of three others is it once more
    assert abs(float(w[3] / w[2]) - 5**-0.5) < 0.05  # correlation of a signal of variance 1 with noise of variance 4


@pytest.mark.parametrize("kind", ["correlation", "shuffled", "variance", "identity"])
def test_every_kind_has_mean_one(kind: Any) -> None:
    assert _running(BATCHES).weights(kind, 3).mean() == pytest.approx(1.0)


def test_where_no_feature_is_above_zero_all_are_alike() -> None:
    z = _normal(N, D)
    assert torch.equal(feature_weights(cross_correlation(z, -z)), torch.ones(D, dtype=torch.float64))
    assert torch.equal(normalised(torch.zeros(3)), torch.ones(3))


def test_one_feature_alone_repeats_nothing() -> None:
    C = torch.full((1, 1), 0.3)
    assert torch.equal(redundancy(C, 0.2), torch.zeros(1))
    assert torch.equal(feature_weights(C), torch.ones(1))


# ---- symmetries ------------------------------------------------------------------------------------------------------


def test_positive_affine_maps_of_features_change_nothing() -> None:
    scale, shift = _normal(D, seed=3).exp(), _normal(D, seed=4)
    plain, mapped = _running(BATCHES), _running([(a * scale + shift, b) for a, b in BATCHES])
    assert torch.allclose(plain.matrix, mapped.matrix, atol=1e-12)
    assert torch.allclose(plain.weights("correlation"), mapped.weights("correlation"), atol=1e-12)
    assert not torch.allclose(plain.weights("variance"), mapped.weights("variance"))


def test_a_flipped_sign_flips_the_matrix_and_a_flipped_feature_weighs_nothing() -> None:
    plain = _running(BATCHES)
    assert torch.allclose(_running([(a, -b) for a, b in BATCHES]).matrix, -plain.matrix, atol=1e-12)
    sign = torch.ones(D, dtype=torch.float64)
    sign[2] = -1
    flipped = _running([(a, sign * b) for a, b in BATCHES])
    assert flipped.weights("correlation")[2] == 0.0
    assert torch.allclose(flipped.matrix, plain.matrix * sign, atol=1e-12)


def test_exchanged_views_transpose_the_matrix() -> None:
    exchanged = _running([(b, a) for a, b in BATCHES])
    assert torch.allclose(exchanged.matrix, _running(BATCHES).matrix.T, atol=1e-12)
    assert not torch.allclose(exchanged.matrix, exchanged.matrix.T)


@pytest.mark.parametrize("kind", ["correlation", "variance"])
def test_permuted_features_permute_the_weights(kind: Any) -> None:
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    permuted = _running([(a[:, order], b[:, order]) for a, b in BATCHES])
    assert torch.allclose(permuted.weights(kind), _running(BATCHES).weights(kind)[order], atol=1e-12)


# ---- chance ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 4, 5])
@pytest.mark.parametrize("std", ["biased", "unbiased"])
def test_the_null_level_is_the_mean_over_all_orders_of_any_data(n: int, std: Any) -> None:
    """Enumeration: independence means that every order of the second view's samples is equally likely."""
    z1, z2 = _normal(n, 2, seed=7).exp(), _normal(n, 2, seed=8) ** 3
    squares = [cross_correlation(z1, z2[list(order)], std).square() for order in itertools.permutations(range(n))]
    mean = torch.stack(squares).mean(0)
    assert torch.allclose(mean, torch.full_like(mean, null_level(n, std)), atol=1e-12)


def test_without_dependence_the_mean_redundancy_is_zero() -> None:
    """Over 400 runs of 5 batches of unequal sizes; without the subtraction it is far from 0."""
    means, raw = [], []
    for seed in range(400):
        batches = [(_normal(n, D, seed=10_000 + 20 * seed + n), _normal(n, D, seed=seed)) for n in (8, 12, 9, 16, 10)]
        running = _running(batches, 0.7)
        means.append(float(redundancy(running.matrix, running.null).mean()))
        raw.append(float(redundancy(running.matrix).mean()))
    error = np.std(means) / len(means) ** 0.5
    assert abs(np.mean(means)) < 4 * error
    assert np.mean(raw) > 40 * error


def test_the_null_of_a_running_mean_is_that_of_its_shares() -> None:
    decay, sizes = 0.8, [len(a) for a, _ in BATCHES]
    shares = np.array([(1 - decay) * decay ** (len(sizes) - 1 - b) for b in range(len(sizes))])
    shares /= shares.sum()
    assert _running(BATCHES, decay).null == pytest.approx(sum(shares**2 / (np.array(sizes) - 1)))


# ---- the running mean ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_the_running_mean_by_its_closed_form(decay: float) -> None:
    count = len(BATCHES)
    shares = [(1 - decay) * decay ** (count - 1 - b) / (1 - decay**count) for b in range(count)]
    assert sum(shares) == pytest.approx(1.0)
    running = _running(BATCHES, decay)
    matrix = sum(share * cross_correlation(a, b) for share, (a, b) in zip(shares, BATCHES, strict=True))
    variance = sum(
        share * (a.numpy().var(0) + b.numpy().var(0)) / 2 for share, (a, b) in zip(shares, BATCHES, strict=True)
    )
    assert torch.allclose(running.matrix, matrix, atol=1e-12)  # type: ignore[arg-type]
    assert np.allclose(running.variance.numpy(), variance, atol=1e-10)
    assert running.steps == count


def test_of_equal_batches_it_is_their_matrix_from_the_first_on() -> None:
    """The correction for the start: without it the first would be a hundredth of it."""
    running = RunningCorrelation(D, 0.99)
    for _ in range(3):
        running.update(*BATCHES[0])
        assert torch.allclose(running.matrix, cross_correlation(*BATCHES[0]), atol=1e-12)
        assert running.invariance() == pytest.approx(float(cross_correlation(*BATCHES[0]).diagonal().mean()))


def test_one_sample_is_no_batch() -> None:
    running = _running(BATCHES)
    before = running.state_dict()
    running.update(_normal(1, D), _normal(1, D))
    assert running.steps == before["steps"]
    assert torch.equal(running.matrix, _running(BATCHES).matrix)


def test_half_precision_is_averaged_in_single() -> None:
    running = RunningCorrelation(D, 0.99)
    running.update(*(part.bfloat16() for part in BATCHES[0]))
    assert running.matrix.dtype == torch.float32


def test_saved_and_restored_it_goes_on_alike() -> None:
    whole, half = _running(BATCHES), _running(BATCHES[:3])
    state = half.state_dict()
    restored = RunningCorrelation(D, 0.8)
    restored.load_state_dict(state)
    half.update(*BATCHES[3])  # what was saved is a copy
    for batch in BATCHES[3:]:
        restored.update(*batch)
    assert torch.equal(restored.matrix, whole.matrix)
    assert torch.equal(restored.variance, whole.variance)
    assert restored.null == whole.null
    assert whole.bytes() == (D * D + D) * 8


@pytest.mark.parametrize(("D_", "decay", "message"), [(0, 0.5, "at least one feature"), (3, 1.0, r"decay must be in"),
                                                      (3, -0.1, "decay must be in")])  # fmt: skip
def test_bad_arguments(D_: int, decay: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunningCorrelation(D_, decay)


def test_of_no_batch_there_is_no_matrix() -> None:
    with pytest.raises(ValueError, match="no batch"):
        RunningCorrelation(3).weights("correlation")


# ---- controls and comparisons ----------------------------------------------------------------------------------------


def test_shuffled_weights_are_the_same_ones_at_other_features() -> None:
    running = _running(BATCHES)
    w, control = running.weights("correlation"), running.weights("shuffled", 5)
    assert torch.equal(w.sort().values, control.sort().values)
    assert not torch.equal(w, control)
    assert torch.equal(control, running.weights("shuffled", 5))
    assert not torch.equal(control, running.weights("shuffled", 6))
    order = shuffled(torch.arange(D), 5)  # one permutation for all weights of a seed
    assert torch.equal(control, w[order])


def test_the_other_controls() -> None:
    running = _running(BATCHES)
    assert torch.equal(running.weights("identity"), torch.ones(D, dtype=torch.float64))
    assert torch.allclose(running.weights("variance"), running.variance / running.variance.mean())


def test_kept_meaning_is_the_cross_model_diagonal() -> None:
    z_old, z = _views()
    assert torch.allclose(kept_meaning(z_old, z), cross_correlation(z_old, z).diagonal(), atol=1e-12)
    numpy = np.corrcoef(z_old.numpy(), z.numpy(), rowvar=False)[:D, D:].diagonal()
    assert np.allclose(kept_meaning(z_old, z).numpy(), numpy, atol=1e-12)


def test_kept_meaning_of_what_has_changed() -> None:
    z = _normal(5000, 5)
    now = torch.stack([3 * z[:, 0] - 7, -z[:, 1], _normal(5000, seed=3), torch.ones(5000).double(), z[:, 4]], 1)
    z[:, 4] = 2.0  # did not vary before: says nothing
    kept = kept_meaning(z, now)
    assert kept[0] == pytest.approx(1.0)
    assert kept[1] == pytest.approx(-1.0)
    assert abs(float(kept[2])) < 4 / 5000**0.5
    assert kept[3] == 0.0
    assert torch.isnan(kept[4])
