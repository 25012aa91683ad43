"""What the differences of a well-known homework's implementations from the papers change, on its own stream.

    python scripts/hw14.py --data-root ../shared/data [--epochs 2] [--seed 0] [--only EWC]

Homework 14 of NTU's Machine Learning 2022 trains an MLP on MNIST rotated by 0, 20, 40, 60 and 80 degrees with EWC, SI,
RWalk and SCP. The classes below repeat, in our own words, what its code computes; each is trained beside the paper's
form on the same stream, weights and batch order, at strengths that `--scale` multiplies. Printed are the final accuracy
by task and their mean. docs/hw14.md discusses the result.
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
from cl_ext.methods.context import Context
from cl_ext.models import NetworkSpec
from cl_ext.nn.fisher import diagonal_fisher
from cl_ext.nn.passes import batches, evaluation_mode, logits, preserved_random_state
from cl_ext.plugins import EWCPlugin, RWalkPlugin, SCPPlugin, SIPlugin
from cl_ext.plugins.quadratic import QuadraticPenaltyPlugin
from cl_ext.streams import StreamSpec, build_stream
from cl_ext.study.recorder import Evaluator

import torch
from avalanche.training import Naive
from torch import Tensor

BATCH = 128


class HomeworkGuards(QuadraticPenaltyPlugin):
    """Importances as the homework adds them up: the list of guards holds sums already, and is summed again.

    After four tasks the weight of the first task's is 4 where it should be 1: `4 F1 + 2 F2 + F3 + F4`.
    """

    def __init__(self, strength: float) -> None:
        super().__init__(strength)
        self._guards: list[list[Tensor]] = []

    def new_importance(self, strategy: Any) -> list[Tensor]:
        """Returns the latest task's own importance."""
        raise NotImplementedError

    @torch.no_grad()
    def consolidate(self, strategy: Any) -> None:
        """Sums all earlier guards and the new importance."""
        before = [omega.clone() for omega in self._penalty.importance.tensors]
        self._guards.append(before)  # what protected during the task that just ended: itself a sum
        new = self.new_importance(strategy)
        for index, omega in enumerate(self._penalty.importance.tensors):
            omega.copy_(torch.stack([guard[index] for guard in self._guards]).sum(0) + new[index])


def batch_fisher(plugin: QuadraticPenaltyPlugin, strategy: Any) -> list[Tensor]:
    """The squared gradient of each batch's mean loss, averaged over batches: about 1/B of a Fisher."""
    data, model = strategy.experience.dataset, strategy.model
    fisher = diagonal_fisher(model, plugin._parameters, data, "batch", strategy._criterion, batch_size=BATCH)
    return list(fisher.values())


class HomeworkEWC(HomeworkGuards):
    """EWC of the homework: batch Fisher, guards summed twice, no factor 1/2."""

    name = "HomeworkEWC"

    def new_importance(self, strategy: Any) -> list[Tensor]:
        """The batch Fisher."""
        return batch_fisher(self, strategy)


class HomeworkSCP(HomeworkGuards):
    """SCP of the homework: the L slices of a batch are averaged into one direction *before* squaring."""

    name = "HomeworkSCP"

    def new_importance(self, strategy: Any) -> list[Tensor]:
        """The mean over batches of `(d/d theta xi_mean . m)^2`, `xi_mean` the mean of 100 unit vectors."""
        generator = torch.Generator().manual_seed(self.experiences)
        total = [torch.zeros_like(p) for p in self._tensors]
        count = 0
        with preserved_random_state(), evaluation_mode(strategy.model), torch.enable_grad():
            for x, t in batches(strategy.experience.dataset, BATCH, strategy.device):
                m = logits(strategy.model, x, t).mean(0)
                xi = torch.randn(100, len(m), generator=generator)
                direction = (xi / xi.norm(dim=1, keepdim=True)).mean(0)
                gradients = torch.autograd.grad(direction @ m, self._tensors)
                torch._foreach_addcmul_(total, gradients, gradients)
                count += 1
        return [omega / count for omega in total]


class HomeworkSI(QuadraticPenaltyPlugin):
    """SI of the homework: the whole gradient in the path, no clamp at 0, the task's last step left out."""

    name = "HomeworkSI"
    epsilon = 0.1

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Starts a path."""
        super().before_training_exp(strategy, *args, **kwargs)
        self._start = [p.detach().clone() for p in self._tensors]
        self._path = [torch.zeros_like(p) for p in self._tensors]
        self._last = [torch.zeros_like(p) for p in self._tensors]

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Counts the step before; the penalty's gradient is in `.grad` by now."""
        self._before = [p.detach().clone() for p in self._tensors]
        torch._foreach_add_(self._path, self._last)

    @torch.no_grad()
    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Keeps this step's share for the next."""
        for last, p, before in zip(self._last, self._tensors, self._before, strict=True):
            assert p.grad is not None
            torch.mul(p.grad, before - p, out=last)

    @torch.no_grad()
    def consolidate(self, strategy: Any) -> None:
        """`Omega += W / ((theta - start)^2 + eps)`, negative shares included."""
        for omega, w, p, start in zip(
            self._penalty.importance.tensors, self._path, self._tensors, self._start, strict=True
        ):
            omega += w / ((p - start).square() + self.epsilon)


