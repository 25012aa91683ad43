"""What a step of CLS-ER costs beside its forward and backward passes: `python benchmarks/speed/clser.py [--rounds N]`.

MLP 784-100-100-10, plain SGD, M = 128 samples of a memory of 200, B = 10 and 128, float32, one thread, one process, CPU
seconds of that thread. The passes are the forward pass of B + M samples through the working network with its loss
(cross-entropy and squared distance), the backward pass, and a forward pass without a graph of M samples through each of
two other networks. They are timed inside a whole step by hand in plain PyTorch, which is shown too.

A step of ours is all that happens in Avalanche's loop between two batches: drawing, writing, both averages, the
optimizer and the callbacks included, in the last of four passes over the data, where the reservoir seldom takes one.
Each round runs both in turn; printed are medians over rounds, with ranges.
"""

import argparse
import statistics
import time
import warnings
from itertools import pairwise
from typing import Any

import cl_ext  # noqa: F401
from cl_ext._avalanche_quiet import QuietEvaluation
from cl_ext.plugins import CLSERPlugin, ERPlugin
from cl_ext.streams import BatchedLoading

import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.core import SupervisedPlugin
from avalanche.training import Naive
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import TensorDataset

MEMORY, PLACES, STEPS, EPOCHS, WARM = 128, 200, 400, 4, 40


class Timer(SupervisedPlugin):
    """Takes the time at the end of each step: the last plugin's last callback, then the loader's next batch."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[float] = []

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.ends.append(time.thread_time())


def network() -> nn.Module:
    """Returns the network that is timed."""
    return nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10))


def by_hand(batch: int) -> tuple[float, float]:
    """Returns the median seconds of a step's forward and backward passes, and of the whole step."""
    working, plastic, stable = network(), network(), network()
    weights = list(working.parameters())
    averages = [list(plastic.parameters()), list(stable.parameters())]
    optimizer = torch.optim.SGD(weights, lr=0.03)
    x, y = torch.rand(STEPS * batch, 784), torch.randint(10, (STEPS * batch,))
    memory_x, memory_y = torch.rand(PLACES, 784), torch.randint(10, (PLACES,))
    rows = torch.randperm(STEPS * batch).split(batch)
    passes, whole = [], []
    for chosen in rows:
        begin = time.thread_time()
        drawn = torch.randperm(PLACES)[:MEMORY]
        inputs = torch.cat([x[chosen], memory_x[drawn]])
        labels = torch.cat([y[chosen], memory_y[drawn]])
        optimizer.zero_grad()
        start = time.thread_time()
        with torch.no_grad():
            z_p, z_s = plastic(inputs[batch:]), stable(inputs[batch:])
        between = time.thread_time()
        with torch.no_grad():
            own = labels[batch:, None]
            better = z_s.softmax(1).gather(1, own) > z_p.softmax(1).gather(1, own)
            target = torch.where(better, z_s, z_p)
        again = time.thread_time()
        z = working(inputs)
        (cross_entropy(z, labels) + 2.0 * mse_loss(z[batch:], target)).backward()
        end = time.thread_time()
        optimizer.step()
        with torch.no_grad():
            for average in averages:
                torch._foreach_lerp_(average, weights, 0.01)
        memory_x[:batch], memory_y[:batch] = inputs[:batch][:PLACES], labels[:batch][:PLACES]
        whole.append(time.thread_time() - begin)
        passes.append(end - again + between - start)
    return statistics.median(passes[WARM:]), statistics.median(whole[WARM:])


def step(batch: int, plugins: list[Any]) -> float:
    """Returns the median seconds of a step of Naive with `plugins`, from one step's end to the next one's."""
    part = TensorDataset(torch.rand(STEPS * batch, 784), torch.randint(10, (STEPS * batch,)))
    part.targets = part.tensors[1].tolist()  # type: ignore[attr-defined]
    (experience,) = benchmark_from_datasets(train=[as_classification_dataset(part)]).train_stream
    model, timer = network(), Timer()
    runner = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.03),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=batch,
        train_epochs=EPOCHS,
        plugins=[*plugins, BatchedLoading(seed=0), timer],
        evaluator=QuietEvaluation(),
    )
    runner.train(experience)
    ends = timer.ends[-STEPS + WARM :]
    return statistics.median(b - a for a, b in pairwise(ends))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    print("| B | by hand: passes, ms | by hand: step, ms | step of CLS-ER, ms | step / passes | step of ER, ms |")
    print("|---|---|---|---|---|---|")
    for batch in (10, 128):
        rounds_of: list[tuple[float, ...]] = []
        for _ in range(rounds):
            ours = step(batch, [CLSERPlugin(2.0, PLACES, MEMORY, 0.99, 0.99, 1.0, 0.9)])
            passes, whole = by_hand(batch)
            rounds_of.append((passes, whole, ours, ours / passes, step(batch, [ERPlugin(PLACES, MEMORY)])))
        columns = [list(column) for column in zip(*rounds_of, strict=True)]
        cells = [_cell(column if index == 3 else [1e3 * s for s in column]) for index, column in enumerate(columns)]
        print(f"| {batch} | {' | '.join(cells)} |")


def _cell(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()
