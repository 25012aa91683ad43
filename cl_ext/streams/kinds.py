"""The four kinds of stream: which leaf each experience reads, and which of its samples."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cl_ext.streams.datasets import ImageData
from cl_ext.streams.seeding import random_state
from cl_ext.streams.spec import StreamSpec, number_of_experiences
from cl_ext.streams.tensors import BatchTransform, ImageTensors, Normalise, PixelPermutation

import numpy as np
import torch
from PIL import Image
from torch import Tensor

FLOAT_LIMIT = 256 * 2**20  # bytes; normalised images are stored up to this size, bigger ones are normalised by batch


class Part(NamedTuple):
    """The samples of one experience in one stream.

    Attributes:
        leaf: holds them, perhaps among others.
        rows: (n,) int64 ascending, or None for all.
    """

    leaf: ImageTensors
    rows: np.ndarray | None = None

    def without_the_rest(self) -> Part:
        """The same samples in a leaf of their own, where it would else make samples that nobody reads."""
        source = self.leaf.source
        if self.rows is None or not isinstance(source, _Turned):
            return self
        return Part(ImageTensors(source.only(self.rows), self.leaf.y[self.rows], self.leaf.transforms))


def split(spec: StreamSpec, sets: Sequence[ImageData]) -> list[tuple[Part, Part]]:
    """The classes, in their order, dealt out over the experiences; one leaf for all of them."""
    (data,) = sets
    order = np.arange(data.classes)
    if spec.class_order == "seed":
        order = random_state(spec.seed, "class order").permutation(data.classes)
    groups = np.split(order, number_of_experiences(spec))
    new_label = np.arange(data.classes)
    if spec.scenario == "domain":
        new_label[order] = np.arange(data.classes) % len(groups[0])
    streams = []
    for x, y in _both(data):
        stored, transforms = _stored(x, data)
        leaf = ImageTensors(stored, torch.from_numpy(new_label[y]), transforms)
        streams.append([Part(leaf, np.flatnonzero(np.isin(y, group))) for group in groups])
    return list(zip(*streams, strict=True))


def permuted(spec: StreamSpec, sets: Sequence[ImageData]) -> list[tuple[Part, Part]]:
    """All classes in each experience, the pixels in another order each time; the leaves share their storage."""
    (data,) = sets
    pixels = int(np.prod(data.x_train.shape[1:]))
    stored = [_stored(x, data) for x, _ in _both(data)]
    experiences = []
    for i in range(number_of_experiences(spec)):
        order = torch.from_numpy(random_state(spec.seed, "permutation", i).permutation(pixels))
        # The papers differ on the first experience; here it is the plain data set, as in Kirkpatrick et al. 2017.
        moved: tuple[BatchTransform, ...] = (PixelPermutation(order),) if i else ()
        train, test = (
            Part(ImageTensors(x, _shifted(spec, data, y, i), transforms + moved))
            for (x, transforms), (_, y) in zip(stored, _both(data), strict=True)
        )
        experiences.append((train, test))
    return experiences


def rotated(spec: StreamSpec, sets: Sequence[ImageData]) -> list[tuple[Part, Part]]:
    """All classes in each experience, the images turned by another angle each time, when they are first read."""
    (data,) = sets
    _need_images(spec, data)
    count = number_of_experiences(spec)
    angles = spec.angles or tuple(random_state(spec.seed, "angles").uniform(0, 180, count).tolist())
    experiences = []
    for i, angle in enumerate(angles):
        train, test = (
            Part(ImageTensors(_Turned(x, angle), _shifted(spec, data, y, i), (Normalise(data.mean, data.std),)))
            for x, y in _both(data)
        )
        experiences.append((train, test))
    return experiences


def concat(spec: StreamSpec, sets: Sequence[ImageData]) -> list[tuple[Part, Part]]:
    """One data set after another, brought to a common shape."""
    for data in sets:
        _need_images(spec, data)
    shapes = [data.x_train.shape[1:] for data in sets]
    channels, height, width = (max(shape[axis] for shape in shapes) for axis in range(3))
    if any(shape[0] not in (1, channels) for shape in shapes):
        raise ValueError(f"a concat stream needs images of 1 or {channels} channels, not {[s[0] for s in shapes]}")
    if spec.scenario == "domain" and len({data.classes for data in sets}) > 1:
        each = ", ".join(f"{data.name} {data.classes}" for data in sets)
        raise ValueError(f"a domain-incremental concat stream needs data sets with equally many classes, not {each}")
    resize = functools.partial(Image.Image.resize, size=(width, height), resample=Image.Resampling.BILINEAR)
    experiences, offset = [], 0
    for data, shape in zip(sets, shapes, strict=True):
        parts = []
        for x, y in _both(data):
            stored, transforms = _stored(x if shape[1:] == (height, width) else _by_image(x, resize), data)
            if shape[0] < channels:
                transforms = (*transforms, _Repeat(channels))
            parts.append(Part(ImageTensors(stored, torch.from_numpy(y + offset), transforms)))
        experiences.append((parts[0], parts[1]))
        offset += 0 if spec.scenario == "domain" else data.classes
    return experiences


KINDS: dict[str, Callable[[StreamSpec, Sequence[ImageData]], list[tuple[Part, Part]]]] = {
    "split": split,
    "permuted": permuted,
    "rotated": rotated,
    "concat": concat,
}


def _both(data: ImageData) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(data.x_train, data.y_train), (data.x_test, data.y_test)]


def _stored(images: np.ndarray, data: ImageData) -> tuple[Tensor, tuple[BatchTransform, ...]]:
    """The samples normalised now if that is small, else with the transform that does it; the numbers are the same."""
    x, normalise = torch.from_numpy(images), Normalise(data.mean, data.std)
    return (normalise(x), ()) if x.numel() * 4 <= FLOAT_LIMIT else (x, (normalise,))


def _shifted(spec: StreamSpec, data: ImageData, y: np.ndarray, experience: int) -> Tensor:
    return torch.from_numpy(y if spec.scenario == "domain" else y + experience * data.classes)


def _need_images(spec: StreamSpec, data: ImageData) -> None:
    if data.x_train.ndim != 4 or data.x_train.dtype != np.uint8:
        raise ValueError(
            f"a {spec.name} stream needs uint8 images, but {data.name} holds {data.x_train.dtype} samples of shape "
            f"{data.x_train.shape[1:]}"
        )


class _Turned:
    """(N, C, H, W) uint8 images turned by an angle in degrees, when it is called."""

    def __init__(self, images: np.ndarray, angle: float) -> None:
        self.images, self.angle = images, angle

    def __call__(self) -> Tensor:
        turn = functools.partial(Image.Image.rotate, angle=self.angle, resample=Image.Resampling.BILINEAR)
        return torch.from_numpy(_by_image(self.images, turn))

    def only(self, rows: np.ndarray) -> _Turned:
        """The same of some of the images."""
        return _Turned(self.images[rows], self.angle)


def _by_image(images: np.ndarray, change: functools.partial) -> np.ndarray:
    """Changes each channel of each (C, H, W) uint8 image as a grey PIL image."""
    changed = [[np.asarray(change(Image.fromarray(channel))) for channel in image] for image in images]
    return np.asarray(changed, dtype=np.uint8)


class _Repeat:
    """(B, 1, H, W) grey images to (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def __call__(self, x: Tensor) -> Tensor:
        return x.repeat(1, self.channels, 1, 1)
