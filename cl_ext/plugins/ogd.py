"""Orthogonal gradient descent (Farajtabar et al., AISTATS 2020): no step along the gradients of stored outputs.

Symbols as in the paper: `v` a stored direction, the gradient of a logit by all weights; `g~` the projected step. What
is projected here is the step itself, `theta_new - theta_old`. `docs/methods/ogd.md` has the equations and deviations.
"""

from collections.abc import Mapping
from typing import Any, Literal

from cl_ext.nn.fisher import random_subset
from cl_ext.nn.logit_gradients import (
    Samples,
    Variant,
    are_factored,
    by_task,
    count_rows,
    logit_factors,
    logit_rows,
    logit_seeds,
    owned_by_linear,
)
from cl_ext.nn.merging import WeightSwap
from cl_ext.nn.orthogonal import TOLERANCE, ExplicitBasis, FlatVector
from cl_ext.nn.orthogonal_factors import ImplicitBasis
from cl_ext.nn.parameters import covered_parameters, same_parameters
from cl_ext.nn.passes import evaluation_mode, preserved_random_state
from cl_ext.plugins.base import MethodPlugin
from cl_ext.plugins.checks import check_choice, check_count, check_number
from cl_ext.plugins.quadratic import Heads

import torch
from torch import Tensor, nn

BasisKind = Literal["auto", "explicit", "implicit"]
_BASES: dict[str, type[ExplicitBasis | ImplicitBasis]] = {"explicit": ExplicitBasis, "implicit": ImplicitBasis}


