"""Small runs of methods with phases beside learning-rate schedules, and a log of the rate of each step.

Run as a module it is the fresh process of the resume test.
"""

import copy
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cl_ext  # noqa: F401
from cl_ext.models.expansion import expandable
from cl_ext.models.growable import growable
from cl_ext.plugins import CPGPlugin, DENPlugin, Net2NetPlugin, PackNetPlugin

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training import Naive
from avalanche.training.plugins import LRSchedulerPlugin
from torch import nn
from torch.optim import lr_scheduler as rates

from tests.plugins import common

LR, EPOCHS, STEPS = 0.1, 4, 3  # 20 samples in batches of 7
FACTOR = 0.2
PLATEAU = {"mode": "max", "factor": 0.1, "patience": 0, "threshold": 1e9, "threshold_mode": "abs"}

# by name: the schedule, how Avalanche steps it, and the rate of step `i` of the strategy's own epochs in that of step 0
SCHEDULES: dict[str, tuple[Callable[[Any], Any], dict[str, Any], Callable[[int], float]]] = {
    "step": (lambda o: rates.StepLR(o, 2, 0.1), {}, lambda i: [1, 1, 0.1, 0.1][i // STEPS]),
    "milestones": (lambda o: rates.MultiStepLR(o, [2, 3], 0.1), {}, lambda i: [1, 1, 0.1, 0.01][i // STEPS]),
    "cosine": (
        lambda o: rates.CosineAnnealingLR(o, EPOCHS, LR / 10),
        {},
        lambda i: 0.55 + 0.45 * math.cos(math.pi * (i // STEPS) / EPOCHS),
    ),
    "lambda": (lambda o: rates.LambdaLR(o, _harmonic), {}, lambda i: 1 / (1 + i // STEPS)),
    "iterations": (lambda o: rates.ExponentialLR(o, 0.9), {"step_granularity": "iteration"}, lambda i: 0.9**i),
    # no loss is ever better than the first
    "plateau": (
        lambda o: rates.ReduceLROnPlateau(o, **PLATEAU),
        {"metric": "train_loss"},
        lambda i: [1, 1, 0.1, 0.01][i // STEPS],
    ),
    "validation": (
        lambda o: rates.ReduceLROnPlateau(o, **PLATEAU),
        {"metric": "val_loss"},
        lambda i: [1, 1, 0.1, 0.01][i // STEPS],
    ),
}
METHODS: dict[str, tuple[Callable[[nn.Module], nn.Module], Callable[[], Any]]] = {
    "naive": (lambda model: model, SupervisedPlugin),
    "packnet": (expandable, lambda: PackNetPlugin(0.5, retrain_epochs=2, retrain_lr_factor=FACTOR)),
    "cpg": (expandable, lambda: growing(2.0)),
    "den": (expandable, lambda: DENPlugin(mu=1e-3, tau=-1.0, sigma=0.0, k=2, drift_share=0.4, retrain_share=0.4)),
    "net2net": (growable, lambda: Net2NetPlugin(0.5, lr_factor=FACTOR)),
}


def _harmonic(epoch: int) -> float:
    return 1 / (1 + epoch)


def growing(goal: Any) -> CPGPlugin:
    """CPG that grows twice in its first task where its goal is out of reach."""
    return CPGPlugin(
        goal, max_width=2.0, ladder=(0.3, 0.6), prune_epochs=1.0, recover_epochs=0.5, retrain_epochs=1.0,
        lr_factor=FACTOR, hold_out=0.0, train_floor=0.0,
    )  # fmt: skip


class Log(SupervisedPlugin):
    """The rate of each step, by experience in three lists: before, in, and after the strategy's own epochs."""

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: Any) -> None:
        super().__init__()
        self.optimizer, self.schedule = optimizer, schedule
        self.steps: list[list[list[float]]] = []
        self.ends: list[tuple[float, dict[str, Any]]] = []
        optimizer.register_step_pre_hook(lambda *_: self.steps[-1][-1].append(optimizer.param_groups[0]["lr"]))

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.steps.append([[]])

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.steps[-1].append([])


class Own(SupervisedPlugin):
    """Stands last: notes where the own epochs begin, and the rate and the schedule with which the experience ends."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log

    def before_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        self.log.steps[-1].append([])

    def after_training_exp(self, strategy: Any, **kwargs: Any) -> None:
        state = {name: value for name, value in self.log.schedule.state_dict().items() if name != "best"}
        self.log.ends.append((self.log.optimizer.param_groups[0]["lr"], copy.deepcopy(state)))


def made(
    method: str, schedule: str, scheduled_first: bool = False, state: Any = None, **options: Any
) -> tuple[Naive, Log]:
    """A strategy with the method and the schedule, on a network of some state, and the log of its rates."""
    make, stepped, _ = SCHEDULES[schedule]
    torch.manual_seed(0)
    model = METHODS[method][0](common.mlp())
    if state is not None:
        model.load_state_dict(state)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    scheduler = make(optimizer)
    log = Log(optimizer, scheduler)
    plugins = [METHODS[method][1](), LRSchedulerPlugin(scheduler, **stepped, **options)]
    plugins = plugins[::-1] if scheduled_first else plugins
    every = 1 if stepped.get("metric") == "val_loss" else -1
    plugins = [log, *plugins, Own(log)]
    return common.strategy(model, plugins, optimizer=optimizer, train_epochs=EPOCHS, eval_every=every), log


def ran(method: str, schedule: str, experiences: int = 3, **options: Any) -> tuple[Naive, Log]:
    runner, log = made(method, schedule, **options)
    common.train(runner, common.benchmark("nc-tasks").train_stream[:experiences])
    return runner, log


def own_rates(schedule: str) -> list[float]:
    return [LR * SCHEDULES[schedule][2](i) for i in range(EPOCHS * STEPS)]


RESUMED = [(method, schedule, reset) for method in METHODS if method != "naive"
           for schedule in ("milestones", "lambda", "iterations") for reset in (True, False)]  # fmt: skip


def resume(folder: Path) -> None:
    """Goes on from what the test saved after two experiences of four, and saves the weights."""
    torch.set_num_threads(1)
    for method, schedule, reset in RESUMED:
        name = f"{method}-{schedule}-{reset}.pt"
        state = torch.load(folder / name, weights_only=True)
        runner, log = made(method, schedule, state=state["model"], reset_lr=reset, reset_scheduler=reset)
        runner.plugins[1].load_state_dict(state["plugin"])
        if not reset:  # a rate that goes on lies in the optimizer and its schedule, which the user restores
            runner.make_optimizer(reset_optimizer_state=True)
            runner.optimizer.load_state_dict(state["optimizer"])
            log.schedule.load_state_dict(state["schedule"])
        common.train(runner, common.benchmark("nc-tasks").train_stream, first=2)
        torch.save(common.weights(runner.model), folder / f"resumed-{name}")


if __name__ == "__main__":
    resume(Path(sys.argv[1]))
