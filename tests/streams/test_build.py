"""Streams as they are built: contents, labels, seeds, and checksums that may never move."""

import os
from pathlib import Path

from cl_ext.streams import StreamSpec, as_tensors, build_stream, stream_checksum
from cl_ext.streams.datasets import load_dataset

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(os.environ.get("CL_EXT_DATA", Path(__file__).parents[3] / "shared" / "data"))


def digits(**fields) -> StreamSpec:
    return StreamSpec(**{"name": "split", "dataset": "digits", "scenario": "class", "experiences": 5} | fields)


CHECKSUMS = {
    "split": (digits(), "sha256:3cb8daf60c92635d26bd7330a69831138e8b0127bc5f216060da96d8c0ccf200"),
    "split, class order by seed": (
        digits(class_order="seed", seed=3),
        "sha256:b36dc9826770f2e0e6453439d96e0b06d7bbc9721b8e173db8c86fc49e1f6e74",
    ),
    "permuted": (
        digits(name="permuted", scenario="domain", experiences=3, seed=1),
        "sha256:f6d52a1f2d5e5c9f4dfd603404f9470d556466e612d8997ea4c0b83e12444817",
    ),
    "rotated": (
        digits(name="rotated", scenario="domain", experiences=3, seed=1),
        "sha256:017908d249f181e79eb28315b3dc53bec5b68ac0be5c154509d15ea8863eb502",
    ),
}


@pytest.mark.parametrize("name", CHECKSUMS)
def test_checksums(name: str) -> None:
    spec, checksum = CHECKSUMS[name]
    assert stream_checksum(build_stream(spec)) == checksum


