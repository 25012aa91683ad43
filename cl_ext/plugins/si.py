"""Synaptic Intelligence (Zenke, Poole, Ganguli, ICML 2017): importance from each weight's share in the loss's fall.

Symbols as in the paper: `theta` the weights, `g` the task loss's gradient, `w` the path integral, `Omega` the
importance, `xi` the damping; the paper's strength `c` is `si_lambda`. `docs/methods/si.md` has the deviations.
"""

from typing import Any

from cl_ext.nn.path import PathIntegral
from cl_ext.plugins.checks import check_number
from cl_ext.plugins.quadratic import Heads, QuadraticPenaltyPlugin

import torch
from torch import Tensor, nn


@torch.no_grad()
def task_importance(w: Tensor, move: Tensor, xi: float) -> Tensor:
    """Returns what one experience adds to Omega, `relu(w / (move^2 + xi))`; all of one shape.

    The clamp acts on each experience's own quotient, before the sum: `w < 0` means that the weight's moves raised the
    loss, which is noise and not a reason to let the weight run away from its anchor. Paper: equation 5.

    Args:
        w: the path integral over the experience.
        move: `theta - theta_start` over the experience.
        xi: damping, > 0, in squared units of a weight.
    """
    return w.div(move.square().add_(xi)).relu_()


class SIPlugin(QuadraticPenaltyPlugin):
    """Synaptic Intelligence, in the paper's form.

    While an experience is trained on, from the main forward and backward pass alone, every step:

        w += -g (theta(t+1) - theta(t)),    g the task loss's gradient, the move the optimizer's own

    After it: `Omega += relu(w / ((theta - theta_start)^2 + xi))`, `theta* := theta`, and w starts anew with the next
    experience; `theta_start` is the `theta*` before. Later experiences train on

        L(theta) + si_lambda sum Omega (theta - theta*)^2          (no factor 1/2)

    `g` is whatever `strategy.loss` gives, before this penalty: neither the penalty nor the optimizer's weight decay is
    in it. A term that another plugin adds to the loss is, and so is what a plugin that stands before this one in
    `plugins=[...]` adds to `.grad` after the backward pass.
    """

    name = "SI"

    def __init__(self, si_lambda: float = 0.1, xi: float = 0.1, heads: Heads = "include") -> None:
        """Sets the hyper-parameters; the defaults are the paper's for permuted MNIST.

        Args:
            si_lambda: strength of the penalty, >= 0; the paper's `c`, no factor 1/2.
            xi: damping of the importance, > 0. Too small a value lets weights that hardly moved dominate.
            heads: "include" or "exclude" the network's heads from the penalty.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        owner = type(self).__name__
        super().__init__(check_number(owner, "si_lambda", si_lambda, 0.0), heads)
        self.xi = check_number(owner, "xi", xi, 0.0, above=True)
        self._path = PathIntegral()

    @property
    def si_lambda(self) -> float:
        """The penalty's strength."""
        return self.strength

    @property
    def path_integral(self) -> dict[str, Tensor]:
        """w by parameter name, of the experience in training or of the latest one; the buffers themselves."""
        return self._path.w.named()

    def align(self, model: nn.Module) -> None:
        """Makes every buffer fit the model's present parameters."""
        super().align(model)
        self._path.align(self._parameters)

    def extra_bytes(self) -> int:
        """Returns the memory held beside the network, in bytes."""
        return super().extra_bytes() + self._path.bytes()

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Starts the experience's path."""
        super().before_training_exp(strategy, *args, **kwargs)
        self._path.zero_()

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Keeps the task loss's gradient, then adds the penalty's."""
        self._path.keep_gradient_(self._tensors)
        super().after_backward(strategy, *args, **kwargs)

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Remembers theta(t) in the penalty's scratch, which is free until the next backward pass."""
        self._penalty.scratch.copy_(self._tensors)

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Extends the path by the optimizer's move."""
        self._path.step_(self._penalty.scratch.tensors, self._tensors)

    @torch.no_grad()
    def consolidate(self, strategy: Any) -> None:
        """`Omega += relu(w / ((theta - theta*)^2 + xi))`; the anchors are still those that the experience began at."""
        buffers = self._penalty.importance.tensors, self._path.w.tensors, self._tensors, self._penalty.anchor.tensors
        for omega, w, theta, start in zip(*buffers, strict=True):
            omega += task_importance(w, theta - start, self.xi)
        paths = [w for w in self._path.w.tensors if w.numel()]
        entries = sum(w.numel() for w in paths)
        self.publish(strategy, "PathIntegral", sum(float(w.sum()) for w in paths))
        self.publish(strategy, "ClampedShare", sum(float((w < 0).sum()) for w in paths) / entries)
