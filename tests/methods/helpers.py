"""Tiny streams, and rows run on them as a cell runs them."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import cl_ext  # noqa: F401
from cl_ext.methods import METHODS, Budget, Method
from cl_ext.methods.context import Built, Context
from cl_ext.methods.criterion import ScenarioCrossEntropy
from cl_ext.models import NetworkSpec
from cl_ext.streams.scenario import TensorScenario
from cl_ext.streams.tensors import ImageTensors, tensor_dataset
from cl_ext.study.recorder import Evaluator, Recorder

import numpy as np
import torch
from avalanche.training.supervised import Naive
from torch import Tensor, nn

torch.set_num_threads(1)  # tests run side by side

CLASSES = 2  # in each experience
SHAPE = (1, 8, 8)
MLP = NetworkSpec("mlp", hidden=(12, 12))
BUDGET = Budget(lr=0.05, epochs=2, batch_size=16)
SMALL = {"mem_size": 60, "mem_batch_size": 8, "delta_t": 3, "stage_2_epochs": 5, "latent": 4, "mem_strength": 2,
         "generator_epochs": 2, "gate_epochs": 2, "code_size": 10}  # fmt: skip


@cache
def tiny_stream(scenario: str, experiences: int = 3, samples: int = 48, shape: tuple[int, ...] = SHAPE) -> Any:
    """Noisy images of two classes an experience; `samples` images in each."""
    generator = torch.Generator().manual_seed(7)
    streams: dict[str, list[Any]] = {"train": [], "test": []}
    for index in range(experiences):
        means = torch.randn(CLASSES, *shape, generator=generator)
        first = 0 if scenario == "domain" else CLASSES * index
        for name, count in (("train", samples), ("test", 20)):
            y = torch.arange(count) % CLASSES
            x = means[y] + 1.5 * torch.randn(count, *shape, generator=generator)
            streams[name].append(tensor_dataset(ImageTensors(x, y + first), index if scenario == "task" else 0))
    return TensorScenario(streams)


def settings(method: Method, given: dict[str, Any] | None = None) -> dict[str, Any]:
    """A row's hyper-parameters, small enough for a tiny stream."""
    small = {name: value for name, value in SMALL.items() if name in method.hyperparameters}
    return method.resolve(small | (given or {}))


def seed_all(seed: int = 0) -> None:
    """Seeds the global generators, as a cell does."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def make(
    name: str, scenario: str, given: dict[str, Any] | None = None, network: NetworkSpec = MLP,
    budget: Budget = BUDGET, benchmark: Any = None, recorder: Recorder | None = None, seed: int = 3,
) -> Built:  # fmt: skip
    """Builds a row on a tiny stream."""
    method = METHODS[name]
    benchmark = benchmark or tiny_stream(scenario)
    observers = recorder.plugins() if recorder else ((), ())
    module, _, function = method.build.partition(":")
    seed_all()
    context = Context(benchmark, scenario, network, budget, seed, observers=observers)
    built: Built = getattr(import_module(module), function)(context, **settings(method, given))
    seed_all()
    return built


@dataclass
class Run:
    """A row that has run: what was built, its weights, its accuracies, the FLOPs of a step."""

    built: Built
    weights: dict[str, Tensor]
    rows: list[tuple[list[float], list[float]]]
    flops: int | None


def run(name: str, scenario: str, given: dict[str, Any] | None = None, watched: bool = False, **kwargs: Any) -> Run:
    """Runs a row on a tiny stream; watched with evaluation after each epoch and a count of FLOPs."""
    benchmark = kwargs.pop("benchmark", None) or tiny_stream(scenario)
    train = list(benchmark.train_stream)
    recorder = Recorder("epoch" if watched else "experience")
    built = make(name, scenario, given, benchmark=benchmark, recorder=recorder, **kwargs)
    evaluator = Evaluator(benchmark, METHODS[name].needs_task_label, torch.device("cpu"))
    recorder.watch(evaluator, built)
    rows = [evaluator(built)] if watched else []
    for index, experience in enumerate(train):
        recorder.begin_experience(index + 1, count_flops=watched and index == len(train) - 1)
        built.strategy.train(experience, eval_streams=[], reset_optimizer_state=False, num_workers=0)
        if watched:
            rows.append(evaluator(built))
    return Run(built, state(*built.networks()), rows or [evaluator(built)], recorder.flops_per_step)


def state(*networks: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {
        f"{index}.{name}": tensor.clone()
        for index, network in enumerate(networks)
        for name, tensor in network.state_dict().items()
        if isinstance(tensor, Tensor)
    }


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two states are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Spy:
    """A plugin that calls a function at one of Avalanche's events."""

    supports_distributed = False

    def __init__(self, event: str, call: Callable[[Any], Any]) -> None:
        self.seen: list[Any] = []
        setattr(self, event, lambda strategy, *args, **kwargs: self.seen.append(call(strategy)))


class NormedNetwork(nn.Module):
    """A small network with batch norm and dropout."""

    def __init__(self, classes: int, shape: tuple[int, ...] = SHAPE) -> None:
        super().__init__()
        inputs = int(torch.Size(shape).numel())
        self.features = nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2)
        )
        self.classifier = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))

    @property
    def norm(self) -> nn.BatchNorm1d:
        norm: nn.BatchNorm1d = self.features[2]
        return norm


def fit(
    plugins: Sequence[Any], scenario: str = "class", network: nn.Module | None = None, experiences: int = 2,
    budget: Budget = BUDGET, criterion: Any = None, benchmark: Any = None, first: int = 0,
) -> Any:  # fmt: skip
    """Trains a plain `Naive` with plugins on experiences of a tiny stream; returns the strategy."""
    benchmark = benchmark or tiny_stream(scenario)
    classes = [sorted(e.classes_in_this_experience) for e in benchmark.train_stream]
    seed_all()
    network = network or NormedNetwork(1 + max(max(c) for c in classes))
    strategy = Naive(
        model=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=budget.lr, weight_decay=budget.weight_decay),
        criterion=criterion or ScenarioCrossEntropy(classes if scenario == "task" else None),
        train_mb_size=budget.batch_size, train_epochs=budget.epochs, plugins=list(plugins), evaluator=None,
    )  # fmt: skip
    for experience in list(benchmark.train_stream)[first:experiences]:
        strategy.train(experience, eval_streams=[])
    return strategy
