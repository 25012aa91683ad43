"""What a step of ER, DER and DER++ costs beside its passes: `python benchmarks/speed/rehearsal.py [--rounds N]`.

MLP 784-100-100-10, plain SGD, B = 10 samples of the stream, M of a memory of 200, float32, one thread, one process,
CPU seconds of that thread. By hand: the forward passes of these batches, their losses and one backward pass in plain
PyTorch, and nothing else. A step is all that happens in Avalanche's loop between two batches, as in `clser.py`. Each
round runs all in turn; printed are medians over rounds, with ranges.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import cl_ext  # noqa: F401
from cl_ext.plugins import DERPlugin, ERPlugin

import torch
from clser import PLACES, STEPS, WARM, network, step
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

BATCH = 10
Rows = list[tuple[str, int, Callable[[], list[Any]], tuple[int, ...]]]
ROWS: Rows = [
    ("Naive", 0, list, (BATCH,)),
    ("ER", 10, lambda: [ERPlugin(PLACES, 10)], (BATCH + 10,)),
    ("ER", 128, lambda: [ERPlugin(PLACES, 128)], (BATCH + 128,)),
    ("DER", 10, lambda: [DERPlugin(0.2, 0.0, PLACES, 10)], (BATCH, 10)),
    ("DER++", 10, lambda: [DERPlugin(0.2, 1.0, PLACES, 10)], (BATCH, 10, 10)),
    ("DER++", 128, lambda: [DERPlugin(0.2, 1.0, PLACES, 128)], (BATCH, 128, 128)),
]


def passes(sizes: tuple[int, ...]) -> float:
    """Returns the median seconds of a step's passes: one forward a batch, the second's loss a squared distance."""
    model = network()
    batches = [(torch.rand(size, 784), torch.randint(10, (size,)), torch.rand(size, 10)) for size in sizes]
    spent = []
    for _ in range(STEPS):
        model.zero_grad()
        start = time.thread_time()
        loss: Tensor = torch.zeros(())
        for number, (x, y, z) in enumerate(batches):
            h = model(x)
            loss = loss + (mse_loss(h, z) if number == 1 else cross_entropy(h, y))
        loss.backward()
        spent.append(time.thread_time() - start)
    return statistics.median(spent[WARM:])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    found: dict[int, list[tuple[float, float]]] = {row: [] for row in range(len(ROWS))}
    for _ in range(rounds):
        for row, (_, _, plugins, sizes) in enumerate(ROWS):
            found[row].append((passes(sizes), step(BATCH, plugins())))
    print("| plugin | M | by hand: passes, ms | step, ms | step / passes |\n|---|---|---|---|---|")
    for row, (name, drawn, *_) in enumerate(ROWS):
        hand, whole = zip(*found[row], strict=True)
        ratios = [b / a for a, b in found[row]]
        columns = [_median(hand, 1e3), _median(whole, 1e3), _median(ratios, 1.0)]
        print(f"| {name} | {drawn or ''} | {' | '.join(columns)} |")


def _median(values: Any, unit: float) -> str:
    low, middle, high = (unit * f(values) for f in (min, statistics.median, max))
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
