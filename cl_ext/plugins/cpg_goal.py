"""The accuracy that a task of CPG has to reach."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any, Literal

from cl_ext.models.expansion import ExpandableNetwork
from cl_ext.nn.holdout import accuracy
from cl_ext.nn.passes import preserved_random_state
from cl_ext.nn.schedules import ScheduleCopies
from cl_ext.nn.scheme import Scheme
from cl_ext.plugins.checks import check_number

import torch
from torch import Tensor
from torch.utils.data import DataLoader

Goal = float | Mapping[int, float] | Literal["single_task"]
SINGLE_TASK = "single_task"


def check_goal(owner: str, goal: Any) -> Goal:
    """Returns the goal if it is a number, a mapping from task labels to numbers, or "single_task".

    Raises:
        TypeError: if it is something else.
        ValueError: if a number is negative or not finite.
    """
    if isinstance(goal, str):
        if goal != SINGLE_TASK:
            raise ValueError(f"{owner}: goal must be a number, numbers by task or 'single_task', got {goal!r}")
        return "single_task"
    if isinstance(goal, Mapping):
        return {int(task): check_number(owner, f"goal[{task}]", value, 0.0) for task, value in goal.items()}
    return check_number(owner, "goal", goal, 0.0)


class Goals:
    """What each task has to reach, and the initial network that this needs where goals are single tasks' accuracies.

    Args:
        goal: as `check_goal` gives it.
        generator: draws the order of the single tasks' batches.
    """

    def __init__(self, goal: Goal, generator: torch.Generator) -> None:
        self.goal = goal
        self._generator = generator
        self._initial: ExpandableNetwork | None = None
        self._state: Mapping[str, Any] | None = None

    def prepare(self, network: ExpandableNetwork) -> None:
        """Keeps a copy of the network as it was before its first task, where goals need it."""
        if self.goal == SINGLE_TASK and self._initial is None:
            self._initial = fresh(network)
            if self._state is not None:
                self._initial.load_state_dict(self._state)

    def of(self, strategy: Any, task: int, held: Any) -> float:
        """The goal of a task.

        Args:
            strategy: in `before_training_exp`.
            task: its label.
            held: the data set to measure on.

        Raises:
            ValueError: if the goals are by task and lack this one.
        """
        if isinstance(self.goal, Mapping):
            if task not in self.goal:
                raise ValueError(f"CPGPlugin: goal has no number for the task {task}; it has {list(self.goal)}")
            return self.goal[task]
        if not isinstance(self.goal, str):
            return self.goal
        assert self._initial is not None  # `prepare` made it
        return single_task_accuracy(strategy, self._initial, task, held, self._generator)

    def extra_bytes(self) -> int:
        """Bytes of the initial network."""
        return 0 if self._initial is None else sum(t.nbytes for t in self._initial.state_dict().values())

    def state(self) -> dict[str, Tensor] | None:
        """Copies of the initial network's tensors; None where goals need none."""
        initial = self._state if self._initial is None else self._initial.state_dict()
        return None if initial is None else {name: tensor.clone() for name, tensor in initial.items()}

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Restores what `state` gave; the network itself is made when a task is prepared."""
        self._initial, self._state = None, state


def fresh(network: ExpandableNetwork) -> ExpandableNetwork:
    """A copy of a network as it is before its first task: the start of single-task networks."""
    made = copy.deepcopy(network)
    for task in made.tasks:
        del made.heads.heads[str(task)]
    made.scheme = Scheme()
    return made


def single_task_accuracy(
    strategy: Any, network: ExpandableNetwork, task: int, held: Any, generator: torch.Generator
) -> float:
    """Trains a network for one task alone, as the strategy would train it, and returns its accuracy on `held`.

    Its optimizer is of the kind and with the options of the strategy's, with copies of its learning-rate schedules; the
    epochs are the strategy's, of the same training samples. A schedule that follows a validation loss rests here, where
    there is none. Nothing of the strategy changes, and neither do the global random states.

    Args:
        strategy: in `before_training_exp`.
        network: as `fresh` makes it; it is copied.
        task: the label.
        held: the data set to measure on.
        generator: draws the order of the batches.
    """
    network = copy.deepcopy(network).to(strategy.device)
    network.heads.add(task, strategy.experience.classes_in_this_experience)
    network.train()
    kind = type(strategy.optimizer)
    known = set(inspect.signature(kind).parameters) - {"params"}  # schedulers put further entries into the group
    options = {name: value for name, value in strategy.optimizer.param_groups[0].items() if name in known}
    optimizer = kind(network.parameters(), **options)
    schedules = ScheduleCopies(strategy, optimizer)
    dataset = strategy.adapted_dataset
    with preserved_random_state(), torch.enable_grad():
        loader: DataLoader[Any] = DataLoader(
            dataset, batch_size=strategy.train_mb_size, shuffle=True, generator=generator,
            collate_fn=getattr(dataset, "collate_fn", None),
        )  # fmt: skip
        for _ in range(strategy.train_epochs):
            for x, y, *_rest in loader:
                optimizer.zero_grad()
                loss = strategy._criterion(network(x.to(strategy.device), task), y.to(strategy.device))
                loss.backward()
                optimizer.step()
                schedules.after_iteration(loss, x)
            schedules.after_epoch()
    return accuracy(network, held, task, strategy.eval_mb_size, strategy.device)
