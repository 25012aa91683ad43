"""The VAE: its two terms against torch.distributions, its bound against the exact likelihood of a linear model."""

import itertools
import math
from fractions import Fraction

from cl_ext.models.vae import VAE, bernoulli_nll, gaussian_kl, gaussian_nll
from cl_ext.nn.generators import train_on_union

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, MultivariateNormal, Normal, kl_divergence


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear_vae(generator: torch.Generator, D: int = 5, L: int = 2) -> VAE:
    """`x = W z + b + s noise` with orthogonal columns of W, and a random encoder, in float64."""
    vae = VAE((D,), L, (), "gaussian", generator).double()
    with torch.no_grad():
        basis = torch.linalg.qr(torch.randn(D, L, generator=generator).double()).Q
        vae.decoder[0].weight.copy_(basis * torch.tensor([2.0, 0.7]).double())
        vae.logvar.fill_(math.log(0.3))  # type: ignore[union-attr]
    return vae


def marginal(vae: VAE) -> MultivariateNormal:
    """p(x) = N(b, W W^T + s^2 I)."""
    W, b, s2 = vae.decoder[0].weight, vae.decoder[0].bias, vae.logvar.exp()  # type: ignore[union-attr]
    return MultivariateNormal(b, W @ W.T + s2 * torch.eye(len(W)).double())


def set_posterior(vae: VAE) -> None:
    """The encoder becomes p(z | x) = N(M^-1 W^T (x - b), s^2 M^-1), M = W^T W + s^2 I, which is diagonal here."""
    W, b, s2 = vae.decoder[0].weight, vae.decoder[0].bias, vae.logvar.exp()  # type: ignore[union-attr]
    with torch.no_grad():
        m = (W.T @ W).diagonal() + s2
        to_mean = W.T / m[:, None]
        vae.encoder[0].weight.copy_(torch.cat([to_mean, torch.zeros_like(to_mean)]))
        vae.encoder[0].bias.copy_(torch.cat([-to_mean @ b, (s2 / m).log()]))


def expected_negative_elbo(vae: VAE, x: Tensor) -> Tensor:
    """The exact expectation: the loss of a linear decoder is quadratic in the noise, and signs have its moments."""
    signs = [torch.tensor(s).double().expand(len(x), -1) for s in itertools.product((-1.0, 1.0), repeat=vae.latent)]
    return torch.stack([vae.negative_elbo(x, noise) for noise in signs]).mean(0).detach()


# ---- the terms -------------------------------------------------------------------------------------------------------
def test_the_divergence_from_the_prior_is_the_closed_form() -> None:
    mu, logvar = torch.randn(2, 6, 3, generator=seeded()).double()
    theirs = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(torch.zeros(3).double(), 1.0)).sum(1)
    torch.testing.assert_close(gaussian_kl(mu, logvar), theirs)
    assert gaussian_kl(torch.zeros(1, 3), torch.zeros(1, 3)).item() == 0.0


def test_the_bernoulli_term_is_the_likelihood_of_binary_images_and_their_expectation_for_grey_ones() -> None:
    h = torch.randn(4, 3, generator=seeded()).double()
    grey = torch.rand(4, 3, generator=seeded(1)).double()
    expected = torch.zeros(4).double()
    for bits in itertools.product((0.0, 1.0), repeat=3):
        image = torch.tensor(bits).double().expand(4, -1)
        own = -Bernoulli(logits=h).log_prob(image).sum(1)
        torch.testing.assert_close(bernoulli_nll(h, image), own)
        expected += Bernoulli(probs=grey).log_prob(image).sum(1).exp() * own
    torch.testing.assert_close(bernoulli_nll(h, grey), expected)


def test_the_gaussian_term_is_the_density_with_one_variance() -> None:
    h, x = torch.randn(2, 4, 3, generator=seeded()).double()
    logvar = torch.tensor(-0.7).double()
    torch.testing.assert_close(gaussian_nll(h, x, logvar), -Normal(h, (0.5 * logvar).exp()).log_prob(x).sum(1))


# ---- the bound -------------------------------------------------------------------------------------------------------
def test_the_bound_holds_and_is_tight_at_the_posterior() -> None:
    vae = linear_vae(seeded())
    x = torch.randn(7, 5, generator=seeded(1)).double() * 2
    exact = -marginal(vae).log_prob(x)
    assert bool((expected_negative_elbo(vae, x) > exact + 0.1).all())  # a random encoder
    set_posterior(vae)
    torch.testing.assert_close(expected_negative_elbo(vae, x), exact)


