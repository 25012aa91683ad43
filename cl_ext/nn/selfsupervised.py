"""Barlow Twins (Zbontar et al., ICML 2021): the cross-correlation matrix of two views' features, and the loss on it.

Symbols: `z1`, `z2` the features (N, D) of two views of N samples, `C` their cross-correlation matrix (D, D), `gamma`
the weight of the off-diagonal.
"""

from typing import Literal

import torch
from torch import Tensor, nn

Deviation = Literal["biased", "unbiased"]

EPSILON = 1e-5
"""The least standard deviation that a feature is divided by: one that does not vary stays 0 in place of 0/0."""


def standardise(z: Tensor, std: Deviation = "biased") -> Tensor:
    """Returns `z` (N, D) with each feature brought to mean 0 and standard deviation 1 over the samples.

    Args:
        z: features, N >= 2.
        std: "biased" divides the squares by N, "unbiased" by N - 1.

    Raises:
        ValueError: if there are fewer than two samples.
    """
    if len(z) < 2:
        raise ValueError(f"features can be standardised over at least 2 samples, got {len(z)}")
    centred = z - z.mean(0)
    variance = centred.square().sum(0) / (len(z) - (std == "unbiased"))
    # the clamp is inside the root: the root's derivative is infinite at 0
    return centred / variance.clamp_min(EPSILON**2).sqrt()


def cross_correlation(z1: Tensor, z2: Tensor, std: Deviation = "biased") -> Tensor:
    """Returns `C = standardise(z1)^T standardise(z2) / N`, (D, D).

    With the biased deviation `C_ij` is Pearson's correlation of feature i of the first and j of the second view, as in
    the paper's equation 2; with the unbiased one, which code commonly has, it is smaller by (N - 1) / N.

    Args:
        z1: features of the first view, (N, D), N >= 2.
        z2: of the second.
        std: see `standardise`.

    Raises:
        ValueError: if there are fewer than two samples.
    """
    return standardise(z1, std).T @ standardise(z2, std) / len(z1)


def barlow_twins(C: Tensor, gamma: float = 2e-3) -> Tensor:
    """Returns `sum_i (C_ii - 1)^2 + gamma sum_{i != j} C_ij^2`, a scalar.

    N samples span N - 1 directions after centring, so with D >= N features identical views still cost about
    `gamma D (D - 1) / N` in sampling noise.

    Args:
        C: the cross-correlation matrix, (D, D).
        gamma: >= 0; DualNet's code has 2e-3.
    """
    diagonal = C.diagonal()
    return (diagonal - 1.0).square().sum() + gamma * (C - diagonal.diag()).square().sum()


def make_projector(features: int, hidden: int, outputs: int) -> nn.Sequential:
    """Returns DualNet's projector: linear, batch norm, ReLU, linear; no biases in the linear layers."""
    return nn.Sequential(
        nn.Linear(features, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(),
        nn.Linear(hidden, outputs, bias=False),
    )  # fmt: skip


@torch.no_grad()
def invariance_and_redundancy(C: Tensor) -> Tensor:
    """Returns the mean of `C_ii` and the mean of `C_ij^2` over i != j, (2,)."""
    diagonal = C.diagonal()
    pairs = max(1, C.numel() - len(diagonal))
    return torch.stack([diagonal.mean(), (C - diagonal.diag()).square().sum() / pairs])
