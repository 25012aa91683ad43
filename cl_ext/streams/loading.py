"""The order of the batches, fixed by a seed, and their reading by index alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cl_ext._avalanche import (
    BatchedConcat,
    batch_joint_loaders,
    is_plain_joint_loader,
    joint_batches,
    joint_plan,
    part_samplers,
    plan_of,
)
from cl_ext._batches import Plan
from cl_ext.streams.seeding import random_state

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    default_collate,
)


class SeededOrder(Sampler[int]):
    """The order of one part of the data: a new permutation at each pass, drawn from the key and nothing else.

    Args:
        size: number of samples.
        seed, experience, epoch, part: the key. Part 0, the current data, has the permutation of
            ``(seed, experience, epoch)`` in its first pass, whatever other parts a method adds.
    """

    def __init__(self, size: int, seed: int, experience: int, epoch: int, part: int = 0) -> None:
        self.size, self.part, self.passes = size, part, 0
        self.key = (seed, experience, epoch)

    def next_pass(self) -> Tensor:
        """(size,) int64; the permutation of the next pass."""
        seed, *key = self.key
        if self.part or self.passes:
            key += [self.part, self.passes]
        self.passes += 1
        return torch.from_numpy(random_state(seed, "batches", *key).permutation(self.size))

    def __iter__(self) -> Iterator[int]:
        return iter(self.next_pass().tolist())

    def __len__(self) -> int:
        return self.size


class SeededBatches(Sampler[list[int]]):
    """The batches that a loader would make if its random samplers were :class:`SeededOrder`; each pass gives the same.

    Args:
        loader: a torch ``DataLoader`` or a joint loader of Avalanche, all of whose samplers :func:`can_seed`.
        seed, experience, epoch: the key.
    """

    def __init__(self, loader: Any, seed: int, experience: int, epoch: int) -> None:
        self.loader, self.key = loader, (seed, experience, epoch)

    def _parts(self) -> list[BatchSampler]:
        own = [self.loader.batch_sampler] if isinstance(self.loader, DataLoader) else part_samplers(self.loader)
        parts = []
        for part, batches in enumerate(own):
            order = batches.sampler
            if isinstance(order, RandomSampler):
                order = SeededOrder(len(order), *self.key, part=part)
            parts.append(BatchSampler(order, batches.batch_size, batches.drop_last))
        return parts

    def __iter__(self) -> Iterator[list[int]]:
        parts = self._parts()
        return iter(parts[0] if isinstance(self.loader, DataLoader) else joint_batches(self.loader, parts))

    def __len__(self) -> int:
        return len(self.loader)

    def whole(self) -> tuple[Tensor, list[int]] | None:
        """All indices in order and the sizes of the batches; None for a loader that never ends."""
        if getattr(self.loader, "never_ending", False):
            return None
        parts = self._parts()
        if len(parts) > 1:
            batches = list(self)
            return torch.tensor([i for batch in batches for i in batch]), [len(batch) for batch in batches]
        order = parts[0].sampler
        indices = order.next_pass() if isinstance(order, SeededOrder) else torch.tensor(list(order), dtype=torch.int64)
        full, rest = divmod(len(indices), parts[0].batch_size)
        sizes = [parts[0].batch_size] * full + ([rest] if rest and not parts[0].drop_last else [])
        return indices[: sum(sizes)], sizes


class OwnBatches(Sampler[list[int]]):
    """The batches of a joint loader of Avalanche in its own random order."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[list[int]]:
        return iter(joint_batches(self.loader))

    def __len__(self) -> int:
        return len(self.loader)


class IndexedLoader:
    """Stands in for a loader: the same batches, read by index alone, and the same use of torch's random state.

    Anything else that is asked of it is answered by the loader that it stands for.

    Attributes:
        positions: (B,) int64, where the samples of the batch that was yielded last stand in the loader's data set, for
            plugins that keep something by sample; None before the first batch.
    """

    def __init__(self, loader: Any, plan: Plan, batch_sampler: Any) -> None:
        self.original, self.plan, self.batch_sampler = loader, plan, batch_sampler
        self.positions: Tensor | None = None

    def __len__(self) -> int:
        return len(self.original)

    def __iter__(self) -> Iterator[list[Tensor]]:
        batches = iter(self.batch_sampler)
        arguments = vars(self.original) if isinstance(self.original, DataLoader) else self.original.loader_kwargs
        # torch's DataLoader draws a seed for its workers at this point, also where it has none.
        torch.empty((), dtype=torch.int64).random_(generator=arguments.get("generator"))
        whole = self.batch_sampler.whole() if isinstance(self.batch_sampler, SeededBatches) else None
        if whole is None:
            for batch in batches:
                self.positions = torch.as_tensor(batch, dtype=torch.int64)
                yield self.plan.read(self.positions)
            return
        indices, sizes = whole
        plan = self.plan
        rows = plan.rows.index_select(0, indices).split(sizes)
        columns = [extra.index_select(0, indices).split(sizes) for extra in plan.extras]
        leaf_of = [None] * len(rows) if plan.leaf_of is None else plan.leaf_of.index_select(0, indices).split(sizes)
        for positions, part, leaves, *extras in zip(indices.split(sizes), rows, leaf_of, *columns, strict=True):
            self.positions = positions
            yield [*plan.fields(part, leaves), *extras]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "original":  # a copy asks before __init__ has run
            raise AttributeError(name)
        return getattr(self.original, name)


