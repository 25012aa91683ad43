"""The loaders of data sets that can't be had here, on small files in their official formats, made up.

Each image holds its own number in its corner and its channel's in the next pixel, so that a wrong axis order shows.
"""

import bz2
import pickle
import struct

import cl_ext  # noqa: F401
from cl_ext.streams.datasets import load_dataset

import numpy as np
import pytest
import scipy.io
from torchvision import datasets

COUNT = 20


def images(shape: tuple[int, ...]) -> np.ndarray:
    """(COUNT, H, W, C) uint8: the sample's number at (0, 0), the channel's at (0, 1), 200 at (1, 0)."""
    x = np.zeros((COUNT, *shape), dtype=np.uint8)
    x[:, 0, 0] = np.arange(COUNT)[:, None]
    x[:, 0, 1] = np.arange(shape[-1])
    x[:, 1, 0] = 200
    return x


def labels() -> np.ndarray:
    return np.arange(COUNT) % 10


def kmnist(root, monkeypatch):
    folder = root / "KMNIST" / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        x = images((28, 28, 1))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, COUNT, 28, 28) + x.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 2049, COUNT) + labels().astype(np.uint8).tobytes()
        )


def usps(root, monkeypatch):
    monkeypatch.setattr(datasets.usps, "check_integrity", lambda *a, **k: True, raising=False)
    for name in ("usps.bz2", "usps.t.bz2"):
        lines = []
        for x, y in zip(images((16, 16, 1)).reshape(COUNT, -1), labels(), strict=True):
            pixels = " ".join(f"{i + 1}:{value / 255 * 2 - 1:.6f}" for i, value in enumerate(x))
            lines.append(f"{y + 1} {pixels}")
        (root / name).write_bytes(bz2.compress("\n".join(lines).encode()))


def svhn(root, monkeypatch):
    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda self: True)
    for name in ("train", "test"):
        x = images((32, 32, 3)).transpose(1, 2, 3, 0)
        y = np.where(labels() == 0, 10, labels())[:, None]  # SVHN writes 10 for the digit 0
        scipy.io.savemat(root / f"{name}_32x32.mat", {"X": x, "y": y})


def cifar(name, folder, files, key):
    def make(root, monkeypatch):
        cls = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
        monkeypatch.setattr(cls, "_check_integrity", lambda self: True)
        monkeypatch.setattr(cls, "_load_meta", lambda self: None)
        (root / folder).mkdir()
        for part in files:
            x = images((32, 32, 3)).transpose(0, 3, 1, 2).reshape(COUNT, -1)
            (root / folder / part).write_bytes(pickle.dumps({"data": x, key: labels().tolist()}))

    return make


CASES = {
    "kmnist": (kmnist, (1, 28, 28), COUNT),
    "usps": (usps, (1, 16, 16), COUNT),
    "svhn": (svhn, (3, 32, 32), COUNT),
    "cifar10": (
        cifar("cifar10", "cifar-10-batches-py", [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], "labels"),
        (3, 32, 32),
        5 * COUNT,
    ),
    "cifar100": (cifar("cifar100", "cifar-100-python", ["train", "test"], "fine_labels"), (3, 32, 32), COUNT),
}


@pytest.mark.parametrize("name", CASES)
def test_official_files_are_read(name, tmp_path, monkeypatch):
    make, shape, count = CASES[name]
    make(tmp_path, monkeypatch)
    data = load_dataset(name, tmp_path)
    assert data.x_train.shape == (count, *shape)
    assert data.x_test.shape == (COUNT, *shape)
    for x, y in ((data.x_train, data.y_train), (data.x_test, data.y_test)):
        assert x.dtype == np.uint8
        assert y.dtype == np.int64
        np.testing.assert_array_equal(y[:COUNT], labels())
        np.testing.assert_allclose(x[:COUNT, 0, 0, 0].astype(int), np.arange(COUNT), atol=1)
        np.testing.assert_array_equal(x[0, :, 0, 1], np.arange(shape[0]))
        np.testing.assert_allclose(x[:, :, 1, 0].astype(int), 200, atol=1)
