"""A variational auto-encoder for samples of any shape (Kingma & Welling, ICLR 2014).

Symbols: `x` a sample of D values, `z` its latent code of L, `mu` and `logvar` the mean and log-variance of q(z | x),
`h` what the decoder gives, D numbers. The loss is the negative evidence lower bound, in nats, summed over the D values:

    -ELBO = E_q(z|x) [-log p(x | z)] + KL(q(z | x) || N(0, I))  >=  -log p(x)
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

Likelihood = Literal["bernoulli", "gaussian"]
"""p(x | z): for values in [0, 1], or for any."""


def gaussian_kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """Returns `KL(N(mu, exp(logvar)) || N(0, I)) = 1/2 sum_l (mu_l^2 + exp(logvar_l) - logvar_l - 1)`, (B,)."""
    return 0.5 * (mu.square() + logvar.exp() - logvar - 1.0).sum(1)


def bernoulli_nll(h: Tensor, x: Tensor) -> Tensor:
    """Returns `-sum_d (x_d log p_d + (1 - x_d) log (1 - p_d))`, `p = sigmoid(h)`, (B,).

    For values between 0 and 1 it is the cross-entropy: the expected likelihood of a binary image drawn from x.
    """
    return functional.binary_cross_entropy_with_logits(h, x, reduction="none").sum(1)


def gaussian_nll(h: Tensor, x: Tensor, logvar: Tensor) -> Tensor:
    """Returns `1/2 sum_d ((x_d - h_d)^2 / s^2 + log(2 pi s^2))`, (B,), with `logvar` = log s^2, a scalar."""
    return 0.5 * ((x - h).square() / logvar.exp() + logvar + math.log(2.0 * math.pi)).sum(1)


class VAE(nn.Module):
    """An encoder and a decoder of ReLU layers, mirror images of each other.

    With the Gaussian likelihood the decoder is linear at its end and s^2, one variance for all values, is learnt with
    the weights, so the scale of the data needs no weight between the two terms of the loss. What is sampled is the mean
    of p(x | z), without its noise: grey values, not black and white dots.

    Attributes:
        shape: of a sample.
        latent: L.
        likelihood: "bernoulli" or "gaussian".
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent: int = 100,
        hidden: Sequence[int] = (400, 400),
        likelihood: Likelihood = "bernoulli",
        generator: torch.Generator | None = None,
    ) -> None:
        """Makes one with PyTorch's usual initial weights.

        Args:
            shape: of a sample.
            latent: L >= 1.
            hidden: units of the encoder's layers, in order; may be empty.
            likelihood: "bernoulli" for values in [0, 1], "gaussian" for any.
            generator: draws the weights, on the CPU; None for the global one.

        Raises:
            ValueError: if an argument is out of its range.
        """
        super().__init__()
        self.shape = tuple(int(size) for size in shape)
        inputs = math.prod(self.shape)
        if min(inputs, latent, *hidden) < 1 or likelihood not in get_args(Likelihood):
            raise ValueError(
                f"VAE: shape {self.shape}, latent {latent} and hidden {tuple(hidden)} must be at least 1 everywhere, "
                f"and likelihood one of {', '.join(map(repr, get_args(Likelihood)))}, got {likelihood!r}"
            )
        self.latent, self.likelihood = latent, likelihood
        sizes = [inputs, *hidden]
        self.encoder = _mlp([*sizes, 2 * latent], generator)
        self.decoder = _mlp([latent, *reversed(sizes)], generator)
        self.logvar = nn.Parameter(torch.zeros(())) if likelihood == "gaussian" else None

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns `mu` and `logvar` of q(z | x), (B, L) each."""
        mu, logvar = self.encoder(x.flatten(1)).chunk(2, dim=1)
        return mu, logvar

    def decode(self, z: Tensor) -> Tensor:
        """Returns the mean of p(x | z), (B, ...)."""
        h: Tensor = self.decoder(z)
        return (h.sigmoid() if self.logvar is None else h).view(-1, *self.shape)

    def negative_elbo(self, x: Tensor, noise: Tensor) -> Tensor:
        """Returns the negative ELBO of each sample with one draw `z = mu + exp(logvar / 2) noise`, (B,), in nats.

        Args:
            x: samples, (B, ...).
            noise: standard normal, (B, L).

        Raises:
            ValueError: if the samples have another shape.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"VAE: the samples have shape {tuple(x.shape[1:])}, it was made for {self.shape}")
        mu, logvar = self.encode(x)
        h = self.decoder(torch.addcmul(mu, (0.5 * logvar).exp(), noise))
        flat = x.flatten(1)
        nll = bernoulli_nll(h, flat) if self.logvar is None else gaussian_nll(h, flat, self.logvar)
        return nll + gaussian_kl(mu, logvar)

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns the mean over the batch of `negative_elbo`, a scalar.

        Args:
            x: samples, (B, ...); in [0, 1] for the Bernoulli likelihood.
            generator: draws the latent noise, on the CPU; None for the global one.
        """
        return self.negative_elbo(x, self._noise(len(x), generator)).mean()

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns n new samples, (n, ...), from z drawn from N(0, I)."""
        return self.decode(self._noise(n, generator))

    def _noise(self, n: int, generator: torch.Generator | None) -> Tensor:
        # drawn on the CPU, so that every device sees the same numbers
        return torch.randn(n, self.latent, generator=generator).to(next(self.parameters()))


def _mlp(sizes: Sequence[int], generator: torch.Generator | None) -> nn.Sequential:
    """Returns linear layers with ReLU between them; weights and biases are uniform within 1 / sqrt(inputs)."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
