"""What a step of GEM and A-GEM costs, ours and Avalanche's: `python benchmarks/speed/gem.py [--rounds N]`.

MLP 784-400-400-10, batch 32, SGD, 256 samples of memory an experience, reference batches of 256, float32, one thread,
one process, CPU seconds of that thread. Each round times bare forward and backward passes of batches of 32 and 256,
then Naive and every plugin in turn after t = 2 and t = 5 past experiences. Printed is `step - step of Naive`, in bare
passes of 256 and of 32: medians over rounds, with ranges.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import cl_ext  # noqa: F401
from cl_ext.plugins import AGEMPlugin, GEMPlugin

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.training import Naive
from avalanche.training.plugins import AGEMPlugin as AvalancheAGEM
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.plugins import GEMPlugin as AvalancheGEM
from torch import nn
from torch.utils.data import TensorDataset

BATCH, MEMORY, STEPS = 32, 256, 24
PLUGINS: dict[str, Callable[[], Any]] = {
    "GEM": lambda: GEMPlugin(MEMORY),
    "Avalanche's GEM": lambda: AvalancheGEM(MEMORY, 0.5),
    "A-GEM": lambda: AGEMPlugin(MEMORY, MEMORY),
    "Avalanche's A-GEM": lambda: AvalancheAGEM(MEMORY, MEMORY),
}


class Timer(SupervisedPlugin):
    """Times each step from before the first plugin's first callback to after the last one's last."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.start = 0.0

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.start = time.thread_time()


class End(SupervisedPlugin):
    """Stops a timer after every other plugin's last callback."""

    def __init__(self, timer: Timer) -> None:
        super().__init__()
        self.timer = timer

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.timer.seconds.append(time.thread_time() - self.timer.start)


def network() -> nn.Module:
    """Returns the network that is timed."""
    return nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 10))


def bare(batch: int) -> float:
    """Returns the median seconds of a forward and backward pass."""
    model, loss = network(), nn.CrossEntropyLoss()
    x, y = torch.randn(batch, 784), torch.randint(10, (batch,))
    seconds = []
    for _ in range(STEPS):
        start = time.thread_time()
        model.zero_grad()
        loss(model(x), y).backward()
        seconds.append(time.thread_time() - start)
    return statistics.median(seconds)


def step(plugins: list[Any], past: int) -> float:
    """Returns the median seconds of a Naive step with `plugins` after `past` experiences."""
    datasets = []
    for _ in range(past + 1):
        part = TensorDataset(torch.randn(STEPS * BATCH, 784), torch.randint(10, (STEPS * BATCH,)))
        part.targets = part.tensors[1].tolist()  # type: ignore[attr-defined]
        datasets.append(as_classification_dataset(part))
    stream = benchmark_from_datasets(train=datasets).train_stream
    model, timer = network(), Timer()
    runner = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=BATCH,
        train_epochs=1,
        plugins=[timer, *plugins, End(timer)],
        evaluator=EvaluationPlugin(),
    )
    for experience in stream:
        timer.seconds.clear()
        runner.train(experience)
    return statistics.median(timer.seconds)


def _cell(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    large, small = [], []
    extra: dict[tuple[str, int], list[float]] = {(name, t): [] for t in (2, 5) for name in PLUGINS}
    for _ in range(rounds):
        large.append(bare(MEMORY))
        small.append(bare(BATCH))
        for t in (2, 5):
            naive = step([], t)
            for name, make in PLUGINS.items():
                extra[name, t].append(step([make()], t) - naive)
    print(f"bare pass of {MEMORY}: {1e3 * statistics.median(large):.2f} ms, of {BATCH}: ", end="")
    print(f"{1e3 * statistics.median(small):.2f} ms; rounds: {rounds}")
    print(f"| t | plugin | in passes of {MEMORY} | in passes of {BATCH} |\n|---|---|---|---|")
    for (name, t), seconds in extra.items():
        cells = [_cell([s / unit for s, unit in zip(seconds, units, strict=True)]) for units in (large, small)]
        print(f"| {t} | {name} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()
