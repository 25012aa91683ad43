"""Parameter-shaped buffers and the quadratic penalty that most regularisers add.

A buffer set holds one tensor for each of a model's parameters under the parameter's name (an importance, an anchor, a
moving average), and shows them as a list in the order of the parameters it was last aligned with, which is what
`torch._foreach_*` wants. Everything per step works in place on buffers that exist already.

Symbols: `theta` a parameter, `theta*` its anchor, `Omega >= 0` its importance, `lambda` the strength.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from avalanche.models import IncrementalClassifier, MultiHeadClassifier
from torch import Tensor, nn

Fill = Literal["zeros", "values"]


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the parameters of `model` that need a gradient, by name, each once.

    Raises:
        ValueError: if there is none.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not parameters:
        raise ValueError(f"{type(model).__name__} has no trainable parameters, so there is nothing to regularise")
    return parameters


def parameter_aliases(model: nn.Module) -> dict[str, str]:
    """Returns each name of each parameter -> its first one, a module that is registered twice counted once.

    `functional_call` would tie such a module's weights twice, and leave the substitutes in the network.
    """
    first = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{prefix}.{local}".lstrip("."): first[parameter]
        for prefix, module in model.named_modules()
        for local, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
    }


def head_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Returns a network's heads by name.

    They are Avalanche's `MultiHeadClassifier` and `IncrementalClassifier`, one inside another counted once; in a
    network without them the last `nn.Linear` in the order of registration.
    """
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        inside = any(not outer or name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, MultiHeadClassifier | IncrementalClassifier) and not inside:
            found[name] = module
    if found:
        return found
    return dict([pair for pair in model.named_modules() if isinstance(pair[1], nn.Linear)][-1:])


def head_names(model: nn.Module) -> set[str]:
    """Returns the names of the parameters of a network's heads."""
    return {
        f"{prefix}.{name}".lstrip(".")
        for prefix, head in head_modules(model).items()
        for name, _ in head.named_parameters()
    }


def covered_parameters(model: nn.Module, exclude_heads: bool, owner: str) -> dict[str, nn.Parameter]:
    """Returns the parameters that a method works on, by name: the trainable ones, with or without the heads.

    Args:
        model: the network.
        exclude_heads: leave out those of `head_names`.
        owner: who asks, for the error.

    Raises:
        ValueError: if there is none.
    """
    excluded = head_names(model) if exclude_heads else set()
    parameters = {name: p for name, p in trainable_parameters(model).items() if name not in excluded}
    if not parameters:
        raise ValueError(f"{owner}: without the heads there is no trainable parameter left to work on")
    return parameters