class BatchedLoading(SupervisedPlugin):
    """Reads every training batch by one indexed read and, given a seed, fixes the order of the batches.

    At the start of each epoch, after replay plugins and the like have set it, the strategy's loader is replaced for
    that epoch by one that yields the very same batches. A loader that can't be read by index keeps its own reading
    (and still gets the seeded order); one of an unknown kind is left as it is.

    Args:
        seed: draws the order of the current data from ``(seed, experience, epoch)`` and that of each further part
            (a memory) from ``(seed, experience, epoch, part, pass)``. None keeps the loader's own random order. A
            loader that does not shuffle is not shuffled.

    Attributes:
        batch_sampler: the one in use, until the experience ends; None if the loader was left alone. A stock
            ``DataLoader(dataset, batch_sampler=...)`` gives the same batches.

    Raises:
        ValueError: the seed is negative.
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
            raise ValueError(f"seed has to be None or a non-negative integer, not {seed!r}")
        self.seed = seed
        self.batch_sampler: Any = None
        self._original: Any = None
        self._replacement: Any = None
        batch_joint_loaders()

    def before_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._restore(strategy)
        replacement = self._replace(strategy.dataloader, _position(strategy), strategy.clock.train_exp_epochs)
        if replacement is not None:
            self._original, self._replacement = strategy.dataloader, replacement
            strategy.dataloader = replacement

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._restore(strategy)

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self._restore(strategy)  # an epoch that was stopped early does not end
        self.batch_sampler = None  # it knows the loader, hence the data, which no checkpoint should hold

    def _restore(self, strategy: Any) -> None:
        # Somebody may have set another loader since; that one stays.
        if self._replacement is not None and strategy.dataloader is self._replacement:
            strategy.dataloader = self._original
        self._original = self._replacement = None

    def _replace(self, loader: Any, experience: int, epoch: int) -> Any:
        self.batch_sampler = None
        single = isinstance(loader, DataLoader) and loader.batch_sampler is not None
        if single and isinstance(loader.dataset, IterableDataset):
            return None
        if not single and not is_plain_joint_loader(loader):
            return None
        seeded = self.seed is not None and can_seed([loader.batch_sampler] if single else part_samplers(loader))
        if seeded:
            self.batch_sampler = SeededBatches(loader, self.seed, experience, epoch)  # type: ignore[arg-type]
        else:
            self.batch_sampler = loader.batch_sampler if single else OwnBatches(loader)
        collate = loader.collate_fn if single else loader.loader_kwargs["collate_fn"]
        plan = None
        if collate is default_collate:
            plan = plan_of(loader.dataset) if single else joint_plan(loader.datasets)
        if plan is not None:
            return IndexedLoader(loader, plan, self.batch_sampler)
        return _stock(loader, self.batch_sampler) if seeded else None


def _position(strategy: Any) -> int:
    """Which experience of the stream this is, the same to a strategy that is fresh at each experience.

    The strategy's own count stands in where an experience does not know (it was made by hand, or hides it).
    """
    try:
        return int(strategy.experience.current_experience)
    except (AttributeError, AssertionError, TypeError, ValueError):
        return strategy.clock.train_exp_counter


def can_seed(samplers: Sequence[Any]) -> bool:
    """Whether all batch samplers are torch's own over a full shuffle or the plain order."""
    return all(
        type(batches) is BatchSampler
        and (
            type(batches.sampler) is SequentialSampler
            or (
                type(batches.sampler) is RandomSampler
                and not batches.sampler.replacement
                and len(batches.sampler) == len(batches.sampler.data_source)
            )
        )
        for batches in samplers
    )


def _stock(loader: Any, batch_sampler: Any) -> DataLoader:
    """torch's own loader over the same data, given the batches."""
    arguments = vars(loader) if isinstance(loader, DataLoader) else loader.loader_kwargs
    names = ("num_workers", "pin_memory", "collate_fn", "generator", "persistent_workers")
    kept = {name: arguments[name] for name in names if name in arguments}
    dataset = loader.dataset if isinstance(loader, DataLoader) else BatchedConcat(loader.datasets)
    return DataLoader(dataset, batch_sampler=batch_sampler, **kept)
