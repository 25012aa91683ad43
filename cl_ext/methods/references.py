"""The yardsticks: fine-tuning, joint training in its forms, a network an experience, a reset at each experience."""

from collections.abc import Callable
from typing import Any

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext.methods.accounting import sample_bytes
from cl_ext.methods.context import Built, Context
from cl_ext.models import Network

import torch
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.training.supervised import Cumulative, FromScratchTraining, JointTraining, Naive
from torch import Tensor


def naive(context: Context) -> Built:
    """Fine-tuning on one experience after another."""
    return context.built(Naive(**context.arguments(context.model())))


def cumulative(context: Context) -> Built:
    """Goes on, at each experience, on all data so far; the data of earlier experiences are its extra bytes."""
    strategy = Cumulative(**context.arguments(context.model()))
    return context.built(strategy, extra_bytes=lambda: _bytes(strategy.dataset))


def from_scratch(context: Context) -> Built:
    """Resets the network at each experience."""
    model = context.model()
    strategy = FromScratchTraining(**context.arguments(model))
    return context.built(strategy, extra_bytes=lambda: sum(t.nbytes for t in model.state_dict().values()))


class _Restarting:
    """A strategy that trains a new strategy at each experience.

    Args:
        make: Makes the strategy of an experience, given the experience's index.
        train: Trains it, given the experiences so far.
    """

    def __init__(self, make: Callable[[int], Any], train: Callable[[Any, list[Any], dict[str, Any]], None]) -> None:
        self._make = make
        self._train = train
        self.seen: list[Any] = []
        self.strategies = [make(0)]

    @property
    def model(self) -> Network:
        """The newest network."""
        model: Network = self.strategies[-1].model
        return model

    def train(self, experience: Any, **kwargs: Any) -> None:
        """Trains the next strategy; the first is there before, so that the untrained network can be evaluated."""
        if self.seen:
            self.strategies.append(self._make(len(self.seen)))
        self.seen.append(experience)
        self._train(self.strategies[-1], self.seen, kwargs)


class _Last:
    """Waits for the last experience, then trains once on all."""

    def __init__(self, strategy: JointTraining, experiences: int) -> None:
        self.strategy = strategy
        self._experiences = experiences
        self.seen: list[Any] = []

    @property
    def model(self) -> Network:
        """The network."""
        model: Network = self.strategy.model
        return model

    def train(self, experience: Any, **kwargs: Any) -> None:
        """Collects the experience; trains at the last one."""
        self.seen.append(experience)
        if len(self.seen) == self._experiences:
            self.strategy.train(self.seen, **kwargs)


def joint(context: Context) -> Built:
    """Trains once on all data; only the last row of the matrix is defined."""
    strategy = _Last(JointTraining(**context.arguments(context.model())), context.experiences)
    built = context.built(strategy, extra_bytes=lambda: sum(_bytes(e.dataset) for e in strategy.seen[:-1]))
    built.rows = "last"
    return built


def joint_incremental(context: Context) -> Built:
    """A fresh network on experiences 1..k at each k: row k is the reference a*_k of intransigence."""

    def train(strategy: JointTraining, seen: list[Any], arguments: dict[str, Any]) -> None:
        strategy.train(list(seen), **arguments)

    strategy = _Restarting(lambda _: JointTraining(**context.arguments(context.model())), train)
    return context.built(strategy, extra_bytes=lambda: sum(_bytes(e.dataset) for e in strategy.seen[:-1]))


def separate(context: Context) -> Built:
    """A network of its own for each experience, every one from the same initial weights."""

    def train(strategy: Naive, seen: list[Any], arguments: dict[str, Any]) -> None:
        strategy.train(seen[-1], **arguments)

    strategy = _Restarting(lambda _: Naive(**context.arguments(context.model())), train)

    def logits(x: Tensor, task: int) -> Tensor:
        # before its turn an experience has the untrained network: equal for all, and the b of forward transfer
        own = strategy.strategies[task].model if task < len(strategy.seen) else untrained
        own.eval()
        return context.pad(own(x))

    untrained = context.model()

    def networks() -> list[torch.nn.Module]:
        return [each.model for each in strategy.strategies]

    return Built(strategy, logits, lambda: 0, networks)


def _bytes(dataset: AvalancheDataset | None) -> int:
    return 0 if dataset is None or len(dataset) == 0 else len(dataset) * sample_bytes(dataset)
