"""SIM-EMA: an average of the network for each group of similar tasks teaches it. A method of this package's own.

It has no paper. CLS-ER (Arani et al. 2022) is the method that it extends, and contains as a special case.

Symbols: `W` the working network that is trained, `theta_g` the average of group g, `S` the average of all tasks,
`s(t, g)` in [0, 1] the similarity of task t to group g, `phi` what a teacher's weight depends on it by, `lambda` the
weight of the consistency, `M` samples of the memory in a step, `K` outputs. `docs/methods/sim_ema.md` has the
equations.
"""

from collections.abc import Mapping
from typing import Any, Literal

from cl_ext.nn.averaging import AveragedNetwork
from cl_ext.nn.memory import Policy
from cl_ext.nn.merging import WeightSwap
from cl_ext.plugins.checks import check_choice, check_number
from cl_ext.plugins.clser import choose_teacher, consistency
from cl_ext.plugins.group_evaluation import GroupEvaluation, GroupEvaluationModel
from cl_ext.plugins.grouped_er import GroupedERPlugin, KnownSimilarity, Similarity
from cl_ext.plugins.rehearsal import OutputsRead
from cl_ext.streams.seeding import random_state

import torch
from torch import Tensor, nn

Phi = Literal["prop", "const", "inverse"]
Teacher = Literal["group", "best"]
Statistics = Literal["ema", "copy"]


def teacher_weight(s: float, phi: Phi) -> float:
    """Returns `phi(s)` in [0, 1]: s for "prop", 1 for "const", 1 - s for "inverse"."""
    return {"prop": s, "const": 1.0, "inverse": 1.0 - s}[phi]


def update_rate(s: float, low: float, high: float) -> float:
    """Returns `r_g = r_min + (r_max - r_min) s`, the probability of an update of a group's average."""
    return low + (high - low) * s


def weighted_consistency(z: Tensor, Z: Tensor, w: Tensor, read: Tensor | None = None) -> Tensor:
    """Returns the sum of `w_i (z_ij - Z_ij)^2` over the M x K logits divided by M K; a scalar.

    Args:
        z: logits, (M, K).
        Z: the teachers', (M, K).
        w: weight of each sample, (M,).
        read: which logits count, (M, K) bool; None for all. The divisor is then their number.
    """
    if read is None:
        return ((z - Z).square() * w.unsqueeze(1)).mean()
    # those that don't count are put aside first: what is not finite would come back in the gradient
    return (torch.where(read, z - Z, 0.0).square() * w.unsqueeze(1)).sum() / read.sum().clamp(min=1)


