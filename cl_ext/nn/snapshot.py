"""Values of tensors, kept to be put back."""

from collections.abc import Iterable

import torch
from torch import Tensor


class Snapshot:
    """A copy of the values of some tensors, which stay the same objects.

    Args:
        tensors: Whose values are kept.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._tensors = list(tensors)
        self._values = [tensor.detach().clone() for tensor in self._tensors]

    @torch.no_grad()
    def restore(self) -> None:
        """Puts the values back."""
        for tensor, value in zip(self._tensors, self._values, strict=True):
            tensor.copy_(value)
