"""Knowledge distillation: the loss, which outputs are distilled together, the teacher, and a view of the features.

Symbols: `z` the student's logits (B, K), `z_t` the teacher's, `T` the temperature.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from cl_ext.nn.parameters import head_modules
from cl_ext.nn.passes import logits

import torch
from avalanche.models import MultiHeadClassifier
from avalanche.models.utils import is_multi_task_module
from torch import Tensor, nn
from torch.nn import functional

_PASS_BATCH = 256

Layout = list[tuple[Tensor, int]]
"""Pairs (columns (G * C,), C): G groups of C outputs each, one group after the other."""


def distillation_loss(z: Tensor, z_t: Tensor, temperature: float) -> Tensor:
    """Returns `-(1/B) sum_n sum_c softmax(z_t / T)_nc log softmax(z / T)_nc`, a scalar (Li & Hoiem 2016, eq. 2).

    Its gradient by `z` is `(softmax(z / T) - softmax(z_t / T)) / (T B)`, the same as that of the Kullback-Leibler form,
    which is smaller by the teacher's entropy. There is no factor `T^2`: in Hinton et al. 2015 there is one.

    Args:
        z: the student's logits, (B, C).
        z_t: the teacher's, (B, C); constants.
        temperature: T > 0.
    """
    return functional.cross_entropy(z / temperature, (z_t / temperature).softmax(1))


def layout(groups: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Layout:
    """Returns the columns of `groups`, those of equal size together, so that one softmax serves them all."""
    sizes = sorted({len(group) for group in groups})
    return [
        (torch.tensor([c for group in groups if len(group) == size for c in group], device=device), size)
        for size in sizes
    ]


def grouped_distillation(z: Tensor, z_t: Tensor, groups: Layout, temperature: float) -> Tensor:
    """Returns the sum of `distillation_loss` over groups of outputs, each with a softmax of its own.

    Args:
        z: the student's logits, (B, K); K may have grown since the teacher was made.
        z_t: the teacher's, (B, K_t); no gradient flows into them.
        groups: see `layout`; at least one.
        temperature: T > 0.
    """
    terms = []
    for columns, size in groups:
        mine, teachers = (phi.index_select(1, columns).view(-1, size) for phi in (z, z_t.detach()))
        terms.append(distillation_loss(mine, teachers, temperature) * (len(mine) / len(z)))
    return torch.stack(terms).sum()


class OutputGroups:
    """Which of a head's outputs were trained, and which of them the loss compared with each other.

    Two outputs belong together if the loss ever read both of them for one sample. A loss over a task's classes keeps
    tasks apart, and one over all classes, or all seen ones, joins them. Outputs that no label has named are left out.

    Attributes:
        seen: labels seen so far.
        joined: disjoint sets of outputs that were read together.
    """

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.joined: list[set[int]] = []

    def add(self, labels: Iterable[int], read: Tensor) -> None:
        """Takes over what an experience has trained.

        Args:
            labels: the experience's labels, C of them.
            read: which outputs the loss reads for a sample of each label, (C, K) bool. If it reads nothing but the
                label's own output (`NLLLoss` of log-probabilities), the network itself compares all outputs.
        """
        self.seen.update(labels)
        if len(read) and bool(read.sum(1).eq(1).all()):
            read = torch.ones_like(read[:1])
        for row in read.unique(dim=0):
            together = set(row.nonzero().flatten().tolist())
            apart = [other for other in self.joined if not other & together]
            for other in self.joined:
                if other & together:
                    together |= other
            self.joined = [*apart, together] if together else apart

    def groups(self) -> list[list[int]]:
        """Returns the groups of trained outputs, each sorted; one output alone has nothing to be compared with."""
        found = (sorted(outputs & self.seen) for outputs in self.joined)
        return sorted(group for group in found if len(group) > 1)

    def state(self) -> dict[str, list[Any]]:
        """Returns the state as JSON values."""
        return {"seen": sorted(self.seen), "joined": sorted(sorted(outputs) for outputs in self.joined)}

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> "OutputGroups":
        """Returns what `state` was taken from."""
        groups = cls()
        groups.seen, groups.joined = set(state["seen"]), [set(outputs) for outputs in state["joined"]]
        return groups


def head_of(model: nn.Module, name: str | None = None) -> nn.Module:
    """Returns the module that turns a network's features into its logits.

    Args:
        model: the network.
        name: of the module; None for the one of `head_modules`.

    Raises:
        ValueError: if there is no module of that name, no head, or more than one.
    """
    modules = dict(model.named_modules())
    if name is not None:
        if name not in modules:
            raise ValueError(f"{type(model).__name__} has no module {name!r}; it has {', '.join(list(modules)[1:])}")
        return modules[name]
    heads = list(head_modules(model).values())
    if not heads:
        raise ValueError(f"{type(model).__name__} has no linear layer that could be its head")
    if len(heads) > 1:
        kinds = ", ".join(type(head).__name__ for head in heads)
        raise ValueError(f"{type(model).__name__} has {len(heads)} heads, {kinds}, so which one is meant is unclear")
    return heads[0]


class InputTap:
    """Keeps what a module is given while the tap is open: the features, if the module is the head."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []
        self._handle: Any = None

    def open(self, module: nn.Module) -> None:
        """Keeps the first argument of each call of `module` from here on; a tap that was left open is closed first."""
        self.close()
        self._handle = module.register_forward_pre_hook(lambda _, inputs: self._parts.append(inputs[0]))

    def close(self) -> None:
        """Takes the hook off and forgets."""
        if self._handle is not None:
            self._handle.remove()
        self._handle, self._parts = None, []

    def take(self, samples: int) -> Tensor:
        """Returns what was kept, (B, D), and closes the tap.

        A network that runs its head task by task gives the samples of a batch in that order.

        Args:
            samples: B.

        Raises:
            ValueError: if the head did not run once for each sample.
        """
        rows = sum(len(part) for part in self._parts)
        if rows != samples:
            self.close()
            raise ValueError(f"the head was given {rows} rows of features for a batch of {samples} samples")
        features = torch.cat([part.flatten(1) for part in self._parts]) if len(self._parts) > 1 else self._parts[0]
        self.close()
        return features.flatten(1)


