"""Uses of what DualNet's slow net knows about its features: which to hold, when to consolidate, how far they drift.

Nothing of it is in the paper. Symbols: `z` (B, D) the slow net's features after pooling, `z_old` those of a copy of the
slow net from the last experience's end, `w` (D,) weights of the features from `C_bar`, the running cross-correlation
matrix of two views' features (`cl_ext.nn.correlation`), `beta` Look-ahead's factor.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from cl_ext.models.slowfast import SlowFast
from cl_ext.nn.correlation import RunningCorrelation, WeightKind, kept_meaning
from cl_ext.nn.distillation import snapshot
from cl_ext.nn.passes import evaluation_mode, logits
from cl_ext.plugins.checks import check_choice, check_number

import torch
from torch import Tensor, nn

Consolidation = Literal["constant", "invariance"]

_SHUFFLE = 0x3C6EF35F
"""Keeps the permutation apart from the other random numbers of the same seed."""

_MOST = 512
"""Samples of memory that the drift is measured on; correlations of so many are good to about 0.04."""


def feature_distance(z: Tensor, z_old: Tensor, w: Tensor, known: Tensor) -> Tensor:
    """Returns the mean over known samples and features of `w_i (z_i - z_old_i)^2`, a scalar; 0 where none is known.

    Args:
        z: features, (B, D).
        z_old: those to hold, (B, D); constants.
        w: of the features, (D,), with mean 1.
        known: which samples count, (B,) bool.
    """
    each = ((z - z_old.detach()).square() * w).mean(1)
    return torch.where(known, each, 0.0).sum() / known.sum().clamp_min(1)


class FeatureUses:
    """Three uses of the slow net's features, each switched on by itself.

    Attributes:
        strength: of the feature-wise distillation.
        running: `C_bar`; None before the first batch, or where nothing uses it.
        weights: `w` of the last experience's end; None before.
    """

    def __init__(
        self, owner: str, strength: float, kind: WeightKind, decay: float, consolidation: Consolidation, drift: bool,
        views: bool, seed: int,
    ) -> None:  # fmt: skip
        """Sets the hyper-parameters; see `DualNetPlugin`.

        Args:
            owner: the plugin's name in error messages.
            strength: `feature_lambda`.
            kind: `feature_weights`.
            decay: `feature_decay`.
            consolidation: of Look-ahead's factor.
            drift: whether the drift is measured where the strength is 0.
            views: whether there is a slow phase, whose views make `C_bar`.
            seed: of the permutation of the shuffled weights.
        """
        self.strength = check_number(owner, "feature_lambda", strength, 0.0)
        self.kind: WeightKind = check_choice(owner, "feature_weights", kind, WeightKind)
        self.decay = check_number(owner, "feature_decay", decay, 0.0, 1.0)
        if self.decay == 1.0:
            raise ValueError(f"{owner}: feature_decay must be in [0, 1), got {decay!r}")
        self.consolidation: Consolidation = check_choice(owner, "consolidation", consolidation, Consolidation)
        needs_views = self.strength > 0.0 and self.kind != "identity"
        if needs_views and not views:
            kinds = ", ".join(repr(each) for each in get_args(WeightKind) if each != "identity")
            raise ValueError(f"{owner}: feature_weights {kinds} come from the slow phase's views; n_outer must be >= 1")
        self._observes = needs_views or self.consolidation == "invariance"
        self._remembers = self.strength > 0.0 or bool(drift)
        self._seed = seed
        self.running: RunningCorrelation | None = None
        self.weights: Tensor | None = None
        self._old: nn.Module | None = None
        self._loaded: dict[str, Tensor] = {}

    # ---- the slow phase ----------------------------------------------------------------------------------------

    def observe(self, z1: Tensor, z2: Tensor) -> None:
        """Takes in the slow net's features of two views, (N, D)."""
        if not self._observes:
            return
        if self.running is None:
            self.running = RunningCorrelation(z1.shape[1], self.decay)
        self.running.update(z1.detach(), z2.detach())

    def gate(self) -> float:
        """Returns the factor of beta: 1, or with "invariance" the mean of `C_bar`'s diagonal, at least 0."""
        if self.consolidation == "constant" or self.running is None:
            return 1.0
        return max(0.0, self.running.invariance())

    # ---- the fast phase ----------------------------------------------------------------------------------------

    def replay(self, model: nn.Module, trunk: SlowFast, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns logits (B, K) and, where features are to be held, those of the slow net (B, D), from one pass.

        The slow net's maps do not depend on the masks: what its last stage gave in the pass is what it gives alone.
        """
        if self.strength == 0.0 or self._old is None:
            return logits(model, x, None), None
        maps: list[Tensor] = []
        handle = trunk.slow[-1].register_forward_hook(lambda module, inputs, output: maps.append(output))
        try:
            output = logits(model, x, None)
        finally:
            handle.remove()
        return output, trunk.tail(maps[-1]).flatten(1)

    def loss(self, z: Tensor, x: Tensor, known: Tensor) -> Tensor:
        """Returns `feature_lambda` times the distance to the features that are held, a scalar.

        Args:
            z: the slow net's features, (B, D).
            x: the samples, (B, ...).
            known: which of them have target logits, (B,) bool. With targets "boundary" those that were in memory when
                the experience began. With "write" and "boundary_stale" all: in a memory of all tasks those of the
                present experience too, whose features are held at what the slow net from before it gives for them.
        """
        assert self._old is not None
        assert self.weights is not None
        with torch.no_grad():
            z_old = self._old(x).flatten(1)
        return self.strength * feature_distance(z, z_old, self.weights, known)

    # ---- experiences -------------------------------------------------------------------------------------------

    def begin(self, trunk: SlowFast, device: torch.device | str) -> None:
        """Before an experience: goes on with what was loaded, if anything was, on the network's device."""
        if self._loaded:
            self._old = _slow_copy(trunk)
            self._old.load_state_dict(self._loaded)
            self._loaded = {}
        if self.weights is not None:
            self.weights = self.weights.to(device)

    @torch.no_grad()
    def drift(self, trunk: SlowFast, memory: Callable[[], Mapping[str, Tensor] | None]) -> float | None:
        """Returns the mean of the features' correlation with what they were at the last experience's end.

        Over samples that were in memory then, both networks in eval mode; 1 where nothing has changed but scale and
        shift. With targets "write" or "boundary_stale" samples that came into a memory of all tasks since count too.
        None where there is no earlier network, or nothing that varied.

        Args:
            trunk: the present network.
            memory: gives all that is held, with `x` and `known`, without a random number; not asked where nothing is.
        """
        held = None if self._old is None else memory()
        if self._old is None or held is None:
            return None
        x = held["x"][held["known"]]
        x = x[:: -(-len(x) // _MOST)] if len(x) > _MOST else x
        if len(x) < 2:
            return None
        with evaluation_mode(trunk):
            z, z_old = (torch.cat([f(part).flatten(1) for part in x.split(256)]) for f in (trunk.embed, self._old))
        mean = float(kept_meaning(z_old, z).nanmean())
        return None if mean != mean else mean

    def end(self, trunk: SlowFast) -> None:
        """After an experience: copies the slow net and takes the weights of its features."""
        if not self._remembers:
            return
        self._old = _slow_copy(trunk)
        if self.strength > 0.0:
            self.weights = self._weights(trunk)

    def _weights(self, trunk: SlowFast) -> Tensor:
        if self.running is not None and self.running.steps:
            return self.running.weights(self.kind, self._seed ^ _SHUFFLE)
        return torch.ones((), device=next(trunk.slow.parameters()).device)  # all alike: nothing is known of any feature

    # ---- cost and state ----------------------------------------------------------------------------------------

    def bytes(self) -> int:
        """Returns the memory of the earlier slow net, `C_bar` and the weights, in bytes."""
        held = list(self._loaded.values())
        if self._old is not None:
            held += [*self._old.parameters(), *self._old.buffers()]
        held += [] if self.weights is None else [self.weights]
        return sum(tensor.nbytes for tensor in held) + (0 if self.running is None else self.running.bytes())

    def state_dict(self) -> dict[str, Any]:
        """Returns the earlier slow net, `C_bar` and the weights, as copies."""
        old = self._loaded if self._old is None else self._old.state_dict()
        return {
            "old": {name: tensor.clone() for name, tensor in old.items()},
            "weights": None if self.weights is None else self.weights.clone(),
            "running": None if self.running is None else self.running.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over copies of what `state_dict` gave; `begin` has to come before anything else."""
        self._old = None
        self._loaded = {name: tensor.clone() for name, tensor in state["old"].items()}
        self.weights = None if state["weights"] is None else state["weights"].clone()
        self.running = None
        if state["running"] is not None:
            self.running = RunningCorrelation(len(state["running"]["variance"]), self.decay)
            self.running.load_state_dict(state["running"])


def _slow_copy(trunk: SlowFast) -> nn.Module:
    """Returns a frozen copy of the slow net in eval mode, from samples to features."""
    return snapshot(nn.Sequential(*trunk.slow, trunk.tail))
