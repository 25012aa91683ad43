"""Turned digits on noise: counts, disjoint parts, angles and noise, and the labels of the ten tasks."""

from cl_ext.streams.datasets import ImageData
from cl_ext.streams.variation import BRIGHTEST, one_against_the_rest, turned_on_noise, variation

import numpy as np
import pytest
import torch


def data(per_class: int = 12, classes: int = 3) -> ImageData:
    """Images whose centre is their own number."""
    y = np.arange(classes).repeat(per_class)
    x = np.zeros((len(y), 1, 9, 9), dtype=np.uint8)
    x[:, 0, 2:7, 2:7] = (200 + np.arange(len(y)))[:, None, None]  # turning leaves the centre
    return ImageData("made", x[::2], y[::2], x[1::2], y[1::2], (0.0,), (1.0,))


def test_parts_are_disjoint_with_as_many_of_each_class() -> None:
    parts = variation(data(), 0, (4, 2, 6))
    seen: list[int] = []
    for (x, y), size in zip(parts.values(), (4, 2, 6), strict=True):
        assert x.dtype == np.uint8
        assert np.bincount(y).tolist() == [size] * 3
        seen += x[:, 0, 4, 4].tolist()
        assert np.array_equal((x[:, 0, 4, 4].astype(int) - 200) // 12, y)  # the image goes with its label
    assert sorted(seen) == list(range(200, 236))
    with pytest.raises(ValueError, match="class 0 has 12 samples; 13 are needed"):
        variation(data(), 0, (4, 3, 6))


def test_the_seed_fixes_it() -> None:
    first, second, other = (variation(data(), seed, (4, 2, 6))["train"][0] for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_angles_are_uniform_and_noise_is_no_brighter_than_it_says() -> None:
    """A bright pixel right of the centre lands in all directions; without image there is noise alone."""
    x = np.zeros((400, 1, 21, 21), dtype=np.uint8)
    x[:, 0, 9:12, 16:19] = 255
    made = turned_on_noise(x, np.random.RandomState(0))[:, 0].astype(float)
    bright = np.maximum(made - BRIGHTEST, 0)
    rows, columns = np.mgrid[-10:11, -10:11]
    angle = np.arctan2((bright * rows).sum((1, 2)), (bright * columns).sum((1, 2)))
    counts = np.histogram(angle, bins=8, range=(-np.pi, np.pi))[0]
    assert counts.min() > 25  # 50 expected, standard deviation 6.6
    noise = turned_on_noise(np.zeros((50, 1, 20, 20), dtype=np.uint8), np.random.RandomState(1))
    assert noise.max() == BRIGHTEST
    assert noise.min() == 0
    assert abs(noise.mean() - BRIGHTEST / 2) < 1


def test_a_task_a_digit_against_the_rest() -> None:
    parts = variation(data(), 0, (4, 2, 6))
    benchmark = one_against_the_rest(parts)
    for name, stream in (("train", benchmark.train_stream), ("test", benchmark.test_stream)):
        for digit, experience in enumerate(stream):
            y = torch.tensor([sample[1] for sample in experience.dataset])
            assert torch.equal(y, torch.from_numpy(2 * digit + (parts[name][1] == digit)))
            assert {sample[2] for sample in experience.dataset} == {digit}
    x = torch.stack([sample[0] for sample in benchmark.train_stream[0].dataset])
    assert abs(float(x.mean())) < 1e-5
    assert float(x.std()) == pytest.approx(1, abs=1e-3)
