"""Every dependence on a private part of Avalanche 0.6 stands here, so that a new version is met in one place.

The data-loading part: Avalanche reads a sample through a tree of ``_FlatDataWithTransform`` (four nested calls, about
10 us) and a joint loader walks every sample at each epoch to look for ffcv (0.4 s for 60,000 samples). :func:`plan_of`
resolves such a tree once into (leaf, row) pairs, so that a batch is one indexed read a leaf;
:func:`batch_joint_loaders` brings that to the loaders that join several data sets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cl_ext  # noqa: F401  (makes torchvision importable beside CPU-only PyTorch; Avalanche imports it)
from cl_ext._batches import Batch, Plan, TensorRows

import numpy as np
import torch
from avalanche.benchmarks.utils import data_loader as joint
from avalanche.benchmarks.utils.data import AvalancheDataset
from avalanche.benchmarks.utils.flat_data import ConstantSequence, FlatData, LazyIndices, LazyRange
from avalanche.benchmarks.utils.transforms import TupleTransform
from torch import Tensor
from torch.utils.data import ConcatDataset, TensorDataset


class _Cached:
    """Holds a plan on the data set it belongs to; copies and pickles of the data set start without one."""

    def __init__(self, key: tuple = (), plan: Plan | None = None) -> None:
        self.key, self.plan = key, plan

    def __reduce__(self) -> tuple:
        return (_Cached, ())


def plan_of(dataset: Any) -> Plan | None:
    """The plan of an Avalanche data set, made once an object; None where it has to be read sample by sample.

    It exists where all leaves are ``ImageTensors`` (anything with ``read_rows``) or a plain ``TensorDataset`` on the
    CPU with the same kinds of fields, no transform of a transform group acts, and the appended attributes are ints.
    """
    if not isinstance(dataset, AvalancheDataset) or len(dataset) == 0:
        return None
    attributes = [a for a in dataset._data_attributes.values() if a.use_in_getitem]
    key = (dataset._flat_data, *attributes)
    cached = dataset.__dict__.get("_cl_ext_plan")
    if cached is None or len(cached.key) != len(key) or any(a is not b for a, b in zip(cached.key, key, strict=True)):
        cached = _Cached(key, _make_plan(dataset._flat_data, attributes))
        dataset.__dict__["_cl_ext_plan"] = cached
    return cached.plan


def joint_plan(datasets: Sequence[Any]) -> Plan | None:
    """The plan of the concatenation of `datasets`, in the order of ``torch.utils.data.ConcatDataset``."""
    plans = [plan for dataset in datasets if len(dataset) for plan in [plan_of(dataset)]]
    found = [plan for plan in plans if plan is not None]
    if not found or len(found) < len(plans) or len({len(plan.extras) for plan in found}) > 1:
        return None
    leaf_of, leaves, start = [], [], 0
    for plan in found:
        leaf_of.append(start + (torch.zeros(len(plan), dtype=torch.int64) if plan.leaf_of is None else plan.leaf_of))
        leaves += plan.leaves
        start += len(plan.leaves)
    extras = [torch.cat(extra) for extra in zip(*(plan.extras for plan in found), strict=True)]
    return _compact(leaves, torch.cat(leaf_of).numpy(), torch.cat([plan.rows for plan in found]).numpy(), extras)


def _make_plan(flat: Any, attributes: list[Any]) -> Plan | None:
    located = _locate(flat, _sample_leaf, flat._transform_groups.current_group)
    if located is None:
        return None
    extras = []
    for attribute in attributes:
        values = _values(attribute.data)
        if values is None:
            return None
        extras.append(torch.from_numpy(values))
    plan = _compact(*located, extras)
    return None if plan is None else plan.merged()


def _compact(leaves: list[Any], leaf_of: np.ndarray, rows: np.ndarray, extras: list[Tensor]) -> Plan | None:
    """A plan of the leaves in use, equal ones joined; None if their samples can't stand in one batch."""
    unique: dict[Any, int] = {}
    used = [int(n) for n in np.unique(leaf_of)]
    number = np.zeros(len(leaves), dtype=np.int64)
    for old in used:
        number[old] = unique.setdefault(leaves[old], len(unique))
    rows_ = torch.from_numpy(np.ascontiguousarray(rows))
    if len(unique) == 1:
        return Plan(list(unique), None, rows_, extras)
    first = torch.zeros(1, dtype=torch.int64)
    kinds = {tuple((field.dtype, field.shape) for field in leaf(first)) for leaf in unique}
    return Plan(list(unique), torch.from_numpy(number[leaf_of]), rows_, extras) if len(kinds) == 1 else None


def _locate(flat: Any, leaf: Callable, group: str | None) -> tuple[list[Any], np.ndarray, np.ndarray] | None:
    """The leaves of a tree of ``FlatData`` and, for each of its samples, the leaf and the row there."""
    if not _no_transform(flat, group):
        return None
    leaves: list[Any] = []
    leaf_of, rows = [], []
    for child in flat._datasets:
        if isinstance(child, FlatData):
            below = _locate(child, leaf, group)
            if below is None:
                return None
            leaf_of.append(below[1] + len(leaves))
            rows.append(below[2])
            leaves += below[0]
        else:
            found = leaf(child)
            if found is None:
                return None
            leaf_of.append(np.full(len(child), len(leaves), dtype=np.int64))
            rows.append(np.arange(len(child), dtype=np.int64))
            leaves.append(found)
    if not leaves:
        return None
    all_leaves, all_rows = np.concatenate(leaf_of), np.concatenate(rows)
    if flat._indices is not None:
        chosen = _as_array(flat._indices)
        all_leaves, all_rows = all_leaves[chosen], all_rows[chosen]
    return leaves, all_leaves, all_rows


