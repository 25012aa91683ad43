"""The methods that share out or grow a network, on small streams and networks: what their common tests are made of."""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from cl_ext.models.expert_network import experts
from cl_ext.plugins import ExpertGatePlugin, Net2NetPlugin
from cl_ext.plugins.architecture import TaskPlugin

import torch
from avalanche.benchmarks import dataset_benchmark, nc_benchmark
from avalanche.benchmarks.utils import _make_taskaware_classification_dataset
from avalanche.training import Naive
from torch import Tensor, nn

from tests.plugins import common
from tests.plugins.common import CASES, Case

FAMILY = [case for case in CASES if issubclass(case.make, TaskPlugin)]
"""Methods with a head, and a part of the network, for each task."""
EXPERTS = [
    replace(case, name=f"{case.name}-by-label", prepare=lambda model: experts(model, by_label=True), kind="nc-tasks")
    for case in CASES
    if case.name == "expert-gate-lwf"
]
"""Expert Gate, asked by task label: what each expert says, whatever the gate thinks of a sample; experts teach."""
GATED = [replace(case, kind="nc-tasks") for case in CASES if case.make is ExpertGatePlugin]
GROWN = [replace(case, kind="nc-tasks") for case in CASES if case.make is Net2NetPlugin]
"""Net2Net, which has one classifier, and nothing of a task's own."""
LABELS, SIZES = (7, 3, 9), (2, 3, 1)
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.05),
    "sgd-momentum-decay": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.05, nesterov=True),
    "adam-decay": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.05),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.05),
}


def strided() -> nn.Module:
    """A CNN with a stride, batch norm, pooling and two linear layers, for images of 8 x 8."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(24, 10), nn.ReLU(), nn.Linear(10, common.CLASSES),
    )  # fmt: skip


def images(per_class: int, seed: int) -> Any:
    """Noisy images of 8 x 8, one mean a class, in class order."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(common.CLASSES, 1, 8, 8, generator=torch.Generator().manual_seed(98))
    y = torch.arange(common.CLASSES).repeat_interleave(per_class)
    return common.labelled(means[y] + torch.randn(len(y), 1, 8, 8, generator=generator), y)


def data(network: Callable[[], nn.Module]) -> Any:
    """Four tasks of two classes, labelled, of what a network takes."""
    if network is strided:
        return nc_benchmark(images(6, 1), images(3, 2), common.EXPERIENCES, task_labels=True, shuffle=False)
    return common.benchmark("nc-tasks")


def samples(network: Callable[[], nn.Module], count: int = 32) -> Tensor:
    """Random samples `(count, ...)` of what a network takes."""
    shape = (1, 8, 8) if network is strided else (common.FEATURES,)
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(5))


def relabelled(sizes: Sequence[int] = SIZES) -> Any:
    """Experiences whose task labels are 7, 3 and 9, of two, three and one classes."""
    streams: dict[str, list[Any]] = {"train": [], "test": []}
    for name, per_class, seed in (("train", 10, 1), ("test", 4, 2)):
        first = 0
        for label, size in zip(LABELS, sizes, strict=False):
            x, y = common.blobs(per_class, seed).tensors  # type: ignore[attr-defined]
            rows = (y >= first) & (y < first + size)
            part = common.labelled(x[rows], y[rows])
            streams[name].append(_make_taskaware_classification_dataset(part, task_labels=label))
            first += size
    return dataset_benchmark(streams["train"], streams["test"])


def made(case: Case, network: Callable[[], nn.Module], optimizer: str = "sgd", **options: Any) -> Naive:
    """The strategy with the case's plugin, on its network, from one seed."""
    torch.manual_seed(0)
    model = case.on(network)()
    return common.strategy(model, [case()], optimizer=OPTIMIZERS[optimizer](model.parameters()), **options)


def tasks_of(model: Any) -> list[int]:
    """The tasks that a network tells apart; one where it tells none."""
    tasks: list[int] = getattr(model, "tasks", [0])
    return tasks


def logits_of(model: Any, x: Tensor) -> dict[int, Tensor]:
    """What a network answers for each task so far, in eval mode; all classes that it knows."""
    model.eval()
    with torch.no_grad():
        return {task: model(x, task) if hasattr(model, "tasks") else model(x) for task in tasks_of(model)}


def classes_of(model: Any, task: int) -> Tensor:
    """The classes of a task with a head or an expert of its own."""
    if hasattr(model, "experts"):
        known: Tensor = model.classes(model.tasks.index(task))
        return known
    own: Tensor = model.heads[task].classes
    return own


def parts_of(model: Any) -> dict[int, dict[str, Tensor]]:
    """Copies of the tensors with which each task so far is predicted; of an expert its statistics and code, too."""
    parts = {task: {name: t.detach().clone() for name, t in model.effective(task).items()} for task in model.tasks}
    if hasattr(model, "experts"):
        state = common.weights(model)
        for index, task in enumerate(model.tasks):
            starts = f"experts.{index}.", f"gate.codes.{index}|", "gate.scale"
            parts[task] |= {name: value for name, value in state.items() if name.startswith(starts)}
    return parts


def saved(runner: Naive) -> dict[str, Any]:
    """Network, optimizer and plugin as a file would give them back: tensors and JSON values, no object shared."""
    plugin: Any = runner.plugins[0]
    state = {"model": runner.model.state_dict(), "optimizer": runner.optimizer.state_dict()}
    file = io.BytesIO()
    torch.save(state | {"plugin": plugin.state_dict()}, file)
    file.seek(0)
    read: dict[str, Any] = torch.load(file, weights_only=True)
    return read
