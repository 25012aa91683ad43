"""Directions that an update must have no part in, and the projection onto the rest of the parameter space.

With V the directions as columns, the projection of `x` is `x - V (V^T V)^-1 V^T x`. It is applied twice: in float32
once leaves a part of the size of the rounding errors of all directions together, and the second time takes that out.

`ExplicitBasis` stores orthonormal rows over all parameters, whatever the network; `nn/orthogonal_factors.py` has the
implicit form for linear layers. Both build in float64, take directions in the order in which they come, and drop one
whose part outside the span of those before it is not above a tolerance, `TOLERANCE` where none is given, of it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from cl_ext.nn.parameters import grow

import torch
from torch import Tensor

TOLERANCE = 1e-6
_CHUNK_FLOATS = 2**24


class FlatVector:
    """One vector with a view for each parameter.

    Attributes:
        flat: (P,).
        named: parameter name -> its view of `flat`.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        """Makes a vector of zeros of the parameters' type and place; the first one's where they differ."""
        first = next(iter(parameters.values()))
        sizes = [p.numel() for p in parameters.values()]
        self.flat = torch.zeros(sum(sizes), dtype=first.dtype, device=first.device)
        parts = zip(parameters.items(), self.flat.split(sizes), strict=True)
        self.named = {name: part.view(p.shape) for (name, p), part in parts}
        self.views = list(self.named.values())

    def bytes(self) -> int:
        """Returns its memory in bytes."""
        return self.flat.nbytes


class ExplicitBasis:
    """Orthonormal rows (m, P) over the parameters, laid out one after the other.

    Attributes:
        rows: (m, P).
    """

    kind = "explicit"

    def __init__(self, tolerance: float = TOLERANCE) -> None:
        self.tolerance = tolerance
        self.rows = torch.zeros(0, 0)
        self._shapes: dict[str, torch.Size] = {}

    @property
    def size(self) -> int:
        """The number m of directions."""
        return len(self.rows)

    @staticmethod
    def bytes_for(count: int, parameters: Mapping[str, Tensor]) -> int:
        """Returns the memory of `count` directions, in bytes."""
        return count * sum(p.numel() * p.element_size() for p in parameters.values())

    def bytes(self) -> int:
        """Returns the memory held, in bytes."""
        return self.rows.nbytes

    @torch.no_grad()
    def align(self, parameters: Mapping[str, Tensor]) -> None:
        """Fits the rows to `parameters`: new entries are zeros; those of parameters that are gone are forgotten.

        Raises:
            ValueError: if a parameter shrank.
        """
        shapes = {name: p.shape for name, p in parameters.items()}
        first = next(iter(parameters.values()))
        like = self.rows.dtype == first.dtype and self.rows.device == first.device
        if list(shapes.items()) == list(self._shapes.items()) and like:
            return
        old, gone = self._blocks(), self._shapes.keys() - shapes.keys()
        rows = first.new_zeros(self.size, sum(p.numel() for p in parameters.values()))
        start = 0
        for name, p in parameters.items():
            if name in old:
                target = p.new_empty(self.size, *p.shape)
                rows[:, start : start + p.numel()] = grow(old[name], target, "zeros").flatten(1)
            start += p.numel()
        self.rows, self._shapes = rows, shapes
        if gone and len(rows):  # rows cut short are not orthonormal any more
            self.rows = rows[:0]
            self.extend([rows], len(rows))

    def _blocks(self) -> dict[str, Tensor]:
        parts = self.rows.split([shape.numel() for shape in self._shapes.values()], 1) if self._shapes else ()
        return {n: part.view(-1, *s) for (n, s), part in zip(self._shapes.items(), parts, strict=True)}

    @torch.no_grad()
    def extend(self, chunks: Iterable[Tensor], room: int) -> int:
        """Adds what is new in some gradients by Gram-Schmidt, each projected twice, in float64.

        Args:
            chunks: gradients, (c, P) each.
            room: how many directions to add at most.

        Returns:
            How many were added.
        """
        known = self.size
        rows = self.rows.new_empty(known + room, self.rows.shape[1])
        rows[:known] = self.rows
        self.rows = rows[:known]
        for chunk in chunks:
            free = len(rows) - self.size
            if not free:
                break
            new = _new_directions(chunk.double(), self.rows, free, self.tolerance)
            end = self.size + len(new)
            rows[self.size : end] = new
            self.rows = rows[:end]
        if self.size < len(rows):
            self.rows = self.rows.clone()
        return self.size - known

    @torch.no_grad()
    def project_(self, x: FlatVector) -> None:
        """Takes the part in the span of the rows out of `x`, in place."""
        for _ in range(2):
            x.flat.addmv_(self.rows.t(), self.rows.mv(x.flat), alpha=-1.0)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as tensors and JSON values."""
        return {"rows": self.rows.clone(), "shapes": {name: list(shape) for name, shape in self._shapes.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores it; `align` has to follow."""
        self.rows = state["rows"].clone()
        self._shapes = {name: torch.Size(shape) for name, shape in state["shapes"].items()}


def _new_directions(x: Tensor, rows: Tensor, room: int, tolerance: float) -> Tensor:
    """Returns orthonormal float64 rows that span, with `rows`, what `x` (c, P) spans beside them; at most `room`."""
    lengths = x.norm(dim=1)
    step = max(1, _CHUNK_FLOATS // max(1, x.shape[1]))
    for _ in range(2):
        for part in rows.split(step):
            x = x - (x @ part.double().t()) @ part.double()
    kept = torch.empty_like(x)
    count = 0
    for row, length in zip(x, lengths, strict=True):
        if count == room:
            break
        for _ in range(2):
            row = row - kept[:count].t() @ (kept[:count] @ row)
        rest = row.norm()
        if rest > tolerance * length:
            kept[count] = row / rest
            count += 1
    return kept[:count]