class SimEMAPlugin(GroupEvaluation, GroupedERPlugin):
    """SIM-EMA: experience replay with a consistency loss to the average of the group that a replayed sample is of.

        L = (1 / (B + M)) sum CE + lambda (1 / (M K)) sum over the memory's samples phi(s(t, g)) |W(x) - theta_g(x)|^2

    with g the group of the sample's own task and t the present one. Before task t is trained on, its similarity to
    each group is measured on a few of its samples; it joins the most similar group, or founds one where none reaches
    `tau_join`. After each step theta_g is updated with probability r_min + (r_max - r_min) s(t, g), and S with a
    constant one, as the averages of CLS-ER are. A group's founder has s = 1. Task boundaries are needed.

    Attributes:
        groups: each with its `average`, `members` and `signature`.
        stable: S.
        similarities: s(t, g) of the present task by group id.
        eval_model: what evaluation sees; it may be set between two evaluations.
    """

    name = "SimEMA"

    def __init__(
        self,
        sim_ema_lambda: float = 0.1,
        mem_size: int = 200,
        mem_batch_size: int = 32,
        similarity: Similarity | KnownSimilarity = "product",
        phi: Phi = "prop",
        tau_join: float = 0.5,
        max_groups: int = 5,
        rate_min: float = 0.0,
        rate_max: float = 1.0,
        alpha: float = 0.99,
        stable_alpha: float = 0.999,
        stable_rate: float = 0.7,
        n_signature: int = 500,
        teacher: Teacher = "group",
        eval_model: GroupEvaluationModel = "stable",
        bn: Statistics = "ema",
        policy: Policy = "reservoir",
        seed: int = 0,
    ) -> None:
        """Sets the hyper-parameters.

        Args:
            sim_ema_lambda: weight of the consistency, >= 0, a mean over the K outputs too. At 0 the working network is
                that of `ERPlugin` bit for bit.
            mem_size: samples kept, >= 0.
            mem_batch_size: M >= 1; all of the memory while that has fewer.
            similarity: "feature" (cosine of feature covariances), "readout" (how well theta_g predicts the new labels),
                "product" of the two, "fisher" or "correlation" (cosines of diagonal Fishers, of Barlow Twins'
                matrices), "constant" (1: a single group), or a function of the task's number and a group's members.
            phi: weight of a teacher: "prop" s, "const" 1, "inverse" 1 - s.
            tau_join: least similarity, in [0, 1], at which a task joins a group.
            max_groups: >= 1; where there are so many, the two closest are merged before another is founded; with 1
                every task joins.
            rate_min: r_min in [0, 1].
            rate_max: r_max in [r_min, 1].
            alpha: decay of the groups' averages, in [0, 1].
            stable_alpha: of S, in [0, 1].
            stable_rate: share of steps that update S, in [0, 1].
            n_signature: samples of a task that are measured, 1 to 500.
            teacher: "group": theta_g; "best": theta_g or S, the one that is surer of the label, at twice the passes.
            eval_model: "stable" (S), "working" (W), "mean_weights" (of the groups, by member count), "max_softmax" (for
                each sample the group that is surest), "ensemble" (the groups' mean of softmaxes).
            bn: batch norm's running statistics in the averages: "ema", averaged like weights, or "copy", W's latest.
            policy: which samples are kept: "reservoir", "ring" or "class_balanced"; see `RehearsalMemory`.
            seed: of the plugin's own generators, >= 0.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        owner = type(self).__name__
        statistics = check_choice(owner, "bn", bn, Statistics)
        super().__init__(
            mem_size, mem_batch_size, similarity, tau_join, max_groups, alpha, n_signature, statistics, policy, seed
        )
        self.sim_ema_lambda = check_number(owner, "sim_ema_lambda", sim_ema_lambda, 0.0)
        self.phi: Phi = check_choice(owner, "phi", phi, Phi)
        self.rate_min = check_number(owner, "rate_min", rate_min, 0.0, 1.0)
        self.rate_max = check_number(owner, "rate_max", rate_max, self.rate_min, 1.0)
        self.teacher: Teacher = check_choice(owner, "teacher", teacher, Teacher)
        self.eval_model: GroupEvaluationModel = check_choice(owner, "eval_model", eval_model, GroupEvaluationModel)
        self.stable = AveragedNetwork(
            check_number(owner, "stable_alpha", stable_alpha, 0.0, 1.0),
            check_number(owner, "stable_rate", stable_rate, 0.0, 1.0), statistics,
            int(random_state(seed, "coins of the stable average").randint(2**31)),
        )  # fmt: skip
        self._swap = WeightSwap()
        self._merged: nn.Module | None = None
        self._stale = True
        self._read = OutputsRead()
        self._weights: dict[int, float] = {}
        self._weight_of_id = torch.zeros(0)
        self._totals: dict[str, Any] = {}

    def extra_bytes(self) -> int:
        """Returns the memory held beside the network, in bytes."""
        merged = 0 if self._merged is None else sum(t.nbytes for t in self._merged.state_dict().values())
        return super().extra_bytes() + self.stable.bytes() + self._swap.bytes() + merged

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole state between two experiences as tensors and JSON values; the tensors are copies."""
        return super().state_dict() | {"stable": self.stable.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; hyper-parameters are the constructor's, not part of it.

        Raises:
            ValueError: if it is the state of another plugin, or of a memory of another size.
        """
        super().load_state_dict(state)
        self.stable.load_state_dict(state["stable"])
        self._merged, self._stale = None, True

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Finds the task's group; what the averages' rates and the teachers' weights are follows from similarities."""
        self._swap.leave(strategy.model)
        super().before_training_exp(strategy, *args, **kwargs)
        s = self.similarities
        self._merged = None
        self._read.restart()
        self._weights = {group.id: teacher_weight(s[group.id], self.phi) for group in self.groups}
        self._weight_of_id = torch.zeros(max(s) + 1, device=strategy.device)
        for group in self.groups:
            group.average.rate = update_rate(s[group.id], self.rate_min, self.rate_max)
            self._weight_of_id[group.id] = self._weights[group.id]

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Starts the epoch's means."""
        super().before_training_epoch(strategy, *args, **kwargs)
        assert self._group is not None
        self._stale = True
        self._totals = {"steps": 0, "loss": 0.0, "stable": 0, "taught": 0, "before": self._group.average.updates}

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Has the averages follow the network where it may have been changed: heads, masks, modes."""
        if self._stale:
            self._follow(strategy.model)
            self._stale = False

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Adds the consistency to the loss.

        Raises:
            DivergedError: if the loss is not finite; on the CPU only, elsewhere it waits for the epoch's end.
        """
        if len(self._drawn_ids) and self.sim_ema_lambda > 0.0 and any(self._weights.values()):
            self._teach(strategy, len(self._stream[1]))
        if strategy.loss.device.type == "cpu":
            self.check_loss(strategy, strategy.loss.item(), "sim_ema_lambda")

    def _teach(self, strategy: Any, start: int) -> None:
        x, y, z = strategy.mbatch[0][start:], strategy.mbatch[1][start:], strategy.mb_output[start:]
        t = strategy.mbatch[-1][start:] if len(strategy.mbatch) > 2 else None
        read = self._read(strategy._criterion, z, y)
        Z = self._group_logits(x, t, z)
        if self.teacher == "best":
            Z, stable = choose_teacher(self.stable(x, t), Z, y, read)
            self._totals["stable"] += stable.sum()
        weights = set(self._weights.values())
        if len(weights) == 1:  # the very operations of CLS-ER
            term, scale = consistency(z, Z, read), weights.pop()
        else:
            term, scale = weighted_consistency(z, Z, self._weight_of_id[self._drawn_ids], read), 1.0
        strategy.loss = torch.add(strategy.loss, term, alpha=self.sim_ema_lambda * scale)
        self._totals["loss"] += scale * term.detach()
        self._totals["taught"] += len(y)

    def _group_logits(self, x: Tensor, t: Tensor | None, z: Tensor) -> Tensor:
        """Returns (M, K): each sample's group's logits, from one pass; `z` itself for groups without weight."""
        if len(self.groups) == 1:
            return self.groups[0].average(x, t)
        Z = z.detach().clone()
        for group in self.groups:
            chosen = (self._drawn_ids == group.id).nonzero().flatten()
            if len(chosen) and self._weights[group.id] > 0.0:
                Z.index_copy_(0, chosen, group.average(x[chosen], None if t is None else t[chosen]))
        return Z

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Lets every average take the step."""
        super().after_update(strategy, *args, **kwargs)
        for group in self.groups:
            group.average.step_()
        self.stable.step_()
        self._merged = None
        self._totals["steps"] += 1

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Publishes groups, similarity and updates of the task's own group, and the epoch's mean consistency."""
        super().after_training_epoch(strategy, *args, **kwargs)
        assert self._group is not None
        total, steps = self._totals, max(1, self._totals["steps"])
        loss = self.sim_ema_lambda * float(total["loss"]) / steps
        self.check_loss(strategy, loss + strategy.loss.item(), "sim_ema_lambda")
        self.publish(strategy, "Groups", len(self.groups))
        self.publish(strategy, "Similarity", self.similarities[self._group.id])
        self.publish(strategy, "Consistency", loss)
        self.publish(strategy, "Updates", (self._group.average.updates - total["before"]) / steps)
        if self.teacher == "best":
            self.publish(strategy, "StableTeacher", int(total["stable"]) / max(1, total["taught"]))