def snapshot(model: nn.Module) -> nn.Module:
    """Returns a frozen copy of a network in eval mode, without the forward and backward hooks of others."""
    names = ("_forward_hooks", "_backward_hooks")
    kept = [(module, {name: getattr(module, name) for name in names}) for module in model.modules()]
    for module, hooks in kept:
        for name, own in hooks.items():
            setattr(module, name, type(own)())
    try:
        teacher = copy.deepcopy(model)
    finally:
        for module, hooks in kept:
            for name, own in hooks.items():
                setattr(module, name, own)
    return teacher.eval().requires_grad_(False)


class View(NamedTuple):
    """What a network makes of a batch.

    Attributes:
        logits: (B, K).
        features: what its head was given, (B, D); None where nobody asked for them.
        head: its head; None where nobody asked for features.
    """

    logits: Tensor
    features: Any = None
    head: Any = None


class Source(Protocol):
    """Samples that are read by their positions, such as the data path's plan of an epoch."""

    def __len__(self) -> int: ...

    def read(self, positions: Tensor) -> Sequence[Tensor]:
        """The batch at `positions` (B,), its inputs (B, ...) first."""

    def same_inputs(self, other: Any) -> bool:
        """Whether another source has the same inputs at the same positions."""


class Teacher:
    """A network as it was, asked for logits and features.

    Attributes:
        network: the copy, frozen and in eval mode.
        head: its head, if features are wanted.
    """

    def __init__(self, model: nn.Module, head: Callable[[nn.Module], nn.Module] | None = None) -> None:
        """Copies a network.

        Args:
            model: the network.
            head: finds a network's head, if features are wanted.
        """
        self.network = snapshot(model)
        self.head: Any = None if head is None else head(self.network)
        self._tap = InputTap()
        self._remembered: Tensor | None = None
        self._source: Source | None = None

    @torch.no_grad()
    def __call__(self, x: Tensor, task_labels: Tensor | None) -> View:
        """Returns logits (B, K) and, if they are wanted, features (B, D).

        Raises:
            TypeError: if the outputs are not (B, K).
        """
        if self.head is None:
            return View(logits(self.network, x, task_labels))
        self._tap.open(self.head)
        return View(logits(self.network, x, task_labels), self._tap.take(len(x)), self.head)

    @torch.no_grad()
    def remember(self, source: Source, device: torch.device) -> None:
        """Computes the logits of all of a source's samples once, for `recall`; nothing where it has them already.

        Args:
            source: the samples.
            device: the network's.
        """
        if self._source is not None and self._source.same_inputs(source):
            return
        parts = torch.arange(len(source)).split(_PASS_BATCH)
        self._remembered = torch.cat([logits(self.network, source.read(part)[0].to(device), None) for part in parts])
        self._source = source

    def release(self) -> None:
        """Lets go of the source, which holds the data."""
        self._source = None

    def recall(self, positions: Tensor) -> View:
        """Returns the remembered logits (B, K) of the samples at `positions` (B,)."""
        assert self._remembered is not None
        return View(self._remembered.index_select(0, positions.to(self._remembered.device)))

    def bytes(self) -> int:
        """Returns the memory of the copy and of what it remembers, in bytes."""
        held = [*self.network.parameters(), *self.network.buffers()]
        return sum(t.nbytes for t in (*held, *([] if self._remembered is None else [self._remembered])))


def is_multi_head(model: nn.Module) -> bool:
    """Returns whether the network asks for task labels.

    Raises:
        NotImplementedError: if it does but not through one `MultiHeadClassifier`.
    """
    if not is_multi_task_module(model):
        return False
    if sum(isinstance(module, MultiHeadClassifier) for module in model.modules()) != 1:
        raise NotImplementedError(
            f"{type(model).__name__} asks for task labels without exactly one MultiHeadClassifier of Avalanche, so the "
            "heads of old tasks can't be run on a batch's features"
        )
    return True
