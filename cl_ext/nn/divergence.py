"""Training that has left the finite numbers: one error for plugins and for the recorder of a study."""

from collections.abc import Mapping

import torch
from torch import Tensor


class DivergedError(RuntimeError):
    """The loss, the logits or a penalty are no longer finite; the message says where, and what bound was passed."""


def check_weights(values: Mapping[str, Tensor], owner: str) -> None:
    """Stops before a network with weights that are not finite predicts.

    Args:
        values: weights by name.
        owner: whose they are, for the message.

    Raises:
        DivergedError: if one is not finite.
    """
    for name, value in values.items():
        if not bool(torch.isfinite(value).all()):
            raise DivergedError(f"{owner}'s {name} is not finite")
