"""Which task owns each shared weight, and the guard that keeps what is owned exact under any optimizer."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

TASKS = 255
"""The most tasks that an owner's byte can tell apart."""


class Ownership(nn.Module):
    """The owner of each entry of some weights: 0 is free, t the t-th task, from 1.

    Held as one byte an entry, in buffers that are saved with the network.
    """

    def __init__(self) -> None:
        super().__init__()
        self._names: dict[str, str] = {}

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> "Ownership":
        """All entries of the weights, by name, free."""
        made = cls()
        for name, weight in weights.items():
            made.add(name, weight)
        return made

    def add(self, name: str, weight: Tensor) -> None:
        """Adds a weight whose entries are free."""
        self._names[name] = name.replace(".", "/")
        self.register_buffer(self._names[name], torch.zeros_like(weight, dtype=torch.uint8))

    @property
    def names(self) -> list[str]:
        """The names of the weights."""
        return list(self._names)

    def __getitem__(self, name: str) -> Tensor:
        """(weight's shape) uint8: the owners of its entries."""
        owner: Tensor = getattr(self, self._names[name])
        return owner

    def owned(self, name: str, task: int) -> Tensor:
        """(weight's shape) booleans: what the task owns."""
        return self[name] == task

    def visible(self, name: str, task: int) -> Tensor:
        """(weight's shape) booleans: what the task and those before it own."""
        return (self[name] > 0) & (self[name] <= task)

    def free(self, name: str) -> Tensor:
        """(weight's shape) booleans: what nobody owns."""
        return self[name] == 0

    def claim(self, task: int) -> int:
        """Gives the task all that is free; returns how many entries that is.

        Raises:
            ValueError: The task's number does not fit.
        """
        if not 1 <= task <= TASKS:
            raise ValueError(f"ownership tells tasks 1 to {TASKS} apart; this is task {task}")
        count = 0
        for name in self._names:
            free = self.free(name)
            self[name][free] = task
            count += int(free.sum())
        return count

    def release(self, name: str, entries: Tensor) -> None:
        """Makes entries free: booleans of the weight's shape."""
        self[name][entries] = 0

    def grow(self, name: str, shape: Sequence[int]) -> None:
        """The weight has grown to `shape`; the old entries are its first corner, the new ones are free."""
        old = self[name]
        new = old.new_zeros(tuple(shape))
        new[tuple(slice(0, size) for size in old.shape)] = old
        setattr(self, self._names[name], new)

    def counts(self, tasks: int) -> list[int]:
        """How many entries are free, and how many each of `tasks` tasks owns: `tasks` + 1 numbers."""
        total = torch.zeros(tasks + 1, dtype=torch.int64)
        for name in self._names:
            total += torch.bincount(self[name].flatten().cpu(), minlength=tasks + 1)
        return total.tolist()

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: object) -> None:
        for key, tensor in state_dict.items():
            if key.startswith(prefix) and "." not in key[len(prefix) :]:
                buffer = key[len(prefix) :]
                self._names[buffer.replace("/", ".")] = buffer
                self.register_buffer(buffer, torch.zeros_like(tensor))
        super()._load_from_state_dict(state_dict, prefix, *args)


class Hold:
    """Puts chosen entries of parameters back after each step: exact under weight decay, momentum and Adam.

    Masking gradients is not enough: an optimizer adds weight decay and old momentum inside its step. Entries are chosen
    by their bits, `(p & free) | anchor`: exact, NaN included, and on a CPU twenty times as fast as `torch.where`, which
    branches at each entry.

    Args:
        parameters: what is trained.
        entries: for each parameter, booleans of its shape: True is held as it is now. None holds all of it.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], entries: Iterable[Tensor | None]) -> None:
        self._parameters = list(parameters)
        self._free: list[Tensor] = []  # all bits set where an entry is free, none where it is held
        self._anchors: list[Tensor] = []  # the bits of held entries, none of free ones
        for parameter, held in zip(self._parameters, entries, strict=True):
            bits = _bits(parameter.detach())
            free = torch.zeros_like(bits) if held is None else held.to(bits.dtype) - 1
            self._free.append(free)
            self._anchors.append(bits & ~free)

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Sets the gradients of held entries to 0, for what reads gradients before the step (clipping)."""
        for parameter, free in zip(self._parameters, self._free, strict=True):
            if parameter.grad is not None:
                _bits(parameter.grad).bitwise_and_(free)

    @torch.no_grad()
    def restore(self) -> None:
        """Puts the held entries back; a chosen value, not arithmetic, so that no NaN of a step gets through."""
        for parameter, free, anchor in zip(self._parameters, self._free, self._anchors, strict=True):
            _bits(parameter).bitwise_and_(free).bitwise_or_(anchor)

    def extra_bytes(self) -> int:
        """Bytes of the anchors and masks."""
        return sum(t.nbytes for t in (*self._anchors, *self._free))


_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _bits(tensor: Tensor) -> Tensor:
    """The same memory, read as integers."""
    return tensor.view(_INTEGERS[tensor.element_size()])
