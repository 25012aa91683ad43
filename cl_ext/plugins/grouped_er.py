"""Experience replay that sorts its tasks into groups of similar ones, and knows the group of each replayed sample."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from cl_ext.nn.averaging import Statistics
from cl_ext.nn.memory import Policy
from cl_ext.nn.similarity import cosine, product_similarity
from cl_ext.nn.task_groups import TaskGroup, TaskGroups
from cl_ext.nn.task_probe import Signature, TaskProbe, TaskSample, readout_of
from cl_ext.plugins.checks import check_choice, check_count, check_number
from cl_ext.plugins.er import ERPlugin
from cl_ext.streams.seeding import random_state

import torch
from torch import Tensor

Similarity = Literal["product", "feature", "readout", "fisher", "correlation", "constant"]
KnownSimilarity = Callable[[int, Sequence[int]], float]
"""From a task's number and the numbers of a group's members to their similarity in [0, 1]."""

MOST_SAMPLES = 500
_SIGNATURES: dict[str, Signature] = {"product": "covariance", "feature": "covariance", "fisher": "fisher",
                                     "correlation": "correlation"}  # fmt: skip


def seed_of_task(seed: int, purpose: str, task: int) -> int:
    """Returns the seed of a task's own generator for one purpose; the first task's is that of the purpose itself."""
    return int(random_state(seed, purpose, *([task] if task else [])).randint(2**31))


class GroupedERPlugin(ERPlugin):
    """ER whose tasks are in groups: each new one joins the most similar group, or founds one where none is similar.

    The similarity is measured on a few samples of the task before it is trained on. Task boundaries are needed. The
    working network is that of `ERPlugin` bit for bit.

    Attributes:
        groups: each with its `average`, `members` and `signature`.
        similarities: s(t, g) in [0, 1] of the present task t by group id.
    """

    def __init__(
        self, mem_size: int, mem_batch_size: int, similarity: Similarity | KnownSimilarity, tau_join: float,
        max_groups: int, alpha: float, n_signature: int, bn: Statistics, policy: Policy, seed: int,
    ) -> None:  # fmt: skip
        """Sets the hyper-parameters; see `SimEMAPlugin`."""
        super().__init__(mem_size, mem_batch_size, policy, seed)
        owner = type(self).__name__
        if not callable(similarity):
            check_choice(owner, "similarity", similarity, Similarity)
        self.similarity: Similarity | KnownSimilarity = similarity
        if check_count(owner, "n_signature", n_signature) > MOST_SAMPLES:
            raise ValueError(f"{owner}: n_signature must be an integer of 1 to {MOST_SAMPLES}, got {n_signature!r}")
        self.groups = TaskGroups(
            check_number(owner, "alpha", alpha, 0.0, 1.0), bn, check_number(owner, "tau_join", tau_join, 0.0, 1.0),
            check_count(owner, "max_groups", max_groups),
            # the first group tosses the coins of CLS-ER's plastic average, so that the one can be the other bit for bit
            partial(seed_of_task, seed, "coins of the plastic average"),
        )  # fmt: skip
        self._probe = TaskProbe(
            None if callable(similarity) else _SIGNATURES.get(similarity), n_signature,
            partial(seed_of_task, seed, "samples of a task"), partial(seed_of_task, seed, "views of a task"),
        )  # fmt: skip
        self.similarities: dict[int, float] = {}
        self._group: TaskGroup | None = None
        self._classes: set[int] = set()
        self._ids = self._drawn_ids = torch.zeros(0, dtype=torch.long)

    def extra_bytes(self) -> int:
        """Returns the memory held beside the network, in bytes."""
        return super().extra_bytes() + self.groups.bytes() + self._probe.bytes()

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole state between two experiences as tensors and JSON values; the tensors are copies."""
        return super().state_dict() | {
            "groups": self.groups.state_dict(),
            "probe": self._probe.state_dict(),
            "classes": sorted(self._classes),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; hyper-parameters are the constructor's, not part of it.

        Raises:
            ValueError: if it is the state of another plugin, or of a memory of another size.
        """
        super().load_state_dict(state)
        self.groups.load_state_dict(state["groups"])
        self._probe.load_state_dict(state["probe"])
        self._classes = set(state["classes"])

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Measures the task's similarity to each group, before a step of it; it joins one, or founds one.

        A task that was interrupted and begins again stays in its group.
        """
        super().before_training_exp(strategy, *args, **kwargs)
        task, model, loss = self.experiences, strategy.model, strategy._criterion
        self.groups.follow(model)
        self._probe.follow(model)
        sample = self._probe.draw(strategy.experience.dataset, task, strategy.device)
        self._classes.update(sample.y.unique().tolist())
        signature = self._probe.signature(sample)
        s = {group.id: self.measured(group, sample, signature, loss) for group in self.groups}
        self._group, self.similarities = self.groups.of_task(task), s
        if self._group is not None:
            return
        self._group = self.groups.nearest(s)
        if self._group is not None:
            self.groups.join(self._group, task, signature, s)
            return
        if len(self.groups) and self.groups.full:
            merged, gone = self.groups.merge_closest()
            self._rename(gone, merged.id)
            del s[gone]
            s[merged.id] = self.measured(merged, sample, signature, loss)
        self._group = self.groups.found(task, signature, s, model)
        s[self._group.id] = self._known(task, [task]) if callable(self.similarity) else 1.0

    def measured(self, group: TaskGroup, sample: TaskSample, signature: Tensor, loss: Any) -> float:
        """Returns s(t, g) in [0, 1].

        Args:
            group: g, whose average follows the network.
            sample: of t.
            signature: of t.
            loss: from logits (B, K) and labels (B,) to a scalar: it says which outputs are compared.

        Raises:
            ValueError: if a function that was given as the similarity gives a number out of [0, 1].
        """
        if callable(self.similarity):
            return self._known(sample.task, group.members)
        if self.similarity == "constant":
            return 1.0
        alike = cosine(signature, group.signature) if self.similarity in _SIGNATURES else 1.0
        if self.similarity not in ("product", "readout"):
            return alike
        assert group.average.network is not None
        return product_similarity(alike, readout_of(group.average.network, sample, loss, len(self._classes)))

    def _known(self, task: int, members: Sequence[int]) -> float:
        assert callable(self.similarity)
        return check_number(type(self).__name__, "similarity's value", self.similarity(task, members), 0.0, 1.0)

    def _rename(self, old: int, new: int) -> None:
        ids = self.memory.get("group")
        if ids is not None:
            ids[ids == old] = new

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Puts a batch of the memory behind the stream's, and keeps its groups' ids, (M,)."""
        super().before_forward(strategy, *args, **kwargs)
        assert self._group is not None
        self._ids = torch.full_like(self._stream[1], self._group.id)
        self._drawn_ids = self._ids[:0] if self._joined is None else self._joined["group"]

    def offer(self, **others: Tensor) -> None:
        """Offers the stream's part to the memory, with its group's id."""
        super().offer(group=self._ids, **others)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """After the first task, freezes the network that signatures are made with and makes the first one."""
        if not self._probe.frozen:
            sample = self._probe.draw(strategy.experience.dataset, self.experiences, strategy.device)
            self._probe.freeze(strategy.model, sample)
            assert self._group is not None
            self._group.signature = self._probe.signature(sample)
        super().after_training_exp(strategy, *args, **kwargs)
