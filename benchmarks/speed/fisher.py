"""Milliseconds of one batch's diagonal Fisher in several ways: `python benchmarks/speed/fisher.py [--rounds N]`.

Float32, one thread, CPU seconds of that thread. Each round times every way once, in turn; printed are the median over
rounds and its range, the median ratio to ours within a round, and the largest difference from ours relative to the
tensor's largest entry. BackPACK (`pip install backpack-for-pytorch`) is left out where it is not installed.
"""

import argparse
import copy
import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable

from cl_ext.nn.fisher import exact_seeds, label_seeds
from cl_ext.nn.sample_pass import batch_sums

import torch
from torch import Tensor, nn

Way = Callable[[], dict[str, Tensor]]
K = 10


def mlp() -> tuple[nn.Module, Tensor]:
    """784-256-256-10 and a batch of 128."""
    layers = nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, K)
    return nn.Sequential(*layers), torch.randn(128, 784)


def cnn() -> tuple[nn.Module, Tensor]:
    """Two convolutions of 16 and 32 maps on 1 x 28 x 28 and a batch of 128."""
    conv = nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()
    return nn.Sequential(*conv, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 49, K)), torch.randn(128, 1, 28, 28)


def seeds_of(kind: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The seeds of the exact or the empirical Fisher."""
    return lambda phi, y: exact_seeds(phi.softmax(1)) if kind == "exact" else label_seeds(phi.softmax(1), y)


def by_cl_ext(model: nn.Module, x: Tensor, y: Tensor, kind: str, how: str) -> Way:
    """Ours: by the layers' inputs and outputs, or the two slower ways for what does not split by layer."""
    parameters = dict(model.named_parameters())
    return lambda: batch_sums(model, parameters, x, None, y, seeds_of(kind), torch.square, how)  # type: ignore[arg-type]


def by_backpack(model: nn.Module, x: Tensor, y: Tensor, kind: str) -> Way:
    """BackPACK's DiagGGNExact, or SumGradSquared for the true labels, of the summed loss."""
    from backpack import backpack, extend
    from backpack.extensions import DiagGGNExact, SumGradSquared

    twin = extend(copy.deepcopy(model))  # a copy, because its backward hooks stay and torch.func can't run through them
    loss = extend(nn.CrossEntropyLoss(reduction="sum"))
    extension, name = (DiagGGNExact(), "diag_ggn_exact") if kind == "exact" else (SumGradSquared(), "sum_grad_squared")

    def run() -> dict[str, Tensor]:
        with backpack(extension):
            loss(twin(x), y).backward()
        return {key: getattr(p, name) for key, p in twin.named_parameters()}

    return run


def ways(model: nn.Module, x: Tensor, y: Tensor, kind: str) -> dict[str, Way]:
    """Every way by name, ours first."""
    found = {"cl_ext": by_cl_ext(model, x, y, kind, "layers")}
    if importlib.util.find_spec("backpack"):
        found["BackPACK 1.7.1"] = by_backpack(model, x, y, kind)
    found["torch.func.vmap"] = by_cl_ext(model, x, y, kind, "vmap")
    found["loop over samples"] = by_cl_ext(model, x, y, kind, "loop")
    return found


def measure(rounds: int) -> None:
    """Prints one table line a network, kind and way."""
    print(f"| network | Fisher | way | ms, median of {rounds} | range | of ours | difference |")
    print("|---|---|---|---|---|---|---|")
    for build in (mlp, cnn):
        for kind in ("exact", "empirical"):
            torch.manual_seed(0)
            model, x = build()
            functions = ways(model, x, torch.randint(K, (len(x),)), kind)
            results = {name: run() for name, run in functions.items()}  # also the warm-up
            reference, times = results["cl_ext"], {name: [] for name in functions}
            for _ in range(rounds):
                for name, run in functions.items():
                    start = time.thread_time()
                    run()
                    times[name].append(1e3 * (time.thread_time() - start))
            for name, each in times.items():
                ratio = statistics.median(t / own for t, own in zip(each, times["cl_ext"], strict=True))
                error = max(float((results[name][k] - v).abs().max() / v.abs().max()) for k, v in reference.items())
                line = f"{statistics.median(each):.2f} | {min(each):.2f} to {max(each):.2f} | {ratio:.2f} | {error:.0e}"
                print(f"| {build.__name__} | {kind} | {name} | {line} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    warnings.filterwarnings("ignore", message="Full backward hook")
    torch.set_num_threads(1)
    measure(parser.parse_args().rounds)