def same_parameters(now: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> bool:
    """Returns whether both have the same names and, under each, the same object: nothing was grown or replaced."""
    return list(now) == list(known) and all(now[name] is known[name] for name in now)


def grow(old: Tensor, parameter: Tensor, fill: Fill) -> Tensor:
    """Returns `old` in the shape, type and place of `parameter`: the old block kept, the new entries filled.

    Args:
        old: what is known of the parameter's earlier, smaller shape; it is the leading block of the new one.
        parameter: the grown parameter.
        fill: "zeros", or "values" for the parameter's own present values.

    Raises:
        ValueError: if `old` has other dimensions, or is larger in one of them.
    """
    if old.shape == parameter.shape:
        return old.to(parameter)
    if old.dim() != parameter.dim() or any(o > n for o, n in zip(old.shape, parameter.shape, strict=True)):
        raise ValueError(f"a parameter may grow but went from shape {tuple(old.shape)} to {tuple(parameter.shape)}")
    new = torch.zeros_like(parameter) if fill == "zeros" else parameter.detach().clone()
    new[tuple(slice(length) for length in old.shape)] = old.to(parameter)
    return new


class ParameterBuffers:
    """One tensor for each parameter, by name, in a list aligned with the model's parameters.

    Tensors of parameters that are gone or frozen for a while stay stored under their name and come back with them.

    Attributes:
        tensors: the buffers of the parameters last given to `align`, in their order.
    """

    def __init__(self, fill: Fill = "zeros") -> None:
        """Makes an empty set.

        Args:
            fill: what entries start with that did not exist before: "zeros" or the parameter's present "values".
        """
        self._fill: Fill = fill
        self._stored: dict[str, Tensor] = {}
        self.tensors: list[Tensor] = []

    @torch.no_grad()
    def align(self, parameters: Mapping[str, Tensor]) -> None:
        """Makes `tensors` fit `parameters`: new names, grown shapes, another device or type.

        Raises:
            ValueError: if a parameter shrank.
        """
        for name, parameter in parameters.items():
            old = self._stored.get(name)
            if old is None:
                old = torch.zeros_like(parameter) if self._fill == "zeros" else parameter.detach().clone()
            self._stored[name] = grow(old, parameter, self._fill)
        self.tensors = [self._stored[name] for name in parameters]

    @torch.no_grad()
    def copy_(self, parameters: Sequence[Tensor]) -> None:
        """Sets the aligned buffers to the values of `parameters`."""
        torch._foreach_copy_(self.tensors, list(parameters))

    @torch.no_grad()
    def copy_gradients_(self, parameters: Sequence[Tensor]) -> None:
        """Sets the aligned buffers to the gradients of `parameters`; an absent gradient counts as zero."""
        present = [(b, p.grad) for b, p in zip(self.tensors, parameters, strict=True) if p.grad is not None]
        if len(present) < len(self.tensors):
            self.zero_()
        if present:
            torch._foreach_copy_([buffer for buffer, _ in present], [gradient for _, gradient in present])

    @torch.no_grad()
    def zero_(self) -> None:
        """Sets the aligned buffers to zero."""
        if self.tensors:
            torch._foreach_zero_(self.tensors)

    def named(self) -> dict[str, Tensor]:
        """Returns name -> tensor of all that is stored; the tensors are the buffers themselves."""
        return dict(self._stored)

    def bytes(self) -> int:
        """Returns the memory of all that is stored, in bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self._stored.values())

    def state_dict(self) -> dict[str, Tensor]:
        """Returns name -> a copy of each buffer."""
        return {name: tensor.detach().clone() for name, tensor in self._stored.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over copies of `state`; `align` has to follow before `tensors` is used."""
        self._stored = {name: tensor.detach().clone() for name, tensor in state.items()}
        self.tensors = []


@torch.no_grad()
def penalty_value(parameters: Sequence[Tensor], importance: Sequence[Tensor], anchor: Sequence[Tensor]) -> Tensor:
    """Returns `sum Omega (theta - theta*)^2`, a scalar on the parameters' device, without a graph."""
    terms = [(o * (p - a).square()).sum() for p, o, a in zip(parameters, importance, anchor, strict=True)]
    return torch.stack([term.to(terms[0]) for term in terms]).sum()


@torch.no_grad()
def difference_(out: Sequence[Tensor], minuend: Sequence[Tensor], subtrahend: Sequence[Tensor]) -> None:
    """`out = minuend - subtrahend`, in place on buffers; all three of the same shapes.

    PyTorch has no foreach subtraction into given buffers. On the CPU a foreach operation is a loop too, and copying
    first reads and writes every buffer once more: 70 of the 490 us that a penalty's gradient took (480,000 weights).
    """
    if out and not out[0].is_cpu:
        torch._foreach_copy_(list(out), list(minuend))
        torch._foreach_sub_(list(out), list(subtrahend))
        return
    for buffer, a, b in zip(out, minuend, subtrahend, strict=True):
        torch.sub(a, b, out=buffer)


@torch.no_grad()
def add_penalty_gradient_(
    parameters: Sequence[Tensor],
    importance: Sequence[Tensor],
    anchor: Sequence[Tensor],
    strength: float,
    scratch: Sequence[Tensor],
) -> None:
    """Adds the gradient of `strength * sum Omega (theta - theta*)^2`, `2 strength Omega (theta - theta*)`, to `.grad`.

    A parameter without a gradient (a head that the batch did not use) gets one only where the penalty pulls on it: a
    gradient of zeros instead of none would let weight decay and momentum move it.

    Args:
        parameters: the parameters; their `.grad` is changed in place.
        importance: `Omega`, shapes as `parameters`.
        anchor: `theta*`, shapes as `parameters`.
        strength: what stands before the sum; `lambda`, or `lambda/2` in EWC.
        scratch: buffers of the parameters' shapes; they are overwritten.
    """
    d = list(scratch)
    difference_(d, parameters, anchor)
    gradients, omega, pull = [], [], []
    for parameter, o, distance in zip(parameters, importance, d, strict=True):
        if parameter.grad is not None:
            gradients.append(parameter.grad)
            omega.append(o)
            pull.append(distance)
        elif bool((distance.mul_(o)).any()):
            parameter.grad = distance * (2.0 * strength)
    if gradients:
        torch._foreach_addcmul_(gradients, omega, pull, value=2.0 * strength)


def largest_stable_strength(
    importance: Sequence[Tensor], learning_rate: float, momentum: float = 0.0, nesterov: bool = False
) -> float:
    """Returns the strength above which gradient descent on the penalty alone diverges.

    A step of SGD on `strength * Omega (theta - theta*)^2` has curvature `h = 2 strength Omega` and is stable while
    `learning_rate * h < 2`; heavy-ball momentum `mu` stretches that to `2 (1 + mu)`, Nesterov's shrinks it to
    `2 (1 + mu) / (1 + 2 mu)`.

    Args:
        importance: `Omega`.
        learning_rate: SGD's, > 0.
        momentum: `mu` in [0, 1).
        nesterov: whether the momentum is Nesterov's.

    Returns:
        The bound; infinity where every importance is zero.
    """
    largest = max(float(omega.max()) for omega in importance if omega.numel())
    if largest <= 0.0 or learning_rate <= 0.0:
        return float("inf")
    stretch = (1.0 + momentum) / (1.0 + 2.0 * momentum) if nesterov else 1.0 + momentum
    return stretch / (learning_rate * largest)


class QuadraticPenalty:
    """The penalty `strength * sum Omega (theta - theta*)^2` on parameters that may grow.

    New entries have zero importance and their present value for an anchor.

    Attributes:
        importance: `Omega`.
        anchor: `theta*`.
        scratch: parameter-shaped buffers that every step overwrites; free for others between two calls.
    """

    def __init__(self) -> None:
        self.importance = ParameterBuffers("zeros")
        self.anchor = ParameterBuffers("values")
        self.scratch = ParameterBuffers("zeros")

    def align(self, parameters: Mapping[str, Tensor]) -> None:
        """Makes the three buffer sets fit `parameters`."""
        for buffers in (self.importance, self.anchor, self.scratch):
            buffers.align(parameters)

    def value(self, parameters: Sequence[Tensor]) -> float:
        """Returns `sum Omega (theta - theta*)^2`, without the strength."""
        return float(penalty_value(parameters, self.importance.tensors, self.anchor.tensors))

    def add_gradient_(self, parameters: Sequence[Tensor], strength: float) -> None:
        """Adds the gradient of `strength` times the penalty to the parameters' `.grad`; see `add_penalty_gradient_`."""
        add_penalty_gradient_(parameters, self.importance.tensors, self.anchor.tensors, strength, self.scratch.tensors)

    def bytes(self) -> int:
        """Returns the memory of the three buffer sets."""
        return self.importance.bytes() + self.anchor.bytes() + self.scratch.bytes()
