"""The phases of CPG: training with masks, pruning while it trains, and accuracies to decide by."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cl_ext.nn.holdout import accuracy
from cl_ext.nn.phases import run_iterations
from cl_ext.nn.picking import Picks
from cl_ext.nn.sparsity import cubic_sparsity, smallest_owned
from cl_ext.plugins.checks import check_number
from cl_ext.plugins.masked import MaskedPlugin

import torch
from torch import Tensor


def _never(step: int) -> None:
    return None


def _resting(step: int) -> float:
    return 0.0


def check_ladder(owner: str, ladder: Sequence[float]) -> tuple[float, ...]:
    """Returns ratios that rise and lie in (0, 1).

    Raises:
        TypeError: if one is no number.
        ValueError: if they are something else.
    """
    ratios = tuple(check_number(owner, "ladder", ratio, 0.0, 1.0, above=True) for ratio in ladder)
    if any(a >= b for a, b in zip((0.0, *ratios), (*ratios, 1.0), strict=True)):
        raise ValueError(f"{owner}: ladder must be rising numbers in (0, 1), got {tuple(ladder)}")
    return ratios


class MeasuredPhases(MaskedPlugin):
    """Ownership of weights with phases that learn which earlier weights to use, prune, and measure themselves."""

    def __init__(self, lr_factor: float, mask_every: int) -> None:
        super().__init__()
        self.lr_factor = lr_factor
        self.mask_every = mask_every
        self._held: Any = None
        self._picks: Picks | None = None
        self._mask_optimizer: torch.optim.Adam | None = None
        self.begin_phase(1)

    def tensors_of_training(self) -> Iterator[Tensor]:
        """Whatever a task's training changes."""
        assert self._network is not None  # set when the task began
        yield from self.features.state_dict(keep_vars=True).values()
        yield from self._network.heads[self._task].state_dict(keep_vars=True).values()
        yield from self.scheme.owners.buffers()
        if self._picks is not None:
            yield from self._picks.masks.values()

    def owns(self) -> bool:
        """Whether the task that is being trained has weights of its own."""
        return any(bool(owned.any()) for owned in self.owned().values())

    def picked(self) -> float:
        """The share of earlier tasks' weights that the task uses."""
        if self._picks is None:
            return 1.0
        chosen = self._picks.chosen().values()
        return sum(int(entries.sum()) for entries in chosen) / max(1, sum(entries.numel() for entries in chosen))

    def begin_phase(
        self,
        steps: int,
        mask_lr: Callable[[int], float] = _resting,
        sparsity: Callable[[int], float | None] = _never,
    ) -> None:
        """Begins a phase with nothing counted.

        Args:
            steps: of an epoch.
            mask_lr: the masks' learning rate in a step, by the number of steps before it in the phase.
            sparsity: the share of free entries to be reached after so many steps of the phase; None: no pruning.
        """
        self._step = 0
        self._recent: deque[Tensor] = deque(maxlen=max(1, steps))
        self._mask_lr, self._sparsity = mask_lr, sparsity
        self._mask_optimizer = None
        if self._picks is not None:
            self._picks.train(False)
            if mask_lr(0) > 0:
                self._mask_optimizer = torch.optim.Adam(self._picks.masks.values(), lr=mask_lr(0))

    @contextmanager
    def later_phase(self, strategy: Any, **changes: Any) -> Iterator[None]:
        """A phase after the first, at its learning rate, with a fresh optimizer's state; `changes` as `begin_phase`."""
        self.begin_phase(len(strategy.dataloader), **changes)
        with self.phase(strategy, self.lr_factor):
            yield

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Says whether this step learns the masks, and how fast."""
        if self._mask_optimizer is None or self._picks is None:
            return
        rate = self._mask_lr(self._step)
        self._picks.train(rate > 0)
        self._mask_optimizer.param_groups[0]["lr"] = rate
        self._mask_optimizer.zero_grad()

    def after_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Counts what the present task got right."""
        own = strategy.mb_task_id == self._task
        right = (strategy.mb_output.detach().argmax(1) == strategy.mb_y) & own
        self._recent.append(torch.stack([right.sum(), own.sum()]))

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Puts back what the optimizer must not move; steps the masks, and prunes where it is time."""
        super().after_update(strategy)
        if self._mask_optimizer is not None:
            self._mask_optimizer.step()
        self._step += 1
        ratio = self._sparsity(self._step)
        if ratio is not None:
            self.compact(ratio)

    def accuracies(self, strategy: Any) -> tuple[float, float]:
        """The accuracy in training, over the phase's last steps (an epoch of them at most), and on held-out samples.

        The first is measured afterwards where the phase had no step.
        """
        held = self.held_accuracy(strategy)
        if not self._recent:
            return self._measure(strategy, strategy.adapted_dataset), held
        right, total = torch.stack(list(self._recent)).sum(0).tolist()
        return right / max(1, total), held

    def held_accuracy(self, strategy: Any) -> float:
        """The accuracy on the samples that were put aside."""
        return self._measure(strategy, self._held)

    def _measure(self, strategy: Any, dataset: Any) -> float:
        return accuracy(strategy.model, dataset, self._task, strategy.eval_mb_size, strategy.device)

    def rung(self, strategy: Any, start: float, target: float, rising: int, recovering: int) -> None:
        """Prunes gradually from one ratio to the next, and trains on.

        Args:
            strategy: in training.
            start: the ratio of free entries at the beginning.
            target: the ratio to reach.
            rising: steps in which the ratio rises; with 0 it jumps.
            recovering: steps after them.
        """

        def sparsity(step: int) -> float | None:
            due = step <= rising and (step % self.mask_every == 0 or step == rising)
            return cubic_sparsity(step, start, target, rising) if due else None

        with self.later_phase(strategy, sparsity=sparsity):
            if rising == 0:
                self.compact(target)
            run_iterations(strategy, rising + recovering)

    def compact(self, ratio: float) -> None:
        """Frees, in each layer, the task's smallest weights until the share `ratio` of its own and the free is free."""
        weights, owners = self.weights(), self.scheme.owners
        chosen = {
            name: smallest_owned(weights[name], owned, owners.free(name), ratio) for name, owned in self.owned().items()
        }
        self.give_up(chosen)
        self.hold()
