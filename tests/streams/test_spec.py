"""Specs, seeds and data sets: what is refused and in which words, and what runs without torch."""

import subprocess
import sys

from cl_ext.streams.catalogue import DATASETS
from cl_ext.streams.datasets import content_checksum, load_dataset, load_npz, stratified_holdout
from cl_ext.streams.seeding import random_state
from cl_ext.streams.spec import StreamSpec, describe, number_of_classes, number_of_experiences

import numpy as np
import pytest


def arrays(n: int = 12, shape: tuple[int, ...] = (4, 4), dtype: type = np.uint8) -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    x = (random.rand(n, *shape) * 255).astype(dtype)
    return {"x_train": x, "y_train": np.arange(n) % 3 * 10 - 10, "x_test": x[:6], "y_test": np.arange(6) % 3 * 10 - 10}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "splitt"}, "did you mean split"),
        ({"dataset": "mnits"}, "did you mean mnist"),
        ({"dataset": "mine.csv"}, "ends in .npz"),
        ({"scenario": "tasks"}, "did you mean task"),
        ({"experiences": 4}, "allowed are 1, 2, 5, 10"),
        ({"experiences": 0}, "at least 1"),
        ({"experiences": None}, "needs its number of experiences"),
        ({"seed": -1}, "at least 0"),
        ({"validation": 1.0}, r"\[0, 1\)"),
        ({"angles": (0.0,)}, "angles are for rotated"),
        ({"class_order": "random"}, "unknown class_order"),
        ({"dataset": ("mnist", "usps")}, "concat takes more"),
        ({"name": "concat", "experiences": None}, "at least two data sets"),
        ({"name": "concat", "dataset": ("mnist", "usps"), "experiences": 3}, "2 data sets are given"),
        ({"name": "concat", "dataset": ("usps", "cifar100"), "experiences": 2, "scenario": "domain"}, "equally many"),
        ({"name": "permuted", "class_order": "seed"}, "for split streams"),
        ({"name": "rotated", "angles": (0.0, float("nan"))}, "finite"),
        ({"name": "rotated", "angles": (0.0, 45.0), "experiences": 3}, "2 angles are given"),
        ({"samples": 0}, "samples has to be at least 1"),
        ({"samples": 60_001}, "mnist has 60000"),
    ],
)  # fmt: skip
def test_spec_refuses(fields: dict, words: str) -> None:
    spec = StreamSpec(**{"name": "split", "dataset": "mnist", "scenario": "class", "experiences": 5} | fields)
    with pytest.raises(ValueError, match=words):
        spec.validate()


@pytest.mark.parametrize(
    "fields",
    [
        {"experiences": 2.0},
        {"seed": True},
        {"name": 3},
        {"dataset": 3},
        {"angles": 3},
        {"normalise": 1},
        {"samples": 1.5},
    ],
)
def test_spec_refuses_types(fields: dict) -> None:
    spec = StreamSpec(**{"name": "rotated", "dataset": "mnist", "scenario": "class", "experiences": 5} | fields)
    with pytest.raises(TypeError):
        spec.validate()


@pytest.mark.parametrize(
    ("spec", "experiences", "classes"),
    [
        (StreamSpec("split", "mnist", "class", 5), 5, 10),
        (StreamSpec("split", "mnist", "domain", 5), 5, 2),
        (StreamSpec("permuted", "mnist", "domain", 10), 10, 10),
        (StreamSpec("permuted", "mnist", "task", 10), 10, 100),
        (StreamSpec("rotated", "mnist", "domain", angles=(0.0, 30.0)), 2, 10),
        (StreamSpec("concat", ("mnist", "cifar100"), "class"), 2, 110),
        (StreamSpec("concat", ("mnist", "usps"), "domain"), 2, 10),
    ],
)
def test_counts(spec: StreamSpec, experiences: int, classes: int) -> None:
    spec.validate()
    assert (number_of_experiences(spec), number_of_classes(spec)) == (experiences, classes)
    assert describe(spec).startswith(spec.name)


def test_no_torch() -> None:
    code = (
        "import sys; import cl_ext.streams, cl_ext.streams.spec, cl_ext.streams.seeding; "
        "print([m for m in ('torch', 'avalanche', 'torchvision', 'sklearn', 'pandas') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_seeds_are_kept_apart() -> None:
    draws = [random_state(*key).randint(2**31) for key in ((1, "a"), (1, "b"), (2, "a"), (1, "a", 0), (1, "a", 0, 0))]
    assert len(set(draws)) == len(draws)
    assert random_state(7, "batches", 1, 2).randint(1000, size=3).tolist() == [530, 729, 965]
    with pytest.raises(ValueError, match="non-negative"):
        random_state(1, "a", -1)


def test_holdout_is_stratified() -> None:
    labels = np.repeat([0, 1, 2], [10, 20, 1])
    held = stratified_holdout(labels, 0.2, random_state(0, "x"))
    assert np.bincount(labels[held], minlength=3).tolist() == [2, 4, 0]


def test_digits_are_as_described() -> None:
    digits, info = load_dataset("digits"), DATASETS["digits"]
    assert digits.x_train.shape == (info.train, 1, 8, 8)
    assert digits.x_test.shape == (info.test, 1, 8, 8)
    assert digits.x_train.dtype == np.uint8
    assert abs(digits.x_train.mean() / 255 - info.mean[0]) < 2e-3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y_test": None}, "lacks y_test"),
        ({"y_train": np.zeros(3, int)}, "equally long"),
        ({"x_train": np.zeros(12, np.uint8)}, "has to be"),
        ({"y_train": np.zeros(12)}, "integers"),
        ({"x_train": np.full((12, 4, 4), np.nan)}, "not finite"),
        ({"x_train": np.zeros((12, 4, 4), int)}, "uint8 or float"),
        ({"x_test": np.zeros((6, 4, 5), np.uint8)}, "one shape and type"),
        ({"y_test": np.full(6, 77)}, "y_train lacks: 77"),
    ],
)
def test_npz_refuses(tmp_path, change: dict, words: str) -> None:
    held = {key: value for key, value in (arrays() | change).items() if value is not None}
    np.savez(tmp_path / "mine.npz", **held)
    with pytest.raises(ValueError, match=words):
        load_npz(tmp_path / "mine.npz")


@pytest.mark.parametrize("shape", [(4, 4), (4, 5, 3), (16,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_npz(tmp_path, shape: tuple[int, ...], dtype: type) -> None:
    held = arrays(shape=shape, dtype=dtype)
    np.savez(tmp_path / "mine.npz", **held)
    data = load_dataset("mine.npz", files={"mine.npz": tmp_path / "mine.npz"})
    assert data.classes == 3
    assert data.y_train.tolist() == [0, 1, 2] * 4  # -10, 0, 10 in ascending order
    assert data.x_train.shape[1:] == {(4, 4): (1, 4, 4), (4, 5, 3): (3, 4, 5), (16,): (16,)}[shape]
    assert len(data.mean) == (3 if shape == (4, 5, 3) else 1)
    spec = StreamSpec("split", str(tmp_path / "mine.npz"), "class", 3)
    assert number_of_classes(spec) == 3
    np.savez_compressed(tmp_path / "again.npz", **held)
    assert content_checksum(tmp_path / "mine.npz") == content_checksum(tmp_path / "again.npz")


def test_absent_data_are_explained(tmp_path, monkeypatch) -> None:
    from torchvision import datasets

    def offline(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr(datasets, "KMNIST", offline)
    with pytest.raises(FileNotFoundError, match=r"kmnist is not under .* CL_EXT_DATA"):
        load_dataset("kmnist", tmp_path)
