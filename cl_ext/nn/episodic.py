"""A memory of each experience's samples, as tensors on the device, filled while the experience is trained on."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

Fill = Literal["ring", "reservoir"]
Samples = tuple[Tensor, Tensor, Tensor]
"""Inputs (N, ...), labels (N,) and task labels (N,)."""


class EpisodicMemory:
    """At most `mem_size` samples of each experience.

    `begin`, then `add` every batch, then `close`; only closed experiences can be read. Samples are stored as they are
    added, transforms included.

    Attributes:
        mem_size: samples of one experience; with 0 nothing is ever kept.
        sizes: how many samples each closed experience has, in their order.
    """

    def __init__(self, mem_size: int, fill: Fill = "ring", seed: int = 0) -> None:
        """Makes an empty memory.

        Args:
            mem_size: >= 0.
            fill: "ring" keeps the last samples added, "reservoir" a uniform choice, without repetition, of all of them.
            seed: of the memory's own generator: of the reservoir and of `sample`.
        """
        self.mem_size = mem_size
        self.fill: Fill = fill
        self.sizes: list[int] = []
        self._closed: Samples | None = None
        self._open: Samples | None = None
        self._seen = 0
        self._keys = torch.empty(0)  # of the slots; negative where one is empty
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return sum(self.sizes)

    def begin(self, device: torch.device | str) -> None:
        """Starts an experience, and forgets one that was not closed."""
        self._open, self._seen = None, 0
        if self._closed is not None:
            self._closed = _map(self._closed, lambda part: part.to(device))

    @torch.no_grad()
    def add(self, x: Tensor, y: Tensor, t: Tensor | None) -> None:
        """Offers a batch: inputs (B, ...), labels (B,), task labels (B,), or None for 0."""
        if self.mem_size == 0 or len(x) == 0:
            return
        batch = x, y, torch.zeros_like(y, dtype=torch.long) if t is None else t
        if self._open is None:
            self._open = _map(batch, lambda part: part.new_zeros(self.mem_size, *part.shape[1:]))
            self._keys = torch.full((self.mem_size,), -1.0, dtype=torch.float64)
        slots, chosen = self._ring(len(x)) if self.fill == "ring" else self._reservoir(len(x))
        self._seen += len(x)
        if len(slots):
            slots, chosen = slots.to(x.device), chosen.to(x.device)
            for held, part in zip(self._open, batch, strict=True):
                held.index_copy_(0, slots, part.index_select(0, chosen).to(held))

    def _ring(self, count: int) -> tuple[Tensor, Tensor]:
        """Returns the slots to overwrite and the samples of the batch that go there."""
        chosen = torch.arange(max(0, count - self.mem_size), count)
        slots = (self._seen + chosen) % self.mem_size
        self._keys[slots] = 0.0
        return slots, chosen

    def _reservoir(self, count: int) -> tuple[Tensor, Tensor]:
        """The samples of the `mem_size` largest of independent uniform keys are a uniform choice."""
        keys = torch.cat([self._keys, torch.rand(count, generator=self._generator, dtype=torch.float64)])
        kept = torch.zeros(len(keys), dtype=torch.bool)
        kept[keys.topk(self.mem_size, sorted=False).indices] = True
        chosen = kept[self.mem_size :].nonzero().flatten()
        free = (~kept[: self.mem_size]).nonzero().flatten()  # as many as were chosen; an empty slot's key is below all
        self._keys[free] = keys[self.mem_size + chosen]
        return free, chosen

    def close(self) -> None:
        """Ends the experience: what was kept of it can be read from now on. One without a sample leaves no trace."""
        if self._open is None:
            return
        filled = (self._keys >= 0).nonzero().flatten().to(self._open[1].device)
        part = _map(self._open, lambda held: held.index_select(0, filled))
        if self._closed is None:
            self._closed = part
        else:
            x, y, t = (torch.cat([old, new]) for old, new in zip(self._closed, part, strict=True))
            self._closed = x, y, t
        self.sizes.append(len(filled))
        self._open = None

    def experiences(self) -> list[Samples]:
        """Returns the samples of each closed experience; views, not copies."""
        if self._closed is None:
            return []
        return list(zip(*(part.split(self.sizes) for part in self._closed), strict=True))

    def sample(self, count: int) -> Samples | None:
        """Returns `count` samples, uniform and without repetition over all closed experiences; all if there are fewer.

        None where nothing is kept.
        """
        if self._closed is None:
            return None
        if count >= len(self):
            return self._closed
        chosen = torch.randperm(len(self), generator=self._generator)[:count].to(self._closed[1].device)
        return _map(self._closed, lambda part: part.index_select(0, chosen))

    def bytes(self) -> int:
        """Returns the memory of all samples, in bytes."""
        parts = (*(self._closed or ()), *(self._open or ()))
        return sum(part.numel() * part.element_size() for part in parts)

    def state_dict(self) -> dict[str, Any]:
        """Returns the closed experiences and the generator's state, as copies."""
        x, y, t = (None, None, None) if self._closed is None else _map(self._closed, torch.clone)
        return {"x": x, "y": y, "t": t, "sizes": list(self.sizes), "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over copies of what `state_dict` gave."""
        self._open = None
        self.sizes = [int(size) for size in state["sizes"]]
        self._closed = None if not self.sizes else _map((state["x"], state["y"], state["t"]), torch.clone)
        self._generator.set_state(state["generator"])


def _map(samples: Samples, function: Any) -> Samples:
    x, y, t = samples
    return function(x), function(y), function(t)
