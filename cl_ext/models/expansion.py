"""Ordinary networks made into ones that architecture methods can mask, gate and grow, with a head a task."""

import json
from collections.abc import Mapping
from typing import Any

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext.models.ordinary import parts
from cl_ext.nn.chain import Stage, chain
from cl_ext.nn.gated import Gated
from cl_ext.nn.heads import TaskHeads
from cl_ext.nn.masked import MaskedScheme
from cl_ext.nn.paths import Paths
from cl_ext.nn.resizing import fit_shapes
from cl_ext.nn.scheme import Scheme
from cl_ext.nn.stamped import Stamped

import torch
from avalanche.benchmarks import CLExperience
from avalanche.models import MultiTaskModule
from torch import Tensor, nn


class TaskNetwork(MultiTaskModule):
    """A network that answers for one task at a time."""

    def adaptation(self, experience: CLExperience) -> None:
        """Notes the experience's classes.

        Raises:
            ValueError: The experience has no task labels.
        """
        if not hasattr(experience, "task_labels"):
            raise ValueError(
                "a network with a head for each task needs a task label of its own for each experience; this one has "
                "none"
            )
        super().adaptation(experience)

    def forward(self, x: Tensor, task_labels: Tensor | int | None) -> Tensor:
        """Logits `(B, K)`.

        Args:
            x: Samples `(B, ...)`.
            task_labels: One for each sample `(B,)`, or one for all.

        Raises:
            ValueError: There are none: the network has a head for each task.
        """
        if task_labels is None:
            raise ValueError("a network with a head for each task needs the task labels of its samples")
        if isinstance(task_labels, int):
            return self.forward_single_task(x, task_labels)
        first = int(task_labels[0])
        if bool((task_labels == first).all()):  # the usual batch: no sort
            return self.forward_single_task(x, first)
        out = None
        for task in task_labels.unique().tolist():
            rows = (task_labels == task).nonzero().flatten()
            logits = self.forward_single_task(x[rows], task)
            if out is None:
                out = logits.new_full((len(x), logits.shape[1]), float("-inf"))
            out = out.index_copy(0, rows, logits)
        assert out is not None  # there is a label to each sample
        return out


class ExpandableNetwork(TaskNetwork):
    """Features that tasks share in the way of a scheme, and a linear head a task.

    The heads are made when a task is first trained on. A task without one has logits of -inf.

    Attributes:
        features: Maps samples `(B, ...)` to features `(B, D)`.
        heads: By task label; logits are over global class ids.
        scheme: How a task reads the features; plain sharing until a plugin sets its own.
    """

    def __init__(self, features: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.features = features
        self.heads = TaskHeads(classifier)
        self.scheme: Scheme = Scheme()

    @property
    def tasks(self) -> list[int]:
        """The labels of the tasks that have been trained on, in their order."""
        return self.heads.tasks

    @property
    def stages(self) -> list[Stage]:
        """The hidden layers in order, for methods that grow or gate units.

        Raises:
            TypeError: The features are no chain of layers.
        """
        return chain(self.features, self.heads.template_weight.shape[1])

    @property
    def is_chain(self) -> bool:
        """Whether the features are a chain of layers, so that there are `stages`."""
        try:
            return bool(self.stages)
        except TypeError:
            return False

    def adaptation(self, experience: CLExperience) -> None:
        """Makes the heads of an experience that is about to be trained on; evaluation makes none."""
        super().adaptation(experience)
        if not self.training:
            return
        for task, classes in classes_by_task(experience).items():
            self.heads.add(task, classes)

    def forward_single_task(self, x: Tensor, task_label: int) -> Tensor:
        """Logits `(B, K)` of samples of one task."""
        # evaluation reaches classes to come; training must not know whether it was evaluated before: K ends the same,
        # and a wider row of -inf would change the order in which its softmax adds up
        width = 0 if self.training else self.max_class_label
        if task_label not in self.heads:
            return x.new_full((len(x), max(width, self.heads.width)), float("-inf"))
        return self.heads(self.scheme.read(self.features, x, task_label), task_label, width)

    def effective(self, task: int) -> dict[str, Tensor]:
        """The tensors with which a task's samples are predicted, by name; what the task does not use is 0 or absent."""
        tensors = {f"features.{name}": tensor for name, tensor in self.scheme.effective(self.features, task).items()}
        head = self.heads[task].named_parameters()
        return tensors | {f"heads.heads.{task}.{name}": parameter.detach() for name, parameter in head}

    def get_extra_state(self) -> Tensor:
        """The scheme's name, as a tensor: a state holds nothing else."""
        return torch.tensor(list(json.dumps({"scheme": self.scheme.label}).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Read before the rest, in `_load_from_state_dict`."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Takes the shapes and the scheme of a saved network before its tensors are read."""
        fit_shapes(self.features, state_dict, f"{prefix}features.")
        extra = state_dict.get(f"{prefix}_extra_state")
        if extra is not None:
            label = json.loads(bytes(extra.tolist()).decode())["scheme"]
            if label != self.scheme.label:
                self.scheme = scheme_of(label)
        self.scheme.resize(self.features, state_dict, f"{prefix}scheme.")
        super()._load_from_state_dict(state_dict, prefix, *args)


def classes_by_task(experience: CLExperience) -> dict[int, list[int]]:
    """The class ids of each task label of an experience."""
    labels = [int(label) for label in experience.task_labels]
    if len(labels) == 1:
        return {labels[0]: [int(c) for c in experience.classes_in_this_experience]}
    dataset = experience.dataset
    rows = {task: [i for i, label in enumerate(dataset.targets_task_labels) if label == task] for task in labels}
    return {task: [int(c) for c in dataset.targets[own]] for task, own in rows.items()}


def schemes() -> Mapping[str, type[Scheme]]:
    """The schemes by their labels."""
    return {kind.label: kind for kind in (Scheme, Gated, MaskedScheme, Stamped, Paths)}


def scheme_of(label: str) -> Scheme:
    """An empty scheme, for a state to be read into.

    Raises:
        ValueError: No scheme has this label.
    """
    known = schemes()
    if label not in known:
        raise ValueError(f"the saved network has the scheme {label!r}; the known ones are {', '.join(known)}")
    return known[label]()


def expandable(model: nn.Module) -> ExpandableNetwork:
    """Makes an ordinary network into one that architecture methods can mask, gate or grow.

    Args:
        model: An `nn.Sequential` that ends in a linear classifier, or a network with `features` and a linear
            `classifier` (such as `cl_ext.models.build_network` makes). It is copied. The classifier's rows become the
            initial weights of the tasks' heads.

    Returns:
        A network whose `forward(x, task_labels)` gives logits over global class ids. Whether it is a chain of layers,
        which gating and growing need, shows in `stages`; masking takes any features of linear layers, convolutions and
        batch norm, the slim ResNet included.

    Raises:
        TypeError: It is neither, or has other layers; the sentence says what is allowed.
    """
    if isinstance(model, ExpandableNetwork):
        raise TypeError("the network is expandable already")
    features, classifier = parts(model, "expandable")
    if not any(isinstance(module, nn.Linear | nn.Conv2d) for module in features.modules()):
        raise TypeError("expandable needs a hidden layer before the classifier; there is none")
    return ExpandableNetwork(features, classifier)
