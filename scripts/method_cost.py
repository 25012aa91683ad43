"""What a step costs with each method, in units of a bare step: `python scripts/overhead.py methods [--rounds N]`.

MLP 784-400-400-10, batch 32, SGD, float32, one thread, one process, CPU seconds of that thread. A bare step is forward,
backward and SGD on a fixed batch, with no Avalanche around it. Each round times Naive and every method in turn on the
third experience, two experiences in. Printed is `(step with the method - step of Naive) / bare step`, the median over
rounds with its range, ours beside Avalanche's own, and what each of our plugins holds, in copies of the weights.
"""

import argparse
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import cl_ext  # noqa: F401
from cl_ext import plugins as ours
from cl_ext._avalanche_methods.common import silence_deprecations
from cl_ext.streams import BatchedLoading
from cl_ext.streams.scenario import TensorScenario
from cl_ext.streams.tensors import ImageTensors, tensor_dataset

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training import Naive, plugins
from avalanche.training.plugins import EvaluationPlugin
from torch import nn

BATCH, STEPS = 32, 60
# Strengths are tiny: what is timed is the work, not where it leads. The pairs do the same job.
PAIRS: dict[str, tuple[Callable[[], Any], Callable[[], Any] | None]] = {
    "L2": (lambda: ours.L2Plugin(1e-6), None),
    "EWC, separate": (lambda: ours.EWCPlugin(1e-6), lambda: plugins.EWCPlugin(1e-6)),
    "EWC, online": (
        lambda: ours.EWCPlugin(1e-6, mode="online"),
        lambda: plugins.EWCPlugin(1e-6, mode="online", decay_factor=1.0),
    ),
    "MAS": (lambda: ours.MASPlugin(1e-6), lambda: plugins.MASPlugin(1e-6)),
    "local MAS": (lambda: ours.LocalMASPlugin(1e-6), None),
    "SCP": (lambda: ours.SCPPlugin(1e-6), None),
    "SI": (lambda: ours.SIPlugin(1e-6), lambda: plugins.SynapticIntelligencePlugin(1e-6)),
    "RWalk, batch Fisher": (lambda: ours.RWalkPlugin(1e-6, fisher="batch"), lambda: plugins.RWalkPlugin(1e-6)),
    "RWalk, per-sample Fisher": (lambda: ours.RWalkPlugin(1e-6), None),
    "LwF, logits cached": (lambda: ours.LwFPlugin(1.0), lambda: plugins.LwFPlugin(1.0, 2.0)),
    "LwF": (lambda: ours.LwFPlugin(1.0, cache=False), None),
    "EBLL": (lambda: ours.EBLLPlugin(ae_epochs=1), None),
    "GEM, 256 samples a task": (lambda: ours.GEMPlugin(256), lambda: plugins.GEMPlugin(256, 0.5)),
    "A-GEM, 256 samples a task": (
        lambda: ours.AGEMPlugin(256, mem_batch_size=256),
        lambda: plugins.AGEMPlugin(256, 256),
    ),
    "OGD, 200 samples a task": (lambda: ours.OGDPlugin(200), None),
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


def bare_step(size: int = BATCH) -> float:
    """Returns the median seconds of forward, backward and SGD on one batch of `size`."""
    model, loss = network(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, y = torch.randn(size, 784), torch.randint(10, (size,))
    seconds = []
    for _ in range(STEPS):
        start = time.thread_time()
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
        seconds.append(time.thread_time() - start)
    return statistics.median(seconds)


def stream(experiences: int) -> Any:
    """Returns a benchmark of random images, ten classes in each experience."""
    generator = torch.Generator().manual_seed(0)
    sets = []
    for _ in range(experiences):
        x = torch.randn(BATCH * STEPS, 784, generator=generator)
        sets.append(tensor_dataset(ImageTensors(x, torch.arange(len(x)) % 10), task_label=0))
    return TensorScenario({"train": sets, "test": sets})


def step(method: list[Any], benchmark: Any) -> float:
    """Returns the median seconds of a Naive step with a method's plugins on the last experience."""
    model, timer = network(), Timer()
    runner = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=BATCH,
        train_epochs=1,
        plugins=[timer, *method, BatchedLoading(), _EndTimer(timer)],
        evaluator=EvaluationPlugin(),
    )
    for experience in benchmark.train_stream:
        timer.seconds.clear()
        runner.train(experience)
    return statistics.median(timer.seconds)


def measure(make: Callable[[], Any], benchmark: Any, naive: float, bare: float) -> tuple[float, float]:
    """Returns a method's extra cost in bare steps, and its bytes in copies of the weights (NaN where it can't say)."""
    plugin = make()
    extra = (step([plugin], benchmark) - naive) / bare
    weights = sum(p.nbytes for p in network().parameters())
    return extra, plugin.extra_bytes() / weights if hasattr(plugin, "extra_bytes") else math.nan


def span(values: list[float]) -> str:
    """The median of `values` and their range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else ""


def main(arguments: list[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="names that start so")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    silence_deprecations()
    torch.manual_seed(0)
    pairs = {name: pair for name, pair in PAIRS.items() if name.startswith(given.only or "")}
    three, ten = stream(3), stream(10)
    times: dict[str, list[float]] = {name: [] for name in pairs}
    stock: dict[str, list[float]] = {name: [] for name in pairs}
    copies: dict[str, float] = {}
    long: dict[int, list[float]] = {3: [], 10: []}
    memory: dict[int, float] = {}
    bares, bares_256 = [], []
    for number in range(given.rounds):
        bares.append(bare_step())
        bares_256.append(bare_step(256))
        naive = step([], three)
        for name, (make, make_stock) in pairs.items():
            cost, copies[name] = measure(make, three, naive, bares[-1])
            times[name].append(cost)
            if make_stock is not None:
                stock[name].append(measure(make_stock, three, naive, bares[-1])[0])
        for experiences, benchmark in ((3, three), (10, ten)):
            cost, memory[experiences] = measure(PAIRS["EWC, separate"][0], benchmark, naive, bares[-1])
            long[experiences].append(cost)
        print(f"round {number + 1} of {given.rounds}", file=sys.stderr, flush=True)
    print(
        f"bare step: {1e3 * statistics.median(bares):.2f} ms; "
        f"with a batch of 256 {1e3 * statistics.median(bares_256):.2f} ms\n"
    )
    print("| extra cost of a step, in bare steps | ours | Avalanche's | ours / theirs | we hold, in weights |")
    print("|---|---|---|---|---|")
    for name in pairs:
        share = f"{statistics.median(times[name]) / statistics.median(stock[name]):.2f}" if stock[name] else ""
        print(f"| {name} | {span(times[name])} | {span(stock[name])} | {share} | {copies[name]:.1f} |")
    print(f"\nseparate EWC, 2 and 9 experiences in: {span(long[3])} and {span(long[10])} bare steps, "
          f"{memory[3]:.1f} and {memory[10]:.1f} copies of the weights")  # fmt: skip


if __name__ == "__main__":
    main()
