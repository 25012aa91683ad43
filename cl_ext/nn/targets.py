"""Distillation on memory: how far a network is from the logits that an earlier one gave for a stored sample.

Symbols: `z` the network's logits (B, K), `z_t` the stored ones, `T` the temperature, `C` the classes of the softmax.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from cl_ext.nn.memory import RehearsalMemory

import torch
from torch import Tensor
from torch.nn import functional

KLReduction = Literal["batchmean", "mean", "mean_times_batch"]
Targets = Literal["boundary", "boundary_stale", "write"]

NEVER = -1e9
"""A logit of probability 0 that leaves no NaN behind, as -inf would."""

_PASS_BATCH = 256


def soft_target_divergence(z: Tensor, z_t: Tensor, temperature: float, read: Tensor | None = None) -> Tensor:
    """Returns `KL(softmax(z_t / T) || softmax(z / T))` of each sample, (B,); no factor T^2.

    Args:
        z: the network's logits, (B, K).
        z_t: the targets' logits, (B, K_t) with K_t <= K; constants. Outputs that they lack have probability 0.
        temperature: T > 0.
        read: which outputs the softmax is over, (B, K) bool; None for all.
    """
    z_t = functional.pad(z_t, (0, z.shape[1] - z_t.shape[1]), value=NEVER)
    z, z_t = z / temperature, z_t.detach() / temperature
    if read is not None:
        z, z_t = (logits.masked_fill(~read, NEVER) for logits in (z, z_t))
    pointwise = functional.kl_div(z.log_softmax(1), z_t.log_softmax(1), reduction="none", log_target=True)
    return pointwise.sum(1)


def reduced_divergence(kl: Tensor, known: Tensor, classes: Tensor | int, reduction: KLReduction) -> Tensor:
    """Returns one number for a batch, a scalar; 0 where no sample has a target.

    Args:
        kl: of each sample, (B,).
        known: whether it has a target, (B,) bool.
        classes: C of each sample's softmax, (B,), or of all.
        reduction: "batchmean", the mean over samples; "mean", the mean over samples and classes, smaller by C;
            "mean_times_batch", that times the number of samples.
    """
    kl = torch.where(known, kl, 0.0)
    if reduction != "batchmean":
        kl = kl / classes
    return kl.sum() if reduction == "mean_times_batch" else kl.sum() / known.sum().clamp_min(1)


class TargetMemory:
    """A rehearsal memory whose samples have target logits: one for all tasks, or a ring of each task's newest samples.

    Fields of a batch: inputs `x`, labels `y`, target logits `z_t` (B, K) and whether there are any, `known` (B,).

    Attributes:
        mem_size: samples in all, or of each task.
        per_task: whether each task has a memory of its own; then only those of earlier tasks are sampled.
        targets: "boundary": the logits of the network as it is when a task begins, for all that has no target yet (all
            samples, where there is one memory); what is written in between has none. "boundary_stale": the same, but a
            place that is filled in between keeps the logits of whom it held before, and zeros if nobody.
            "write": the logits that came with the sample.
    """

    def __init__(self, mem_size: int, per_task: bool, targets: Targets, seed: int = 0) -> None:
        self.mem_size = mem_size
        self.per_task = per_task
        self.targets: Targets = targets
        self._memory = RehearsalMemory(mem_size, "ring" if per_task else "reservoir", seed)

    def __len__(self) -> int:
        """How many samples can be drawn."""
        return sum(self._memory.sizes) if self.per_task else len(self._memory)

    @torch.no_grad()
    def begin_task(self, logits: Callable[[Tensor], Tensor]) -> None:
        """Records targets of what is held; in a memory of each task's, the last one's joins those that are sampled.

        Args:
            logits: the network, from inputs (N, ...) to logits (N, K).
        """
        if len(self._memory) and self.targets != "write":
            z_t = torch.cat([logits(x) for x in self._memory.fields["x"].split(_PASS_BATCH)])
            self.widen(z_t.shape[1])
            self._memory.fields["z_t"].copy_(z_t)
            self._memory.fields["known"].fill_(True)
        if self.per_task:
            self._memory.close()

    @torch.no_grad()
    def add(self, x: Tensor, y: Tensor, z: Tensor | None = None) -> None:
        """Offers a batch: inputs (B, ...), labels (B,) and, where targets are taken at the "write", logits (B, K)."""
        if self.mem_size == 0:
            return
        if z is None:
            held = self._memory.fields
            dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
            z_t = torch.zeros(len(x), held["z_t"].shape[1] if held else 0, device=x.device, dtype=dtype)
        else:
            self.widen(z.shape[1])
            z_t = z
        known = torch.full((len(x),), self.targets != "boundary", device=x.device)
        kept = ("z_t",) if self.targets == "boundary_stale" else ()
        self._memory.add(kept, x=x, y=y, z_t=z_t, known=known)

    def sample(self, count: int) -> dict[str, Tensor] | None:
        """Returns `count` samples, uniform and without repetition; all if there are fewer, None if there is none."""
        return self._memory.sample(count, closed=self.per_task)

    def widen(self, K: int) -> None:
        """Gives the targets of a head that has grown to K outputs probability 0 on those that it lacked."""
        self._memory.widen("z_t", K, NEVER)

    def to(self, device: torch.device | str) -> None:
        """Moves what is held to a device."""
        self._memory.to(device)

    def bytes(self) -> int:
        """Returns the memory of all samples, in bytes."""
        return self._memory.bytes()

    def state_dict(self) -> dict[str, Any]:
        """Returns what is held, as copies."""
        return self._memory.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over copies of what `state_dict` gave; the arguments are the constructor's, and the same."""
        self._memory.load_state_dict(state)
