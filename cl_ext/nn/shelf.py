"""Tensors by task and name, as buffers: saved, loaded and moved with the network that they belong to."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class Shelf(nn.Module):
    """Tensors by key and name that come into being while a network learns.

    Loading a state puts every tensor of the state on the shelf, also on an empty one.
    """

    def put(self, key: int | str, tensors: Mapping[str, Tensor]) -> None:
        """Stores tensors (not copies of them) under `key`, in place of what stood there."""
        self.drop(key)
        for name, tensor in tensors.items():
            self.register_buffer(_path(key, name), tensor.detach())

    def get(self, key: int | str) -> dict[str, Tensor]:
        """The tensors under `key` by name; empty where there are none."""
        start = _path(key, "")
        return {
            name[len(start) :].replace("/", "."): tensor
            for name, tensor in self.named_buffers(recurse=False)
            if name.startswith(start)
        }

    def __contains__(self, key: int | str) -> bool:
        """Whether anything stands under `key`."""
        start = _path(key, "")
        return any(name.startswith(start) for name in self._buffers)

    def drop(self, key: int | str) -> None:
        """Forgets what stands under `key`."""
        for name in self.get(key):
            delattr(self, _path(key, name))

    def keys(self) -> list[str]:
        """The keys, in the order in which they came."""
        return list(dict.fromkeys(name.split("|")[0] for name, _ in self.named_buffers(recurse=False)))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        for key in self.keys():
            self.drop(key)
        for name, tensor in state_dict.items():
            if name.startswith(prefix) and "|" in name[len(prefix) :]:
                self.register_buffer(name[len(prefix) :], tensor.detach().clone())
        super()._load_from_state_dict(state_dict, prefix, *args)


def _path(key: int | str, name: str) -> str:
    return f"{key}|{name.replace('.', '/')}"  # a buffer's name has no dots
