"""How similar two tasks are: numbers in [0, 1] from features, predictions, Fisher matrices and correlations.

Symbols: `z` features (N, D) of a task's samples under a network that is the same for all tasks, `CE` a network's
cross-entropy on them, `C` the number of classes.

Linear CKA (Kornblith et al. 2019) compares two networks on the same samples. Two tasks share no samples but, under one
frozen network, they share the features; with features in the place of samples, the same formula is the cosine of the
tasks' feature covariances, which is `feature_similarity`. The cosine of mean features would be cheaper, and tells less:
features after a ReLU all have positive means, so it is near 1 for any two tasks.
"""

import math
from collections.abc import Mapping

from cl_ext.nn.selfsupervised import cross_correlation

import torch
from torch import Tensor
from torch.nn import functional


def cosine(a: Tensor, b: Tensor) -> float:
    """Returns `<a, b> / (|a| |b|)` of two tensors of one shape, clipped to [0, 1]; 0 where one of them is zero.

    Args:
        a: of any shape.
        b: of the same shape.

    Raises:
        ValueError: if the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"a cosine is of two tensors of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    a, b = a.detach().flatten().double(), b.detach().flatten().double()
    return min(1.0, max(0.0, float(functional.cosine_similarity(a, b, dim=0, eps=torch.finfo(a.dtype).tiny))))


def covariance(z: Tensor) -> Tensor:
    """Returns the features' covariance matrix over the samples, (D, D), divided by N; zero for one sample.

    Args:
        z: features, (N, D), N >= 1.
    """
    centred = z - z.mean(0)
    return centred.T @ centred / len(z)


def feature_similarity(z_t: Tensor, z_u: Tensor) -> float:
    """Returns the cosine of the covariances of two tasks' features, in [0, 1].

    It is 1 where they are proportional, 0 where no feature direction varies in both. Labels play no part. Covariances
    are positive semidefinite, so their inner product is never negative and nothing is clipped.

    Args:
        z_t: features of one task's samples, (N, D).
        z_u: of another's, (M, D).
    """
    return cosine(covariance(z_t), covariance(z_u))


def readout_similarity(cross_entropy: float, classes: int) -> float:
    """Returns `clip(1 - CE / ln C)`, in [0, 1]: 1 for perfect predictions, 0 for those no better than guessing.

    Args:
        cross_entropy: of a network's predictions of the task's own labels, >= 0, in nats; one that is not finite
            gives 0.
        classes: C, how many classes a guess is among; fewer than 2 count as 2, as `ln 1` is 0.
    """
    if not math.isfinite(cross_entropy):
        return 0.0
    return min(1.0, max(0.0, 1.0 - cross_entropy / math.log(max(2, classes))))


def product_similarity(feature: float, readout: float) -> float:
    """Returns `feature * readout`, in [0, 1]: similar inputs that ask for other answers are not similar tasks.

    High similarity of features with low similarity of the readout is the case in which most is forgotten (Hiratani,
    arXiv 2405.20236).

    Args:
        feature: in [0, 1].
        readout: in [0, 1].
    """
    return feature * readout


def fisher_vector(fisher: Mapping[str, Tensor]) -> Tensor:
    """Returns a diagonal Fisher matrix as one vector, (p,), >= 0; the cosine of two is in [0, 1] without a clip.

    Args:
        fisher: by the parameters' names, of their shapes, as `diagonal_fisher` gives it.
    """
    return torch.cat([part.flatten() for part in fisher.values()])


def correlation_matrix(z1: Tensor, z2: Tensor) -> Tensor:
    """Returns Barlow Twins' cross-correlation of two views' features, (D, D) in [-1, 1]; zero for one sample.

    Args:
        z1: features of the first view of each sample, (N, D).
        z2: of the second.
    """
    return z1.new_zeros(z1.shape[1], z1.shape[1]) if len(z1) < 2 else cross_correlation(z1, z2)
