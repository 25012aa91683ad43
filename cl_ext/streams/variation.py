"""Turned digits on a noisy background as one-against-the-rest tasks: the MNIST-Variation of Yoon et al. 2018 (DEN).

Their data are not public. Made here: as many samples a class as theirs, drawn from all 70,000 digits of MNIST, each
turned by an angle of its own from [0, 360) and laid over uniform noise.
"""

from __future__ import annotations

from collections.abc import Sequence

from cl_ext.streams.datasets import ImageData
from cl_ext.streams.scenario import TensorScenario
from cl_ext.streams.seeding import random_state
from cl_ext.streams.tensors import ImageTensors, Normalise, TensorClassificationDataset, tensor_dataset

import numpy as np
import torch
from PIL import Image

PARTS = ("train", "validation", "test")
SIZES = (1000, 200, 5000)
"""Samples of each class in the paper's parts."""
BRIGHTEST = 127
"""The brightest noise: with 255, as bright as the digits, an MLP learns little from 1,000 images a class."""


def turned_on_noise(x: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Each image turned by an angle of its own, and where the noise is brighter, the noise.

    Args:
        x: (N, 1, H, W) uint8.
        random: draws N angles from [0, 360), then N noise images of grey values 0 to `BRIGHTEST`.

    Returns:
        (N, 1, H, W) uint8.
    """
    angles = random.uniform(0, 360, len(x))
    noise = random.randint(0, BRIGHTEST + 1, x.shape).astype(np.uint8)
    turned = [
        Image.fromarray(image).rotate(angle, resample=Image.Resampling.BILINEAR)
        for image, angle in zip(x[:, 0], angles, strict=True)
    ]
    return np.maximum(np.stack([np.asarray(image) for image in turned])[:, None], noise)


def variation(data: ImageData, seed: int, sizes: Sequence[int] = SIZES) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The images (N, 1, H, W) uint8 and digits (N,) of each part of the data, equally many of each class.

    Args:
        data: greyscale images; training and test samples are pooled.
        seed: of the draw, the angles and the noise.
        sizes: samples of each class in each of `PARTS`.

    Raises:
        ValueError: a class has too few samples.
    """
    x, y = np.concatenate([data.x_train, data.x_test]), np.concatenate([data.y_train, data.y_test])
    random = random_state(seed, "variation")
    rows: list[list[np.ndarray]] = [[] for _ in sizes]
    for label in range(data.classes):
        own = random.permutation(np.flatnonzero(y == label))
        if len(own) < sum(sizes):
            raise ValueError(f"class {label} has {len(own)} samples; {sum(sizes)} are needed")
        for part, end in enumerate(np.cumsum(sizes)):
            rows[part].append(own[end - sizes[part] : end])
    made = {}
    for name, parts in zip(PARTS, rows, strict=True):
        chosen = np.concatenate(parts)
        made[name] = (turned_on_noise(x[chosen], random), y[chosen])
    return made


def one_against_the_rest(parts: dict[str, tuple[np.ndarray, np.ndarray]]) -> TensorScenario:
    """A task for each digit d, its label d: class 2 d is every other digit, class 2 d + 1 the digit itself.

    Every task has all images. They are normalised by the training images' mean and deviation.

    Args:
        parts: images and digits of `train`, and of any other part.
    """
    pixels = parts["train"][0] / 255
    normalise = Normalise((float(pixels.mean()),), (float(pixels.std()),))
    streams: dict[str, list[TensorClassificationDataset]] = {}
    for name, (x, y) in parts.items():
        images = torch.from_numpy(x)
        streams[name] = []
        for digit in range(int(y.max()) + 1):
            labels = torch.from_numpy(2 * digit + (y == digit).astype(np.int64))
            streams[name].append(tensor_dataset(ImageTensors(images, labels, (normalise,)), digit))
    return TensorScenario(streams)
