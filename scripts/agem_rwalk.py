"""What the released code's RWalk (agem) and the paper's give on the A-GEM paper's stream.

    python scripts/agem_rwalk.py --data-root ../shared/data [--seed 0] [--strength 1] [--only grow]

The published 85.7 % of RWalk on permuted MNIST (Chaudhry et al. 2019, table 4) was made with released code whose scores
grow: `s += (s + s_k) / 2`. The forms below are trained on the same stream, weights and batch order. Printed is the
final accuracy, the mean over all 17 tasks and over the first and last five. docs/methods/rwalk.md discusses it.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cl_ext  # noqa: F401
from cl_ext._avalanche_methods.common import silence_deprecations
from cl_ext.methods import Budget
from cl_ext.models import NetworkSpec
from cl_ext.plugins import RWalkPlugin
from cl_ext.plugins.rwalk import close_segment_
from cl_ext.streams import StreamSpec, build_stream

import torch
from hw14 import accuracies
from torch import Tensor


class GrowingScores(RWalkPlugin):
    """RWalk whose scores follow `s := old s + new s_k`: 1 and 0.5 after the first task is the paper's 0.5 and 0.5."""

    name = "GrowingScores"

    def __init__(self, rwalk_lambda: float, old: float, new: float, **others: Any) -> None:
        super().__init__(rwalk_lambda, **others)
        self.old, self.new = old, new

    def consolidate(self, strategy: Any) -> None:
        """Scales both scores so that the plugin's own average of them is the sum that is asked for."""
        if self.experiences > 0:
            torch._foreach_mul_(self._score.tensors, 2.0 * self.old)
            torch._foreach_mul_(self._task_score.tensors, 2.0 * self.new)
        super().consolidate(strategy)


class ReleasedRWalk(GrowingScores):
    """The whole of the released code's form: growing scores, no 1/2 before F, F from means of 10 squared gradients."""

    name = "ReleasedRWalk"

    def __init__(self, rwalk_lambda: float) -> None:
        super().__init__(rwalk_lambda, 1.5, 0.5, fisher="batch")
        self._squares_sum: list[Tensor] = []

    @torch.no_grad()
    def _update_fisher(self) -> None:
        """Adds the latest step's squared gradient to the segment's."""
        if not self._fisher_is_due:
            return
        self._fisher_is_due = False
        gradients = self._path.gradient.tensors
        if not self._squares_sum:
            self._squares_sum = [torch.zeros_like(g) for g in gradients]
        torch._foreach_addcmul_(self._squares_sum, gradients, gradients)

    @torch.no_grad()
    def _close_segment(self) -> None:
        """The score with F of the segment before, then F from the mean of this one's squared gradients."""
        self._update_fisher()
        lists = (self._task_score, self._path.w, self._segment_start)
        score, path, start = (buffers.tensors for buffers in lists)
        whole = list(torch._foreach_mul(self._fisher.tensors, 2.0))  # close_segment_ has the 1/2
        close_segment_(score, path, whole, start, self._tensors, self._penalty.scratch.tensors, self.epsilon)
        torch._foreach_mul_(self._fisher.tensors, 1.0 - self.alpha)
        torch._foreach_add_(self._fisher.tensors, self._squares_sum, alpha=self.alpha / self.delta_t)
        torch._foreach_zero_(self._squares_sum)


FORMS: dict[str, Callable[[float], Any]] = {
    "paper": lambda s: RWalkPlugin(s),
    "grow": lambda s: GrowingScores(s, 1.5, 0.5),
    "sum": lambda s: GrowingScores(s, 1.0, 1.0),
    "released": ReleasedRWalk,
}


def main() -> None:
    """Prints the table, a row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--strength", type=float, nargs="+", default=[1.0])
    parser.add_argument("--only", choices=FORMS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    silence_deprecations()
    warnings.simplefilter("ignore")
    spec = StreamSpec("permuted", "mnist", "domain", 17, normalise=False, seed=arguments.seed)
    benchmark = build_stream(spec, data_root=arguments.data_root)
    network, budget = NetworkSpec("mlp", hidden=(256, 256)), Budget(lr=0.1, batch_size=10, online=True)
    print("| form | lambda | mean [%] | first five [%] | last five [%] |\n|---|---|---|---|---|")
    for name in [arguments.only] if arguments.only else FORMS:
        for strength in arguments.strength:
            began = time.perf_counter()
            by_task = accuracies(benchmark, FORMS[name](strength), network, budget, arguments.seed)
            parts = [100 * sum(part) / len(part) for part in (by_task, by_task[:5], by_task[-5:])]
            shown = " | ".join(f"{part:.1f}" for part in parts)
            print(f"| {name} | {strength:g} | {shown} |  ({time.perf_counter() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
