"""A rehearsal memory: samples of a stream as tensors, written batch by batch and read by one indexed read a field.

Which samples it holds is `cl_ext.nn.policies`' matter. A method with a memory for each experience closes it at an
experience's end: what is held then stays for good, and the next experience has all places for itself.
"""

from collections.abc import Collection, Mapping
from typing import Any, Literal

from cl_ext.nn.policies import Indices, ReservoirDraws, class_balanced_choice, ring_places
from cl_ext.nn.uniforms import Numbers, uniforms

import numpy as np
import torch
from torch import Tensor

Policy = Literal["reservoir", "ring", "class_balanced"]

_READS = 2**31
"""PyTorch's CPU generator takes 32 bits of a seed: below this the seeds of writes and reads never meet."""


class RehearsalMemory:
    """At most `mem_size` samples of all that are offered, each with any fields: inputs, labels, logits, ...

    "All" starts anew at each `close`; what was closed lies beside it. Two generators of its own, on the CPU: what is
    written never depends on what was read, and the other way round.

    Attributes:
        sizes: how many samples each closed experience has, in their order.
    """

    def __init__(self, mem_size: int, policy: Policy = "reservoir", seed: int = 0) -> None:
        """Makes an empty memory.

        Args:
            mem_size: places, of each experience where experiences are closed, >= 0; with 0 nothing is ever kept, and
                no random number drawn.
            policy: what is held. "reservoir": a uniform choice of all samples offered. "ring": the newest.
                "class_balanced": equally many of each class, a uniform choice of each; the labels are the field `y`.
            seed: of the generators, in [0, 2^31).
        """
        self.mem_size = mem_size
        self.policy: Policy = policy
        self._seen = 0
        self._closed: dict[str, Tensor] = {}
        self.sizes: list[int] = []
        self._writes = torch.Generator().manual_seed(seed)
        self._reservoir = ReservoirDraws(mem_size, self._writes)
        self._reads = torch.Generator().manual_seed(seed + _READS)
        self.clear()

    def __len__(self) -> int:
        return min(self._seen, self.mem_size)

    @property
    def seen(self) -> int:
        """How many samples have been offered since the last `close`; one that is offered twice counts twice."""
        return self._seen

    @property
    def fields(self) -> dict[str, Tensor]:
        """What is held by name, (N, ...) each: views of the places in use, not copies; nothing that is closed."""
        return {name: held[: len(self)] for name, held in self._fields.items()}

    @property
    def closed(self) -> list[dict[str, Tensor]]:
        """What each closed experience has, as `fields`; views, not copies."""
        parts = zip(*(held.split(self.sizes) for held in self._closed.values()), strict=True)
        return [dict(zip(self._closed, part, strict=True)) for part in parts]

    def close(self) -> None:
        """Ends an experience; one of which nothing is held leaves no trace.

        Raises:
            ValueError: if its fields are not those of the closed ones.
        """
        fields = self.fields
        if fields:
            _check_alike(fields, self._closed)
            held = self._closed or {name: part[:0] for name, part in fields.items()}
            self._closed = {name: torch.cat([held[name], part]) for name, part in fields.items()}
            self.sizes.append(len(self))
        self.clear()

    def clear(self) -> None:
        """Forgets what is held and not closed."""
        self._reservoir.restart(self._seen)
        self._seen = 0
        self._fields: dict[str, Tensor] = {}
        self._keys: Numbers = np.empty(0)
        self._labels: Indices = np.empty(0, dtype=np.int64)

    def add(self, kept: Collection[str] = (), **fields: Tensor) -> None:
        """Offers a batch; the first one fixes names, types, shapes and device.

        Args:
            kept: names of fields that are not written: a place goes on with what it had, zeros at first.
            fields: (B, ...) each, the kept ones too.

        Raises:
            ValueError: if the fields are not of one length, or not those of the first batch.
        """
        count = self._check(fields)
        if self.mem_size == 0 or count == 0:
            return
        if not self._fields:
            self._fields = {name: part.new_zeros(self.mem_size, *part.shape[1:]) for name, part in fields.items()}
        places, chosen = self._places(count, fields)
        self._seen += count
        if len(places) == 0:
            return
        where, which = torch.from_numpy(places), torch.from_numpy(chosen)
        with torch.no_grad():  # around the writing alone: most batches have nothing to write
            for name, part in fields.items():
                if name not in kept:
                    held = self._fields[name]
                    held.index_copy_(0, where.to(held.device), part.index_select(0, which.to(part.device)))

    def _check(self, fields: Mapping[str, Tensor]) -> int:
        """Returns the length of a batch."""
        count = _common_length(fields, self._fields)
        if count is not None:
            return count
        lengths = {len(part) for part in fields.values()}
        if len(lengths) != 1:
            raise ValueError(
                f"a memory's fields must be of one length, got { ({k: len(v) for k, v in fields.items()}) }"
            )
        if self.policy == "class_balanced" and "y" not in fields:
            raise ValueError(f"a class-balanced memory needs the labels as the field y, got {', '.join(fields)}")
        _check_alike(fields, self._fields)
        return lengths.pop()

    def _places(self, count: int, fields: Mapping[str, Tensor]) -> tuple[Indices, Indices]:
        """Returns where samples of a batch go, and which; (W,) each."""
        if self.policy == "reservoir":
            return self._reservoir.places(self._seen, count)
        if self.policy == "ring":
            return ring_places(self._seen, count, self.mem_size)
        return self._balanced(fields["y"].cpu().numpy().astype(np.int64))

    def _balanced(self, labels: Indices) -> tuple[Indices, Indices]:
        size = len(self)
        keys = np.concatenate([self._keys[:size], uniforms(len(labels), self._writes)])
        labels = np.concatenate([self._labels[:size], labels])
        held = class_balanced_choice(labels, keys, self.mem_size)
        chosen, dropped = np.flatnonzero(held[size:]), np.flatnonzero(~held[:size])
        places = np.concatenate([dropped, np.arange(size, size + len(chosen) - len(dropped))])
        if len(self._keys) == 0:
            self._keys, self._labels = np.zeros(self.mem_size), np.zeros(self.mem_size, dtype=np.int64)
        self._keys[places], self._labels[places] = keys[size + chosen], labels[size + chosen]
        return places, chosen

    @torch.no_grad()
    def sample(self, count: int, closed: bool = False) -> dict[str, Tensor] | None:
        """Returns `count` samples, uniform and without repetition, as copies; all if there are fewer, None if none.

        Args:
            count: >= 1.
            closed: from all closed experiences together, in place of what is not closed.
        """
        size, source = (sum(self.sizes), self._closed) if closed else (len(self), self._fields)
        if size == 0:
            return None
        if count >= size:
            return {name: held[:size].clone() for name, held in source.items()}
        chosen = torch.randperm(size, generator=self._reads)[:count]
        return {name: held.index_select(0, chosen.to(held.device)) for name, held in source.items()}

    def sample_behind(self, batch: Mapping[str, Tensor], count: int) -> dict[str, Tensor] | None:
        """Returns a batch with samples behind its own, as new tensors: what `sample` gives, joined to the batch.

        Args:
            batch: fields (B, ...); of a field that it lacks the samples' part is given alone.
            count: >= 1.
        """
        size = len(self)
        if size == 0:
            return None
        chosen = torch.randperm(size, generator=self._reads)[:count] if count < size else torch.arange(size)
        return {name: _behind(batch.get(name), held, chosen.to(held.device)) for name, held in self._fields.items()}

    def widen(self, name: str, size: int, fill: float) -> bool:
        """Makes a field's last dimension `size` where it is smaller; what is held or closed gets `fill` there.

        Returns:
            Whether anything was done: not where nothing has been added yet.
        """
        done = False
        for fields, used in ((self._fields, len(self)), (self._closed, sum(self.sizes))):
            held = fields.get(name)
            if held is None or held.shape[-1] >= size:
                continue
            wider = held.new_zeros(*held.shape[:-1], size)
            wider[..., : held.shape[-1]] = held
            wider[:used, ..., held.shape[-1] :] = fill
            fields[name] = wider
            done = True
        return done

    def to(self, device: torch.device | str) -> None:
        """Moves what is held and closed to a device."""
        self._fields = {name: held.to(device) for name, held in self._fields.items()}
        self._closed = {name: held.to(device) for name, held in self._closed.items()}

    def bytes(self) -> int:
        """Returns the memory of all places, used or not, and of what is closed, in bytes."""
        held = sum(part.nbytes for part in [*self._fields.values(), *self._closed.values()])
        return held + self._keys.nbytes + self._labels.nbytes

    def state_dict(self) -> dict[str, Any]:
        """Returns what is held and closed, as copies, how many were offered, and the generators' states."""
        return {
            "fields": {name: held.clone() for name, held in self.fields.items()},
            "closed": {name: held.clone() for name, held in self._closed.items()},
            "sizes": list(self.sizes),
            "seen": self._seen,
            "keys": torch.tensor(self._keys),
            "writes": self._reservoir.state(self._seen),
            "reads": self._reads.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over copies of what `state_dict` gave; `mem_size` and `policy` are the constructor's, and the same.

        Raises:
            ValueError: if it holds another number of samples than this memory would.
        """
        seen, held = int(state["seen"]), {name: len(part) for name, part in state["fields"].items()}
        sizes = [int(size) for size in state["sizes"]]
        if any(size != min(seen, self.mem_size) for size in held.values()) or max(sizes, default=0) > self.mem_size:
            other = f"{seen} samples that held {held}, with closed ones of {sizes}"
            raise ValueError(f"a memory of mem_size {self.mem_size} cannot load one of {other}")
        self._closed, self.sizes = {name: part.clone() for name, part in state["closed"].items()}, sizes
        self._seen = seen
        self._fields = {}
        for name, part in state["fields"].items():
            self._fields[name] = part.new_zeros(self.mem_size, *part.shape[1:])
            self._fields[name][: len(part)] = part
        self._keys = state["keys"].cpu().numpy().copy()
        self._labels = np.zeros(len(self._keys), dtype=np.int64)
        if len(self._keys):
            self._labels[: len(self)] = state["fields"]["y"].cpu().numpy()
        self._reservoir.restart(seen, state["writes"])
        self._reads.set_state(state["reads"])


def _behind(part: Tensor | None, held: Tensor, chosen: Tensor) -> Tensor:
    """Returns a field of a batch, if there is one, and behind it the chosen samples' field."""
    if part is None:
        return held.index_select(0, chosen)
    if part.dim() == 1 or part.requires_grad or _kind(part) != _kind(held):
        return torch.cat([part, held.index_select(0, chosen)])  # or says what does not fit
    joined = part.new_empty(len(part) + len(chosen), *part.shape[1:])
    joined[: len(part)] = part
    torch.index_select(held, 0, chosen, out=joined[len(part) :])  # straight to its place, not by way of a copy
    return joined


def _check_alike(fields: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> None:
    """Raises a ValueError where both have fields, but not of the same names, types and shapes of a sample."""
    if held and (fields.keys() != held.keys() or any(_kind(fields[name]) != _kind(held[name]) for name in held)):
        given, first = ({name: _kind(part) for name, part in parts.items()} for parts in (fields, held))
        raise ValueError(f"a memory's fields are those of the first batch, {first}; got {given}")


def _common_length(fields: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> int | None:
    """Returns the length of fields that are all of one length and like the held ones, else None."""
    count = None
    if fields.keys() != held.keys():
        return None
    for name, part in fields.items():
        own, shape = held[name], part.shape
        if count is None:
            count = shape[0]
        if shape[0] != count or part.dtype != own.dtype or shape[1:] != own.shape[1:]:
            return None
    return count


def _kind(part: Tensor) -> tuple[Any, ...]:
    return part.dtype, *part.shape[1:]
