"""Incremental moment matching (Lee et al., NeurIPS 2017): merge the networks of all experiences for evaluation.

Symbols as in the paper: `theta_k` the weights after experience k, `alpha_k` their weights in the merge, `F_k` the
diagonal Fisher matrix, the inverse covariance of mode-IMM. `docs/methods/imm.md` has the equations and the deviations.
"""

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

from cl_ext.nn.drop_transfer import DropTransfer
from cl_ext.nn.fisher import FisherKind, diagonal_fisher
from cl_ext.nn.merging import RunningMerge, WeightSwap, estimated_statistics, running_statistics, write_
from cl_ext.nn.parameters import QuadraticPenalty, covered_parameters, same_parameters
from cl_ext.plugins.base import MethodPlugin
from cl_ext.plugins.checks import check_choice, check_count, check_number

import torch
from avalanche.models import MultiHeadClassifier
from torch import Tensor, nn

Merge = Literal["mean", "mode"]
MergedHeads = Literal["auto", "include", "exclude"]

EPSILON = 1e-8
"""What is added to a Fisher before it is a precision."""


class IMMPlugin(MethodPlugin):
    """Incremental moment matching: mean-IMM and mode-IMM, with the paper's three transfer techniques.

    Training goes on from `theta_{k-1}`, never from merged weights (weight-transfer). After experience K

        mean    theta_merged = sum_k alpha_k theta_k
        mode    theta_merged = sum_k alpha_k F_k theta_k / sum_k alpha_k F_k

    and every evaluation, those inside training too, sees the merge of the experiences that have ended: `before_eval`
    puts it in, `after_eval` puts the network's own weights back bit for bit. Predictions outside Avalanche's `eval`
    take `with plugin.merged(model): ...` or `plugin.merged_network(model)`.

    Running statistics of batch norm cannot be averaged: those of the merged network are measured anew on the latest
    experience's data.
    """

    name = "IMM"

    def __init__(
        self,
        merge: Merge = "mean",
        alpha: float | None = None,
        l2_lambda: float = 0.0,
        drop_keep: float = 1.0,
        heads: MergedHeads = "auto",
        fisher: FisherKind = "exact",
        n_samples: int | None = None,
        seed: int = 0,
    ) -> None:
        """Sets the hyper-parameters.

        Args:
            merge: "mean" or "mode".
            alpha: weight of the latest network in (0, 1], the others share the rest equally; None for 1/K each. At 1
                nothing is merged.
            l2_lambda: L2-transfer, `l2_lambda |theta - theta_{k-1}|^2` in the loss (no factor 1/2), >= 0; the paper's
                is 1e-4.
            drop_keep: drop-transfer, the probability that an input unit of a layer sees what the weights have moved, in
                (0, 1]; 1 is without. See `cl_ext.nn.drop_transfer`.
            heads: "exclude" leaves the heads as training made them (one head a task), "include" merges them; "auto"
                excludes those of Avalanche's `MultiHeadClassifier`, which has one a task.
            fisher: of mode-IMM, see `cl_ext.nn.fisher`.
            n_samples: samples of an experience that F is the mean over, >= 1; None for all.
            seed: of the masks of drop-transfer, and of drawn labels and samples, >= 0.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        super().__init__()
        owner = type(self).__name__
        self.merge: Merge = check_choice(owner, "merge", merge, Merge)
        self.alpha = None if alpha is None else check_number(owner, "alpha", alpha, 0.0, 1.0, above=True)
        self.l2_lambda = check_number(owner, "l2_lambda", l2_lambda, 0.0)
        self.drop_keep = check_number(owner, "drop_keep", drop_keep, 0.0, 1.0, above=True)
        self.heads: MergedHeads = check_choice(owner, "heads", heads, MergedHeads)
        self.fisher: FisherKind = check_choice(owner, "fisher", fisher, FisherKind)
        self.n_samples = None if n_samples is None else check_count(owner, "n_samples", n_samples)
        self.seed = check_count(owner, "seed", seed, low=0)
        self._earlier = RunningMerge(weighted=merge == "mode")
        self._transfer = QuadraticPenalty()
        self._drop = DropTransfer(self.drop_keep)
        self._swap = WeightSwap()
        self._parameters: dict[str, nn.Parameter] = {}
        self._merged: dict[str, Tensor] = {}
        self._copy: nn.Module | None = None
        self._stale = False

    @property
    def merged_weights(self) -> dict[str, Tensor]:
        """What evaluation sees, by name: merged parameters, and batch norm's statistics; empty before the first."""
        return dict(self._merged)

    def merged(self, model: nn.Module) -> AbstractContextManager[None]:
        """Returns a context in which `model` has the merged weights."""
        return self._swap(model, self._merged)

    def merged_network(self, model: nn.Module) -> nn.Module:
        """Returns a copy of `model` with the merged weights: the same object, refreshed, while its shapes stay.

        Before the first merge it is `model` itself.
        """
        if not self._merged:
            return model
        state = model.state_dict()
        if self._copy is None or _shapes(self._copy.state_dict()) != _shapes(state):
            self._copy = copy.deepcopy(model)
        self._copy.load_state_dict(state)
        write_(self._copy, self._merged)
        return self._copy

    def extra_bytes(self) -> int:
        """Returns the memory held beside the network, in bytes; a copy that predicts is not counted."""
        merged = sum(tensor.nbytes for tensor in self._merged.values())
        return self._earlier.bytes() + self._transfer.bytes() + self._swap.bytes() + merged

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole state between two experiences as tensors and JSON values; the tensors are copies."""
        return super().state_dict() | {
            "earlier": self._earlier.state_dict(),
            "merged": {name: tensor.clone() for name, tensor in self._merged.items()},
            "previous": self._transfer.anchor.state_dict(),
            "pull": self._transfer.importance.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; hyper-parameters are the constructor's, not part of it.

        Raises:
            ValueError: if it is the state of another plugin.
        """
        super().load_state_dict(state)
        self._earlier.load_state_dict(state["earlier"])
        self._transfer.anchor.load_state_dict(state["previous"])
        self._transfer.importance.load_state_dict(state["pull"])
        self._merged = {name: tensor.clone() for name, tensor in state["merged"].items()}
        self._copy = None

    def _mergeable(self, model: nn.Module) -> dict[str, nn.Parameter]:
        own_heads = any(isinstance(module, MultiHeadClassifier) for module in model.modules())
        exclude = self.heads == "exclude" or (self.heads == "auto" and own_heads)
        return covered_parameters(model, exclude, type(self).__name__)

    @property
    def _transfers(self) -> bool:
        return self.l2_lambda > 0.0 or self.drop_keep < 1.0

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Fits the transfer techniques to the adapted network."""
        self._swap.leave(strategy.model)
        self._align(strategy.model)
        self._drop.detach()
        # a prime far from usual seeds keeps the experiences' draws of two seeds apart
        self._drop.seed(self.seed * 1_000_003 + self.experiences)
        self._attach(strategy.model)

    def _attach(self, model: nn.Module) -> None:
        if self.drop_keep < 1.0 and self.experiences > 0:
            self._drop.attach(model, self._transfer.anchor.named())

    def _align(self, model: nn.Module) -> None:
        self._parameters = self._mergeable(model)
        if self._transfers:
            self._transfer.align(self._parameters)

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Fits the transfer techniques again where an evaluation has changed the parameters."""
        looks = self._stale and self._transfers and self.experiences > 0
        if looks and not same_parameters(self._mergeable(strategy.model), self._parameters):
            self._align(strategy.model)
            self._attach(strategy.model)
        self._stale = False

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Adds the gradient of L2-transfer, `2 l2_lambda (theta - theta_{k-1})`."""
        if self.l2_lambda > 0.0 and self.experiences > 0:
            self._transfer.add_gradient_(list(self._parameters.values()), self.l2_lambda)

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Publishes L2-transfer's term, strength included: the part of the objective that `strategy.loss` lacks."""
        active = self.l2_lambda > 0.0 and self.experiences > 0
        value = self.l2_lambda * self._transfer.value(list(self._parameters.values())) if active else 0.0
        self.publish(strategy, "Penalty", value)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Merges, and lets the weights join the earlier ones; the network keeps its own."""
        self._drop.detach()
        model = strategy.model
        self._align(model)
        theta = [p.detach() for p in self._parameters.values()]
        fisher: list[Any] = self._fisher(strategy) if self.merge == "mode" else [1.0] * len(theta)
        self._earlier.align(self._parameters)
        merged = self._earlier.merged(theta, fisher, self.alpha)
        self._earlier.add_(theta, fisher)
        self._merged = dict(zip(self._parameters, merged, strict=True))
        if self.experiences == 0 or self.alpha == 1.0:
            statistics = running_statistics(model)
        else:
            with self._swap(model, self._merged):
                statistics = estimated_statistics(model, strategy.experience.dataset, strategy.device)
        self._merged |= statistics
        if self._transfers:
            self._transfer.anchor.copy_(theta)
            for ones in self._transfer.importance.tensors:
                ones.fill_(1.0)
        self.experiences += 1
        moved = sum(float((m - t).square().sum()) for m, t in zip(merged, theta, strict=True))
        length = sum(float(t.square().sum()) for t in theta)
        self.publish(strategy, "MergeDistance", (moved / length) ** 0.5 if length > 0.0 else 0.0)

    def _fisher(self, strategy: Any) -> list[Tensor]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.experiences)
        size = strategy.train_mb_size if self.fisher == "batch" else None
        named = diagonal_fisher(
            strategy.model, self._parameters, strategy.experience.dataset, self.fisher, strategy._criterion, size,
            strategy.device, self.n_samples, generator,
        )  # fmt: skip
        return [f.add_(EPSILON) for f in named.values()]

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Puts the merged weights in."""
        self._swap.enter(strategy.model, self._merged)

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Puts the network's own weights back."""
        self._swap.leave(strategy.model)
        self._stale = True


def _shapes(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: getattr(value, "shape", None) for name, value in state.items()}
