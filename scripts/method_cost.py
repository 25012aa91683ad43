"""What a step costs with each plugin, in units of a bare step: `python scripts/method_cost.py [--rounds N]`.

MLP 784-400-400-10, batch 32, SGD, float32, one thread, one process, CPU seconds of that thread. A bare step is forward,
backward and SGD on a fixed batch, with no Avalanche around it. Each round times Naive and every plugin in turn on the
second experience, where the penalty is at work. Printed is `(step with plugin - step of Naive) / bare step`, the median
over rounds with its range.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import cl_ext  # noqa: F401
from cl_ext.plugins import RWalkPlugin, SCPPlugin

import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.core import SupervisedPlugin
from avalanche.training import Naive
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.plugins import RWalkPlugin as AvalancheRWalk
from torch import nn
from torch.utils.data import TensorDataset

BATCH, STEPS = 32, 100
PLUGINS: dict[str, Callable[[], Any]] = {
    "SCP": lambda: SCPPlugin(1e-3),
    'RWalk, fisher="batch"': lambda: RWalkPlugin(1e-3, fisher="batch"),
    'RWalk, fisher="per_sample"': lambda: RWalkPlugin(1e-3),
    "Avalanche's RWalk": lambda: AvalancheRWalk(1e-3),
}


class Timer(SupervisedPlugin):
    """Times each step from the end of the one before, data loading left out."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._start = time.thread_time()

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.seconds.append(time.thread_time() - self._start)


class _EndTimer(SupervisedPlugin):
    """Stops the timer after every other plugin's last callback."""

    def __init__(self, timer: Timer) -> None:
        super().__init__()
        self._timer = timer

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._timer.seconds[-1] = time.thread_time() - self._timer._start


def network() -> nn.Module:
    """Returns the network that is timed."""
    return nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 10))


def bare_step() -> float:
    """Returns the median seconds of forward, backward and SGD on one batch."""
    model, loss = network(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.randn(BATCH, 784), torch.randint(10, (BATCH,))
    seconds = []
    for _ in range(STEPS):
        start = time.thread_time()
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
        seconds.append(time.thread_time() - start)
    return statistics.median(seconds)


def step(plugins: list[Any]) -> float:
    """Returns the median seconds of a Naive step with `plugins` on the second of two experiences."""
    y = torch.arange(2 * BATCH * STEPS) % 4
    dataset = TensorDataset(torch.randn(len(y), 784), y)
    dataset.targets = y.tolist()  # type: ignore[attr-defined]
    stream = nc_benchmark(dataset, dataset, 2, task_labels=False, shuffle=False).train_stream
    model, timer = network(), Timer()
    runner = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=BATCH,
        train_epochs=1,
        plugins=[timer, *plugins, _EndTimer(timer)],
        evaluator=EvaluationPlugin(),
    )
    for experience in stream:
        timer.seconds.clear()
        runner.train(experience)
    return statistics.median(timer.seconds)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    extra: dict[str, list[float]] = {name: [] for name in PLUGINS}
    bare = []
    for _ in range(rounds):
        bare.append(bare_step())
        naive = step([])
        for name, make in PLUGINS.items():
            extra[name].append((step([make()]) - naive) / bare[-1])
    print(f"bare step: {1e3 * statistics.median(bare):.2f} ms")
    print("| extra cost of a step, in bare steps | median | range |\n|---|---|---|")
    for name, values in extra.items():
        print(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} to {max(values):.2f} |")


if __name__ == "__main__":
    main()
