"""Loading data sets as compact arrays: the embedded one, torchvision's, Avalanche's, and a user's own ``.npz``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cl_ext.streams.catalogue import DATASETS
from cl_ext.streams.seeding import random_state
from cl_ext.streams.spec import is_file

import numpy as np

KEYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class ImageData:
    """One data set in memory.

    Attributes:
        name: as the spec names it.
        x_train: (N, C, H, W) uint8, or what a user's file holds: uint8 or float32, also (N, D) for flat samples.
        y_train: (N,) int64 in 0..K-1.
        x_test: as x_train.
        y_test: as y_train.
        mean: of each channel of the training samples (uint8 ones scaled to [0, 1]); one number for flat samples.
        std: the same.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def classes(self) -> int:
        """K, the number of classes."""
        return int(self.y_train.max()) + 1

    @property
    def checksum(self) -> str:
        """``sha256:...`` of the arrays, as :func:`content_checksum` gives it of a file that holds them."""
        return _checksum({key: getattr(self, key) for key in KEYS})


def load_dataset(
    name: str, data_root: str | Path | None = None, files: Mapping[str, str | Path] | None = None
) -> ImageData:
    """Loads one data set, downloading it where its loader can and its files are absent.

    Args:
        name: of :data:`cl_ext.streams.DATASETS`, or a user's ``.npz`` file.
        data_root: where the data lie or go; the environment variable CL_EXT_DATA, else ``./data``.
        files: where a user's files lie, by the name the spec uses, if it is not their path.

    Raises:
        ValueError: the name is unknown, or a user's file does not hold what it should.
        FileNotFoundError: the data are neither there nor to be had.
    """
    root = Path(data_root or os.environ.get("CL_EXT_DATA") or "data")
    if is_file(name):
        return load_npz((files or {}).get(name, name), name)
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r} (allowed: {', '.join(DATASETS)} or a file that ends in .npz)")
    if name == "digits":
        arrays = _digits()
    elif name in ("tiny_imagenet", "core50"):
        arrays = _from_avalanche(name, root)
    else:
        arrays = _from_torchvision(name, root)
    info = DATASETS[name]
    x_train, y_train, x_test, y_test = arrays
    return ImageData(name, x_train, y_train, x_test, y_test, info.mean, info.std)


def stratified_holdout(labels: np.ndarray, fraction: float, random: np.random.RandomState) -> np.ndarray:
    """Which samples are held out: the rounded fraction of each class, at least one kept and, if fraction > 0, one held.

    Args:
        labels: (N,).
        fraction: in [0, 1).
        random: draws which.

    Returns:
        (N,) bool.
    """
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        of_class = random.permutation(np.flatnonzero(labels == label))
        count = min(max(round(fraction * len(of_class)), 1 if fraction else 0), len(of_class) - 1)
        held[of_class[:count]] = True
    return held


def _digits() -> tuple[np.ndarray, ...]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    # One convention for all data sets: 0..255. The source has 17 grey values.
    x = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    y = digits.target.astype(np.int64)
    test = stratified_holdout(y, 0.2, random_state(0, "digits test split"))
    return x[~test], y[~test], x[test], y[test]


def _from_torchvision(name: str, root: Path) -> tuple[np.ndarray, ...]:
    from torchvision import datasets

    classes: dict[str, Any] = {
        "mnist": datasets.MNIST,
        "fashion_mnist": datasets.FashionMNIST,
        "kmnist": datasets.KMNIST,
        "usps": datasets.USPS,
        "svhn": datasets.SVHN,
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
    }
    arrays: list[np.ndarray] = []
    for train in (True, False):
        which: dict[str, Any] = {"split": "train" if train else "test"} if name == "svhn" else {"train": train}
        data = _present_or_download(lambda download, w=which: classes[name](root, download=download, **w), name, root)
        x = np.asarray(data.data)
        if x.ndim == 3:
            x = x[:, None]
        elif name != "svhn":  # the CIFARs are NHWC, SVHN is NCHW
            x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
        labels = data.labels if name == "svhn" else data.targets
        arrays += [x, np.asarray(labels, dtype=np.int64)]
    return tuple(arrays)


