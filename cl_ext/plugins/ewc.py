"""Elastic weight consolidation (Kirkpatrick et al., PNAS 2017) and online EWC (Schwarz et al., ICML 2018).

Symbols as in the papers: `F_j` the diagonal Fisher after experience j, `theta*_j` the weights there, `F*` the running
Fisher of online EWC, `gamma` its decay, `lambda` the strength. `docs/methods/ewc.md` has the derivations.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cl_ext.nn.fisher import FisherKind, Loss, diagonal_fisher
from cl_ext.plugins.checks import check_choice, check_count, check_number
from cl_ext.plugins.quadratic import Heads, QuadraticPenaltyPlugin

import torch
from torch import Tensor, nn

Mode = Literal["separate", "online"]
Normalise = Literal["none", "max"]


@torch.no_grad()
def add_quadratic_(
    importance: Sequence[Tensor], anchor: Sequence[Tensor], fisher: Sequence[Tensor], theta: Sequence[Tensor]
) -> float:
    """Adds `sum F (t - theta)^2` to `sum A (t - a)^2`: `A` and `a` become those of the sum, in place.

    Two squares with weights A and F are one with weight `A + F` at the weighted mean of their centres, and a constant:

        A (t - a)^2 + F (t - theta)^2 = (A + F) (t - a')^2 + A F / (A + F) (theta - a)^2
        a' = a + F / (A + F) (theta - a)

    so any number of anchors costs two tensors. The mean is kept, not `B = sum F_j theta_j`, because the value
    `A t^2 - 2 B t + C` would be a small difference of large numbers. Where A = 0 the new centre is `theta` exactly.

    Args:
        importance: `A`, changed.
        anchor: `a`, changed.
        fisher: `F`.
        theta: its centre.

    Returns:
        The constant, `sum A F / (A + F) (theta - a)^2`, summed in float64.
    """
    constant = 0.0
    for old, centre, new, t in zip(importance, anchor, fisher, theta, strict=True):
        total = old + new
        weight = torch.where(old > 0, new / total.where(total > 0, 1.0), 1.0)
        constant += float((old.double() * weight * (t.double() - centre).square()).sum())
        centre.lerp_(t, weight)
        old.copy_(total)
    return constant


@torch.no_grad()
def decay_(importance: Sequence[Tensor], fisher: Sequence[Tensor], gamma: float) -> None:
    """`gamma F* <- gamma (gamma F* + F)`, in place: what weighs online EWC's penalty in the next experience.

    Args:
        importance: `gamma F*_{i-1}`, becomes `gamma F*_i`.
        fisher: `F_i`.
        gamma: in [0, 1].
    """
    torch._foreach_add_(list(importance), list(fisher))
    torch._foreach_mul_(list(importance), gamma)


@torch.no_grad()
def normalised(fisher: Sequence[Tensor]) -> list[Tensor]:
    """Returns `F / max F`, one maximum over all parameters; zeros where F is zero."""
    high = max(float(f.max()) for f in fisher if f.numel())
    return [f / high if high > 0.0 else f.clone() for f in fisher]


class EWCPlugin(QuadraticPenaltyPlugin):
    """EWC and online EWC.

    After experience j, in eval mode and on its own data, F_j is the diagonal Fisher. Later experiences train on

        separate   L(theta) + lambda/2 sum_j sum F_j (theta - theta*_j)^2                   j over all finished ones
        online     L(theta) + lambda/2 sum gamma F*_i (theta - theta*_i)^2,  F*_i = gamma F*_{i-1} + F_i,  i the latest

    with the papers' factor 1/2. Separate mode keeps the sum over j as one weight and one weighted mean a parameter, so
    that memory and the cost of a step do not grow with the experiences. `importances` are what weighs the penalty,
    `sum_j F_j` or `gamma F*`; `anchors` are that mean, or `theta*_i`.

    The default strength, 500, is van de Ven and Tolias's for permuted MNIST (their code), with the Fisher that is the
    default here; strengths move by decades between settings and have to be searched.
    """

    name = "EWC"

    def __init__(
        self,
        ewc_lambda: float = 500.0,
        mode: Mode = "separate",
        gamma: float = 1.0,
        fisher: FisherKind = "exact",
        n_samples: int | None = None,
        normalise: Normalise = "none",
        heads: Heads = "include",
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        """Sets the hyper-parameters.

        Args:
            ewc_lambda: strength, >= 0; the penalty is lambda/2 times the quadratic form.
            mode: "separate" keeps every experience's anchor in effect, "online" the latest.
            gamma: decay of the running Fisher in [0, 1], in mode "online"; it has to stay 1 in mode "separate". As in
                the paper it also weighs the latest Fisher in the penalty.
            fisher: see `cl_ext.nn.fisher`; "batch" is the squared batch gradient of many public codes, about 1/B of a
                Fisher.
            n_samples: samples of an experience that F is the mean over, >= 1, drawn without replacement; None for all.
            normalise: "max" divides each F_j by its largest entry.
            heads: "include" or "exclude" the network's heads from the penalty.
            batch_size: samples of one pass when F is computed, >= 1; None for the strategy's training batch size where
                `fisher` is "batch", which depends on it, and at most 128 for the others, which do not.
            seed: of the drawn labels and samples, >= 0; each experience draws its own.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range, or `gamma` is given in mode "separate".
        """
        owner = type(self).__name__
        super().__init__(check_number(owner, "ewc_lambda", ewc_lambda, 0.0) / 2.0, heads)
        self.mode: Mode = check_choice(owner, "mode", mode, Mode)
        self.gamma = check_number(owner, "gamma", gamma, 0.0, 1.0)
        if mode == "separate" and self.gamma != 1.0:
            raise ValueError(f"{owner}: gamma must be 1 in mode 'separate', which has no decay, got {gamma!r}")
        self.fisher: FisherKind = check_choice(owner, "fisher", fisher, FisherKind)
        self.n_samples = None if n_samples is None else check_count(owner, "n_samples", n_samples)
        self.normalise: Normalise = check_choice(owner, "normalise", normalise, Normalise)
        self.batch_size = None if batch_size is None else check_count(owner, "batch_size", batch_size)
        self.seed = check_count(owner, "seed", seed, low=0)
        self._constant = 0.0

    @property
    def ewc_lambda(self) -> float:
        """Lambda; the penalty's factor is half of it."""
        return 2.0 * self.strength

    def penalty(self) -> float:
        """Returns the quadratic form at the present weights, without lambda/2; in mode "separate" summed over j."""
        return super().penalty() + self._constant

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole state between two experiences."""
        return super().state_dict() | {"constant": self._constant}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        super().load_state_dict(state)
        self._constant = float(state["constant"])

    def new_fisher(
        self, model: nn.Module, dataset: Any, loss: Loss, batch_size: int, device: torch.device | str = "cpu"
    ) -> dict[str, Tensor]:
        """Returns F by parameter name, normalised if asked for; `model`, its modes and the random state stay as is.

        Args:
            model: the network.
            dataset: samples `(x, y)` or `(x, y, t)`.
            loss: what is trained on: the softmax runs over the outputs that it reads.
            batch_size: the training batch size, which the form "batch" takes where it was given no other.
            device: where `model` is.

        Raises:
            TypeError: if the outputs are not (B, K).
            ValueError: if the dataset is empty.
        """
        size = batch_size if self.batch_size is None and self.fisher == "batch" else self.batch_size
        # a prime far from usual seeds keeps the experiences' draws of two seeds apart
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.experiences)
        fisher = diagonal_fisher(
            model, self._penalised(model), dataset, self.fisher, loss, size, device, self.n_samples, generator
        )
        if self.normalise == "none":
            return fisher
        return dict(zip(fisher, normalised(list(fisher.values())), strict=True))

    def consolidate(self, strategy: Any) -> None:
        """F of the experience's own data, replayed samples left out, enters the penalty."""
        size, device = strategy.train_mb_size, strategy.device
        named = self.new_fisher(strategy.model, strategy.experience.dataset, strategy._criterion, size, device)
        fisher = list(named.values())
        if self.mode == "online":
            decay_(self._penalty.importance.tensors, fisher, self.gamma)
        else:
            buffers = self._penalty
            self._constant += add_quadratic_(buffers.importance.tensors, buffers.anchor.tensors, fisher, self._tensors)
        self.publish(strategy, "MaxFisher", max(float(f.max()) for f in fisher if f.numel()))
        self.publish(strategy, "MeanFisher", sum(float(f.sum()) for f in fisher) / sum(f.numel() for f in fisher))

    def anchor_(self, strategy: Any) -> None:
        """The latest weights in mode "online"; in mode "separate" the weighted mean is set already."""
        if self.mode == "online":
            super().anchor_(strategy)

    def _instability(self, optimizer: Any, bound: float) -> str:
        return f"{super()._instability(optimizer, bound)}, half of ewc_lambda"
