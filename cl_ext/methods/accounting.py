"""Counts what a method really keeps beside the network, for methods that do not report it themselves."""

from collections.abc import Iterable, Mapping
from typing import Any

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext.models.columns import ProgressiveNetwork
from cl_ext.models.expansion import ExpandableNetwork
from cl_ext.nn.capacity import unit_owners, unit_use
from cl_ext.nn.paths import Paths

from avalanche.benchmarks.utils.data import AvalancheDataset
from torch import Tensor, nn

_STOP = (str, bytes, int, float, complex, bool, type(None), type)


def held_bytes(holders: Iterable[Any], without: nn.Module) -> int:
    """Bytes of the tensors and stored samples that are reachable from `holders`.

    A tensor is counted once, at its own size even where it is a part of a larger one (what a method has to keep, not
    what happens to stay alive); the network's own are left out. A stored sample of a rehearsal
    memory is counted at its own size although Avalanche keeps an index into the training data: a real deployment
    has no training data to point into. An object that has an `extra_bytes()` of its own is asked.

    Args:
        holders: Plugins and other objects that keep state.
        without: The network, whose parameters and buffers do not count.
    """
    seen: set[int] = {id(without)}
    weights = {tensor.untyped_storage().data_ptr() for tensor in without.state_dict(keep_vars=True).values()}
    views: set[tuple[int, int]] = set()

    def walk(item: Any) -> int:
        if isinstance(item, _STOP) or id(item) in seen:
            return 0
        seen.add(id(item))
        if isinstance(item, Tensor):
            view = (item.data_ptr(), item.nbytes)
            if item.untyped_storage().data_ptr() in weights or view in views:
                return 0
            views.add(view)
            return min(item.nbytes, item.untyped_storage().nbytes())
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


def structure(model: nn.Module, holders: Iterable[Any]) -> dict[str, Any]:
    """What a method tells of the network that it changed, for its record.

    Args:
        model: The network.
        holders: Plugins; one that keeps a `history` or `decisions`, a list with a dictionary a task, tells it.

    Returns:
        `units` (see `cl_ext.nn.capacity.unit_use`) of an expandable chain or of columns that have been trained, `owned`
        likewise where tasks own parts of it (see `cl_ext.nn.capacity.unit_owners`), `history` where there is one. The
        units of PathNet are its modules.
    """
    found: dict[str, Any] = {}
    if isinstance(model, ExpandableNetwork) and model.tasks:
        if isinstance(model.scheme, Paths):
            found["units"], found["owned"] = model.scheme.maps(model.features, model.tasks)  # type: ignore[arg-type]
        elif model.is_chain:
            found["units"], owned = unit_use(model), unit_owners(model)
            found |= {"owned": owned} if owned else {}
    elif isinstance(model, ProgressiveNetwork) and model.owners:
        found["units"], found["owned"] = model.maps()
    for holder in holders:
        history = getattr(holder, "history", None) or getattr(holder, "decisions", None)
        if isinstance(history, list) and history:
            found["history"] = history
    return found