def test_the_loss_is_a_monte_carlo_estimate_of_the_expected_bound() -> None:
    vae, x = linear_vae(seeded()), torch.randn(7, 5, generator=seeded(1)).double()
    set_posterior(vae)
    draws = torch.stack([vae.loss(x, seeded(2 + n)) for n in range(400)]).detach()
    four_sigma = 4 * float(draws.std()) / 400**0.5
    assert float(draws.mean()) == pytest.approx(float(expected_negative_elbo(vae, x).mean()), abs=four_sigma)


def test_training_a_linear_one_reaches_the_best_likelihood_of_probabilistic_pca() -> None:
    """Tipping & Bishop 1999: s^2 is the mean of the D - L smallest eigenvalues; the bound is tight at the optimum."""
    D, L = 4, 2
    mix = torch.tensor([[2.0, 0, 0, 0], [0.5, 1.2, 0, 0], [0, 0.3, 0.4, 0], [0.1, 0, 0.1, 0.3]])
    x = torch.randn(400, D, generator=seeded()) @ mix.T + 1.0
    values = torch.linalg.eigvalsh((x - x.mean(0)).T @ (x - x.mean(0)) / len(x)).double()
    s2 = values[: D - L].mean()
    best = 0.5 * (D * math.log(2 * math.pi) + values[D - L :].log().sum() + (D - L) * s2.log() + D)
    vae = VAE((D,), L, (), "gaussian", seeded(3))
    train_on_union(vae, x, None, Fraction(1), 200, 800, 0.03, seeded(4))
    reached = torch.stack([vae.loss(x, seeded(n)).detach() for n in range(50)]).mean()
    assert float(best) - 0.025 < float(reached) < float(best) + 0.05
    assert vae.logvar.exp().item() == pytest.approx(float(s2), rel=0.1)  # type: ignore[union-attr]


# ---- samples ---------------------------------------------------------------------------------------------------------
def test_samples_are_the_means_of_the_model() -> None:
    vae = linear_vae(seeded())
    samples = vae.sample(20_000, seeded(1))
    W, b = vae.decoder[0].weight.detach(), vae.decoder[0].bias.detach()
    torch.testing.assert_close(samples.mean(0), b, atol=0.06, rtol=0)
    torch.testing.assert_close(samples.T.cov(), W @ W.T, atol=0.1, rtol=0)
    assert not samples.requires_grad


@pytest.mark.parametrize("shape", [(1, 4, 3), (7,), (2, 2, 2, 2)])
def test_any_shape_and_the_range_of_bernoulli_samples(shape: tuple[int, ...]) -> None:
    vae = VAE(shape, 2, (6, 3), generator=seeded())
    x = vae.sample(5, seeded(1))
    assert x.shape == (5, *shape)
    assert bool((x > 0).all())
    assert bool((x < 1).all())
    assert vae.encode(x)[0].shape == (5, 2)
    assert [layer.out_features for layer in vae.encoder[::2]] == [6, 3, 4]  # type: ignore[union-attr]
    assert [layer.out_features for layer in vae.decoder[::2]] == [3, 6, math.prod(shape)]  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"the samples have shape \(9,\), it was made for"):
        vae.loss(torch.zeros(2, 9))


def test_its_random_numbers_are_its_generators() -> None:
    state = torch.get_rng_state()
    first, second = VAE((3,), 2, (4,), generator=seeded()), VAE((3,), 2, (4,), generator=seeded())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert torch.equal(first.sample(4, seeded(1)), second.sample(4, seeded(1)))
    x = torch.zeros(2, 3)
    assert torch.equal(first.loss(x, seeded(1)), second.loss(x, seeded(1)))
    assert not torch.equal(first.loss(x, seeded(1)), first.loss(x, seeded(2)))
    assert torch.equal(state, torch.get_rng_state())


def test_initial_weights_are_pytorchs() -> None:
    bound = 50**-0.5
    weight = VAE((50,), 30, (200,), generator=seeded()).encoder[0].weight.detach()
    assert bound * 0.99 < float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.03)


@pytest.mark.parametrize("arguments", [{"shape": (0,)}, {"shape": (2,), "latent": 0}, {"shape": (2,), "hidden": (0,)},
                                       {"shape": (2,), "likelihood": "poisson"}])  # fmt: skip
def test_bad_sizes(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"VAE: shape .* must be at least 1 everywhere, and likelihood one of"):
        VAE(**arguments)  # type: ignore[arg-type]
