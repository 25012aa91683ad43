"""Mends of the methods with networks of their own: PackNet and generative replay's VAE."""

from typing import Any

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)

import torch
from avalanche.core import SupervisedPlugin
from avalanche.models import MlpVAE
from avalanche.models.packnet import PackNetModel, PackNetModule, WeightAndBiasPackNetModule
from torch import Tensor, nn


class TaskHead(PackNetModule):
    """A linear head whose rows belong to the tasks by their classes; it is neither pruned nor frozen as a whole.

    The paper has a classifier a task. Stock, the one classifier is packed like any layer: half of the rows of later
    tasks freeze at their initial values with the first task, and the bias of all of them.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, features: Tensor) -> Tensor:
        """Logits `(B, K)`."""
        return self.linear(features)

    def _prune(self, prune_proportion: float) -> None:
        pass

    def _freeze_pruned(self) -> None:
        pass

    def _activate_task(self, task_id: int) -> None:
        pass


def pack(network: Any) -> PackNetModel:
    """Makes a network whose trunk is packed and whose `classifier`, a linear layer, is a `TaskHead`.

    Raises:
        ValueError: A module of the trunk has statistics or parameters that PackNet can't pack.
    """
    network.classifier = TaskHead(network.classifier)
    return PackNetModel(network)


def packed_layers(model: nn.Module) -> list[WeightAndBiasPackNetModule]:
    """The layers that are packed."""
    return [module for module in model.modules() if isinstance(module, WeightAndBiasPackNetModule)]


class FrozenEntries(SupervisedPlugin):
    """Puts what belongs to other tasks back after each step.

    Stock, gradients are masked before the optimizer adds its weight decay: frozen weights shrink at every step.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        model = strategy.model
        entries = [(layer.wrappee.weight, layer.unfrozen_mask) for layer in packed_layers(model)]
        for head in (module for module in model.modules() if isinstance(module, TaskHead)):
            rows = torch.zeros(head.linear.out_features, dtype=torch.bool, device=head.linear.weight.device)
            rows[sorted(strategy.experience.classes_in_this_experience)] = True
            entries.append((head.linear.weight, rows[:, None]))
            if head.linear.bias is not None:
                entries.append((head.linear.bias, rows))
        self._kept = [(tensor, free, tensor.detach().clone()) for tensor, free in entries]

    @torch.no_grad()
    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        for tensor, free, before in self._kept:
            tensor.copy_(torch.where(free, tensor, before))
        self._kept = []


def packed_logits(model: PackNetModel, x: Tensor, task: int) -> Tensor:
    """Logits `(B, K)` of a task's own subset, which leaves the network's state as it is.

    Stock, evaluation activates a task, which is an error between pruning and the end of the experience. A task that
    has not begun has all weights, which is what it would start from.
    """
    layers = packed_layers(model)
    masks = [layer.visible_mask for layer in layers]
    try:
        for layer in layers:
            layer.visible_mask = layer.task_index.less_equal(min(task, model.task_count))
        return model.wrappee(x)
    finally:
        for layer, mask in zip(layers, masks, strict=True):
            layer.visible_mask = mask


class _Range(nn.Module):
    """[0, 1] to [low, high]."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        """Of the same shape as `x`."""
        return self.low + (self.high - self.low) * x


class MendedVAE(MlpVAE):
    """Avalanche's VAE for samples of any shape and range.

    Stock, its decoder's outputs end in MNIST's normalisation, whatever the data, which flat samples can't pass; its
    latent deviation is exp(logvar) / 2; a batch of one sample is an error in its batch norm; and what it generates
    carries its graph, so that each step of the solver goes back through the old generator.

    Args:
        shape: Of a sample.
        latent: Units of the latent space.
        low: Smallest value of the samples.
        high: Largest value of the samples.
        device: Where it lives.
    """

    def __init__(self, shape: tuple[int, ...], latent: int, low: float, high: float, device: Any = "cpu") -> None:
        super().__init__(shape, nhid=latent, device=device)
        self.decoder.invTrans = _Range(low, high)

    def sampling(self, mean: Tensor, logvar: Tensor) -> Tensor:
        """A latent sample of the deviation exp(logvar / 2)."""
        return mean + torch.randn_like(mean) * torch.exp(0.5 * logvar)

    @torch.no_grad()
    def generate(self, batch_size: int | None = None) -> Tensor:
        """`batch_size` samples, or a single one without the batch's dimension."""
        samples: Tensor = super().generate(batch_size)
        return samples

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The reconstruction `(B, ...)`, the latent means and log-variances `(B, latent)`."""
        if self.training and len(x) == 1:
            twice: tuple[Tensor, Tensor, Tensor] = super().forward(torch.cat([x, x]))
            return twice[0][:1], twice[1][:1], twice[2][:1]
        out: tuple[Tensor, Tensor, Tensor] = super().forward(x)
        return out
