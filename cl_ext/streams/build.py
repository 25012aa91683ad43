"""From a :class:`StreamSpec` to an Avalanche benchmark."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cl_ext._avalanche import batch_joint_loaders
from cl_ext.streams.datasets import load_dataset, stratified_holdout
from cl_ext.streams.kinds import KINDS, Part
from cl_ext.streams.scenario import TensorScenario
from cl_ext.streams.seeding import random_state
from cl_ext.streams.spec import StreamSpec, is_file
from cl_ext.streams.tensors import as_tensors, tensor_dataset

import numpy as np
import torch


def build_stream(
    spec: StreamSpec, data_root: str | Path | None = None, files: Mapping[str, str | Path] | None = None
) -> TensorScenario:
    """An ordinary Avalanche benchmark with ``train_stream`` and ``test_stream``.

    Labels are global class ids: those of the data set for ``split``, in whatever order the classes come; shifted by
    experience x K for ``permuted`` and ``rotated``, and by the classes of the earlier sets for ``concat``; in the
    domain scenario the position of the class in its experience. Task labels are the experience's index in the task
    scenario and 0 otherwise.

    The first experience of a permuted stream keeps its pixels where they are. Rotated images are turned
    counter-clockwise about their centre (PIL, bilinear, black corners). The sets of a concat stream are brought to the
    largest height and width among them (PIL, bilinear), grey ones repeated to three channels if any has three.

    Args:
        spec: what to build.
        data_root: where data sets lie; the environment variable CL_EXT_DATA, else ``./data``.
        files: where a user's ``.npz`` files lie, by the name the spec uses.

    Raises:
        TypeError, ValueError: the spec, or the data it names, make no stream.
        FileNotFoundError: a data set is neither there nor to be had.
    """
    spec.validate()
    batch_joint_loaders()
    sets = [load_dataset(name, data_root, files) for name in spec.datasets]
    if len(sets) == 1:
        spec.validate(sets[0].classes)
    if not spec.normalise:
        sets = [replace(data, mean=(0.0,) * len(data.mean), std=(1.0,) * len(data.std)) for data in sets]
    experiences = KINDS[spec.name](spec, sets)
    outputs = 0
    if spec.first is not None:
        outputs = 1 + max(int(train.leaf.y[_rows(train)].max()) for train, _ in experiences)
        experiences = experiences[: spec.first]
    if spec.validation:
        experiences = [_validation_split(spec, i, train) for i, (train, _) in enumerate(experiences)]
    if spec.samples is not None:
        experiences = [
            (_drawn(spec, i, train).without_the_rest(), test.without_the_rest())
            for i, (train, test) in enumerate(experiences)
        ]
    # The labels as Python ints, which Avalanche wants, once a leaf.
    targets = {id(part.leaf): part.leaf.y.tolist() for pair in experiences for part in pair}
    streams: dict[str, list] = {"train": [], "test": []}
    for i, pair in enumerate(experiences):
        for stream, part in zip(streams.values(), pair, strict=True):
            rows = None if part.rows is None else part.rows.tolist()
            task = i if spec.scenario == "task" else 0
            stream.append(tensor_dataset(part.leaf, task, rows, targets[id(part.leaf)]))
    return TensorScenario(streams, outputs, {data.name: data.checksum for data in sets if not is_file(data.name)})


def _rows(part: Part) -> np.ndarray:
    return np.arange(len(part.leaf)) if part.rows is None else part.rows


def _drawn(spec: StreamSpec, experience: int, train: Part) -> Part:
    """Some of an experience's training samples, drawn uniformly."""
    rows = _rows(train)
    if spec.samples is None or spec.samples > len(rows):
        raise ValueError(
            f"samples is {spec.samples}, but experience {experience + 1} of {'+'.join(spec.datasets)} has "
            f"{len(rows)} training samples"
        )
    random = random_state(spec.seed, "samples", experience)
    return Part(train.leaf, np.sort(random.permutation(rows)[: spec.samples]))


def _validation_split(spec: StreamSpec, experience: int, train: Part) -> tuple[Part, Part]:
    rows = _rows(train)
    random = random_state(spec.seed, "validation", experience)
    held = stratified_holdout(train.leaf.y.numpy()[rows], spec.validation, random)
    return Part(train.leaf, rows[~held]), Part(train.leaf, rows[held])


def stream_checksum(benchmark: Any) -> str:
    """``sha256:...`` over all experiences of both streams, in order: labels, task labels, samples to three decimals."""
    digest = hashlib.sha256()
    for stream in (benchmark.train_stream, benchmark.test_stream):
        for experience in stream:
            data = experience.dataset
            for start in range(0, len(data), 10_000):
                x, y, t = as_tensors(data.subset(range(start, min(start + 10_000, len(data)))))
                for part in (y, t, (x.double() * 1000).round().to(torch.int32)):
                    digest.update(str(tuple(part.shape)).encode())
                    digest.update(part.numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"
