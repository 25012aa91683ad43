"""Final weights, bit for bit: our loading against stock Avalanche on the same samples in the same order."""

import pickle
import random
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from cl_ext import _avalanche
from cl_ext.streams import BatchedLoading, StreamSpec, batched, build_stream
from cl_ext.streams.loading import IndexedLoader, SeededBatches, SeededOrder

import avalanche.benchmarks.utils.data_loader as joint
import pytest
import torch
from avalanche.benchmarks import class_incremental_benchmark, nc_benchmark
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.training import (
    AGEM,
    DER,
    ER_ACE,
    EWC,
    GEM,
    MAS,
    MIR,
    Cumulative,
    GDumb,
    LwF,
    Naive,
    Replay,
)
from avalanche.training.plugins import ReplayPlugin
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset, default_collate
from torchvision import transforms

STOCK = {"ConcatDataset": ConcatDataset, "has_ffcv_support": _avalanche._has_ffcv_support}
Make = Callable[..., Any]

FAMILIES: dict[str, tuple[Make, dict]] = {
    "naive": (Naive, {}),
    "naive with task labels": (Naive, {"task_labels": True}),
    "naive, dropped last batch": (Naive, {"train": {"drop_last": True}}),
    "naive, not shuffled": (Naive, {"train": {"shuffle": False}}),
    "cumulative with task labels": (Cumulative, {"task_labels": True}),
    "cumulative": (Cumulative, {}),
    "replay": (lambda **kw: Replay(mem_size=11, **kw), {}),
    "replay by task": (
        lambda plugins, **kw: Naive(
            plugins=[*plugins, ReplayPlugin(13, batch_size_mem=7, task_balanced_dataloader=True)], **kw
        ),
        {"task_labels": True},
    ),
    "ewc": (lambda **kw: EWC(ewc_lambda=10.0, **kw), {}),
    "mas": (lambda **kw: MAS(lambda_reg=1.0, **kw), {}),
    "lwf": (lambda **kw: LwF(alpha=1.0, temperature=2.0, **kw), {}),
    "gem": (lambda **kw: GEM(patterns_per_exp=9, **kw), {}),
    "agem": (lambda **kw: AGEM(patterns_per_exp=9, sample_size=6, **kw), {}),
    "gdumb": (lambda **kw: GDumb(mem_size=11, **kw), {}),
    "der": (lambda **kw: DER(mem_size=18, batch_size_mem=5, **kw), {}),
    # Avalanche's MIR looks at the last batch after the experience, which an evaluation just before has taken away.
    "mir": (lambda **kw: MIR(mem_size=18, batch_size_mem=3, subsample=5, **kw | {"eval_every": -1}), {}),
    "er_ace": (lambda **kw: ER_ACE(mem_size=18, batch_size_mem=5, **kw), {}),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class HandsSampler(SupervisedPlugin):
    """Hands the seeded batches to torch's own loader, over Avalanche's own reading of single samples."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        loader, clock = strategy.dataloader, strategy.clock
        self.original = getattr(self, "original", loader) if clock.train_exp_epochs else loader
        batches = SeededBatches(self.original, self.seed, clock.train_exp_counter, clock.train_exp_epochs)
        data = self.original.dataset if isinstance(loader, DataLoader) else ConcatDataset(self.original.datasets)
        strategy.dataloader = DataLoader(data, batch_sampler=batches, collate_fn=default_collate)

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        strategy.dataloader = self.original


def stock_benchmark(task_labels: bool = False, n: int = 67) -> Any:
    generator = torch.Generator().manual_seed(0)
    sets = []
    for count in (n, 12):
        data = TensorDataset(torch.randn(count, 1, 4, 4, generator=generator), torch.arange(count) % 6)
        data.targets = data.tensors[1].tolist()
        sets.append(data)
    return nc_benchmark(*sets, n_experiences=3, task_labels=task_labels, seed=0)


def network(dropout: float = 0.3) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 13), nn.ReLU(), nn.Dropout(dropout), nn.Linear(13, 6))


def trained(make: Make, benchmark: Any, plugins: list, train: dict | None = None, **options: Any) -> list[torch.Tensor]:
    """The weights after all experiences of two epochs, with an evaluation between any two epochs."""
    random.seed(1)
    torch.manual_seed(1)
    model = network()
    arguments: dict[str, Any] = {"train_mb_size": 5, "train_epochs": 2, "eval_mb_size": 4, "eval_every": 1} | options
    strategy = make(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        criterion=nn.CrossEntropyLoss(),
        plugins=plugins,
        evaluator=None,
        **arguments,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for experience in benchmark.train_stream:
            strategy.train(experience, eval_streams=[benchmark.test_stream], **(train or {}))
    return [p.detach().clone() for p in strategy.model.parameters()]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def stock_weights(monkeypatch: pytest.MonkeyPatch, *args: Any, **kwargs: Any) -> list[torch.Tensor]:
    with monkeypatch.context() as patch:
        for name, value in STOCK.items():
            patch.setattr(joint, name, value)
        return trained(*args, **kwargs)


@pytest.mark.parametrize("family", FAMILIES)
def test_bit_equal_to_the_stock_loader(family: str, monkeypatch) -> None:
    make, options = FAMILIES[family]
    benchmark = stock_benchmark(options.get("task_labels", False))
    ours = batched(benchmark)
    train = options.get("train")
    # Avalanche's own order: with no plugin, and with ours that only reads.
    want = stock_weights(monkeypatch, make, benchmark, [], train)
    assert equal(trained(make, ours, [], train), want)
    assert equal(trained(make, ours, [BatchedLoading()], train), want)
    # The seeded order, which torch's own loader can be handed.
    seeded = stock_weights(monkeypatch, make, benchmark, [HandsSampler(7)], train)
    assert equal(trained(make, ours, [BatchedLoading(7)], train), seeded)
    # Foreign data, read sample by sample, has that order too.
    assert equal(trained(make, benchmark, [BatchedLoading(7)], train), seeded)
    # Negative control.
    if family != "naive, not shuffled":
        assert not equal(seeded, want)
        assert not equal(trained(make, ours, [BatchedLoading(8)], train), seeded)


def test_single_sample_batches_and_experiences(monkeypatch) -> None:
    benchmark = stock_benchmark(n=6)  # two samples an experience
    for size in (1, 2, 50):
        want = stock_weights(monkeypatch, Naive, benchmark, [HandsSampler(0)], train_mb_size=size)
        assert equal(trained(Naive, batched(benchmark), [BatchedLoading(0)], train_mb_size=size), want)


class Watches(SupervisedPlugin):
    """Notes the loader before, in and after the epochs, and the first labels of each."""

    def __init__(self) -> None:
        super().__init__()
        self.before: list[Any] = []
        self.inside: list[Any] = []
        self.after: list[Any] = []
        self.first: list[list[int]] = []

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.before.append(strategy.dataloader)

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        if strategy.clock.train_epoch_iterations == 0:
            self.inside.append(strategy.dataloader)
            self.first.append(strategy.mb_y.tolist())

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        self.after.append(strategy.dataloader)


class Stops(SupervisedPlugin):
    """Ends training at the first iteration of the second epoch."""

    def before_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        if strategy.clock.train_exp_epochs == 1:
            strategy.stop_training()


def test_the_loader_is_put_back() -> None:
    ours = batched(stock_benchmark())
    watch, loading = Watches(), BatchedLoading(3)
    model = network()
    strategy = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        plugins=[loading, watch, Stops()],
        train_epochs=3,
        train_mb_size=5,
        evaluator=None,
    )
    strategy.train(ours.train_stream[0])
    assert all(isinstance(loader, IndexedLoader) for loader in watch.inside)
    assert watch.inside[0].batch_sizes == watch.before[0].batch_sizes  # what it does not know it passes on
    assert all(loader is watch.before[0] for loader in watch.after)
    assert watch.first[0] != watch.first[1]
    state = pickle.loads(pickle.dumps(loading))
    assert (state.seed, state.batch_sampler, state._original) == (3, None, None)


def test_current_data_has_one_order_for_every_method() -> None:
    ours = batched(stock_benchmark())
    orders = []
    for make in (Naive, FAMILIES["replay"][0]):
        watch = Watches()
        trained(make, ours, [BatchedLoading(5), watch], train_epochs=1)
        orders.append([labels[:5] for labels in watch.first])
    assert orders[0] == orders[1]
    # A network of its own for each experience sees what the one for all of them sees.
    watch = Watches()
    last = SimpleNamespace(train_stream=ours.train_stream[2:], test_stream=ours.test_stream)
    trained(Naive, last, [BatchedLoading(5), watch], train_epochs=1)
    assert watch.first[0][:5] == orders[0][2]


def test_seeded_order_is_a_permutation_a_pass() -> None:
    order = SeededOrder(10, 1, 2, 3)
    first, second = list(order), list(order)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert first == list(SeededOrder(10, 1, 2, 3))
    assert first != list(SeededOrder(10, 1, 2, 3, part=1))


@pytest.mark.parametrize("seed", [-1, 0.5, True, "a"])
def test_bad_seed(seed: Any) -> None:
    with pytest.raises(ValueError, match="non-negative integer"):
        BatchedLoading(seed)


def test_new_style_benchmarks_get_task_label_0() -> None:
    old = stock_benchmark()
    sets = [as_classification_dataset(d) for d in (old.original_train_dataset, old.original_test_dataset)]
    new = class_incremental_benchmark({"train": sets[0], "test": sets[1]}, num_experiences=3, seed=1)
    ours = batched(new)
    for a, b in zip(new.train_stream, ours.train_stream, strict=True):
        assert sorted(a.classes_in_this_experience) == sorted(b.classes_in_this_experience)
        assert b.task_labels == [0]
    for family in ("lwf", "der"):  # fail on the benchmark itself
        trained(FAMILIES[family][0], ours, [BatchedLoading(0)])


def test_batched_keeps_experiences() -> None:
    stock = stock_benchmark(task_labels=True)
    ours = batched(stock)
    for stream in ("train_stream", "test_stream"):
        for a, b in zip(getattr(stock, stream), getattr(ours, stream), strict=True):
            assert sorted(a.classes_in_this_experience) == sorted(b.classes_in_this_experience)
            assert a.task_labels == b.task_labels
            assert a.current_experience == b.current_experience
            assert list(a.dataset.targets) == list(b.dataset.targets)


def test_batched_refuses_randomness() -> None:
    data = TensorDataset(torch.rand(12, 1, 8, 8), torch.arange(12) % 6)
    data.targets = data.tensors[1].tolist()
    noisy = nc_benchmark(data, data, 3, task_labels=False, train_transform=transforms.RandomErasing(1.0))
    with pytest.raises(ValueError, match="differs between two reads"):
        batched(noisy)
    shifted = nc_benchmark(data, data, 3, task_labels=False, train_transform=lambda x: x + 1)
    with pytest.raises(ValueError, match="training and evaluation mode"):
        batched(shifted)


def test_our_streams_need_no_plugin() -> None:
    stream = build_stream(StreamSpec("split", "digits", "task", 5))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    strategy = Replay(
        model=model, optimizer=optimizer, criterion=nn.CrossEntropyLoss(), mem_size=50, train_mb_size=32, evaluator=None
    )
    strategy.train(stream.train_stream[:2])
    strategy.eval(stream.test_stream)


class Marked(TensorDataset):
    """A data set that carries ffcv's mark."""

    ffcv_info = None


def test_joint_loaders_keep_foreign_data(monkeypatch) -> None:
    _avalanche.batch_joint_loaders()
    _avalanche.batch_joint_loaders()
    benchmark = stock_benchmark(task_labels=True)
    parts = [experience.dataset for experience in benchmark.train_stream]
    tensors = [experience.dataset for experience in batched(benchmark).train_stream]
    mixed = [parts[0], tensors[1]]
    for data in (parts, tensors, mixed):
        seen = []
        for names in ({}, STOCK):
            with monkeypatch.context() as patch:
                for name, value in names.items():
                    patch.setattr(joint, name, value)
                torch.manual_seed(0)
                loader = joint.GroupBalancedDataLoader(data, oversample_small_groups=True, batch_size=7, shuffle=True)
                seen.append(list(loader))
        for a, b in zip(*seen, strict=True):
            assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
    assert not _avalanche._may_use_ffcv(parts)
    marked = _avalanche.AvalancheDataset([Marked(torch.rand(3, 2), torch.arange(3))])
    assert _avalanche._may_use_ffcv([marked])
    assert _avalanche._has_ffcv_support([marked])
