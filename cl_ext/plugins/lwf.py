"""Learning without Forgetting (Li & Hoiem, ECCV 2016): the network of before teaches its old outputs on new data.

Symbols: `z` the student's logits, `z_t` the teacher's, `T` the temperature, `lambda_o` the strength.
"""

from collections.abc import Mapping
from typing import Any

from cl_ext.nn.distillation import (
    InputTap,
    Layout,
    OutputGroups,
    Teacher,
    View,
    grouped_distillation,
    head_of,
    is_multi_head,
    layout,
)
from cl_ext.nn.parameters import trainable_parameters
from cl_ext.nn.sample_pass import trained_outputs
from cl_ext.plugins.base import MethodPlugin
from cl_ext.plugins.checks import check_number
from cl_ext.streams.loading import IndexedLoader

import torch
from torch import Tensor, nn

_ONE_HEAD = -1
"""Stands for the task label where all tasks share one head."""


class LwFPlugin(MethodPlugin):
    """Learning without Forgetting.

    From the second experience on, with the teacher the network as it was before the experience, frozen and in
    eval mode,

        L + lambda_o sum_groups KD,   KD = -(1/B) sum_n sum_c softmax(z_t / T)_nc log softmax(z / T)_nc

    over all samples of the batch. A group is a set of old outputs with a softmax of its own: an old head of a
    multi-head network; in one shared head the old classes that the loss has compared with each other, which are those
    of one task where the loss is restricted to a task's classes, and all old classes where it is not.

    The term is part of `strategy.loss`. At strength 0 no teacher is made and training equals training without the
    plugin bit for bit.

    Attributes:
        experiences: how many experiences have been trained on to their end.
    """

    name = "LwF"
    _quantities: tuple[str, ...] = ("Distillation",)

    def __init__(self, lwf_lambda: float = 1.0, temperature: float = 2.0, cache: bool = True) -> None:
        """Sets the hyper-parameters.

        Args:
            lwf_lambda: `lambda_o`, strength of the distillation, >= 0. There is no factor T^2: to have Hinton's,
                multiply the strength by T^2, which is 4 at the default temperature.
            temperature: T > 0.
            cache: whether the teacher's logits are computed once an experience instead of at every step: N x K floats.
                That takes `cl_ext.streams.BatchedLoading`, which knows where a batch's samples stand, and a network
                with one head; elsewhere the teacher runs beside each step. Where another plugin changes a batch after
                it was loaded (augmentation on the device), it has to be False.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        super().__init__()
        owner = type(self).__name__
        self.lwf_lambda = check_number(owner, "lwf_lambda", lwf_lambda, 0.0)
        self.temperature = check_number(owner, "temperature", temperature, 0.0, above=True)
        self.cache = cache
        self._recalls = False
        self._heads: dict[int, OutputGroups] = {}
        self._teacher: Teacher | None = None
        self._layouts: dict[int, Layout] = {}
        self._multi_head = False
        self._student_head: Any = None
        self._tap = InputTap()
        self._features: Tensor | None = None
        self._outputs = 0
        self._totals: dict[str, Tensor | float] = {}
        self._batches = 0

    @property
    def teacher(self) -> nn.Module | None:
        """The network as it was before the present (or latest) experience; None before the second."""
        return None if self._teacher is None else self._teacher.network

    @property
    def groups(self) -> dict[int, list[list[int]]]:
        """Task label -> groups of trained outputs of its head; the label is -1 where all tasks share one head."""
        return {task: head.groups() for task, head in self._heads.items()}

    def extra_bytes(self) -> int:
        """Returns the memory held beside the network, in bytes."""
        return 0 if self._teacher is None else self._teacher.bytes()

    def state_dict(self) -> dict[str, Any]:
        """Returns the state between two experiences; the teacher is no part of it, as it is the network itself."""
        return super().state_dict() | {"heads": {str(task): head.state() for task, head in self._heads.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave; hyper-parameters are the constructor's, not part of it.

        Raises:
            ValueError: if it is the state of another plugin.
        """
        super().load_state_dict(state)
        self._heads = {int(task): OutputGroups.restored(head) for task, head in state["heads"].items()}
        self._teacher = None

    def _teaches(self) -> bool:
        """Returns whether a teacher is of use in the experience that begins."""
        return self.lwf_lambda > 0.0 and any(head.groups() for head in self._heads.values())

    def _wants_features(self) -> bool:
        """Returns whether the features that the head is given are needed, of student and teacher."""
        return self._multi_head

    def _head_of(self, model: nn.Module) -> nn.Module:
        return head_of(model)

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Copies the adapted network: the teacher."""
        trainable_parameters(strategy.model)
        self._teacher = self._student_head = None  # the old one goes before the new one comes
        self._multi_head = is_multi_head(strategy.model)
        if not self._teaches():
            return
        found = {task: groups for task, groups in self.groups.items() if groups}
        self._layouts = {task: layout(groups, strategy.device) for task, groups in found.items()}
        self._teacher = Teacher(strategy.model, self._head_of if self._wants_features() else None)
        if self._wants_features():
            self._student_head = self._head_of(strategy.model)

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Starts the epoch's mean."""
        self._totals, self._batches = {}, 0
        self._recalls = False

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Opens the tap on the features, where they are needed."""
        if self._student_head is not None:
            self._tap.open(self._student_head)

    def after_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Takes the features."""
        self._outputs = strategy.mb_output.shape[1]
        if self._student_head is not None:
            self._features = self._tap.take(len(strategy.mb_output))

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Adds the distillation to the loss."""
        if self._teacher is None:
            return
        if self._batches == 0:  # the data path has set the epoch's loader by now
            self._recalls = self.cache and not self._wants_features() and isinstance(strategy.dataloader, IndexedLoader)
            if self._recalls:
                self._teacher.remember(strategy.dataloader.plan, strategy.device)
        if self._recalls:
            teacher = self._teacher.recall(strategy.dataloader.positions)
        else:
            teacher = self._teacher(strategy.mb_x, strategy.mb_task_id if self._multi_head else None)
        terms = self._terms(View(strategy.mb_output, self._features, self._student_head), teacher)
        for name, value in terms.items():
            strategy.loss = strategy.loss + value
            self._totals[name] = self._totals.get(name, 0.0) + value.detach()
        self._batches += 1
        self._features = None

    def _terms(self, student: View, teacher: View) -> dict[str, Tensor]:
        """Returns what is added to the loss, strengths included, by the names of metrics."""
        if self.lwf_lambda == 0.0 or not self._layouts:
            return {}
        return {"Distillation": self.lwf_lambda * self._distillation(student, teacher)}

    def _distillation(self, student: View, teacher: View) -> Tensor:
        """Returns `sum_groups KD`."""
        if not self._multi_head:
            return grouped_distillation(student.logits, teacher.logits, self._layouts[_ONE_HEAD], self.temperature)
        terms = []
        for task, groups in self._layouts.items():
            z = student.head.forward_single_task(student.features, task)
            with torch.no_grad():
                z_t = teacher.head.forward_single_task(teacher.features, task)
            terms.append(grouped_distillation(z, z_t, groups, self.temperature))
        return torch.stack(terms).sum()

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Publishes the epoch's means of what was added to the loss, strengths included."""
        for name in self._quantities:
            self.publish(strategy, name, float(self._totals.get(name, 0.0)) / max(1, self._batches))

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Records which outputs the experience has trained."""
        self._tap.close()
        self._student_head = self._features = None
        if self._teacher is not None:
            self._teacher.release()
        for task, labels in self._labels(strategy).items():
            y = torch.tensor(labels, device=strategy.device)
            phi = torch.zeros(len(y), max(self._outputs, labels[-1] + 1), device=strategy.device)
            head = self._heads.setdefault(task, OutputGroups())
            head.add(labels, trained_outputs(strategy._criterion, phi, y))
        self.experiences += 1

    def _labels(self, strategy: Any) -> dict[int, list[int]]:
        """Returns the sorted labels of the experience's own data, by the task label of the head that they train."""
        dataset = strategy.experience.dataset
        if not self._multi_head:
            return {_ONE_HEAD: sorted(int(label) for label in dataset.targets.uniques)}
        tasks = dataset.targets_task_labels.uniques
        if len(tasks) == 1:
            return {int(task): sorted(int(label) for label in dataset.targets.uniques) for task in tasks}
        pairs = {(int(t), int(y)) for t, y in zip(dataset.targets_task_labels, dataset.targets, strict=True)}
        return {task: sorted(y for t, y in pairs if t == task) for task in sorted({t for t, _ in pairs})}
