"""The fast phase of DualNet: what the memory adds to a step's loss, and the steps beyond the strategy's own.

Symbols: `z` the network's logits (B, K), `z_t` stored ones, `T` the temperature, `lambda` the distillation's strength.
"""

from collections.abc import Mapping
from typing import Any

from cl_ext.models.slowfast import SlowFast
from cl_ext.nn.targets import KLReduction, reduced_divergence, soft_target_divergence
from cl_ext.plugins.dualnet_features import FeatureUses
from cl_ext.plugins.rehearsal import outputs_read

import torch
from torch import Tensor


class FastPhase:
    """Adds `L(memory) + lambda KL(softmax(z_t / T) || softmax(z / T))`, and the held features' distance, to a loss."""

    def __init__(self, strength: float, temperature: float, kl: KLReduction, features: FeatureUses) -> None:
        """Sets the hyper-parameters; see `DualNetPlugin`.

        Args:
            strength: lambda >= 0.
            temperature: T > 0.
            kl: how the distillation is averaged.
            features: which features are held.
        """
        self.strength = strength
        self.temperature = temperature
        self.kl: KLReduction = kl
        self.features = features
        self.begin_experience()
        self.begin()

    def begin_experience(self) -> None:
        """Forgets which outputs the loss compares: an experience may have another loss, or a grown head."""
        self._read: Tensor | None = None
        self._outputs = 0

    def begin(self) -> None:
        """Starts the means."""
        self._totals: dict[str, Tensor] = {}
        self._steps = 0

    def means(self) -> dict[str, float]:
        """Returns the means of the terms over the steps since `begin` that had a batch of memory."""
        return {name: float(total) / self._steps for name, total in self._totals.items()}

    def add(self, strategy: Any, trunk: SlowFast, batch: Mapping[str, Tensor]) -> None:
        """Adds the terms of a batch of memory to `strategy.loss`.

        Args:
            strategy: in a step, after its own loss.
            trunk: the slow/fast pair inside its network.
            batch: inputs `x` (B, ...), labels `y` (B,), target logits `z_t` (B, K_t), whether there are any `known`
                (B,).
        """
        z, features = self.features.replay(strategy.model, trunk, batch["x"])
        terms = {"Memory": strategy._criterion(z, batch["y"])}
        if self.strength > 0.0:
            terms["Distillation"] = self.strength * self._distillation(strategy, z, batch)
        if features is not None:
            terms["Features"] = self.features.loss(features, batch["x"], batch["known"])
        for name, value in terms.items():
            strategy.loss = strategy.loss + value
            self._totals[name] = self._totals.get(name, torch.zeros_like(value)) + value.detach()
        self._steps += 1

    def _distillation(self, strategy: Any, z: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        if self._outputs != z.shape[1]:  # an experience begins, or the head has grown
            self._outputs = z.shape[1]
            self._read = outputs_read(strategy._criterion, z)
        read = None if self._read is None else self._read.index_select(0, batch["y"])
        kl = soft_target_divergence(z, batch["z_t"], self.temperature, read)
        classes = self._outputs if read is None else read.sum(1)
        return reduced_divergence(kl, batch["known"], classes, self.kl)


def further_step(strategy: Any, **kwargs: Any) -> None:
    """One more step on the strategy's batch, through all of its callbacks: Avalanche's own sequence."""
    strategy.optimizer.zero_grad()
    strategy.loss = strategy._make_empty_loss()
    strategy._before_forward(**kwargs)
    strategy.mb_output = strategy.forward()
    strategy._after_forward(**kwargs)
    strategy.loss = strategy.loss + strategy.criterion()
    strategy._before_backward(**kwargs)
    strategy.backward()
    strategy._after_backward(**kwargs)
    strategy._before_update(**kwargs)
    strategy.optimizer_step()
    strategy._after_update(**kwargs)