class HomeworkRWalk(HomeworkSI):
    """RWalk of the homework: one segment a task, an average of Fishers (weight 0.4) summed with all earlier ones."""

    name = "HomeworkRWalk"

    def __init__(self, strength: float) -> None:
        super().__init__(strength)
        self._guards: list[list[Tensor]] = []
        self._fisher: list[Tensor] = []
        self._score: list[Tensor] = []

    @torch.no_grad()
    def consolidate(self, strategy: Any) -> None:
        """`F <- 0.6 sum of guards + 0.4 new`, `s <- (s + W / (1/2 F move^2 + eps)) / 2`, nothing normalised."""
        if not self._score:
            self._score = [torch.zeros_like(p) for p in self._tensors]
            self._fisher = [torch.zeros_like(p) for p in self._tensors]
        self._guards.append(self._fisher)
        new = batch_fisher(self, strategy)
        old = [torch.stack(parts).sum(0) for parts in zip(*self._guards, strict=True)]
        self._fisher = [0.6 * f + 0.4 * n for f, n in zip(old, new, strict=True)]
        for index, (w, p, start) in enumerate(zip(self._path, self._tensors, self._start, strict=True)):
            share = w / (0.5 * self._fisher[index] * (p - start).square() + self.epsilon)
            self._score[index] = 0.5 * (self._score[index] + share)
            self._penalty.importance.tensors[index].copy_(self._score[index] + self._fisher[index])


# The homework's strength, its form, and the paper's form at the same nominal strength (our EWC's penalty has a 1/2).
RUNS: dict[str, dict[str, Callable[[float], Any]]] = {
    "EWC": {"homework": lambda s: HomeworkEWC(100 * s), "paper": lambda s: EWCPlugin(200 * s)},
    "SI": {"homework": lambda s: HomeworkSI(1 * s), "paper": lambda s: SIPlugin(1 * s, xi=0.1)},
    "RWalk": {"homework": lambda s: HomeworkRWalk(100 * s), "paper": lambda s: RWalkPlugin(100 * s)},
    "SCP": {"homework": lambda s: HomeworkSCP(100 * s), "paper": lambda s: SCPPlugin(100 * s)},
}


def accuracies(benchmark: Any, plugin: Any, network: NetworkSpec, budget: Budget, seed: int) -> list[float]:
    """Returns the final accuracy on each task after training on all."""
    context = Context(benchmark, "domain", network, budget, seed)
    torch.manual_seed(seed)
    strategy = Naive(**context.arguments(context.model(), *([plugin] if plugin else [])))
    for experience in benchmark.train_stream:
        strategy.train(experience, reset_optimizer_state=budget.reset_optimizer, num_workers=0)
    evaluator = Evaluator(benchmark, False, torch.device("cpu"))
    return evaluator(context.built(strategy))[1]


def main() -> None:
    """Prints the table, a row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one of " + ", ".join(RUNS))
    parser.add_argument("--form", choices=("homework", "paper"), help="one form only")
    parser.add_argument("--scale", type=float, nargs="+", default=[1.0], help="factors on the homework's strengths")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    silence_deprecations()
    warnings.simplefilter("ignore")
    spec = StreamSpec("rotated", "mnist", scenario="domain", angles=(0, 20, 40, 60, 80), seed=arguments.seed)
    benchmark = build_stream(spec, data_root=arguments.data_root)
    network = NetworkSpec("mlp", hidden=(1024, 512, 256))
    budget = Budget(optimizer="adam", lr=1e-4, batch_size=BATCH, epochs=arguments.epochs, reset_optimizer=True)
    print("| method | form | factor on the strength | accuracy by task [%] | mean [%] |\n|---|---|---|---|---|")
    for name, forms in RUNS.items():
        if arguments.only in (None, name):
            for form, make in forms.items():
                for scale in arguments.scale if arguments.form in (None, form) else ():
                    began = time.perf_counter()
                    by_task = accuracies(benchmark, make(scale), network, budget, arguments.seed)
                    shown = " ".join(f"{100 * a:.1f}" for a in by_task)
                    mean = 100 * sum(by_task) / len(by_task)
                    seconds = time.perf_counter() - began
                    print(f"| {name} | {form} | {scale:g} | {shown} | {mean:.1f} |  ({seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
