"""Expert Gate's network (Aljundi, Chakravarty & Tuytelaars, CVPR 2017): an expert a task, and a gate that finds it."""

import copy
from collections.abc import Iterable
from typing import Any, get_args

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext.nn.passes import evaluation_mode
from cl_ext.nn.shelf import Shelf
from cl_ext.nn.task_gate import GateForm, TaskGate

import torch
from avalanche.benchmarks import CLExperience
from avalanche.models import DynamicModule, MultiTaskModule
from torch import Tensor, nn


class ExpertNetwork(MultiTaskModule):
    """Copies of an ordinary network, one an experience.

    In train mode the newest expert answers. In eval mode each sample is answered by the expert whose auto-encoder
    reconstructs it best, without a task label; or, where `by_label` is set, by the expert of its task label.

    An expert's own classes keep its logits. Other classes that some expert has keep its logits, too, moved below those
    of its own: the argmax over all classes is one of its own, and the argmax over another task's classes is what the
    expert makes of them. Classes that nobody has are -inf.

    Attributes:
        experts: in the order of the experiences; the first is there before any training.
        known: by expert, `classes` (C,) that it was trained on, and its `task` label, a scalar.
        gate: an auto-encoder an expert.
        extractor: gives the gate its features; None for the samples themselves.
        by_label: whether the task label chooses the expert.
    """

    def __init__(
        self, model: nn.Module, form: GateForm = "sigmoid", extractor: nn.Module | None = None, by_label: bool = False
    ) -> None:
        """Takes the first expert; see `experts`."""
        super().__init__()
        self.experts = nn.ModuleList([model])
        self.known = Shelf()
        self.gate = TaskGate(form)
        self.extractor = extractor
        self.by_label = by_label

    @property
    def begun(self) -> int:
        """How many experts have begun to be trained."""
        return len(self.known.keys())

    @property
    def tasks(self) -> list[int]:
        """The task labels of the experts, in their order."""
        return [int(self.known.get(index)["task"]) for index in range(self.begun)]

    def classes(self, index: int) -> Tensor:
        """The classes of an expert, (C,), ascending."""
        return self.known.get(index)["classes"]

    def adaptation(self, experience: CLExperience) -> None:
        """Makes nothing: experts are made by the plugin, so that evaluation can't."""

    def begin(self, source: int, code: Any, classes: Iterable[int], task: int) -> nn.Module:
        """Makes the expert of an experience; the first experience has the expert that is there.

        Args:
            source: the expert whose weights it begins with.
            code: its auto-encoder.
            classes: its own.
            task: its label.
        """
        index = self.begun
        if index:
            expert, newest = copy.deepcopy(self.experts[source]), self.experts[-1]
            for parameter, like in zip(expert.parameters(), newest.parameters(), strict=True):
                parameter.requires_grad_(like.requires_grad)
                parameter.grad = None
            for module, other in zip(expert.modules(), newest.modules(), strict=True):
                module.training = other.training
            self.experts.append(expert)
        self.gate.put(index, code)
        device = self.gate.scale.device
        self.known.put(index, {"classes": torch.tensor(sorted(classes), device=device),
                               "task": torch.tensor(task, device=device)})  # fmt: skip
        return self.experts[-1]

    @torch.no_grad()
    def raw_features(self, x: Tensor) -> Tensor:
        """What the gate codes, (B, D): the samples, or what the extractor makes of them in eval mode."""
        if self.extractor is None:
            return x.flatten(1)
        with evaluation_mode(self.extractor):
            features: Tensor = self.extractor(x)
        return features.flatten(1)

    @torch.no_grad()
    def route(self, x: Tensor, task_labels: Tensor | int | None = None) -> Tensor:
        """The expert of each sample, (B,): by the gate, or by its label where `by_label`; -1 for a label nobody has.

        Raises:
            ValueError: the label is to choose, and there is none.
        """
        if not self.by_label:
            chosen: Tensor = self.gate(self.raw_features(x))
            return chosen
        if task_labels is None:
            raise ValueError("the experts are chosen by task label, and the samples have none")
        labels = torch.as_tensor(task_labels, device=x.device).expand(len(x))
        found = torch.full((len(x),), -1, device=x.device)
        for index, task in enumerate(self.tasks):
            found[labels == task] = index
        return found

    def answers(self, x: Tensor, chosen: Tensor) -> Tensor:
        """Logits `(B, K)` of samples, each by the expert of its number in `chosen` (B,); all -inf where that is -1."""
        out: Tensor | None = None
        for index in chosen.unique().tolist():
            rows = (chosen == index).nonzero().flatten()
            logits = self.experts[max(0, index)](x[rows])
            ranked = self._ranked(logits, index) if index >= 0 else torch.full_like(logits, float("-inf"))
            if out is None:
                out = logits.new_empty(len(x), logits.shape[1])
            out = out.index_copy(0, rows, ranked)
        assert out is not None  # a batch has samples
        return out

    def _ranked(self, logits: Tensor, index: int) -> Tensor:
        own, known = (torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device) for _ in range(2))
        own[self.classes(index)] = True
        known[torch.cat([self.classes(each) for each in range(self.begun)])] = True
        lowest = logits.masked_fill(~own, float("inf")).amin(1, keepdim=True)
        highest = logits.masked_fill(own | ~known, float("-inf")).amax(1, keepdim=True)
        moved = logits + (lowest - highest - 1.0).clamp(max=0.0)
        return torch.where(own, logits, moved).masked_fill(~known, float("-inf"))

    def forward(self, x: Tensor, task_labels: Tensor | int | None = None) -> Tensor:
        """Logits `(B, K)`: of the newest expert in train mode and before any training, else of each sample's own."""
        if self.training or not self.begun:
            newest: Tensor = self.experts[-1](x)
            return newest
        return self.answers(x, self.route(x, task_labels))

    def effective(self, task: int) -> dict[str, Tensor]:
        """The parameters with which a task's samples are predicted, if they find their expert: the expert's.

        The gate's auto-encoders are buffers: they count as bytes beside the network.
        """
        start = f"experts.{self.tasks.index(task)}."
        return {name: p.detach() for name, p in self.named_parameters() if name.startswith(start)}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Makes the experts that the state has before they are read."""
        start = f"{prefix}experts."
        count = len({key[len(start) :].split(".")[0] for key in state_dict if key.startswith(start)})
        del self.experts[max(1, count) :]
        while len(self.experts) < count:
            self.experts.append(copy.deepcopy(self.experts[0]))
        super()._load_from_state_dict(state_dict, prefix, *args)


def experts(
    model: nn.Module, form: GateForm = "sigmoid", extractor: nn.Module | None = None, by_label: bool = False
) -> ExpertNetwork:
    """Makes a network of experts, each like an ordinary network with one output for every class of the stream.

    Args:
        model: The network; it is copied. Its weights are those with which the first expert begins.
        form: Of the gate's auto-encoders: "sigmoid" is the paper's, "linear" finds principal subspaces by gradient
            steps, "pca" in closed form.
        extractor: Gives the gate its features, `(B, ...)` to `(B, ...)`; it is copied and never trained. None for the
            samples themselves.
        by_label: Whether task labels choose the experts, in place of the gate.

    Raises:
        TypeError: The network grows by itself or asks for task labels.
        ValueError: There is no such form.
    """
    if form not in get_args(GateForm):
        raise ValueError(f"form must be one of {', '.join(map(repr, get_args(GateForm)))}, got {form!r}")
    for name, module in model.named_modules():
        if isinstance(module, DynamicModule):
            raise TypeError(
                f"an expert has an output for every class from the start, and asks for no task label; this "
                f"{type(model).__name__} has a {type(module).__name__}{f' at {name!r}' if name else ''}"
            )
    frozen = None if extractor is None else copy.deepcopy(extractor).eval().requires_grad_(False)
    return ExpertNetwork(copy.deepcopy(model), form, frozen, by_label)
