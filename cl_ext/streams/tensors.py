"""Samples that live in tensors: the leaf, its batch transforms, and the Avalanche data set that reads whole batches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from cl_ext._avalanche import plan_of
from cl_ext._batches import Batch

import torch
from avalanche.benchmarks.utils.classification_dataset import TaskAwareSupervisedClassificationDataset
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from avalanche.benchmarks.utils.flat_data import ConstantSequence
from torch import Tensor
from torch.utils.data import Dataset, default_collate

BatchTransform = Callable[[Tensor], Tensor]


class Normalise:
    """(B, C, H, W) or (B, D) samples to ``(x - mean) / std`` in float32; uint8 is divided by 255 first.

    Args:
        mean: one number a channel, or one for all.
        std: the same; positive.

    Raises:
        ValueError: a standard deviation is not positive.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        if any(not s > 0 for s in std):
            raise ValueError(f"every standard deviation has to be positive, not {tuple(std)}")
        self.mean, self.std = torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32)

    def __call__(self, x: Tensor) -> Tensor:
        out = x.to(torch.float32, copy=True)
        if x.dtype == torch.uint8:
            out.div_(255)
        shape = (-1,) + (1,) * (x.dim() - 2) if x.dim() > 2 else (-1,)
        return out.sub_(self.mean.view(shape)).div_(self.std.view(shape))


class PixelPermutation:
    """Moves the values of all H*W*C positions of each sample: position i of the result holds ``order[i]``'s.

    Args:
        order: (H*W*C,) int64, a permutation; the shape of the samples stays.
    """

    def __init__(self, order: Tensor) -> None:
        self.order = order

    def __call__(self, x: Tensor) -> Tensor:
        return x.flatten(1).index_select(1, self.order).view_as(x)


class ImageTensors(Dataset):
    """N samples in one tensor, read by rows through deterministic transforms of whole batches.

    Args:
        x: (N, C, H, W) or (N, D), uint8 or float32; or a function without arguments that makes it on first use.
        y: (N,) int64 class ids.
        transforms: applied one after the other to the (B, ...) samples of a read; each row's result must not depend
            on the rest of the batch.

    Attributes:
        source: `x` as it was given.
    """

    def __init__(self, x: Tensor | Callable[[], Tensor], y: Tensor, transforms: Sequence[BatchTransform] = ()) -> None:
        if isinstance(x, Tensor) and len(x) != len(y):
            raise ValueError(f"x and y have to be equally long, not {len(x)} and {len(y)}")
        self.source, self.y, self.transforms = x, y, tuple(transforms)

    @functools.cached_property
    def x(self) -> Tensor:
        """The samples as they are stored, before the transforms."""
        return self.source if isinstance(self.source, Tensor) else self.source()

    @property
    def targets(self) -> Tensor:
        """(N,) int64; where torchvision's and Avalanche's data sets have their labels."""
        return self.y

    def __len__(self) -> int:
        return len(self.y)

    def read_rows(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The transformed samples and the labels at (B,) int64 `rows`."""
        x = self.x.index_select(0, rows)
        for transform in self.transforms:
            x = transform(x)
        return x, self.y.index_select(0, rows)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return Batch(list(self.read_rows(torch.as_tensor(indices, dtype=torch.int64))))

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        x, y = self.read_rows(torch.tensor([i]))
        return x[0], int(y[0])


class TensorClassificationDataset(TaskAwareSupervisedClassificationDataset):
    """Avalanche's supervised data set with ``__getitems__``, the batched read that torch's ``DataLoader`` asks for.

    Avalanche makes subsets, concatenations and transform groups through the class of the data set it has, so all of
    them keep it. What can't be read by rows (a foreign leaf, an active transform, an attribute that is no int) is
    read sample by sample, with the same result.
    """

    def __getitems__(self, indices: Sequence[int]) -> Any:
        """The samples at `indices` as a sequence that ``default_collate``, which is also this data set's
        ``collate_fn``, takes as whole tensors ``[x (B, ...), y (B,), t (B,)]``."""
        plan = plan_of(self)
        if plan is None:
            return [self[i] for i in indices]
        return Batch(plan.read(torch.as_tensor(indices, dtype=torch.int64)))


def tensor_dataset(
    leaf: ImageTensors, task_label: int, indices: Sequence[int] | None = None, targets: Sequence[int] | None = None
) -> TensorClassificationDataset:
    """The data set of one experience.

    Args:
        leaf: holds the samples.
        task_label: of all of them.
        indices: which samples of the leaf, in which order; None takes all.
        targets: the leaf's labels as Python ints, where the caller has them (they are shared by its experiences).
    """
    labels = DataAttribute(leaf.y.tolist() if targets is None else targets, "targets")
    tasks = DataAttribute(ConstantSequence(task_label, len(leaf)), "targets_task_labels", use_in_getitem=True)
    chosen = None if indices is None else [int(i) for i in indices]
    return TensorClassificationDataset([leaf], indices=chosen, data_attributes=[labels, tasks])


def as_tensors(dataset: Any) -> tuple[Tensor, Tensor, Tensor]:
    """A whole data set in one read.

    Returns:
        x (N, ...), y (N,) int64 and the task labels t (N,) int64 (0 where the data set has none).

    Raises:
        ValueError: the data set is empty.
    """
    if len(dataset) == 0:
        raise ValueError("an empty data set has no tensors")
    plan = plan_of(dataset)
    if plan is not None:
        fields = plan.read(torch.arange(len(dataset)))
    else:
        fields = default_collate([dataset[i] for i in range(len(dataset))])
    x, y = fields[0], torch.as_tensor(fields[1])
    labels = getattr(dataset, "targets_task_labels", None)
    t = torch.zeros(len(x), dtype=torch.int64) if labels is None else torch.as_tensor(fields[-1])
    return x, y, t
