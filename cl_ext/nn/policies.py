"""Which samples of a stream a memory of limited size holds, batch by batch: places that they go to.

A batch is decided without a loop over its samples, and what is then held has exactly the distribution that one sample
at a time would give. How, for each policy:

- "reservoir": Vitter's algorithm R. The n-th sample offered (n from 0) goes to place n while there is one, and later
  to place j, drawn from 0..n, where j is a place at all. The draws don't depend on one another, so they are made at
  once, for some batches ahead; where two samples go to one place, the later one stays, as it would have replaced the
  earlier. Of n samples only about mem_size * log(n) are ever written: for most batches there is nothing to do.
- "ring": the n-th sample goes to place n mod mem_size.
- "class_balanced": every sample gets a random key, and has a rank among the keys of its class, the largest first.
  Those that are first by (rank, class) are held: equally many of each class to within one, or all that there were,
  and of each class a uniform choice of all that were offered. More samples only ever move a sample back in that order,
  so one that was dropped never has to come back, and the choice can be made from what is held and the batch.

All on the CPU, in numpy: for a batch of ten most of the time is the calls' own.
"""

from typing import Any

from cl_ext.nn.uniforms import Numbers, state_after, uniforms

import numpy as np
import torch
from torch import Tensor

Indices = np.ndarray[Any, np.dtype[np.int64]]

_AHEAD = 1024
_NONE: Indices = np.empty(0, dtype=np.int64)


def reservoir_draws(seen: int, count: int, generator: torch.Generator) -> Indices:
    """Returns for the n-th sample, n = seen..seen + count - 1, a uniform integer of 0..n; (count,)."""
    return (uniforms(count, generator) * np.arange(seen + 1, seen + count + 1)).astype(np.int64)


def last_writers(places: Indices, capacity: int) -> tuple[Indices, Indices]:
    """Returns the places that samples go to and which sample stays there: the last one; both (W,), W <= B.

    Args:
        places: where each sample of a batch would go, (B,); one of at least `capacity` goes nowhere.
        capacity: how many places there are.
    """
    chosen = np.flatnonzero(places < capacity)
    if len(chosen) < 2:
        return places[chosen], chosen
    kept, back = np.unique(places[chosen][::-1], return_index=True)  # the first from behind
    return kept, chosen[len(chosen) - 1 - back]


def ring_places(seen: int, count: int, capacity: int) -> tuple[Indices, Indices]:
    """Returns the places of a ring that samples n = seen..seen + count - 1 go to, and which of them; (W,) each."""
    chosen = np.arange(max(0, count - capacity), count)
    return (seen + chosen) % capacity, chosen


def class_balanced_choice(labels: Indices, keys: Numbers, capacity: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Returns which samples are held: the first `capacity` by (rank of the key in its class, class); (N,) bool.

    Args:
        labels: (N,).
        keys: (N,), all different.
        capacity: how many are held.
    """
    order = np.lexsort((-keys, labels))  # by class, then by key
    index, classes = np.arange(len(order)), labels[order]
    begins = np.concatenate([[True], classes[1:] != classes[:-1]])
    rank = index - np.maximum.accumulate(np.where(begins, index, 0))
    held = np.zeros(len(labels), dtype=np.bool_)
    held[order[np.argsort(rank, kind="stable")[:capacity]]] = True  # stable: within a rank still by class
    return held


class ReservoirDraws:
    """The draws of a reservoir, some ahead; of them only those are kept that are a place."""

    def __init__(self, capacity: int, generator: torch.Generator) -> None:
        """Draws nothing yet.

        Args:
            capacity: places, >= 1.
            generator: gives one number for each sample that comes after the places are full.
        """
        self.capacity = capacity
        self._generator = generator
        self._begin()

    def _begin(self) -> None:
        self._state: Tensor | None = None  # before the draws of samples from `_from` on
        self._from = self._until = self.capacity
        self._samples = self._places = _NONE
        self._next = self.capacity  # before this sample none goes anywhere, once the places are full

    def places(self, seen: int, count: int) -> tuple[Indices, Indices]:
        """Returns the places that samples n = seen..seen + count - 1 go to, and which of them; (W,) each.

        Args:
            seen: as many as were asked for before.
            count: B.
        """
        end = seen + count
        if end <= self._next and seen >= self.capacity:
            return _NONE, _NONE
        if end > self._until:
            self._draw(max(_AHEAD, end - self._until))
        due = int(np.searchsorted(self._samples, end))
        samples, places = self._samples[:due], self._places[:due]
        self._samples, self._places = self._samples[due:], self._places[due:]
        self._next = int(self._samples[0]) if len(self._samples) else self._until
        if seen < self.capacity:
            first = np.arange(seen, min(end, self.capacity))
            samples, places = np.concatenate([first, samples]), np.concatenate([first, places])
        kept, last = last_writers(places, self.capacity)
        return kept, samples[last] - seen

    def _draw(self, count: int) -> None:
        self._state, self._from = self._generator.get_state(), self._until
        draws = reservoir_draws(self._until, count, self._generator)
        hits = np.flatnonzero(draws < self.capacity)
        self._samples = np.concatenate([self._samples, self._until + hits])
        self._places = np.concatenate([self._places, draws[hits]])
        self._until += len(draws)

    def state(self, seen: int) -> Tensor:
        """Returns the state of a generator that has given the draws of the first `seen` samples, and no more."""
        if self._state is None:
            return self._generator.get_state()
        return state_after(self._state, max(0, seen - self._from))

    def restart(self, seen: int, state: Tensor | None = None) -> None:
        """Goes on after `seen` samples from `state`, or begins anew where the draws used so far end.

        Args:
            seen: how many samples have been offered.
            state: of the generator; None for what `state(seen)` is, and a count from 0.
        """
        self._generator.set_state(self.state(seen) if state is None else state)
        self._begin()
        if state is not None:
            self._from = self._until = self._next = max(self.capacity, seen)
