"""Whole batches as torch's loaders take them, and the plan by which they are read. torch only, nothing of Avalanche."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data._utils.collate import collate, default_collate_fn_map

MERGE_LIMIT = 16 * 2**20  # bytes; a data set of several leaves (a rehearsal memory) up to this size becomes one leaf


class Row(list):
    """One sample of a :class:`Batch`: the list ``[x, y, t]`` that reading it alone would give."""


class Batch(Sequence[Row]):
    """What a batched read returns: a sequence of samples to any collate function, and whole tensors to torch's own.

    ``default_collate`` looks its function up by the type of the first sample (PyTorch's documented way to extend it),
    so that it takes ``fields`` as they are; every other collate function sees ordinary samples.
    """

    def __init__(self, fields: list[Tensor]) -> None:
        self.fields = fields

    def __len__(self) -> int:
        return len(self.fields[0])

    def __getitem__(self, i: Any) -> Any:
        # The attributes (from the third field on) are Python numbers in a sample that is read alone.
        return Row(field[i] if n < 2 else field[i].item() for n, field in enumerate(self.fields))

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))


def _collate_batch(batch: Any, *, collate_fn_map: dict | None = None) -> Any:
    if isinstance(batch, Batch):
        return batch.fields
    return collate([list(row) for row in batch], collate_fn_map=collate_fn_map)


default_collate_fn_map[Row] = _collate_batch


class Plan:
    """Where the N samples of a data set lie: sample i is row ``rows[i]`` of leaf ``leaf_of[i]``.

    Attributes:
        leaves: functions from (B,) int64 rows to the fields of these samples, ``(x (B, ...), y (B,))``.
        leaf_of: (N,) int64, or None where there is one leaf.
        rows: (N,) int64.
        extras: (N,) int64 each; the attributes that Avalanche appends to a sample (the task label).
    """

    def __init__(self, leaves: list[Any], leaf_of: Tensor | None, rows: Tensor, extras: list[Tensor]) -> None:
        self.leaves, self.leaf_of, self.rows, self.extras = leaves, leaf_of, rows, extras

    def __len__(self) -> int:
        return len(self.rows)

    def same_inputs(self, other: Plan) -> bool:
        """Whether sample i of both is the same row of the same leaf, for every i."""
        if len(self) != len(other) or self.leaves != other.leaves or not torch.equal(self.rows, other.rows):
            return False
        if self.leaf_of is None or other.leaf_of is None:
            return self.leaf_of is other.leaf_of
        return torch.equal(self.leaf_of, other.leaf_of)

    def read(self, indices: Tensor) -> list[Tensor]:
        """The collated samples at (B,) int64 `indices`: ``[x (B, ...), y (B,), t (B,)]``."""
        rows = self.rows.index_select(0, indices)
        extras = [extra.index_select(0, indices) for extra in self.extras]
        return [*self.fields(rows, None if self.leaf_of is None else self.leaf_of.index_select(0, indices)), *extras]

    def fields(self, rows: Tensor, leaf_of: Tensor | None) -> list[Tensor]:
        """The fields of the samples at `rows` of the leaves `leaf_of`, in that order."""
        if leaf_of is None:
            return list(self.leaves[0](rows))
        order = leaf_of.argsort(stable=True)
        parts, start = [], 0
        sorted_rows = rows.index_select(0, order)
        for leaf, count in enumerate(leaf_of.bincount().tolist()):
            if count:
                parts.append(self.leaves[leaf](sorted_rows[start : start + count]))
                start += count
        back = order.argsort()
        return [torch.cat(field).index_select(0, back) for field in zip(*parts, strict=True)]

    def merged(self) -> Plan:
        """The same samples with several small leaves copied into one; a joint read of k leaves costs k reads."""
        if self.leaf_of is None or len(self) == 0:
            return self
        sample = self.fields(self.rows[:1], self.leaf_of[:1])
        if len(self) * sum(field.nbytes for field in sample) > MERGE_LIMIT:
            return self
        held = self.fields(self.rows, self.leaf_of)
        return Plan([TensorRows(held)], None, torch.arange(len(self)), self.extras)


class TensorRows:
    """A leaf of plain tensors; two of the same tensors are equal, so that they are read together."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tuple(tensors)

    def __call__(self, rows: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.index_select(0, rows) for tensor in self.tensors)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TensorRows) and [*map(id, self.tensors)] == [*map(id, other.tensors)]

    def __hash__(self) -> int:
        return hash(tuple(map(id, self.tensors)))
