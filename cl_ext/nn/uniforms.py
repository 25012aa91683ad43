"""Uniform random numbers drawn some ahead: a call of PyTorch's generator costs as much for a thousand as for one.

The numbers are the same as one at a time, and so is the state that is saved: that of a generator which has given the
numbers that were used, and no more.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

Numbers = np.ndarray[Any, np.dtype[np.float64]]

_AHEAD = 256


def uniforms(count: int, generator: torch.Generator) -> Numbers:
    """Returns independent uniform numbers of [0, 1), (count,), the same in one call as in several."""
    numbers: Numbers = torch.rand(count, dtype=torch.float64, generator=generator).numpy()
    return numbers


def state_after(state: Tensor, used: int) -> Tensor:
    """Returns the state that a CPU generator of `state` has after `used` of `uniforms`."""
    generator = torch.Generator()
    generator.set_state(state)
    uniforms(used, generator)
    return generator.get_state()


class UniformStream:
    """A generator of its own that gives one number at a time."""

    def __init__(self, seed: int) -> None:
        """Starts the stream of a seed, in [0, 2^64)."""
        self._generator = torch.Generator().manual_seed(seed)
        self._state = self._generator.get_state()
        self._ahead: list[float] = []
        self._drawn = 0

    def next(self) -> float:
        """Returns the next number."""
        if not self._ahead:
            self._state, self._drawn = self._generator.get_state(), _AHEAD
            self._ahead = uniforms(_AHEAD, self._generator)[::-1].tolist()
        return self._ahead.pop()

    def get_state(self) -> Tensor:
        """Returns the state of a generator that has given the numbers so far."""
        return state_after(self._state, self._drawn - len(self._ahead))

    def set_state(self, state: Tensor) -> None:
        """Goes on from a state that `get_state` gave."""
        self._generator.set_state(state)
        self._state, self._ahead, self._drawn = self._generator.get_state(), [], 0
