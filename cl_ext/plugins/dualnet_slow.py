"""DualNet's slow phase: Barlow Twins on unlabelled views, plain SGD inside Look-ahead (Pham et al. 2021, eqs. 3 and 4).

Symbols: `phi` the weights of slow net and projector, `K` the inner steps, `beta` Look-ahead's factor.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from cl_ext.models.slowfast import SlowFast
from cl_ext.nn.lookahead import Lookahead
from cl_ext.nn.passes import evaluation_mode
from cl_ext.nn.selfsupervised import (
    Deviation,
    barlow_twins,
    cross_correlation,
    invariance_and_redundancy,
    make_projector,
)
from cl_ext.nn.views import Views
from cl_ext.plugins.dualnet_features import FeatureUses

import torch
from torch import Tensor, nn

SlowNorm = Literal["keep", "interpolate", "restore"]

QUANTITIES = ("BarlowTwins", "Invariance", "Redundancy")
"""The slow phase's metrics: the loss, the mean of `C_ii`, and the mean of `C_ij^2` over i != j."""

_VIEWS, _PROJECTOR = 0x2545F491, 0x1B873593
"""Keep the random numbers of views and of the projector's weights apart from the memory's of the same seed."""


class SlowPhase:
    """Moves the slow net's weights, and a projector's of its own, by self-supervision; nothing else is touched.

    Gradients are taken beside the parameters' `.grad`. Frozen parameters stay. Batches of fewer than two samples, of
    which no deviation can be taken, are left out.

    Attributes:
        projector: from the slow net's features to the space of the loss; None before the first batch.
        features: is shown the two views' features of every inner step, and scales beta; None for neither.
    """

    def __init__(
        self,
        n_outer: int,
        inner_steps: int,
        beta: float,
        slow_lr: float,
        gamma: float,
        std: Deviation,
        norm: SlowNorm,
        projection: tuple[int, int],
        views: Views,
        seed: int,
    ) -> None:
        """Sets the constants; see `DualNetPlugin`.

        Args:
            n_outer: rounds of Look-ahead, >= 0.
            inner_steps: K, steps of SGD in each.
            beta: in [0, 1].
            slow_lr: of the inner steps.
            gamma: weight of the off-diagonal.
            std: of Barlow Twins.
            norm: what Look-ahead does with the running statistics that the inner steps have moved: "keep" them,
                "interpolate" them like weights, or "restore" those of before.
            projection: hidden and output units of the projector.
            views: makes two views of a batch.
            seed: of the views and of the projector's first weights.
        """
        self.n_outer = n_outer
        self.beta = beta
        self.inner_steps = inner_steps
        self.slow_lr = slow_lr
        self.gamma = gamma
        self.std: Deviation = std
        self.norm: SlowNorm = norm
        self.projection = projection
        self.views = views
        self.projector: nn.Sequential | None = None
        self.features: FeatureUses | None = None
        self._seed = seed
        self._generator = torch.Generator().manual_seed(seed ^ _VIEWS)
        self._weights = Lookahead(beta)
        self._statistics = Lookahead(beta if norm == "interpolate" else 0.0)
        self.begin()

    def begin(self) -> None:
        """Starts new means."""
        self._totals: Tensor | None = None
        self._steps = 0

    def means(self) -> dict[str, float]:
        """Returns the means of `QUANTITIES` over the inner steps since `begin`; nothing if there was none."""
        if self._totals is None:
            return {}
        return dict(zip(QUANTITIES, (self._totals / self._steps).tolist(), strict=True))

    def to(self, device: torch.device | str) -> None:
        """Moves the projector to a device."""
        if self.projector is not None:
            self.projector.to(device)

    def run(self, trunk: SlowFast, batch: Callable[[], Tensor]) -> None:
        """Runs the phase once: `n_outer` times `phi <- phi_0 + beta (phi_K - phi_0)`.

        Args:
            trunk: the slow/fast trunk, in the mode it is trained in.
            batch: gives the samples of an inner step, (N, ...).
        """
        for _ in range(self.n_outer):
            first = batch()
            if len(first) < 2:
                continue
            if self.projector is None:
                self._make_projector(trunk, first)
            weights = self._trainable(trunk)
            statistics = [] if self.norm == "keep" else list(trunk.slow.buffers())
            self._weights.remember(weights)
            self._statistics.remember(statistics)
            for step in range(self.inner_steps):
                self._step(trunk, weights, first if step == 0 else batch())
            self._gate()
            self._weights.interpolate_(weights)
            self._statistics.interpolate_(statistics)

    def _gate(self) -> None:
        if self.features is None or self.features.consolidation == "constant":
            return
        self._weights.beta = self.beta * self.features.gate()
        if self.norm == "interpolate":
            self._statistics.beta = self._weights.beta

    def _trainable(self, trunk: SlowFast) -> list[Tensor]:
        assert self.projector is not None
        every = (*trunk.slow.parameters(), *self.projector.parameters())
        return [parameter for parameter in every if parameter.requires_grad]

    def _step(self, trunk: SlowFast, weights: list[Tensor], x: Tensor) -> None:
        assert self.projector is not None
        features, z = [], []
        for view in self.views(x, self._generator):
            features.append(trunk.embed(view).flatten(1))
            z.append(self.projector(features[-1]))
        if self.features is not None:
            self.features.observe(features[0], features[1])
        C = cross_correlation(z[0], z[1], self.std)
        loss = barlow_twins(C, self.gamma)
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            torch._foreach_add_(weights, gradients, alpha=-self.slow_lr)
        quantities = torch.cat([loss.detach().view(1), invariance_and_redundancy(C)])
        self._totals = quantities if self._totals is None else self._totals + quantities
        self._steps += 1

    def _make_projector(self, trunk: SlowFast, x: Tensor) -> None:
        with evaluation_mode(trunk), torch.no_grad():
            features = trunk.embed(x[:1]).flatten(1)
        self.projector = self._new_projector(features.shape[1]).to(features)

    def _new_projector(self, features: int) -> nn.Sequential:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed ^ _PROJECTOR)
            return make_projector(features, *self.projection)

    def bytes(self) -> int:
        """Returns the memory of projector and remembered weights, in bytes."""
        held = [] if self.projector is None else [*self.projector.parameters(), *self.projector.buffers()]
        return sum(tensor.nbytes for tensor in held) + self._weights.bytes() + self._statistics.bytes()

    def state_dict(self) -> dict[str, Any]:
        """Returns projector and generator's state, as copies."""
        projector = None
        if self.projector is not None:
            projector = {name: tensor.clone() for name, tensor in self.projector.state_dict().items()}
        return {"projector": projector, "views": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over copies of what `state_dict` gave."""
        self.projector = None
        if state["projector"] is not None:
            first = state["projector"]["0.weight"]
            self.projector = self._new_projector(first.shape[1]).to(first)
            self.projector.load_state_dict(state["projector"])
        self._generator.set_state(state["views"])
