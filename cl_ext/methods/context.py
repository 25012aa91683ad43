"""What a row's `build` function works with, and what it gives back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext._avalanche_methods.common import silence_deprecations
from cl_ext._avalanche_quiet import QuietEvaluation
from cl_ext.methods.accounting import held_bytes, structure
from cl_ext.methods.budget import Budget
from cl_ext.methods.criterion import ScenarioCrossEntropy
from cl_ext.models import Network, NetworkSpec, build_network
from cl_ext.streams import BatchedLoading
from cl_ext.streams.seeding import random_state

import torch
from avalanche.models.utils import avalanche_forward
from avalanche.training.supervised import Naive
from torch import Tensor, nn


@dataclass
class Built:
    """A method, ready to run.

    Attributes:
        strategy: Trains on one experience at a time: `strategy.train(experience)`, as an Avalanche strategy does.
        logits: `(x (B, ...), task) -> (B, K)`; only methods that need the task label look at `task`, the index of
            the experience that the samples come from. Units that a growing head lacks are -inf.
        extra_bytes: Bytes kept beside the networks: importances, anchors, memories, masks, teachers. What the networks
            have grown by is added where it is recorded.
        networks: The networks that are needed to predict, for the count of parameters.
        rows: `all`, or `last` where only the last row of the accuracy matrix is defined (joint training).
        structure: What a method that changes the network tells of it at the end of the stream, JSON values only:
            `units` and `owned` (see `cl_ext.nn.capacity`), `history` (a dictionary a task), or nothing.
    """

    strategy: Any
    logits: Callable[[Tensor, int], Tensor]
    extra_bytes: Callable[[], int]
    networks: Callable[[], Sequence[nn.Module]]
    rows: Literal["all", "last"] = "all"
    structure: Callable[[], dict[str, Any]] = dict


class Context:
    """Makes models, optimizers, losses and generators for a row; knows the stream and the budget.

    Args:
        benchmark: The Avalanche benchmark that the cell runs on.
        scenario: `task`, `domain` or `class`.
        network: The study's network.
        budget: The study's training budget.
        seed: The cell's seed.
        device: Where to train.
        observers: Plugins of the recorder, `(before, after)`: put around the method's own.
    """

    def __init__(
        self,
        benchmark: Any,
        scenario: str,
        network: NetworkSpec,
        budget: Budget,
        seed: int,
        device: torch.device | str = "cpu",
        observers: tuple[Sequence[Any], Sequence[Any]] = ((), ()),
    ) -> None:
        silence_deprecations()
        self.benchmark = benchmark
        self.scenario = scenario
        self.network = network
        self.budget = budget
        self.seed = seed
        self.device = torch.device(device)
        self._observers = observers
        streams = benchmark.train_stream
        self.experiences = len(streams)
        self.classes_per_experience = [sorted(int(c) for c in e.classes_in_this_experience) for e in streams]
        known = 1 + max(max(classes) for classes in self.classes_per_experience)
        self.classes = max(known, getattr(benchmark, "outputs", 0))  # of the whole stream, where this is its beginning
        self.input_shape = tuple(streams[0].dataset[0][0].shape)
        smallest = min(len(experience.dataset) for experience in streams)
        if budget.drop_last and smallest < budget.batch_size:
            raise ValueError(
                f"budget.drop_last leaves out batches that are not full, and the smallest experience, of {smallest} "
                f"samples, has no full one of budget.batch_size = {budget.batch_size}"
            )

    def model(self, head: str | None = None) -> Network:
        """The study's network; equal architectures get equal initial weights in every cell of the same seed."""
        spec = self.network if head is None else NetworkSpec.from_dict(self.network.to_dict() | {"head": head})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.key("weights"))
            return build_network(spec, self.input_shape, self.classes).to(self.device)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The budget's optimizer on all parameters of `model`."""
        budget = self.budget
        if budget.optimizer == "adam":
            return torch.optim.Adam(model.parameters(), lr=budget.lr, weight_decay=budget.weight_decay)
        return torch.optim.SGD(
            model.parameters(), lr=budget.lr, momentum=budget.momentum, weight_decay=budget.weight_decay
        )

    def criterion(self) -> ScenarioCrossEntropy:
        """Cross-entropy over the classes that this scenario trains on."""
        return ScenarioCrossEntropy(
            self.classes_per_experience if self.scenario == "task" else None,
            seen_only=self.scenario == "class" and self.budget.loss == "seen",
        )

    def key(self, purpose: str) -> int:
        """A seed for one purpose of this cell, below 2^31: PyTorch's CPU generator reads the low 32 bits only."""
        return int(random_state(self.seed, purpose).randint(2**31))

    def generator(self, purpose: str) -> torch.Generator:
        """A generator of its own for one purpose, on the CPU."""
        return torch.Generator().manual_seed(self.key(purpose))

    def plugins(self, *own: Any) -> list[Any]:
        """The method's own plugins, in a fresh list, between the data path's and the recorder's."""
        before, after = self._observers
        return [*before, *own, BatchedLoading(seed=self.seed), *after]

    def arguments(self, model: nn.Module, *own: Any, **changes: Any) -> dict[str, Any]:
        """Keyword arguments of an Avalanche strategy: network, optimizer, loss, budget, plugins, a silent evaluator.

        Args:
            model: The network.
            own: The method's own plugins.
            changes: Arguments to set otherwise.
        """
        return {
            "model": model,
            "optimizer": self.optimizer(model),
            "criterion": self.criterion(),
            "train_mb_size": self.budget.batch_size,
            "train_epochs": self.budget.epochs,
            "eval_mb_size": 512,
            "device": self.device,
            "evaluator": QuietEvaluation(),
            "plugins": self.plugins(*own),
        } | changes

    def built(self, strategy: Any, *holders: Any, extra_bytes: Callable[[], int] | None = None) -> Built:
        """The usual `Built`: the strategy's own model predicts.

        Args:
            strategy: An Avalanche strategy.
            holders: Objects (plugins, the strategy's attributes) whose tensors and stored samples are the extra bytes.
            extra_bytes: A count to use instead.
        """

        def count() -> int:
            if extra_bytes is not None:
                return extra_bytes()
            return held_bytes(holders, without=strategy.model)

        return Built(strategy, lambda x, task: self.pad(avalanche_forward(strategy.model, x, task)), count,
                     lambda: [strategy.model], structure=lambda: structure(strategy.model, holders))  # fmt: skip

    def fine_tuning_with(self, plugin: Any) -> Built:
        """Fine-tuning of the study's network with one plugin, whose state is the extra bytes."""
        return self.built(Naive(**self.arguments(self.model(), plugin)), plugin)

    def pad(self, logits: Tensor) -> Tensor:
        """Logits of a head that still grows, widened to `(B, K)` with -inf for the classes it lacks."""
        missing = self.classes - logits.shape[1]
        return nn.functional.pad(logits, (0, missing), value=float("-inf")) if missing > 0 else logits