def _from_avalanche(name: str, root: Path) -> tuple[np.ndarray, ...]:
    from avalanche.benchmarks.datasets import CORe50Dataset, TinyImagenet

    arrays: list[np.ndarray] = []
    for train in (True, False):
        if name == "core50":
            data = _present_or_download(
                lambda download, t=train: CORe50Dataset(root / "core50", train=t, download=download, mini=True),
                name,
                root,
            )
        else:
            data = _present_or_download(
                lambda download, t=train: TinyImagenet(root / "tinyimagenet", train=t, download=download), name, root
            )
        x, y = zip(*((np.asarray(data[i][0].convert("RGB")), int(data[i][1])) for i in range(len(data))), strict=True)
        arrays += [np.stack(x).transpose(0, 3, 1, 2), np.asarray(y, dtype=np.int64)]
    return tuple(arrays)


def _present_or_download(make: Any, name: str, root: Path) -> Any:
    try:
        return make(False)
    except Exception:  # each loader says "not there" in its own way
        try:
            return make(True)
        except Exception as error:
            raise FileNotFoundError(
                f"{name} is not under {root.resolve()} and could not be downloaded ({type(error).__name__}); get its "
                f"files on a machine with network access with cl_ext.streams.datasets.load_dataset({name!r}, <folder>) "
                "and name that folder by --data-root or CL_EXT_DATA"
            ) from error


def load_npz(path: str | Path, name: str | None = None) -> ImageData:
    """A user's own data.

    The file holds ``x_train, y_train, x_test, y_test``: samples (N, H, W), (N, H, W, C) or flat (N, D), uint8 or
    float; labels (N,) of any integers, which become 0..K-1 in ascending order. Mean and standard deviation are those
    of the training samples.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file does not hold that; the message says what is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with np.load(path, allow_pickle=False) as data:
        missing = [key for key in KEYS if key not in data]
        if missing:
            raise ValueError(f"{path} lacks {', '.join(missing)}; it has to hold {', '.join(KEYS)}")
        x_train, y_train, x_test, y_test = (data[key] for key in KEYS)
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        _check_npz_part(path, part, x, y)
    if x_train.shape[1:] != x_test.shape[1:] or x_train.dtype != x_test.dtype:
        raise ValueError(
            f"x_train and x_test of {path} have to hold samples of one shape and type, "
            f"not {x_train.shape[1:]} {x_train.dtype} and {x_test.shape[1:]} {x_test.dtype}"
        )
    known = np.unique(y_train)
    unseen = np.setdiff1d(y_test, known)
    if len(unseen):
        raise ValueError(f"y_test of {path} has labels that y_train lacks: {', '.join(map(str, unseen[:5]))}")
    x_train, x_test = _channels_first(x_train), _channels_first(x_test)
    axes = 0 if x_train.ndim == 2 else (0, 2, 3)
    scale = 255 if x_train.dtype == np.uint8 else 1
    mean = np.atleast_1d(x_train.mean() if x_train.ndim == 2 else x_train.mean(axes, dtype=np.float64)) / scale
    std = np.atleast_1d(x_train.std() if x_train.ndim == 2 else x_train.std(axes, dtype=np.float64)) / scale
    return ImageData(
        name or str(path),
        x_train,
        np.searchsorted(known, y_train).astype(np.int64),
        x_test,
        np.searchsorted(known, y_test).astype(np.int64),
        tuple(float(m) for m in mean),
        tuple(float(s) or 1.0 for s in std),  # a constant channel stays a constant
    )


def _check_npz_part(path: Path, part: str, x: np.ndarray, y: np.ndarray) -> None:
    if x.ndim not in (2, 3, 4):
        raise ValueError(f"x_{part} of {path} has to be (N, D), (N, H, W) or (N, H, W, C), not {x.shape}")
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"y_{part} of {path} has to be (N,) integers, not {y.shape} {y.dtype}")
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(
            f"x_{part} and y_{part} of {path} have to be equally long and not empty, not {len(x)} and {len(y)}"
        )
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"x_{part} of {path} has to be uint8 or float, not {x.dtype}")
    if not np.isfinite(x).all():
        raise ValueError(f"x_{part} of {path} has values that are not finite")


def _channels_first(x: np.ndarray) -> np.ndarray:
    x = x if x.dtype == np.uint8 else x.astype(np.float32)
    if x.ndim == 3:
        return x[:, None]
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x


def content_checksum(path: str | Path) -> str:
    """``sha256:...`` of the arrays of a user's file: the same data saved twice, compressed or not, have one."""
    with np.load(path, allow_pickle=False) as data:
        return _checksum({key: data[key] for key in data.files})


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        digest.update(f"{key} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return f"sha256:{digest.hexdigest()}"
