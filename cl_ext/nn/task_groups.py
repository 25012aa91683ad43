"""Groups of similar tasks, each with a moving average of the network in training.

Tasks have numbers, from 0, in the order in which they come. A group's `id` is a label that memory samples can carry and
that nothing else depends on: where an order is needed (ties, sums), it is that of the groups' first members.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cl_ext.nn.averaging import AveragedNetwork, Statistics

import torch
from torch import Tensor, nn


@dataclass
class TaskGroup:
    """Tasks that share an average.

    Attributes:
        id: its label.
        members: numbers of its tasks, in order.
        average: `theta_g`, with its steps and updates.
        signature: mean of the members' signatures; empty where there are none.
        compared: by the other group's id, sum and number of the similarities that were measured between the two.
    """

    id: int
    members: list[int]
    average: AveragedNetwork
    signature: Tensor
    compared: dict[int, tuple[float, int]] = field(default_factory=dict)


def add_comparison(group: TaskGroup, other: int, total: float, count: int = 1) -> None:
    """Adds measured similarities between a group and the one with the id `other`."""
    before = group.compared.get(other, (0.0, 0))
    group.compared[other] = before[0] + total, before[1] + count


class TaskGroups:
    """At most `max_groups` groups; a task joins the most similar one, or founds one of its own."""

    def __init__(
        self, alpha: float, statistics: Statistics, tau_join: float, max_groups: int, coins: Callable[[int], int]
    ) -> None:
        """Makes no group yet.

        Args:
            alpha: decay of every group's average, in [0, 1].
            statistics: of batch norm; see `AveragedNetwork`.
            tau_join: least similarity, in [0, 1], at which a task joins.
            max_groups: G_max >= 1; with 1 every task joins.
            coins: from the number of a group's first task to the seed of its average's coins.
        """
        self.alpha = alpha
        self.statistics: Statistics = statistics
        self.tau_join = tau_join
        self.max_groups = max_groups
        self._coins = coins
        self._groups: list[TaskGroup] = []

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[TaskGroup]:
        return iter(self._groups)

    def __getitem__(self, index: int) -> TaskGroup:
        return self._groups[index]

    def of_task(self, task: int) -> TaskGroup | None:
        """Returns the group of a task; None where it is in none."""
        return next((group for group in self._groups if task in group.members), None)

    def nearest(self, similarities: Mapping[int, float]) -> TaskGroup | None:
        """Returns the group that a task joins: the most similar one, the oldest of equals; None for a new group.

        Args:
            similarities: in [0, 1], by group id, of all groups.
        """
        if not self._groups:
            return None
        best = max(self._groups, key=lambda group: similarities[group.id])  # the first of equals
        return best if self.max_groups == 1 or similarities[best.id] >= self.tau_join else None

    def join(self, group: TaskGroup, task: int, signature: Tensor, similarities: Mapping[int, float]) -> None:
        """Makes a task a member of a group: the signature is then the mean of all members'."""
        if len(group.signature):
            group.signature = torch.lerp(group.signature, signature, 1.0 / (len(group.members) + 1))
        group.members.append(task)
        self._note(group, similarities)

    def found(self, task: int, signature: Tensor, similarities: Mapping[int, float], model: nn.Module) -> TaskGroup:
        """Founds a group of one task, whose average starts at the weights of `model`.

        Args:
            task: its number.
            signature: of the task; empty where there is none.
            similarities: by group id, of all groups that there are.
            model: the network in training.
        """
        average = AveragedNetwork(self.alpha, 1.0, self.statistics, self._coins(task))
        average.follow(model)
        group = TaskGroup(1 + max((group.id for group in self._groups), default=-1), [task], average, signature)
        self._groups.append(group)
        self._note(group, similarities)
        return group

    def _note(self, group: TaskGroup, similarities: Mapping[int, float]) -> None:
        for other in self._groups:
            if other is not group and other.id in similarities:
                add_comparison(group, other.id, similarities[other.id])
                add_comparison(other, group.id, similarities[other.id])

    @property
    def full(self) -> bool:
        """Whether two groups have to be merged before another can be founded."""
        return len(self._groups) >= self.max_groups

    def merge_closest(self) -> tuple[TaskGroup, int]:
        """Merges the two groups with the largest mean of measured similarities; of equals, the oldest.

        Weights and signatures are averaged by member count. The younger group goes into the older one.

        Returns:
            The merged group and the id that is no more.
        """
        pairs = [(a, b) for i, a in enumerate(self._groups) for b in self._groups[i + 1 :]]
        older, younger = max(pairs, key=lambda pair: _closeness(*pair))
        share = len(younger.members) / (len(older.members) + len(younger.members))
        average_into_(older.average, younger.average, share)
        if len(older.signature):
            older.signature = torch.lerp(older.signature, younger.signature, share)
        older.members = sorted(older.members + younger.members)
        self._groups.remove(younger)
        for group in self._groups:
            measured = group.compared.pop(younger.id, None)
            if measured is not None and group is not older:
                add_comparison(group, older.id, *measured)
                add_comparison(older, group.id, *measured)
        return older, younger.id

    def follow(self, model: nn.Module) -> None:
        """Has every average follow the network."""
        for group in self._groups:
            group.average.follow(model)

    @torch.no_grad()
    def mean_values(self) -> dict[str, Tensor]:
        """Returns the mean of the groups' weights by member count, by name, as new tensors; empty without a group."""
        total = sum(len(group.members) for group in self._groups)
        mean: dict[str, Tensor] = {}
        for group in self._groups:
            share = len(group.members) / total
            for name, value in group.average.values().items():
                if not value.is_floating_point():
                    mean[name] = value.clone()
                elif name in mean:
                    mean[name].add_(value, alpha=share)
                else:
                    mean[name] = value.detach() * share
        return mean

    def bytes(self) -> int:
        """Returns the memory held, in bytes."""
        return sum(group.average.bytes() + group.signature.nbytes for group in self._groups)

    def state_dict(self) -> list[dict[str, Any]]:
        """Returns a list of the groups as tensors and JSON values; the tensors are copies."""
        return [
            {
                "id": group.id,
                "members": list(group.members),
                "average": group.average.state_dict(),
                "signature": group.signature.clone(),
                "compared": [[other, total, count] for other, (total, count) in sorted(group.compared.items())],
            }
            for group in self._groups
        ]

    def load_state_dict(self, state: list[Mapping[str, Any]]) -> None:
        """Takes over copies of what `state_dict` gave, in any order; `follow` has to come before anything else."""
        self._groups = []
        for each in sorted(state, key=lambda each: min(each["members"])):
            average = AveragedNetwork(self.alpha, 1.0, self.statistics)
            average.load_state_dict(each["average"])
            compared = {int(other): (float(total), int(count)) for other, total, count in each["compared"]}
            signature = each["signature"].clone()
            self._groups.append(TaskGroup(int(each["id"]), list(each["members"]), average, signature, compared))


