"""What Barlow Twins' cross-correlation matrix says about features: how invariant each is, how much others repeat it.

Symbols: `z1`, `z2` the features (N, D) of two views of N samples; `C` their cross-correlation matrix (D, D); `C_bar`
its running mean over batches; `w` (D,) weights of the features.

A single matrix is mostly chance where N is not much larger than D: without any dependence `C_ij^2` is 1/(N - 1) in the
mean, of any distribution (average over all orders of the second view's rows). A running mean of weights `a_b` over
batches b has `sum_b a_b^2 / (N_b - 1)`. That level is kept beside `C_bar` and taken off where squares are read.
"""

from collections.abc import Mapping
from typing import Any, Literal

from cl_ext.nn.selfsupervised import EPSILON, Deviation, cross_correlation, standardise

import torch
from torch import Tensor

WeightKind = Literal["correlation", "identity", "shuffled", "variance"]


def null_level(N: int, std: Deviation = "biased") -> float:
    """Returns the mean of `C_ij^2` of independent features over N >= 2 samples.

    1/(N - 1) with the biased deviation, where `C_ij` is Pearson's correlation; (N - 1)/N^2 with the unbiased one.
    """
    return 1.0 / (N - 1) if std == "biased" else (N - 1) / N**2


def redundancy(C: Tensor, null: float = 0.0) -> Tensor:
    """Returns `mean_{j != i} C_ij^2 - null` of each feature i, (D,): how much the others repeat it.

    Unbiased where the features are independent, hence sometimes below 0; 0 where there is one feature only.

    Args:
        C: a cross-correlation matrix, (D, D).
        null: the mean of a square by chance; see `null_level` and `RunningCorrelation.null`.
    """
    D = len(C)
    if D < 2:
        return torch.zeros_like(C.diagonal())
    return (C.square().sum(1) - C.diagonal().square()) / (D - 1) - null


def normalised(w: Tensor) -> Tensor:
    """Returns weights >= 0 divided by their mean, (D,); all 1 where none is above 0: there is nothing to tell apart."""
    mean = w.mean()
    return w / mean if mean > 0 else torch.ones_like(w)


def feature_weights(C: Tensor, null: float = 0.0) -> Tensor:
    """Returns `w_i = max(0, C_ii) (1 - max(0, mean_{j != i} C_ij^2 - null))` over its mean, (D,).

    Large for features that do not change with the view and that no other feature repeats; 0 for features that do not
    vary, or change sign. The mean is 1, so that a strength means the same whatever the weights are.

    Args:
        C: a cross-correlation matrix, (D, D).
        null: see `redundancy`.
    """
    return normalised(C.diagonal().clamp_min(0.0) * (1.0 - redundancy(C, null).clamp(0.0, 1.0)))


def shuffled(w: Tensor, seed: int) -> Tensor:
    """Returns the same weights at other features, (D,): the permutation is the seed's, whatever the weights."""
    order = torch.randperm(len(w), generator=torch.Generator().manual_seed(seed))
    return w[order.to(w.device)]


def kept_meaning(z_old: Tensor, z: Tensor) -> Tensor:
    """Returns the correlation of each feature under an earlier network with the same under the present one, (D,).

    The diagonal of the cross-model matrix, without the rest of it: 1 where a feature has changed by a positive affine
    map at most, 0 where it says nothing about what it was; NaN where it did not vary before.

    Args:
        z_old: the earlier network's features of N >= 2 samples, (N, D).
        z: the present one's of the same samples.

    Raises:
        ValueError: if there are fewer than two samples.
    """
    diagonal = (standardise(z_old) * standardise(z)).mean(0)
    varied = z_old.var(0, correction=0) > EPSILON**2
    return diagonal.masked_fill(~varied, float("nan"))


