"""What a step and a task cost where methods share out or grow the network.

    python benchmarks/speed/architecture.py [--rounds N] [--optimizer adam]

The rows of the leaderboard with their default values, ours and Avalanche's, on five tasks of two classes of random
images: MLP 784-400-400, batches of 128, four epochs of 30 steps a task, float32, one thread, one process, CPU seconds
of that thread. A step is all that happens in Avalanche's loop between two batches; a task is `strategy.train`, with
every phase and growth. Each round runs all rows in turn; printed are medians over rounds of the ratio to fine-tuning on
an ordinary network in the same round, with the range, for the second and for the last task.
"""

import argparse
import statistics
import sys
import time
from importlib import import_module
from itertools import pairwise
from typing import Any

import cl_ext  # noqa: F401
from cl_ext.methods import METHODS, Budget
from cl_ext.methods.context import Context
from cl_ext.models import NetworkSpec
from cl_ext.streams.scenario import TensorScenario
from cl_ext.streams.tensors import ImageTensors, tensor_dataset

import torch
from avalanche.core import SupervisedPlugin

ROWS = ("packnet", "packnet_avalanche", "pae", "cpg", "hat", "den", "pnn", "pnn_avalanche", "pathnet", "net2net",
        "expert_gate")  # fmt: skip
TASKS, BATCH, STEPS, EPOCHS, WARM = 5, 128, 30, 4, 10
SECOND, LAST = 1, TASKS - 1


class Timer(SupervisedPlugin):
    """Takes the time at the end of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.ends.append(time.thread_time())


def stream() -> TensorScenario:
    """Random images, two classes a task."""
    generator = torch.Generator().manual_seed(0)
    sets = []
    for task in range(TASKS):
        x = torch.randn(BATCH * STEPS, 1, 28, 28, generator=generator)
        sets.append(tensor_dataset(ImageTensors(x, torch.arange(len(x)) % 2 + 2 * task), task_label=task))
    return TensorScenario({"train": sets, "test": sets})


def measure(name: str, benchmark: TensorScenario, optimizer: str) -> dict[int, tuple[float, float]]:
    """The median seconds of a step and the seconds of the whole training, of the second and of the last task."""
    timer = Timer()
    rate = {"sgd": 0.01, "adam": 1e-3}[optimizer]
    budget = Budget(optimizer=optimizer, lr=rate, batch_size=BATCH, epochs=EPOCHS)
    context = Context(benchmark, "task", NetworkSpec("mlp", hidden=(400, 400)), budget, 0, observers=((), (timer,)))
    module, _, function = METHODS[name].build.partition(":")
    strategy = getattr(import_module(module), function)(context, **METHODS[name].resolve({})).strategy
    found = {}
    for task, experience in enumerate(benchmark.train_stream):
        timer.ends.clear()
        start = time.thread_time()
        strategy.train(experience, eval_streams=[], num_workers=0)
        whole = time.thread_time() - start
        if task in (SECOND, LAST):
            # between two phases lies work that is no step: medians leave it out
            found[task] = statistics.median(b - a for a, b in pairwise(timer.ends[WARM:])), whole
    return found


def span(values: list[float]) -> str:
    """The median and the range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--optimizer", choices=("sgd", "adam"), default="sgd")
    parser.add_argument("--only", help="rows, separated by commas", default=",".join(ROWS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    benchmark, names = stream(), given.only.split(",")
    ratios: dict[str, list[list[float]]] = {name: [[], [], [], []] for name in names}
    steps = []
    for number in range(given.rounds):
        naive = measure("naive", benchmark, given.optimizer)
        steps.append(naive[SECOND][0])
        for name in names:
            mine = measure(name, benchmark, given.optimizer)
            for column, (task, kind) in enumerate(((SECOND, 0), (LAST, 0), (SECOND, 1), (LAST, 1))):
                ratios[name][column].append(mine[task][kind] / naive[task][kind])
        print(f"round {number + 1} of {given.rounds}", file=sys.stderr, flush=True)
    print(f"a step of naive: {1e3 * statistics.median(steps):.2f} ms ({given.optimizer})\n")
    print(
        f"| to naive | step, task 2 | step, task {TASKS} | whole task 2 | whole task {TASKS} |\n|---|---|---|---|---|"
    )
    for name, columns in ratios.items():
        print(f"| {name} | " + " | ".join(span(column) for column in columns) + " |")


if __name__ == "__main__":
    main()
