"""Samples of an experience put aside, for a method that takes decisions while it trains."""

from typing import Any

from cl_ext.nn.passes import evaluation_mode, labelled_batches, preserved_random_state

import torch
from torch import Tensor, nn


def held_out(labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Which samples to put aside: drawn at random, each class as near to its share as whole samples allow.

    Args:
        labels: (N,).
        share: In [0, 1); of N samples round(share N) are put aside, at least one where N > 1 and the share is not 0,
            and never all.
        generator: Draws a permutation.

    Returns:
        Positions, ascending; none where the share is 0 or there is one sample.
    """
    size = len(labels)
    count = 0 if share == 0 else min(size - 1, max(1, round(share * size)))
    if count <= 0:
        return torch.empty(0, dtype=torch.int64)
    order = torch.randperm(size, generator=generator)
    by_class = order[labels[order].argsort(stable=True)]
    spread = ((torch.arange(count) + 0.5) * size / count).long()
    return by_class[spread].sort().values


def split(dataset: Any, share: float, generator: torch.Generator) -> tuple[Any, Any]:
    """Two parts of an Avalanche data set: what to train on (all of it, as it is, if nothing is put aside), the rest."""
    labels = torch.as_tensor([int(label) for label in dataset.targets])
    aside = held_out(labels, share, generator)
    if not len(aside):
        return dataset, dataset.subset([])
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[aside] = False
    return dataset.subset(kept.nonzero().flatten().tolist()), dataset.subset(aside.tolist())


@torch.no_grad()
def accuracy(model: nn.Module, dataset: Any, task: int, batch_size: int, device: torch.device) -> float:
    """The accuracy of a multi-task network on samples of one task, with the transforms of evaluation.

    Nothing is left behind: modes and random states are as before. 0 where there is no sample.
    """
    right = total = 0
    with preserved_random_state(), evaluation_mode(model):
        for x, y, _ in labelled_batches(dataset, batch_size, device):
            right += int((model(x, task).argmax(1) == y).sum())
            total += len(y)
    return right / max(1, total)