def test_without_normalisation_grey_values_lie_in_the_unit_interval() -> None:
    data = load_dataset("digits")
    for name, scenario in (("split", "class"), ("permuted", "domain"), ("rotated", "domain")):
        plain = build_stream(digits(name=name, scenario=scenario, normalise=False))
        usual = build_stream(digits(name=name, scenario=scenario))
        for bare, normalised in zip(plain.train_stream, usual.train_stream, strict=True):
            x, y, _ = as_tensors(bare.dataset)
            z, same, _ = as_tensors(normalised.dataset)
            assert (float(x.min()), float(x.max())) == (0.0, 1.0)
            assert torch.equal(y, same)
            torch.testing.assert_close((x - data.mean[0]) / data.std[0], z)
    x, _, _ = as_tensors(
        build_stream(digits(name="permuted", scenario="domain", normalise=False)).train_stream[0].dataset
    )
    assert np.array_equal(x.numpy(), data.x_train.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("name", ["permuted", "rotated"])
def test_samples_are_drawn_anew_for_each_experience(name: str) -> None:
    few = build_stream(digits(name=name, scenario="domain", samples=50))
    every = build_stream(digits(name=name, scenario="domain"))
    chosen = []
    for part, whole in zip(few.train_stream, every.train_stream, strict=True):
        x, y, _ = as_tensors(part.dataset)
        all_x, all_y, _ = as_tensors(whole.dataset)
        assert len(x) == 50
        rows = [int((all_x == each).flatten(1).all(1).nonzero()[0, 0]) for each in x]
        assert rows == sorted(set(rows))  # without repetition, in the data set's order
        assert torch.equal(all_y[rows], y)
        chosen.append(tuple(rows))
    assert len(set(chosen)) == len(chosen)
    tests = zip(few.test_stream, every.test_stream, strict=True)
    assert all(len(part.dataset) == len(whole.dataset) for part, whole in tests)
    again = build_stream(digits(name=name, scenario="domain", samples=50))
    assert stream_checksum(again) == stream_checksum(few)
    assert stream_checksum(build_stream(digits(name=name, scenario="domain", samples=50, seed=1))) != (
        stream_checksum(few)
    )
    with pytest.raises(ValueError, match="samples is 400, but experience 1 of digits has 288 training samples"):
        build_stream(digits(samples=400))


def test_images_that_nobody_reads_are_not_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    turned: list[int] = []
    plain = Image.Image.rotate
    monkeypatch.setattr(Image.Image, "rotate", lambda self, **options: turned.append(1) or plain(self, **options))
    few = build_stream(digits(name="rotated", scenario="domain", experiences=3, samples=20))
    for experience in few.train_stream:
        as_tensors(experience.dataset)
    assert len(turned) == 3 * 20


@pytest.mark.parametrize("name", ["permuted", "rotated"])
def test_held_out_data_come_before_the_draw(name: str) -> None:
    few = build_stream(digits(name=name, scenario="domain", samples=50, validation=0.2))
    held = build_stream(digits(name=name, scenario="domain", validation=0.2))
    assert [len(e.dataset) for e in few.train_stream] == [50] * 5
    for a, b in zip(few.test_stream, held.test_stream, strict=True):
        assert torch.equal(as_tensors(a.dataset)[0], as_tensors(b.dataset)[0])


def test_split_class_and_task() -> None:
    order = build_stream(digits(class_order="seed", seed=3))
    plain, tasks = build_stream(digits()), build_stream(digits(scenario="task"))
    assert [e.classes_in_this_experience for e in plain.train_stream] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert sorted(c for e in order.train_stream for c in e.classes_in_this_experience) == list(range(10))
    assert order.train_stream[0].classes_in_this_experience != [0, 1]
    assert [e.task_labels for e in plain.train_stream] == [[0]] * 5
    assert [e.task_label for e in tasks.test_stream] == [0, 1, 2, 3, 4]
    assert (plain.n_experiences, plain.n_classes) == (5, 10)
    exp = tasks.train_stream[2]
    assert (exp.current_experience, exp.origin_stream.name) == (2, "train")
    assert exp.previous_classes == [0, 1, 2, 3]
    x, y, t = as_tensors(exp.dataset)
    assert set(y.tolist()) == {4, 5} == set(exp.dataset.targets)
    assert set(t.tolist()) == {2}
    assert (x.dtype, x.shape[1:]) == (torch.float32, (1, 8, 8))


def test_split_domain_label_is_the_position() -> None:
    spec = digits(scenario="domain", class_order="seed", seed=3)
    classes = [e.classes_in_this_experience for e in build_stream(digits(class_order="seed", seed=3)).train_stream]
    stream = build_stream(spec)
    assert stream.n_classes == 2
    data = load_dataset("digits")
    for exp, pair in zip(stream.train_stream, classes, strict=True):
        _, y, _ = as_tensors(exp.dataset)
        truth = data.y_train[np.isin(data.y_train, pair)]
        assert len({(int(a), int(b)) for a, b in zip(truth, y, strict=True)}) == 2
        assert set(y.tolist()) == {0, 1}


def test_permuted() -> None:
    stream = build_stream(digits(name="permuted", scenario="task", experiences=3, seed=1))
    first, second = (as_tensors(stream.train_stream[i].dataset) for i in (0, 1))
    plain = as_tensors(build_stream(digits(experiences=1)).train_stream[0].dataset)
    assert torch.equal(first[0], plain[0])  # the first experience is the plain data set
    assert not torch.equal(second[0], first[0])
    assert torch.equal(second[0].flatten(1).sort(1).values, first[0].flatten(1).sort(1).values)
    assert torch.equal(second[1], first[1] + 10)
    storages = {e.dataset._flat_data._datasets[0].x.data_ptr() for e in stream.train_stream}
    assert len(storages) == 1


def test_rotated() -> None:
    stream = build_stream(digits(name="rotated", scenario="domain", experiences=None, angles=(0.0, 90.0)))
    plain, turned = (as_tensors(stream.test_stream[i].dataset)[0] for i in (0, 1))
    assert torch.equal(turned, plain.rot90(1, (2, 3)))


def test_validation_takes_the_place_of_the_test_data() -> None:
    for name in ("split", "permuted"):
        full = build_stream(digits(name=name))
        for seed in (0, 1):
            stream = build_stream(digits(name=name, validation=0.25, seed=seed))
            for whole, train, held in zip(full.train_stream, stream.train_stream, stream.test_stream, strict=True):
                assert len(train.dataset) + len(held.dataset) == len(whole.dataset)
                assert abs(len(held.dataset) / len(whole.dataset) - 0.25) < 0.02
                assert train.classes_in_this_experience == held.classes_in_this_experience


def test_npz_and_concat(tmp_path) -> None:
    random = np.random.RandomState(0)
    colour = (random.rand(30, 12, 10, 3) * 255).astype(np.uint8)
    labels = np.arange(30) % 3
    np.savez(tmp_path / "c.npz", x_train=colour, y_train=labels, x_test=colour[:9], y_test=labels[:9])
    stream = build_stream(StreamSpec("concat", ("digits", "c.npz"), "task"), files={"c.npz": tmp_path / "c.npz"})
    grey, third = (as_tensors(e.dataset) for e in stream.test_stream)
    assert grey[0].shape == (359, 3, 12, 10)
    assert torch.equal(grey[0][:, 0], grey[0][:, 2])
    assert set(third[1].tolist()) == {10, 11, 12}
    assert stream.n_classes == 13
    with pytest.raises(ValueError, match="equally many classes"):
        build_stream(StreamSpec("concat", ("digits", "c.npz"), "domain"), files={"c.npz": tmp_path / "c.npz"})
    with pytest.raises(ValueError, match="allowed are 1, 3"):
        build_stream(StreamSpec("split", str(tmp_path / "c.npz"), "class", 2))
    flat = colour.reshape(30, -1)[:, :20].astype(np.float32)
    np.savez(tmp_path / "flat.npz", x_train=flat, y_train=labels, x_test=flat[:9], y_test=labels[:9])
    path = str(tmp_path / "flat.npz")
    x, _, _ = as_tensors(build_stream(StreamSpec("permuted", path, "domain", 2)).train_stream[1].dataset)
    assert x.shape == (30, 20)
    with pytest.raises(ValueError, match="needs uint8 images"):
        build_stream(StreamSpec("rotated", path, "domain", 2))


@pytest.mark.data
@pytest.mark.skipif(not (ROOT / "MNIST").is_dir(), reason=f"no MNIST under {ROOT}; set CL_EXT_DATA")
def test_mnist() -> None:
    stream = build_stream(StreamSpec("split", "mnist", "class", 5), ROOT)
    assert [len(e.dataset) for e in stream.train_stream] == [12665, 12089, 11263, 12183, 11800]
    x, _, _ = as_tensors(stream.train_stream[0].dataset)
    assert x.shape[1:] == (1, 28, 28)
    assert stream_checksum(stream) == "sha256:0b9de664f13cc91b94ca7adb7bbf86ab8043bd33e608c8a3ed375745bfcbc6de"
