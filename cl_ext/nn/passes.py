"""A pass over an experience's data that leaves no trace: no random number drawn, no module's mode changed.

Importances are computed by such a pass once per experience. It reads the data in their own order, with the transforms
of evaluation, under a copy of every global random state, so that training goes on as if it had not been.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from avalanche.models.utils import avalanche_forward
from torch import Tensor, nn
from torch.utils.data import DataLoader


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Restores Python's, numpy's and torch's global random states (all CUDA devices included) on leaving."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Puts `model` into eval mode, and each of its modules back into the mode it was in on leaving."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


def labelled_batches(
    dataset: Any, batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Yields inputs (B, ...), labels (B,) and task labels (B,), or None where the data have none.

    Args:
        dataset: samples `(x, y)` or `(x, y, t)`; an Avalanche dataset is read with its evaluation transforms.
        batch_size: samples a batch; the last batch may be smaller.
        device: where the batches go.

    Raises:
        ValueError: if there is no sample.
    """
    if len(dataset) == 0:
        raise ValueError("an importance needs at least one sample, but the experience's dataset is empty")
    dataset = dataset.eval() if hasattr(dataset, "eval") else dataset
    loader: DataLoader[Any] = DataLoader(
        dataset, batch_size=batch_size, collate_fn=getattr(dataset, "collate_fn", None), shuffle=False
    )
    for batch in loader:
        yield batch[0].to(device), batch[1].to(device), batch[2].to(device) if len(batch) > 2 else None


def batches(dataset: Any, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yields inputs (B, ...) and task labels (B,), or None where the data have none; labels are never looked at.

    Arguments and errors as in `labelled_batches`.
    """
    for x, _, task_labels in labelled_batches(dataset, batch_size, device):
        yield x, task_labels


def logits(model: nn.Module, x: Tensor, task_labels: Tensor | None) -> Tensor:
    """Returns the network's output (B, K); a multi-task network is given the task labels.

    Raises:
        TypeError: if the output is not a matrix of floats of B rows.
    """
    output = avalanche_forward(model, x, task_labels)
    if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != len(x) or not output.is_floating_point():
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise TypeError(f"{type(model).__name__} must give logits of shape (B, K) with B = {len(x)}, but gave {shape}")
    return output