class OGDPlugin(MethodPlugin):
    """Orthogonal gradient descent.

    At an experience's end, in eval mode, the gradients `v` of logits of `n_samples` of its samples join the stored
    ones. Every later step is freed of its part in their span,

        theta <- theta_old + (I - P_V) (theta_new - theta_old)

    with `theta_new` what the optimizer made of `theta_old`. For plain SGD that is the paper's projected gradient; it
    keeps the outputs to first order under momentum, Adam and weight decay too, where a projected gradient does not.
    With no direction stored nothing is done, so that training equals training without the plugin bit for bit.

    Running statistics of batch norm are not parameters: outputs can still drift through them.

    Attributes:
        points: the names of the weights at which gradients are taken; here `theta*`, the experience's last.
        given: point -> the gradients taken there at the end of the latest experience.
        kept: point -> how many of them were stored; the others were in the span of those before them, or had no room.
    """

    name = "OGD"
    points: tuple[str, ...] = ("task",)

    def __init__(
        self,
        n_samples: int = 200,
        variant: Variant = "gtl",
        basis: BasisKind = "auto",
        max_directions: int | None = None,
        memory_limit: int = 2 * 1024**3,
        heads: Heads = "include",
        seed: int = 0,
        tolerance: float = TOLERANCE,
    ) -> None:
        """Sets the hyper-parameters.

        Args:
            n_samples: samples of each experience whose gradients are stored, >= 0; 0 stores none. All where the
                experience has no more.
            variant: "gtl" stores the gradient of the true label's logit, "all" one of each logit that the loss reads,
                "ave" that of their mean.
            basis: "explicit" stores orthonormal rows over all parameters, "implicit" the rank-one factors of linear
                layers with inputs (B, in); "auto" is implicit where that is possible. Equal up to rounding.
            max_directions: store no more than so many, >= 1; the first to come stay. None for no bound.
            memory_limit: bytes that the stored directions may take, >= 0; checked before anything is allocated.
            heads: "exclude" takes no part in the network's heads: their weights move freely.
            seed: of the draw of samples, >= 0; each experience draws its own.
            tolerance: a direction is dropped where its part outside the span of those before it is not above this
                share of it, in (0, 1].

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        super().__init__()
        owner = type(self).__name__
        self.n_samples = check_count(owner, "n_samples", n_samples, low=0)
        self.variant: Variant = check_choice(owner, "variant", variant, Variant)
        self.basis_kind: BasisKind = check_choice(owner, "basis", basis, BasisKind)
        self.max_directions = None if max_directions is None else check_count(owner, "max_directions", max_directions)
        self.memory_limit = check_count(owner, "memory_limit", memory_limit, low=0)
        self.heads: Heads = check_choice(owner, "heads", heads, Heads)
        self.seed = check_count(owner, "seed", seed, low=0)
        self.tolerance = check_number(owner, "tolerance", tolerance, 0.0, 1.0, above=True)
        self.given: dict[str, int] = {}
        self.kept: dict[str, int] = {}
        self.basis: ExplicitBasis | ImplicitBasis | None = None
        self._parameters: dict[str, nn.Parameter] = {}
        self._old: FlatVector | None = None
        self._step: FlatVector | None = None
        self._stale = True
        self._moved: Tensor | float = 0.0
        self._kept: Tensor | float = 0.0

    @property
    def directions(self) -> int:
        """How many directions are stored."""
        return 0 if self.basis is None else self.basis.size

    def extra_bytes(self) -> int:
        """Returns the memory held beside the network, in bytes: directions, and two vectors of the weights' size."""
        held = [each.bytes() for each in (self.basis, self._old, self._step) if each is not None]
        return sum(held)

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole state between two experiences as tensors and JSON values; the tensors are copies."""
        basis = None if self.basis is None else {"kind": self.basis.kind} | self.basis.state_dict()
        return super().state_dict() | {"basis": basis}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; hyper-parameters are the constructor's, not part of it.

        Raises:
            ValueError: if it is the state of another plugin.
        """
        super().load_state_dict(state)
        self.basis = None
        if state["basis"] is not None:
            self.basis = _BASES[state["basis"]["kind"]](self.tolerance)
            self.basis.load_state_dict(state["basis"])
        self._old = self._step = None
        self._stale = True

    def _projected(self, model: nn.Module) -> dict[str, nn.Parameter]:
        return covered_parameters(model, self.heads == "exclude", type(self).__name__)

    def align(self, model: nn.Module) -> None:
        """Fits the directions and buffers to the model's present parameters."""
        self._parameters = self._projected(model)
        self._stale = False
        if self.basis is not None and self.basis.size:
            self.basis.align(self._parameters)
            self._old, self._step = FlatVector(self._parameters), FlatVector(self._parameters)

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Fits the buffers to the adapted network, and stops where the experience's directions cannot be stored.

        Raises:
            MemoryError: if even one direction a sample is above `memory_limit`.
        """
        self.align(strategy.model)
        linear = self.basis_kind != "explicit" and owned_by_linear(strategy.model, self._parameters)
        kind = self.basis.kind if self.basis is not None else ("implicit" if linear else "explicit")
        self._check_memory(kind, len(self.points) * min(self.n_samples, len(strategy.experience.dataset)))

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Remembers that evaluation may have grown the network."""
        self._stale = True

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Fits the buffers again where an evaluation came between."""
        if self._stale:
            if not same_parameters(self._projected(strategy.model), self._parameters):
                self.align(strategy.model)
            self._stale = False

    @property
    def _tensors(self) -> list[Tensor]:
        return list(self._parameters.values())

    @torch.no_grad()
    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Remembers `theta_old`."""
        if self.directions:
            assert self._old is not None
            torch._foreach_copy_(self._old.views, self._tensors)

    @torch.no_grad()
    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """`theta <- theta_old + (I - P_V) (theta_new - theta_old)`."""
        if not self.directions:
            return
        assert self.basis is not None
        assert self._old is not None
        assert self._step is not None
        parameters, step = self._tensors, self._step
        torch._foreach_copy_(step.views, parameters)
        step.flat.sub_(self._old.flat)
        self._moved = self._moved + step.flat.dot(step.flat)
        self.basis.project_(step)
        self._kept = self._kept + step.flat.dot(step.flat)
        step.flat.add_(self._old.flat)
        torch._foreach_copy_(parameters, step.views)

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Publishes the share of the epoch's squared step lengths that was taken out."""
        moved, kept = float(self._moved), float(self._kept)
        self.publish(strategy, "RemovedShare", 1.0 - kept / moved if moved > 0.0 else 0.0)
        self._moved = self._kept = 0.0

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Stores the experience's directions.

        Raises:
            MemoryError: if they are above `memory_limit`.
            ValueError: if the basis is implicit and the network has layers for which it is not.
        """
        self.align(strategy.model)
        self.given, self.kept = {}, {}
        if self._room(self.n_samples):
            with preserved_random_state(), evaluation_mode(strategy.model), torch.enable_grad():
                self._store(strategy.model, self._samples(strategy), strategy._criterion)
        self.align(strategy.model)
        self.experiences += 1
        self.publish(strategy, "Directions", float(self.directions))

    def weights_at(self, point: str, model: nn.Module) -> Mapping[str, Tensor]:
        """Returns the weights of one of `points`, by name; those that are not named are the network's own."""
        return {}

    def _samples(self, strategy: Any) -> list[Samples]:
        # a prime far from usual seeds keeps the experiences' draws of two seeds apart
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.experiences)
        chosen = random_subset(strategy.experience.dataset, self.n_samples, generator)
        return by_task(chosen, torch.device(strategy.device))

    def _store(self, model: nn.Module, groups: list[Samples], loss: Any) -> None:
        parameters, seeds = self._parameters, logit_seeds(self.variant, loss)
        kind = self._kind(model, groups[0])
        rows = count_rows(model, groups, seeds)
        self._check_memory(kind, len(self.points) * rows)
        if self.basis is None:
            self.basis = _BASES[kind](self.tolerance)
        self.basis.align(parameters)
        self.given = dict.fromkeys(self.points, rows)
        for point in self.points:
            with WeightSwap()(model, self.weights_at(point, model)):
                if isinstance(self.basis, ImplicitBasis):
                    new = logit_factors(model, parameters, groups, seeds)
                    self.kept[point] = self.basis.extend(new, self._room(rows))
                else:
                    self.kept[point] = self.basis.extend(logit_rows(model, parameters, groups, seeds), self._room(rows))

    def _kind(self, model: nn.Module, sample: Samples) -> str:
        stored = "auto" if self.basis is None else self.basis.kind
        asked = self.basis_kind if stored == "auto" else stored
        if asked == "explicit":
            return asked
        if are_factored(model, self._parameters, sample):
            return "implicit"
        if asked == "implicit":
            raise ValueError(
                f"{type(self).__name__}: the implicit basis needs every trainable parameter in an nn.Linear that runs "
                f"once on inputs (B, in), which {type(model).__name__} has not; use basis='explicit'"
            )
        return "explicit"

    def _room(self, rows: int) -> int:
        return rows if self.max_directions is None else min(rows, self.max_directions - self.directions)

    def _check_memory(self, kind: str, new: int) -> None:
        count = self.directions + self._room(new)
        needed = _BASES[kind].bytes_for(count, self._parameters)
        if needed > self.memory_limit:
            raise MemoryError(
                f"{type(self).__name__}: {count} directions in the {kind} basis take {needed / 1e6:.1f} MB, above "
                f"memory_limit, {self.memory_limit / 1e6:.1f} MB; use fewer n_samples, or max_directions"
            )
