"""What an old network answers for samples that nobody has labelled: only classes that it was trained on.

Symbols: `z_t` the old network's logits (M, K_t), `z` the present one's (M, K), `T` the temperature. A group is a set of
trained outputs that the loss has compared with each other: all of them class- and domain-incrementally, those of one
task where the loss is over a task's classes. Of several groups, each sample is given one, drawn evenly.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from cl_ext.nn.distillation import OutputGroups, Teacher
from cl_ext.nn.sample_pass import trained_outputs
from cl_ext.nn.targets import NEVER, soft_target_divergence

import torch
from torch import Tensor

ONE_HEAD = 0
"""The task label of the samples where all tasks share one head."""


def hard_labels(z_t: Tensor, allowed: Tensor) -> Tensor:
    """Returns the argmax of the logits over the allowed classes, (M,).

    Args:
        z_t: logits, (M, K_t).
        allowed: (M, K_t) bool, one at least for each sample.
    """
    return z_t.masked_fill(~allowed, float("-inf")).argmax(1)


def soft_loss(z: Tensor, z_t: Tensor, allowed: Tensor, read: Tensor | None, temperature: float) -> Tensor:
    """Returns `T^2 (1/M) sum_n KL(p_n || q_n)`, `p = softmax(z_t / T)`, `q = softmax(z / T)`, a scalar.

    p is over the allowed classes and zero at the others; q is over all that the network's loss compares, new classes
    too, so that the network learns that an old sample is none of the new. With T^2 the gradient by `z` is
    `T (q - p) / M`, of about the same size at every T (Hinton et al. 2015).

    Args:
        z: the network's logits, (M, K), K >= K_t.
        z_t: the old network's, (M, K_t); constants.
        allowed: (M, K_t) bool.
        read: which outputs q is over, (M, K) bool; None for all.
        temperature: T > 0.
    """
    targets = z_t.masked_fill(~allowed, NEVER)
    return temperature**2 * soft_target_divergence(z, targets, temperature, read).mean()


def label_entropy(counts: Tensor, classes: int) -> float:
    """Returns the entropy of a histogram of labels over that of `classes` even ones: 1 is even, 0 a single label."""
    total = counts.sum()
    if classes < 2 or total == 0:
        return 1.0
    p = counts[counts > 0].double() / total
    return float(-(p * p.log()).sum()) / math.log(classes)


class Answers(NamedTuple):
    """An old network's answers for M samples.

    Attributes:
        y: the labels, (M,) int64.
        t: the task labels that the samples were given, (M,) int64.
        z_t: the logits, (M, K_t).
        group: which group each sample was given, (M,) int64.
        allowed: the classes of that group, (M, K_t) bool.
    """

    y: Tensor
    t: Tensor
    z_t: Tensor
    group: Tensor
    allowed: Tensor


class TrainedClasses:
    """Which classes a network was trained on, by the head and by the outputs that the loss compares."""

    def __init__(self) -> None:
        self._heads: dict[int, OutputGroups] = {}

    def add(self, labels: Mapping[int, list[int]], criterion: Any, outputs: int, device: torch.device) -> None:
        """Takes over what an experience has trained.

        Args:
            labels: task label of a head -> sorted labels; `ONE_HEAD` where there is one.
            criterion: the loss, from logits (B, K) and labels (B,).
            outputs: K.
            device: where the criterion works.
        """
        for task, own in labels.items():
            y = torch.tensor(own, device=device)
            phi = torch.zeros(len(y), max(outputs, own[-1] + 1), device=device)
            self._heads.setdefault(task, OutputGroups()).add(own, trained_outputs(criterion, phi, y))

    def groups(self) -> list[tuple[int, list[int]]]:
        """Returns (task label, sorted classes) of every group, in order."""
        return sorted(
            (task, sorted(outputs & head.seen))
            for task, head in self._heads.items()
            for outputs in head.joined
            if outputs & head.seen
        )

    def classes(self) -> set[int]:
        """Returns all trained classes."""
        return {label for _, own in self.groups() for label in own}

    def state(self) -> dict[str, Any]:
        """Returns the state as JSON values."""
        return {str(task): head.state() for task, head in self._heads.items()}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> "TrainedClasses":
        """Returns what `state` was taken from."""
        known = cls()
        known._heads = {int(task): OutputGroups.restored(head) for task, head in state.items()}
        return known


class OldNetwork:
    """A teacher that is asked about the classes that it was trained on.

    Attributes:
        teacher: the network as it was.
        groups: (task label, classes) of every group.
    """

    def __init__(self, teacher: Teacher, groups: Iterable[tuple[int, list[int]]], device: torch.device) -> None:
        self.teacher, self.groups = teacher, list(groups)
        self._tasks = torch.tensor([task for task, _ in self.groups], device=device)
        self._table: Tensor | None = None

    def __call__(self, x: Tensor, generator: torch.Generator) -> Answers:
        """Returns the answers for samples (M, ...); the groups are drawn from `generator`, on the CPU."""
        if len(self.groups) > 1:
            group = torch.randint(len(self.groups), (len(x),), generator=generator).to(x.device)
        else:
            group = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        t = self._tasks[group]
        z_t = self.teacher(x, t).logits
        if self._table is None:
            self._table = self.table([classes for _, classes in self.groups], z_t)
        allowed = self._table[group]
        return Answers(hard_labels(z_t, allowed), t, z_t, group, allowed)

    def read(self, outputs_read: Tensor) -> Tensor:
        """Returns which outputs the loss reads for a sample of each group, (G, K) bool.

        Args:
            outputs_read: the same for a sample of each label, (K, K) bool.
        """
        return torch.stack([outputs_read[classes].any(0) for _, classes in self.groups])

    @staticmethod
    def table(groups: list[list[int]], like: Tensor) -> Tensor:
        """Returns the classes of each group as a mask, (G, K_t) bool."""
        mask = torch.zeros(len(groups), like.shape[1], dtype=torch.bool)
        for row, classes in enumerate(groups):
            mask[row, classes] = True
        return mask.to(like.device)
