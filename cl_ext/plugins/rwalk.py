"""Riemannian Walk (Chaudhry et al., ECCV 2018): importance from a path integral over a moving Fisher metric.

Symbols as in the paper: `theta` the weights, `g` the task loss's gradient, `F` the running Fisher, `s` the score,
`t` the step, `k` the experience. `docs/methods/rwalk.md` has the equations and the deviations.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cl_ext.nn.parameters import ParameterBuffers
from cl_ext.nn.path import PathIntegral
from cl_ext.nn.per_sample import PerSampleSums
from cl_ext.plugins.checks import check_choice, check_count, check_number
from cl_ext.plugins.quadratic import Heads, QuadraticPenaltyPlugin

import torch
from torch import Tensor, nn

FisherKind = Literal["per_sample", "batch"]
_SINGLE_HEAD = (
    "RWalkPlugin: this experience has new classes only, and neither task labels nor a plugin that stores samples; on "
    "a single head the network then keeps little but the last experience's classes; the paper's class-incremental "
    "results store samples, as ReplayPlugin does"
)


@torch.no_grad()
def batch_fisher_(fisher: Sequence[Tensor], gradients: Sequence[Tensor], alpha: float) -> None:
    """`F^t = alpha g^2 + (1 - alpha) F^{t-1}` with the batch's mean gradient `g`, in place."""
    torch._foreach_mul_(list(fisher), 1.0 - alpha)
    torch._foreach_addcmul_(list(fisher), list(gradients), list(gradients), value=alpha)


@torch.no_grad()
def segment_score(path: Tensor, fisher: Tensor, move: Tensor, epsilon: float) -> Tensor:
    """Returns a segment's score, `relu(l / (1/2 F move^2 + epsilon))`.

    `1/2 F move^2` is the KL divergence of the segment to second order. All of one shape.

    Args:
        path: `l`, the loss's drop over the segment.
        fisher: `F`.
        move: `theta(t) - theta(t - Delta_t)`.
        epsilon: > 0.
    """
    return path.div(move.square().mul_(fisher).mul_(0.5).add_(epsilon)).relu_()


@torch.no_grad()
def close_segment_(
    score: list[Tensor],
    path: list[Tensor],
    fisher: list[Tensor],
    start: list[Tensor],
    theta: Sequence[Tensor],
    scratch: list[Tensor],
    epsilon: float,
) -> None:
    """`score += segment_score(path, fisher, theta - start)`, `path := 0`, `start := theta`: the fast form, in place.

    Args:
        score: `s_k`, changed.
        path: `l`, zeroed.
        fisher: `F`.
        start: `theta(t - Delta_t)`, overwritten.
        theta: `theta(t)`.
        scratch: overwritten.
        epsilon: > 0.
    """
    now = list(theta)
    torch._foreach_copy_(scratch, now)
    torch._foreach_sub_(scratch, start)
    torch._foreach_mul_(scratch, scratch)
    torch._foreach_mul_(scratch, fisher)
    torch._foreach_mul_(scratch, 0.5)
    torch._foreach_add_(scratch, epsilon)
    torch._foreach_div_(path, scratch)
    torch._foreach_clamp_min_(path, 0.0)
    torch._foreach_add_(score, path)
    torch._foreach_zero_(path)
    torch._foreach_copy_(start, now)


@torch.no_grad()
def unit_range(values: Sequence[Tensor]) -> list[Tensor]:
    """Returns `values` mapped to [0, 1] by one minimum and maximum over all of them.

    Where all are equal there is no range: all become 1, or 0 if they are 0.
    """
    low = min(float(v.min()) for v in values if v.numel())
    high = max(float(v.max()) for v in values if v.numel())
    if high > low:
        return [(v - low) / (high - low) for v in values]
    return [torch.full_like(v, 1.0 if high > 0.0 else 0.0) for v in values]


