"""What a training step costs beside the network's own work: a bare loop, Avalanche's loaders, and ours.

All contenders run in one process on one thread, interleaved, on random MNIST-shaped data and an MLP 784-100-100-10;
the table gives the median milliseconds a step, in CPU time of the thread (other processes may share the machine).
`python scripts/overhead.py [--quick]`. What each method adds to a step is the job of
`python scripts/overhead.py methods` (method_cost.py).
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

from cl_ext._avalanche import batch_joint_loaders
from cl_ext._avalanche_methods.common import silence_deprecations
from cl_ext.streams.loading import BatchedLoading
from cl_ext.streams.materialise import batched

import avalanche.benchmarks.utils.data_loader as joint
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.core import SupervisedPlugin
from avalanche.training import EWC, LwF, Naive, Replay
from torch import nn
from torch.utils.data import ConcatDataset, TensorDataset

METHODS: dict[str, Callable[..., Any]] = {
    "naive": Naive,
    "ewc": lambda **kw: EWC(ewc_lambda=1.0, **kw),
    "lwf": lambda **kw: LwF(alpha=1.0, temperature=2.0, **kw),
    "replay": lambda **kw: Replay(mem_size=500, **kw),
}
STOCK_NAMES = (ConcatDataset, joint.has_ffcv_support)


class StepTimer(SupervisedPlugin):
    """Times from the start of the last experience's epoch to its last step; the loader's own time is inside."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.seconds = 0, 0.0

    def before_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        self.steps, self.start = 0, time.thread_time()

    def after_training_iteration(self, strategy: Any, **kwargs: Any) -> None:
        self.steps += 1

    def after_training_epoch(self, strategy: Any, **kwargs: Any) -> None:
        self.seconds = time.thread_time() - self.start


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10)]
    return nn.Sequential(*layers)


def benchmark_of(samples: int) -> Any:
    torch.manual_seed(0)
    sets = []
    for count in (samples, 200):
        data = TensorDataset(torch.rand(count, 1, 28, 28), torch.arange(count) % 10)
        data.targets = data.tensors[1].tolist()  # type: ignore[attr-defined]
        sets.append(data)
    return nc_benchmark(*sets, n_experiences=5, task_labels=False, seed=0, shuffle=False)


def avalanche_step(method: str, benchmark: Any, ours: bool, experiences: int) -> float:
    """Milliseconds a step in the last of `experiences`."""
    if ours:
        batch_joint_loaders()
    else:
        joint.ConcatDataset, joint.has_ffcv_support = STOCK_NAMES
    timer, model = StepTimer(), network()
    plugins = [BatchedLoading(seed=0), timer] if ours else [timer]
    if not ours:
        joint.ConcatDataset, joint.has_ffcv_support = STOCK_NAMES
    strategy = METHODS[method](
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=32,
        train_epochs=1,
        plugins=plugins,
        evaluator=None,
    )
    for experience in benchmark.train_stream[:experiences]:
        strategy.train(experience)
    return 1000 * timer.seconds / timer.steps


def bare_step(benchmark: Any) -> float:
    """Milliseconds a step of a plain PyTorch loop that indexes tensors."""
    from cl_ext.streams.tensors import as_tensors

    x, y, _ = as_tensors(benchmark.train_stream[0].dataset)
    model, criterion = network(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    start, steps = time.thread_time(), 0
    for batch in torch.randperm(len(x)).split(32):
        optimizer.zero_grad()
        criterion(model(x[batch]), y[batch]).backward()
        optimizer.step()
        steps += 1
    return 1000 * (time.thread_time() - start) / steps


def ffcv_walk(benchmark: Any) -> tuple[float, float]:
    """Milliseconds of the look for ffcv at the start of an epoch over all data: Avalanche's and ours."""
    from cl_ext._avalanche import _may_use_ffcv

    data = [experience.dataset for experience in benchmark.train_stream]
    times = []
    for check in (STOCK_NAMES[1], _may_use_ffcv):
        start = time.thread_time()
        check(data)
        times.append(1000 * (time.thread_time() - start))
    return times[0], times[1]


def main() -> None:
    if sys.argv[1:2] == ["methods"]:
        import method_cost

        method_cost.main(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="6,000 samples and 3 rounds in place of 60,000 and 9")
    parser.add_argument("--methods", default=",".join(METHODS), help="comma-separated")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    silence_deprecations()
    samples, rounds = (6_000, 3) if arguments.quick else (60_000, 9)
    stock = benchmark_of(samples)
    ours = batched(stock)
    times: dict[str, list[float]] = {}
    methods = arguments.methods.split(",")
    for _ in range(rounds):
        times.setdefault("bare loop", []).append(bare_step(ours))
        for method in methods:
            for name, benchmark in (("stock", stock), ("cl_ext", ours)):
                experiences = 1 if method == "naive" else 2
                milliseconds = avalanche_step(method, benchmark, name == "cl_ext", experiences)
                times.setdefault(f"{method} {name}", []).append(milliseconds)
    ms = {name: median(values) for name, values in times.items()}
    # In pairs, because what else runs on the machine moves both of a round.
    saved = {
        method: median(a - b for a, b in zip(times[f"{method} stock"], times[f"{method} cl_ext"], strict=True))
        for method in methods
    }
    print(f"| ms a step, median of {rounds} | stock | cl_ext | saved | of what naive saves | faster |")
    print("|---|---|---|---|---|---|")
    print(f"| bare loop | | {ms['bare loop']:.3f} | | | |")
    for method in methods:
        before, after = ms[f"{method} stock"], ms[f"{method} cl_ext"]
        share = f"{saved[method] / saved['naive']:.0%}" if "naive" in saved else ""
        print(f"| {method} | {before:.3f} | {after:.3f} | {saved[method]:.3f} | {share} | {before / after:.2f} x |")
    if "naive" in methods:
        print(f"naive with cl_ext is {ms['naive cl_ext'] / ms['bare loop']:.2f}x the bare loop")
    print("the look for ffcv, ms an epoch: {:.1f} (Avalanche), {:.3f} (cl_ext)".format(*ffcv_walk(stock)))


if __name__ == "__main__":
    main()
