"""Any Avalanche benchmark that fits in memory, as one that is read by whole batches."""

from __future__ import annotations

from typing import Any

from cl_ext._avalanche import batch_joint_loaders
from cl_ext.streams.scenario import TensorScenario
from cl_ext.streams.tensors import ImageTensors, TensorClassificationDataset

import torch
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from avalanche.benchmarks.utils.flat_data import ConstantSequence
from torch.utils.data import DataLoader, default_collate

_PROBES = 5  # samples of each experience that are read twice


def batched(benchmark: Any) -> TensorScenario:
    """An equal benchmark whose samples live in tensors, read once through their transforms.

    Experiences keep their order, classes, labels and task labels. A benchmark without task labels (the new style of
    Avalanche) gets task label 0 everywhere: the plugins that ask for one (LwF, DER, MER) then work, and the others
    see no difference.

    Args:
        benchmark: has streams named ``train`` and ``test``; others are carried over too. Its samples are (x, y) or
            (x, y, t).

    Raises:
        ValueError: a stream is missing, or a sample read twice, or in training and evaluation mode, differs:
            random augmentation can't be stored.
    """
    missing = [name for name in ("train", "test") if name not in benchmark.streams]
    if missing:
        raise ValueError(f"the benchmark has no {missing[0]} stream; it has {', '.join(benchmark.streams)}")
    batch_joint_loaders()
    return TensorScenario(
        {
            name: [_tensors_of(experience.dataset, f"{name} experience {i}") for i, experience in enumerate(stream)]
            for name, stream in benchmark.streams.items()
        }
    )


def _tensors_of(dataset: Any, where: str) -> TensorClassificationDataset:
    if len(dataset) == 0:
        raise ValueError(f"{where} is empty")
    _check_deterministic(dataset, where)
    chunks = list(DataLoader(dataset, batch_size=256, collate_fn=default_collate))
    x = torch.cat([chunk[0] for chunk in chunks])
    y = torch.cat([torch.as_tensor(chunk[1]) for chunk in chunks])
    leaf = ImageTensors(x, y)
    labels = getattr(dataset, "targets_task_labels", None)
    tasks: Any = ConstantSequence(0, len(x))
    if labels is not None:
        held = [int(label) for label in labels]
        tasks = ConstantSequence(held[0], len(x)) if len(set(held)) == 1 else held
    attributes = [
        DataAttribute(y.tolist(), "targets"),
        DataAttribute(tasks, "targets_task_labels", use_in_getitem=True),
    ]
    return TensorClassificationDataset([leaf], data_attributes=attributes)


def _check_deterministic(dataset: Any, where: str) -> None:
    views = [dataset.train(), dataset.train(), dataset.eval()]
    for i in torch.linspace(0, len(dataset) - 1, min(_PROBES, len(dataset))).long().tolist():
        first, again, evaluated = (view[i][0] for view in views)
        if not isinstance(first, torch.Tensor):
            raise ValueError(f"sample {i} of {where} is a {type(first).__name__}; only tensors can be stored")
        if not torch.equal(first, again):
            raise ValueError(f"sample {i} of {where} differs between two reads; random augmentation can't be stored")
        if first.shape != evaluated.shape or not torch.equal(first, evaluated):
            raise ValueError(
                f"sample {i} of {where} differs between training and evaluation mode; only one can be stored"
            )
