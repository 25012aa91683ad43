"""Milliseconds of one OGD projection, explicit against implicit: `python benchmarks/speed/ogd.py [--rounds N]`.

MLP 784-100-100-10, float32, one thread, 200 and 1000 directions, the gradient of the true label's logit of random
samples. Both bases are timed in turn in every round; printed are the median and the range over rounds of the mean of
`REPEATS` projections, a projection being the two passes that a step makes, and the memory of the directions.
"""

import argparse
import statistics
import time

import cl_ext  # noqa: F401
from cl_ext.nn.logit_gradients import Samples, logit_factors, logit_rows, logit_seeds
from cl_ext.nn.orthogonal import ExplicitBasis, FlatVector
from cl_ext.nn.orthogonal_factors import ImplicitBasis

import torch
from torch import nn
from torch.nn import functional

REPEATS = 10


def bases(count: int) -> tuple[FlatVector, dict[str, ExplicitBasis | ImplicitBasis]]:
    """Returns a step, and both bases of the same `count` directions."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10))
    parameters, seeds = dict(model.named_parameters()), logit_seeds("gtl", functional.cross_entropy)
    groups = [Samples(torch.rand(count, 784), torch.randint(10, (count,)), None)]
    explicit, implicit = ExplicitBasis(), ImplicitBasis()
    explicit.align(parameters)
    explicit.extend(logit_rows(model, parameters, groups, seeds), count)
    implicit.align(parameters)
    implicit.extend(logit_factors(model, parameters, groups, seeds), count)
    step = FlatVector(parameters)
    step.flat.normal_()
    return step, {"explicit": explicit, "implicit": implicit}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    for count in (200, 1000):
        step, both = bases(count)
        seconds: dict[str, list[float]] = {name: [] for name in both}
        for _ in range(rounds):
            for name, basis in both.items():
                basis.project_(step)
                start = time.thread_time()
                for _ in range(REPEATS):
                    basis.project_(step)
                seconds[name].append((time.thread_time() - start) / REPEATS)
        for name, basis in both.items():
            ms = [1e3 * s for s in seconds[name]]
            print(
                f"{count:5d} given, {basis.size:5d} stored  {name}: {statistics.median(ms):7.2f} ms "
                f"({min(ms):.2f} to {max(ms):.2f}), {basis.bytes() / 1e6:.1f} MB"
            )


if __name__ == "__main__":
    main()