def _as_array(indices: Any) -> np.ndarray:
    if isinstance(indices, LazyIndices) and not isinstance(indices, LazyRange):
        indices._to_eager()
        return indices._eager_list
    if isinstance(indices, list) and indices and isinstance(indices[0], Tensor):  # Avalanche's buffers index by tensors
        return torch.stack(indices).numpy()
    return np.asarray(indices, dtype=np.int64)


def _no_transform(flat: Any, group: str | None) -> bool:
    for groups in (getattr(flat, "_frozen_transform_groups", None), getattr(flat, "_transform_groups", None)):
        if groups is None:
            continue
        try:
            transform = groups.transform_groups[group]
        except KeyError:
            return False
        if isinstance(transform, TupleTransform) and all(part is None for part in transform.transforms):
            continue
        if transform is not None:
            return False
    return True


def _sample_leaf(leaf: Any) -> Any:
    if hasattr(leaf, "read_rows"):
        return leaf.read_rows
    # A subclass may read its samples differently.
    if type(leaf) is TensorDataset and len(leaf.tensors) == 2 and all(t.device.type == "cpu" for t in leaf.tensors):
        return TensorRows(leaf.tensors)
    return None


def _values(sequence: Any) -> np.ndarray | None:
    """The values of an attribute as (N,) int64; None if one is not a plain int."""
    if isinstance(sequence, ConstantSequence):
        value = sequence._constant_value
        return np.full(len(sequence), value, dtype=np.int64) if type(value) is int else None
    if not isinstance(sequence, FlatData):
        held = list(sequence)
        return np.asarray(held, dtype=np.int64) if set(map(type, held)) <= {int} else None
    parts = [_values(part) for part in sequence._datasets]
    if any(part is None for part in parts):
        return None
    values = np.concatenate([part for part in parts if part is not None])
    return values if sequence._indices is None else values[_as_array(sequence._indices)]


class BatchedConcat(ConcatDataset):
    """``ConcatDataset`` that reads a whole batch, of several parts in any order, where every part allows it."""

    def __getitems__(self, indices: list[int]) -> Any:
        if not hasattr(self, "_plan"):
            self._plan = joint_plan(self.datasets)
        if self._plan is None:
            return [self[i] for i in indices]
        return Batch(self._plan.read(torch.as_tensor(indices, dtype=torch.int64)))


def _may_use_ffcv(datasets: Sequence[Any]) -> bool:
    """Avalanche's ``has_ffcv_support``, which walks all samples, but only where some leaf carries ffcv's mark."""
    return any(_carries_ffcv(dataset) for dataset in datasets) and _has_ffcv_support(list(datasets))


def _carries_ffcv(node: Any) -> bool:
    if hasattr(node, "ffcv_info"):
        return True
    inner = getattr(node, "_flat_data", None)
    children = [inner] if inner is not None else [getattr(node, "dataset", None), *getattr(node, "datasets", ())]
    children += getattr(node, "_datasets", ()) if isinstance(node, FlatData) else ()
    return any(child is not None and _carries_ffcv(child) for child in children)


_has_ffcv_support = joint.has_ffcv_support


def batch_joint_loaders() -> None:
    """Makes Avalanche's joint loaders (evaluation, replay, task-balanced, A-GEM's) read whole batches.

    It puts :class:`BatchedConcat` and a check for ffcv that does not walk the samples in the place of two names of
    ``avalanche.benchmarks.utils.data_loader``. Data sets that are not made of tensors give the samples they gave
    before. It may be called any number of times; streams and ``BatchedLoading`` call it.
    """
    joint.ConcatDataset = BatchedConcat
    joint.has_ffcv_support = _may_use_ffcv


def joint_batches(loader: Any, samplers: Sequence[Any] | None = None) -> Any:
    """The batch sampler that a joint loader makes for itself at each pass.

    Args:
        loader: a ``MultiDatasetDataLoader``.
        samplers: one batch sampler a part; None makes the loader's own.
    """
    if samplers is None:
        samplers = part_samplers(loader)
    return joint.MultiDatasetSampler(
        loader.datasets,
        samplers,
        termination_dataset_idx=loader.termination_dataset,
        oversample_small_datasets=loader.oversample_small_datasets,
        never_ending=loader.never_ending,
    )


def part_samplers(loader: Any) -> list[Any]:
    """The batch samplers that a joint loader makes for its parts."""
    return loader._create_samplers(
        loader.datasets, loader.batch_sizes, loader.distributed_sampling, loader.loader_kwargs
    )


def is_plain_joint_loader(loader: Any) -> bool:
    """Whether a loader joins data sets in Avalanche's ordinary way: no ffcv, not distributed."""
    return (
        isinstance(loader, joint.MultiDatasetDataLoader)
        and not (loader.distributed_sampling and joint.DistributedHelper.is_distributed)
        and not _may_use_ffcv(loader.datasets)
    )
