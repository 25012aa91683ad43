"""A sum over steps that costs a step next to nothing: its terms are collected and added up some hundred at a time."""

import torch
from torch import Tensor

_AT_ONCE = 256


class LateSum:
    """The sum of all elements of the tensors that were given, in double precision.

    On an accelerator nothing waits for the device before `total`.
    """

    def __init__(self) -> None:
        self._terms: list[Tensor] = []
        self._total: Tensor | float = 0.0

    def add(self, term: Tensor) -> None:
        """Adds a tensor of any shape, which must not be written to any more; no gradient is kept."""
        self._terms.append(term.detach())
        if len(self._terms) == _AT_ONCE:
            self._add_up()

    def _add_up(self) -> None:
        if self._terms:
            self._total = self._total + torch.cat([term.reshape(-1) for term in self._terms]).sum(dtype=torch.float64)
            self._terms = []

    def total(self) -> float:
        """Returns the sum so far."""
        self._add_up()
        return float(self._total)
