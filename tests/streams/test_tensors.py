"""The batched read against Avalanche's own, sample by sample."""

import copy
import pickle
import random
from types import SimpleNamespace

from cl_ext._avalanche import plan_of
from cl_ext.streams.tensors import (
    ImageTensors,
    Normalise,
    PixelPermutation,
    TensorClassificationDataset,
    as_tensors,
    tensor_dataset,
)

import pytest
import torch
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from avalanche.training.storage_policy import (
    ClassBalancedBuffer,
    ExperienceBalancedBuffer,
    ReservoirSamplingBuffer,
)
from torch.utils.data import DataLoader, TensorDataset, default_collate
from torchvision.transforms import functional


def leaf(n: int, shift: int = 0, flip: bool = False) -> ImageTensors:
    generator = torch.Generator().manual_seed(shift)
    x = torch.randint(0, 256, (n, 3, 4, 4), generator=generator, dtype=torch.uint8)
    transforms = [Normalise((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))]
    if flip:
        transforms.append(PixelPermutation(torch.arange(47, -1, -1)))
    return ImageTensors(x, torch.arange(n) % 5 + shift, transforms)


def stock(dataset, indices) -> list:
    """What torch's loader would collate without the batched read."""
    return default_collate([dataset[int(i)] for i in indices])


def assert_same(dataset, indices=None, fast: bool = True) -> None:
    indices = list(range(len(dataset))) if indices is None else indices
    assert (plan_of(dataset) is not None) == fast
    got = dataset.collate_fn(dataset.__getitems__(indices))
    want = stock(dataset, indices)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


def test_normalise_is_torchvisions() -> None:
    x = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    want = torch.stack([functional.normalize(image.float().div(255), mean, std) for image in x])
    assert torch.equal(Normalise(mean, std)(x), want)
    assert x.dtype == torch.uint8
    with pytest.raises(ValueError, match="positive"):
        Normalise((0.0,), (0.0,))


def test_permutation_moves_pixels() -> None:
    x, order = torch.rand(2, 1, 3, 3), torch.randperm(9)
    moved = PixelPermutation(order)(x)
    assert moved.shape == x.shape
    assert torch.equal(moved.flatten(1), x.flatten(1)[:, order])


def test_random_trees_of_subset_and_concat() -> None:
    draw = random.Random(0)
    leaves = [tensor_dataset(leaf(20 + i, i, flip=i % 2 == 1), i % 3) for i in range(4)]
    for _ in range(40):
        pool = list(leaves)
        for _ in range(draw.randint(1, 6)):
            a, b = draw.choice(pool), draw.choice(pool)
            size = draw.randint(1, 15)
            made = draw.choice(
                [
                    lambda a=a, b=b: a.concat(b),
                    lambda a=a, size=size: a.subset([draw.randrange(len(a)) for _ in range(size)]),
                    lambda a=a, size=size: a.subset(torch.randint(0, len(a), (size,))),
                    lambda a=a: a.train(),
                    lambda a=a: a.eval(),
                    lambda a=a: a.freeze_transforms(),
                    lambda a=a: a.update_data_attribute("targets", [0] * len(a)),
                    lambda a=a: copy.copy(a),
                ]
            )()
            assert isinstance(made, TensorClassificationDataset)
            pool.append(made)
        last = pool[-1]
        assert_same(last, [draw.randrange(len(last)) for _ in range(12)])
        assert_same(last)


@pytest.mark.parametrize("make", [ReservoirSamplingBuffer, ExperienceBalancedBuffer, ClassBalancedBuffer])
def test_replay_buffers(make) -> None:
    buffer = make(13)
    for i in range(4):
        data = tensor_dataset(leaf(20, i, flip=i > 1), i)
        buffer.post_adapt(SimpleNamespace(), SimpleNamespace(dataset=data))
        assert isinstance(buffer.buffer, TensorClassificationDataset)
        assert_same(buffer.buffer)


def test_tensor_datasets_are_read_too() -> None:
    plain = TensorDataset(torch.rand(9, 3, 4, 4), torch.arange(9))
    data = TensorClassificationDataset(
        [plain],
        data_attributes=[
            DataAttribute(list(range(9)), "targets"),
            DataAttribute([i % 2 for i in range(9)], "targets_task_labels", use_in_getitem=True),
        ],
    )
    assert_same(data.subset([3, 1, 8]))
    assert_same(tensor_dataset(leaf(6), 4).concat(data))


def test_falls_back_with_the_same_result() -> None:
    data = tensor_dataset(leaf(8), 0)
    shifted = TensorClassificationDataset([data], transform_groups={"train": (lambda x: x + 1, None), "eval": None})
    assert_same(shifted, fast=False)
    assert_same(shifted.eval())
    logits = DataAttribute([torch.rand(3) for _ in range(8)], "logits", use_in_getitem=True)
    assert_same(TensorClassificationDataset([data], data_attributes=[logits]), fast=False)
    smaller = tensor_dataset(ImageTensors(torch.rand(3, 3, 2, 2), torch.zeros(3, dtype=torch.int64)), 0)
    assert plan_of(data.concat(smaller)) is None  # two shapes can't stand in one batch
    assert plan_of(AvalancheDataset([])) is None


@pytest.mark.parametrize("workers", [0, 1])
def test_any_loader_gets_whole_batches(workers: int) -> None:
    data = tensor_dataset(leaf(7), 2)
    plain = list(DataLoader(data, batch_size=3, num_workers=workers))  # as DER builds it, without a collate_fn
    given = list(DataLoader(data, batch_size=3, collate_fn=data.collate_fn, num_workers=workers))
    rows = list(DataLoader(data, batch_size=3, collate_fn=list, num_workers=workers))
    for start, a, b, c in zip((0, 3, 6), plain, given, rows, strict=True):
        want = stock(data, range(start, min(start + 3, 7)))
        for got in (a, b, default_collate([list(row) for row in c])):
            assert all(torch.equal(p, q) for p, q in zip(got, want, strict=True))


def test_as_tensors_and_pickle() -> None:
    data = tensor_dataset(leaf(7), 2, [4, 2, 0])
    x, y, t = as_tensors(data)
    assert x.shape == (3, 3, 4, 4)
    assert (y.tolist(), t.tolist()) == ([4, 2, 0], [2, 2, 2])
    again = pickle.loads(pickle.dumps(data))
    assert torch.equal(as_tensors(again)[0], x)
    with pytest.raises(ValueError, match="empty"):
        as_tensors(AvalancheDataset([]))
