"""Tiny networks and streams for the tests of PackNet and CPG, and a watch on what earlier tasks read."""

from collections.abc import Callable, Sequence
from typing import Any

import cl_ext  # noqa: F401
from cl_ext.models import NetworkSpec, build_network
from cl_ext.models.expansion import ExpandableNetwork, expandable
from cl_ext.nn.masked import MaskedScheme

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from tests.methods.helpers import tiny_stream
from tests.plugins.common import strategy

SGD: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}
ADAM: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.01}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, **SGD),
    "adam": lambda parameters: torch.optim.Adam(parameters, **ADAM),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, **ADAM),
}


def deep(classes: int = 6) -> ExpandableNetwork:
    """Three hidden layers, two with batch norm, one with dropout, on flat samples of 8."""
    torch.manual_seed(3)
    return expandable(nn.Sequential(
        nn.Linear(8, 14), nn.BatchNorm1d(14), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(14, 12, bias=False), nn.BatchNorm1d(12), nn.ReLU(),
        nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, classes),
    ))  # fmt: skip


def image_network(name: str, filters: int = 2) -> Callable[[], ExpandableNetwork]:
    """A small CNN, or the slim ResNet-18, on images of 8 x 8."""

    def make() -> ExpandableNetwork:
        torch.manual_seed(3)
        return expandable(build_network(NetworkSpec(name, width=filters), (1, 8, 8), 6))

    return make


def stream(shape: tuple[int, ...] = (8,), samples: int = 32, experiences: int = 3) -> Any:
    """Experiences of two classes each, with task labels."""
    return tiny_stream("task", experiences=experiences, samples=samples, shape=shape)


class Watch(SupervisedPlugin):
    """Looks, at the end of each epoch of each phase, whether earlier tasks are as they were when they ended."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x
        self.known: dict[int, tuple[dict[str, Tensor], Tensor]] = {}
        self.looks = 0
        self.drifts = 0

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Compares the tensors and the outputs of every task that is over, bit for bit."""
        for task, (tensors, out) in self.known.items():
            now, answers = self._look(strategy.model, task)
            same = now.keys() == tensors.keys() and all(torch.equal(now[name], tensors[name]) for name in now)
            self.looks += 1
            self.drifts += not (same and torch.equal(out, answers))

    def learn(self, model: ExpandableNetwork) -> None:
        """Notes the tasks that are over and not yet known."""
        assert isinstance(model.scheme, MaskedScheme)
        for task in model.scheme.tasks:
            if task not in self.known:
                self.known[task] = self._look(model, task)

    @torch.no_grad()
    def _look(self, model: ExpandableNetwork, task: int) -> tuple[dict[str, Tensor], Tensor]:
        assert isinstance(model.scheme, MaskedScheme)
        tensors = model.scheme.materialise(model.features, task)
        head = model.heads[task]
        tensors |= {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
        flags = [module.training for module in model.modules()]
        model.eval()
        out = model(self.x, task)[:, head.classes]
        for module, flag in zip(model.modules(), flags, strict=True):
            module.training = flag
        return {name: tensor.clone() for name, tensor in tensors.items()}, out


def watched(
    plugin: Any, network: Callable[[], ExpandableNetwork] = deep, optimizer: str = "sgd",
    experiences: Sequence[Any] | None = None, shape: tuple[int, ...] = (8,), **options: Any,
) -> tuple[Any, Watch]:  # fmt: skip
    """Trains on a stream with a watch; returns the strategy and the watch, which has looked at the end once more."""
    model = network()
    watch = Watch(torch.randn(5, *shape, generator=torch.Generator().manual_seed(4)))
    runner = strategy(model, [plugin, watch], optimizer=OPTIMIZERS[optimizer](model.parameters()), **options)
    for number, experience in enumerate(experiences or stream(shape).train_stream):
        torch.manual_seed(number)
        runner.train(experience, eval_streams=[])
        watch.after_training_epoch(runner)
        watch.learn(runner.model)
    return runner, watch
