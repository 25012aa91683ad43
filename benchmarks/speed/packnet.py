"""What a step of PackNet and CPG costs beside plain training: `python benchmarks/speed/packnet.py [--rounds N]`.

Expandable MLP 784-400-400 with a head a task, batches of 128, float32, one thread, one process, CPU seconds of that
thread; plain SGD and Adam. A step is all that happens in Avalanche's loop between two batches, in the first stage of
the second task: PackNet and PAE put the first task's weights back, CPG learns its picking, too. Each round runs all in
turn; printed are medians over rounds of each round's median step, with the range of the ratios to plain training.
"""

import argparse
import statistics
import time
import warnings
from itertools import pairwise
from typing import Any

import cl_ext  # noqa: F401
from cl_ext._avalanche_quiet import QuietEvaluation
from cl_ext.models.expansion import expandable
from cl_ext.plugins import CPGPlugin, PackNetPlugin
from cl_ext.streams import BatchedLoading

import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.core import SupervisedPlugin
from avalanche.training import Naive
from torch import nn
from torch.utils.data import TensorDataset

BATCH, STEPS, WARM = 128, 60, 10
KEEP: dict[str, Any] = {"goal": 0.0, "max_width": 1.0, "retrain_epochs": 0.0, "prune_epochs": 0.0,
                        "recover_epochs": 0.0, "hold_out": 0.0, "ladder": (0.5,)}  # fmt: skip


class Timer(SupervisedPlugin):
    """Takes the time at the end of each step of the second experience."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        if strategy.clock.train_exp_counter == 1:
            self.ends.append(time.thread_time())


def step(plugins: list[Any], adam: bool) -> float:
    """Returns the median seconds of a step in the first stage of the second task."""
    y = torch.arange(2 * STEPS * BATCH) // (STEPS * BATCH)
    data = TensorDataset(torch.rand(len(y), 784), y)
    data.targets = y.tolist()  # type: ignore[attr-defined]
    stream = nc_benchmark(data, data, 2, task_labels=True, shuffle=False).train_stream
    torch.manual_seed(0)
    hidden = nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU()
    model, timer = expandable(nn.Sequential(*hidden, nn.Linear(400, 2))), Timer()
    kind: Any = torch.optim.Adam if adam else torch.optim.SGD
    runner = Naive(
        model=model,
        optimizer=kind(model.parameters(), lr=1e-3),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=BATCH,
        plugins=[*plugins, BatchedLoading(seed=0), timer],
        evaluator=QuietEvaluation(),
    )
    for experience in stream:
        runner.train(experience, eval_streams=[])
    return statistics.median(b - a for a, b in pairwise(timer.ends[WARM:]))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| optimizer | method | step, ms | to plain training |\n|---|---|---|---|")
    for adam in (False, True):
        makers: dict[str, Any] = {
            "plain": list,
            "PackNet": lambda: [PackNetPlugin(0.5, retrain_epochs=0)],
            "PAE": lambda: [CPGPlugin(**KEEP, picking=False)],
            "CPG": lambda: [CPGPlugin(**KEEP)],
        }
        times: dict[str, list[float]] = {name: [] for name in makers}
        for _ in range(rounds):
            for name, make in makers.items():
                times[name].append(step(make(), adam))
        for name, found in times.items():
            ratios = [mine / plain for mine, plain in zip(found, times["plain"], strict=True)]
            shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"| {'Adam' if adam else 'SGD'} | {name} | {1000 * statistics.median(found):.2f} | {shown} |")


if __name__ == "__main__":
    main()