def _closeness(a: TaskGroup, b: TaskGroup) -> float:
    total, count = a.compared.get(b.id, (0.0, 0))
    return total / count if count else 0.0


@torch.no_grad()
def average_into_(average: AveragedNetwork, other: AveragedNetwork, share: float) -> None:
    """`theta := (1 - share) theta + share theta_other`, in place; it has then had the longer one's steps.

    Args:
        average: what is changed; both must have followed the same network.
        other: what comes in.
        share: in [0, 1].
    """
    theirs = other.values()
    for name, mine in average.values().items():
        if mine.is_floating_point():
            mine.lerp_(theirs[name], share)
    average.steps = max(average.steps, other.steps)
    average.updates += other.updates


def surest(z: Tensor) -> Tensor:
    """Returns for each sample the logits of the network with the largest softmax probability, (B, K).

    Args:
        z: logits of G networks, (G, B, K); the first of equally sure ones counts.
    """
    chosen = z.softmax(2).amax(2).argmax(0)
    return z[chosen, torch.arange(z.shape[1], device=z.device)]


def mean_of_softmaxes(z: Tensor) -> Tensor:
    """Returns the logarithm of the mean over networks of their softmaxes, (B, K): logits of that mean.

    Args:
        z: logits of G networks, (G, B, K).
    """
    return z.log_softmax(2).logsumexp(0) - torch.tensor(float(len(z))).log().to(z)