class RunningCorrelation:
    """`C_bar`: an exponential moving average of the batches' matrices, without the pull towards 0 of its start.

        M_b = decay M_{b-1} + (1 - decay) C_b,   C_bar = M_b / (1 - decay^b)

    The features' variances, the mean of both views', are averaged alike.

    Attributes:
        decay: in [0, 1); with 0 it is the latest batch's.
        steps: b, the batches so far.
    """

    def __init__(self, D: int, decay: float = 0.99) -> None:
        """Makes an average of nothing.

        Args:
            D: number of features. Memory is D^2 and a step N D^2 multiplications; of the network's own features, 128 in
                the small CNN and 512 in the paper's ResNet, that is far below a pass of the network.
            decay: in [0, 1).

        Raises:
            ValueError: if an argument is out of its range.
        """
        if D < 1:
            raise ValueError(f"a correlation matrix has at least one feature, got {D}")
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.steps = 0
        self._matrix = torch.zeros(D, D)
        self._variance = torch.zeros(D)
        self._noise = 0.0

    @torch.no_grad()
    def update(self, z1: Tensor, z2: Tensor) -> None:
        """Takes a batch in.

        Args:
            z1: features of the first view, (N, D), N >= 2; fewer samples have no correlation and are left out.
            z2: of the second.
        """
        if len(z1) < 2:
            return
        kind = torch.promote_types(z1.dtype, torch.float32)  # half precision would swallow the shares
        self._matrix, self._variance = (held.to(z1.device, kind) for held in (self._matrix, self._variance))
        share = 1.0 - self.decay
        self._matrix.lerp_(cross_correlation(z1, z2).to(kind), share)
        variance = 0.5 * (z1.var(0, correction=0) + z2.var(0, correction=0))
        self._variance.lerp_(variance.to(kind), share)
        self._noise = self.decay**2 * self._noise + share**2 * null_level(len(z1))
        self.steps += 1

    @property
    def _mass(self) -> float:
        """What the batches' shares sum to."""
        if self.steps == 0:
            raise ValueError("a running correlation of no batch has no matrix")
        return 1.0 - self.decay**self.steps

    @property
    def matrix(self) -> Tensor:
        """`C_bar`, (D, D). Raises ValueError before the first batch, as do `variance` and `null`."""
        return self._matrix / self._mass

    @property
    def variance(self) -> Tensor:
        """The features' variances, (D,)."""
        return self._variance / self._mass

    @property
    def null(self) -> float:
        """The mean of a square of `C_bar` by chance, for independent batches; from a small memory it is larger."""
        return self._noise / self._mass**2

    def invariance(self) -> float:
        """Returns the mean of `C_bar`'s diagonal, in [-1, 1]."""
        return float(self._matrix.diagonal().mean()) / self._mass

    def weights(self, kind: WeightKind, seed: int = 0) -> Tensor:
        """Returns weights of mean 1, (D,): of `feature_weights`, or of one of its controls.

        Args:
            kind: "correlation"; "identity", all 1; "shuffled", those of "correlation" at other features; "variance",
                the variance alone.
            seed: of the permutation of "shuffled".
        """
        if kind == "identity":
            return torch.ones_like(self._variance)
        if kind == "variance":
            return normalised(self.variance)
        w = feature_weights(self.matrix, self.null)
        return shuffled(w, seed) if kind == "shuffled" else w

    def to(self, device: torch.device | str) -> None:
        """Moves the averages to a device."""
        self._matrix, self._variance = self._matrix.to(device), self._variance.to(device)

    def bytes(self) -> int:
        """Returns the memory of the averages, in bytes."""
        return self._matrix.nbytes + self._variance.nbytes

    def state_dict(self) -> dict[str, Any]:
        """Returns the averages as copies, and the steps."""
        averages = {"matrix": self._matrix.clone(), "variance": self._variance.clone()}
        return averages | {"noise": self._noise, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over copies of what `state_dict` gave; the decay is the constructor's."""
        self._matrix, self._variance = state["matrix"].clone(), state["variance"].clone()
        self._noise, self.steps = float(state["noise"]), int(state["steps"])
