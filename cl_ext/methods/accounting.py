"""Counts what a method really keeps beside the network, for methods that do not report it themselves."""

from collections.abc import Iterable, Mapping
from typing import Any

from avalanche.benchmarks.utils.data import AvalancheDataset
from torch import Tensor, nn

_STOP = (str, bytes, int, float, complex, bool, type(None), type)


def held_bytes(holders: Iterable[Any], without: nn.Module) -> int:
    """Bytes of the tensors and stored samples that are reachable from `holders`.

    Tensors are counted once by storage; those of the network itself are left out. A stored sample of a rehearsal
    memory is counted at its own size although Avalanche keeps an index into the training data: a real deployment
    has no training data to point into. An object that has an `extra_bytes()` of its own is asked.

    Args:
        holders: Plugins and other objects that keep state.
        without: The network, whose parameters and buffers do not count.
    """
    seen: set[int] = {id(without)}
    storages = {tensor.untyped_storage().data_ptr() for tensor in without.state_dict(keep_vars=True).values()}

    def walk(item: Any) -> int:
        if isinstance(item, _STOP) or id(item) in seen:
            return 0
        seen.add(id(item))
        if isinstance(item, Tensor):
            storage = item.untyped_storage()
            if storage.data_ptr() in storages:
                return 0
            storages.add(storage.data_ptr())
            return storage.nbytes()
        if isinstance(item, AvalancheDataset):
            return len(item) * sample_bytes(item) if len(item) else 0
        if callable(getattr(item, "extra_bytes", None)):
            return int(item.extra_bytes())
        if isinstance(item, nn.Module):
            return sum(walk(tensor) for tensor in item.state_dict(keep_vars=True).values())
        if isinstance(item, Mapping):
            return sum(walk(value) for value in item.values())
        if isinstance(item, (list, tuple, set)):
            return sum(walk(value) for value in item)
        if type(item).__module__.startswith(("avalanche", "cl_ext")) and hasattr(item, "__dict__"):
            return sum(walk(value) for value in vars(item).values())
        return 0

    return sum(walk(holder) for holder in holders)


def sample_bytes(dataset: Any) -> int:
    """Bytes of one sample as it is trained on: the image, its label, and what a method stores with it (logits)."""
    image, label, *others = dataset[0]
    stored = others[1:]  # the task label stands before them
    return sum(part.nbytes if isinstance(part, Tensor) else 8 for part in (image, label, *stored))
