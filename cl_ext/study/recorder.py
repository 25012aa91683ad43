"""Records a run: both accuracy matrices from one pass, loss and accuracy curves, steps, times, FLOPs.

Everything here runs beside the method and must not change it: evaluation happens in a fork of the random state, with
every module's train/eval flag put back.
"""

import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext.methods.context import Built
from cl_ext.nn.divergence import DivergedError
from cl_ext.study.follower import Follower

import numpy as np
import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

EVALUATION_BATCH = 1024


@contextmanager
def undisturbed(*networks: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; random states and every module's flag as before outside."""
    flags = [(module, module.training) for network in networks for module in network.modules()]
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(), torch.no_grad():
        for network in networks:
            network.eval()
        try:
            yield
        finally:
            for module, training in flags:
                module.training = training
            np.random.set_state(numpy_state)
            random.setstate(python_state)


class Evaluator:
    """Test accuracy of a method on every experience, task-aware and task-agnostic, from one pass.

    Args:
        benchmark: The Avalanche benchmark.
        needs_task_label: Task-agnostic accuracy is then undefined.
        device: Where the method lives.
    """

    def __init__(self, benchmark: Any, needs_task_label: bool, device: torch.device) -> None:
        self._needs_task_label = needs_task_label
        self._device = device
        self._datasets = [experience.dataset.eval() for experience in benchmark.test_stream]
        self._classes = [
            torch.tensor(sorted(int(c) for c in experience.classes_in_this_experience), device=device)
            for experience in benchmark.train_stream
        ]

    @property
    def sizes(self) -> list[int]:
        """Test samples of each experience."""
        return [len(dataset) for dataset in self._datasets]

    @property
    def class_counts(self) -> list[int]:
        """Classes of each experience."""
        return [len(classes) for classes in self._classes]

    def __call__(self, built: Built) -> tuple[list[float], list[float]]:
        """The accuracies `(T,)`, task-aware and task-agnostic, NaN where undefined.

        An experience none of whose classes a growing head knows yet (all its logits are -inf) is undefined.

        Raises:
            DivergedError: The logits are NaN.
        """
        with undisturbed(*built.networks()):
            pairs = [self._experience(built, task) for task in range(len(self._datasets))]
        return [aware for aware, _ in pairs], [agnostic for _, agnostic in pairs]

    def _experience(self, built: Built, task: int) -> tuple[float, float]:
        dataset, classes = self._datasets[task], self._classes[task]
        aware = agnostic = 0
        for x, y, *_ in DataLoader(dataset, batch_size=EVALUATION_BATCH, collate_fn=dataset.collate_fn):
            x, y = x.to(self._device), y.to(self._device)
            logits = built.logits(x, task)
            own = logits[:, classes]
            if torch.isnan(logits).any():
                raise DivergedError(f"the logits on experience {task + 1} are NaN")
            if torch.isneginf(own).all():
                return math.nan, math.nan
            aware += int((classes[own.argmax(1)] == y).sum())
            agnostic += int((logits.argmax(1) == y).sum())
        size = len(dataset)
        return aware / size, math.nan if self._needs_task_label else agnostic / size


class Recorder:
    """Watches a run through two plugins, one before and one after the method's own.

    Args:
        plan: When accuracy is measured: `experience`, `epoch`, or a number of iterations.
        follower: Who is told what it sees, while it sees it.

    Attributes:
        steps: Training steps so far.
        flops_per_step: Floating-point operations of one training step, counted on a step of the last experience.
        evaluation_seconds: Wall and CPU seconds of evaluations inside training.
    """

    def __init__(self, plan: str | int, follower: Follower | None = None) -> None:
        self.plan = plan
        self._follower = follower
        self.steps = 0
        self.flops_per_step: int | None = None
        self.evaluation_seconds = (0.0, 0.0)
        self.losses: list[dict[str, Any]] = []
        self.accuracies: list[dict[str, Any]] = []
        self._experience = 0
        self._epoch = 0
        self._count_flops = False
        self._evaluate: Any = None
        self._counter: FlopCounterMode | None = None
        self._loss: Tensor | float = 0.0
        self._batches = 0

    def plugins(self) -> tuple[list[Any], list[Any]]:
        """The plugins to put before and after a method's own."""
        return [_Before(self)], [_After(self)]

    def watch(self, evaluator: Evaluator, built: Built) -> None:
        """Says what the evaluations inside training call."""
        self._evaluate = lambda: evaluator(built)

    def begin_experience(self, number: int, count_flops: bool) -> None:
        """An experience begins; `count_flops` says whether its first step is counted."""
        self._experience, self._epoch, self._count_flops = number, 0, count_flops

    def before_epoch(self) -> None:
        self._epoch += 1
        self._loss = 0.0
        self._batches = 0

    def before_iteration(self) -> None:
        if self._count_flops and self.flops_per_step is None:
            self._counter = FlopCounterMode(display=False)
            self._counter.__enter__()

    def after_iteration(self, loss: Tensor) -> None:
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self.flops_per_step = self._counter.get_total_flops()
            self._counter = None
        self.steps += 1
        self._batches += 1
        self._loss = self._loss + loss.detach()
        if isinstance(self.plan, int) and self.steps % self.plan == 0:
            self._point()
        if self._follower is not None:
            self._follower.loss(self.steps, loss)

    def after_epoch(self) -> None:
        if self._batches:
            loss = float(self._loss) / self._batches
            if not math.isfinite(loss):
                raise DivergedError(
                    f"the training loss is {loss} in experience {self._experience}, epoch {self._epoch}"
                )
            self.losses.append(self._where() | {"loss": loss})
            if self._follower is not None:
                self._follower.epoch(self.steps, loss)
        if self.plan == "epoch":
            self._point()

    def _where(self) -> dict[str, int]:
        return {"experience": self._experience, "epoch": self._epoch, "iteration": self.steps}

    def _point(self) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        aware, agnostic = self._evaluate()
        self.accuracies.append(self._where() | {"task_aware": aware, "task_agnostic": agnostic})
        spent = self.evaluation_seconds
        self.evaluation_seconds = (spent[0] + time.perf_counter() - wall, spent[1] + time.process_time() - cpu)
        if self._follower is not None:
            self._follower.accuracies(self.steps, self._experience, aware, agnostic)


class _Before(SupervisedPlugin):
    """Stands before the method's plugins: begins what a step is counted with."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._recorder.before_epoch()

    def before_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._recorder.before_iteration()


class _After(SupervisedPlugin):
    """Stands after the method's plugins: ends the step and looks at its loss."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def after_training_iteration(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._recorder.after_iteration(strategy.loss)

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._recorder.after_epoch()