def only_new_classes(strategy: Any) -> bool:
    """Whether an experience teaches new classes alone on a head that the earlier ones share, with no stored sample.

    Asked at the first iteration of an experience: its classes are all new, no task label tells it from the others, no
    plugin has a memory of samples, and the batch holds no earlier class.
    """
    experience = strategy.experience
    now = set(getattr(experience, "classes_in_this_experience", None) or ())
    earlier = set(getattr(experience, "previous_classes", None) or ())
    if not now or not earlier or now & earlier or any(getattr(experience, "task_labels", None) or ()):
        return False
    memories = ("storage_policy", "mem_size", "memory_size")
    if any(hasattr(plugin, memory) for plugin in strategy.plugins for memory in memories):
        return False
    return set(strategy.mb_y.unique().tolist()) <= now


class RWalkPlugin(QuadraticPenaltyPlugin):
    """Riemannian Walk, in the paper's form.

    While an experience is trained on, from the main forward and backward pass alone:

        F^t  = alpha F_batch + (1 - alpha) F^{t-1}                                       every step
        l   += -g (theta(t+1) - theta(t)),   g the task loss's gradient                  every step
        s_k += relu(l / (1/2 F (theta(t) - theta(t - Delta_t))^2 + epsilon)),  l := 0    every Delta_t steps, at the end

    After experience k: `s := s_1` for the first and `s := (s + s_k) / 2` later; `Omega = F_hat + s_hat`, where the hats
    map F and s to [0, 1] over all penalised parameters; `theta* := theta`. Later experiences train on

        L(theta) + lambda sum Omega (theta - theta*)^2          (no factor 1/2)

    `g` is whatever `strategy.loss` gives, before this penalty: a term that another plugin adds to the loss is part of
    it. Samples that the paper keeps are `ReplayPlugin`'s business: in class-incremental streams a single head without
    them keeps the last experience's classes only, of which one warning tells in the second experience.
    """

    name = "RWalk"

    def __init__(
        self,
        rwalk_lambda: float = 0.1,
        alpha: float = 0.9,
        delta_t: int = 10,
        epsilon: float = 1e-3,
        fisher: FisherKind = "per_sample",
        heads: Heads = "include",
    ) -> None:
        """Sets the hyper-parameters.

        Args:
            rwalk_lambda: strength of the penalty, >= 0; no factor 1/2.
            alpha: weight of the newest batch in F, in [0, 1].
            delta_t: steps of a segment, >= 1; what is left at an experience's end is a segment too.
            epsilon: damping of the score, > 0.
            fisher: "per_sample" is the mean of squared per-sample gradients, the definition; "batch" is the squared
                mean gradient of the released codes, about 1/B of it.
            heads: "include" or "exclude" the network's heads from the penalty and from the normalisation.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        owner = type(self).__name__
        super().__init__(check_number(owner, "rwalk_lambda", rwalk_lambda, 0.0), heads)
        self.alpha = check_number(owner, "alpha", alpha, 0.0, 1.0)
        self.delta_t = check_count(owner, "delta_t", delta_t)
        self.epsilon = check_number(owner, "epsilon", epsilon, 0.0, above=True)
        self.fisher: FisherKind = check_choice(owner, "fisher", fisher, FisherKind)
        self._fisher = ParameterBuffers()
        self._score = ParameterBuffers()
        self._task_score = ParameterBuffers()
        self._path = PathIntegral()
        self._segment_start = ParameterBuffers("values")
        self._squares = PerSampleSums()
        self._steps = 0
        self._batch_weight = 0.0
        self._fisher_is_due = False

    @property
    def rwalk_lambda(self) -> float:
        """The penalty's strength."""
        return self.strength

    @property
    def running_fisher(self) -> dict[str, Tensor]:
        """F by parameter name, before normalisation; the buffers themselves."""
        return self._fisher.named()

    @property
    def scores(self) -> dict[str, Tensor]:
        """s by parameter name, before normalisation; the buffers themselves."""
        return self._score.named()

    def _buffers(self) -> tuple[ParameterBuffers, ...]:
        return self._fisher, self._score, self._task_score, self._path.w, self._path.gradient, self._segment_start

    def align(self, model: nn.Module) -> None:
        """Makes every buffer fit the model's present parameters, and hooks its layers where that is needed."""
        self._update_fisher()  # what is recorded belongs to the layers as they were
        super().align(model)
        for buffers in self._buffers():
            buffers.align(self._parameters)
        if self.fisher == "per_sample":
            self._squares.attach(model, list(self._parameters))

    def extra_bytes(self) -> int:
        """Returns the memory held beside the network, in bytes: 9 times the penalised parameters."""
        return super().extra_bytes() + sum(buffers.bytes() for buffers in self._buffers())

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole state between two experiences."""
        own = {"fisher": self._fisher.state_dict(), "scores": self._score.state_dict()}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        super().load_state_dict(state)
        self._fisher.load_state_dict(state["fisher"])
        self._score.load_state_dict(state["scores"])

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Starts an experience: no score, no path, the first segment at the present weights."""
        super().before_training_exp(strategy, *args, **kwargs)
        self._task_score.zero_()
        self._path.zero_()
        self._segment_start.copy_(self._tensors)
        self._steps = 0

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Lets the step before enter F, then records this one."""
        super().before_training_iteration(strategy, *args, **kwargs)
        if self._steps == 0 and self.experiences == 1 and self.strength > 0.0 and only_new_classes(strategy):
            warnings.warn(_SINGLE_HEAD, stacklevel=2)
        self._update_fisher()
        if self.fisher == "per_sample":
            self._squares.start()

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Keeps the task loss's gradient, then adds the penalty's."""
        self._path.keep_gradient_(self._tensors)
        if self.fisher == "per_sample":
            self._squares.stop(self._parameters)
            size = len(strategy.mb_x)
            # d is the gradient of the reduced loss: B times it is a sample's own where the reduction is the mean
            mean = getattr(strategy._criterion, "reduction", "mean") != "sum"
            self._batch_weight = float(size) if mean else 1.0 / size
        self._fisher_is_due = True
        super().after_backward(strategy, *args, **kwargs)

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Remembers theta(t) in the penalty's scratch, which is free until the next backward pass."""
        self._penalty.scratch.copy_(self._tensors)

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Extends the path by this step, and closes the segment where it is complete."""
        self._path.step_(self._penalty.scratch.tensors, self._tensors)
        self._steps += 1
        if self._steps % self.delta_t == 0:
            self._close_segment()

    def _close_segment(self) -> None:
        """Adds the segment's score, with F as it was before the segment's last step entered it."""
        lists = (self._task_score, self._path.w, self._fisher, self._segment_start)
        score, path, fisher, start = (buffers.tensors for buffers in lists)
        close_segment_(score, path, fisher, start, self._tensors, self._penalty.scratch.tensors, self.epsilon)

    def _update_fisher(self) -> None:
        """Lets the latest step enter F; it does so late, because a segment's score uses F without its last step."""
        if not self._fisher_is_due:
            return
        self._fisher_is_due = False
        if self.fisher == "batch":
            batch_fisher_(self._fisher.tensors, self._path.gradient.tensors, self.alpha)
        else:
            self._squares.update_(self._fisher.named(), 1.0 - self.alpha, self.alpha * self._batch_weight)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Closes the last segment, consolidates, and takes the hooks off: the network can be saved and copied again."""
        if self._steps % self.delta_t:
            self._close_segment()
        super().after_training_exp(strategy, *args, **kwargs)
        self._squares.detach()

    def consolidate(self, strategy: Any) -> None:
        """`s` from the experience's score, `Omega = F_hat + s_hat`."""
        if self.experiences == 0:
            self._score.copy_(self._task_score.tensors)
        else:
            torch._foreach_lerp_(self._score.tensors, self._task_score.tensors, 0.5)
        omega = [f + s for f, s in zip(unit_range(self._fisher.tensors), unit_range(self._score.tensors), strict=True)]
        self._penalty.importance.copy_(omega)
        self.publish(strategy, "Segments", float(-(-self._steps // self.delta_t)))
        self.publish(strategy, "MaxFisher", max(float(f.max()) for f in self._fisher.tensors if f.numel()))
        self.publish(strategy, "MaxScore", max(float(s.max()) for s in self._score.tensors if s.numel()))
