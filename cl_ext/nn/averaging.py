"""Networks whose weights are a moving average of another network's, updated at some of its steps only.

Symbols as in CLS-ER (Arani et al. 2022): `theta` the weights of the network in training, `theta_E` their average,
`alpha` the decay, `r` the probability of an update, `k` the step's number, from 1. At each step, with probability r,

    theta_E := a theta_E + (1 - a) theta,   a = min(1 - 1/(k + 1), alpha)

With r = 1 it is the arithmetic mean of `theta_0 ... theta_k` while `k + 1 <= 1/(1 - alpha)`. The index of the warm-up
is the step, not the update: with r < 1 the weight of a step that is left out goes to the older ones.

`torch.optim.swa_utils.AveragedModel` does not serve: it counts updates instead of steps, overwrites the first weights
at the first, pairs tensors by position (a grown head is cut off without a word) and averages or copies every buffer.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from cl_ext.nn.distillation import snapshot
from cl_ext.nn.merging import write_
from cl_ext.nn.passes import logits
from cl_ext.nn.uniforms import UniformStream

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Statistics = Literal["buffer-forward", "ema", "copy"]
"""Where batch norm's running statistics of an average come from."""


def decay(k: int, alpha: float) -> float:
    """Returns `a = min(1 - 1/(k + 1), alpha)` of step k >= 1."""
    return min(1.0 - 1.0 / (k + 1), alpha)


@torch.no_grad()
def average_(averages: list[Tensor], weights: list[Tensor], a: float) -> None:
    """`theta_E := a theta_E + (1 - a) theta`, in place; with a = 0 a copy, with a = 1 nothing, both exact."""
    torch._foreach_lerp_(averages, weights, 1.0 - a)


class AveragedNetwork:
    """A copy of a network that predicts with averaged weights; no gradient ever reaches it.

    `follow` copies the network: heads that have grown, their masks and everything else that is no weight are the
    network's own at that moment; weights that were averaged already stay, new ones start as copies of the network's.
    Dropout and the like are off in the copy, so that it draws no random number.

    Attributes:
        network: the copy; None before the first `follow`.
        steps: k, the steps so far, those without an update included.
        updates: how many of them had one.
    """

    def __init__(
        self, alpha: float, rate: float = 1.0, statistics: Statistics = "buffer-forward", seed: int = 0
    ) -> None:
        """Makes an average of nothing.

        Args:
            alpha: the decay, in [0, 1]; at 0 every update copies, at 1 the average is an arithmetic mean for ever.
            rate: r, the probability of an update, in [0, 1].
            statistics: of batch norm. "buffer-forward": measured by the copy's own forward passes, which run these
                layers in train mode where the network's are; "ema": averaged like weights; "copy": the network's
                latest.
            seed: of the generator of the coins.
        """
        self.alpha = alpha
        self.rate = rate
        self.statistics: Statistics = statistics
        self.network: nn.Module | None = None
        self.steps = self.updates = 0
        self._coins = UniformStream(seed)
        self._averages: list[Tensor] = []
        self._weights: list[Tensor] = []
        self._copies: list[Tensor] = []
        self._originals: list[Tensor] = []
        self._norms: list[_BatchNorm] = []
        self._loaded: dict[str, Tensor] = {}

    def follow(self, model: nn.Module) -> None:
        """Copies `model` as it is now, but for the values that were averaged; to be called whenever it has changed.

        Args:
            model: the network in training; its batch norm layers' modes at this moment become the copy's.
        """
        known = self.values()
        self.network = snapshot(model)
        write_(self.network, known)
        self._loaded = {}
        pairs = list(_statistics(self.network, model))
        if self.statistics == "buffer-forward":
            self._norms = [mine for mine, theirs in pairs if theirs.training]
            self._train_norms(True)
        buffers = [two for norms in pairs for two in zip(*(norm.buffers() for norm in norms), strict=True)]
        averaged: list[tuple[Tensor, ...]] = list(zip(self.network.parameters(), model.parameters(), strict=True))
        if self.statistics == "ema":
            averaged += [two for two in buffers if two[0].is_floating_point()]
        copied = buffers if self.statistics == "copy" else []
        self._averages, self._weights = [mine for mine, _ in averaged], [theirs for _, theirs in averaged]
        self._copies, self._originals = [mine for mine, _ in copied], [theirs for _, theirs in copied]

    @property
    def needs_passes(self) -> bool:
        """Whether forward passes change the copy: it measures batch norm's statistics by them."""
        return bool(self._norms)

    @torch.no_grad()
    def __call__(self, x: Tensor, task_labels: Tensor | None = None) -> Tensor:
        """Returns the copy's logits (B, K), without a graph.

        One sample is no batch to measure statistics on: batch norm then uses those that it has.

        Args:
            x: inputs (B, ...).
            task_labels: (B,), for a network that asks for them.
        """
        assert self.network is not None
        if self._norms and len(x) < 2:
            self._train_norms(False)
            output = logits(self.network, x, task_labels)
            self._train_norms(True)
            return output
        return logits(self.network, x, task_labels)

    def _train_norms(self, mode: bool) -> None:
        for norm in self._norms:
            norm.training = mode

    def coin(self) -> float:
        """Returns a uniform draw of [0, 1) from the generator of its own."""
        return self._coins.next()

    def step_(self) -> bool:
        """Lets a step of the network pass, with an update where the coin is below the rate; returns whether so."""
        self.steps += 1
        if self._copies:
            with torch.no_grad():
                torch._foreach_copy_(self._copies, self._originals)
        if not self.coin() < self.rate:
            return False
        average_(self._averages, self._weights, decay(self.steps, self.alpha))
        self.updates += 1
        return True

    def values(self) -> dict[str, Tensor]:
        """Returns what is the average's own, by name: weights, and batch norm's statistics unless they are copies.

        The tensors are the copy's own; empty before the first `follow`.
        """
        if self.network is None:
            return dict(self._loaded)
        own: dict[str, Tensor] = dict(self.network.named_parameters())
        if self.statistics == "copy":
            return own
        return own | {
            f"{layer}.{name}".lstrip("."): buffer
            for layer, norm in self.network.named_modules()
            if isinstance(norm, _BatchNorm)
            for name, buffer in norm.named_buffers()
        }

    def bytes(self) -> int:
        """Returns the memory held, in bytes."""
        if self.network is None:
            return sum(tensor.nbytes for tensor in self._loaded.values())
        return sum(tensor.nbytes for tensor in (*self.network.parameters(), *self.network.buffers()))

    def state_dict(self) -> dict[str, Any]:
        """Returns steps, updates, the generator's state and copies of `values`."""
        values = {name: value.detach().clone() for name, value in self.values().items()}
        return {"steps": self.steps, "updates": self.updates, "coins": self._coins.get_state(), "values": values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over copies of what `state_dict` gave; `follow` has to come before anything else."""
        self.steps, self.updates = int(state["steps"]), int(state["updates"])
        self._coins.set_state(state["coins"])
        self.network = None
        self._loaded = {name: value.detach().clone() for name, value in state["values"].items()}


def _statistics(network: nn.Module, model: nn.Module) -> Iterator[tuple[_BatchNorm, _BatchNorm]]:
    """Yields the batch norm layers with running statistics, of a copy and of what it was copied from."""
    for mine, theirs in zip(network.modules(), model.modules(), strict=True):
        if isinstance(mine, _BatchNorm) and isinstance(theirs, _BatchNorm) and mine.running_mean is not None:
            yield mine, theirs
