"""How a column of a progressive network reads those before it (Rusu et al. 2016).

Symbols: `h_j` what column j < k gives at the layer below, `U` (n, m) and `V` (m, (k - 1) m) weights without biases,
`alpha` (k - 1,), `s` ReLU.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

from cl_ext.nn.growth import drawn
from cl_ext.nn.resizing import Layer

import torch
from torch import Tensor, nn
from torch.nn import functional

Adapter = Literal["none", "linear", "mlp"]
"""No laterals; U h; U s(V [alpha h])."""
ALPHA = 0.1


class LinearLateral(nn.Module):
    """`sum_j U_j h_j`: one layer, of the reader's own form, on all columns' channels side by side."""

    def __init__(self, reader: Layer, columns: int, generator: torch.Generator) -> None:
        """Draws U as PyTorch's layers begin.

        Args:
            reader: the layer of column k whose input to the activation the lateral adds to.
            columns: k - 1, at least 1.
            generator: on the CPU.
        """
        super().__init__()
        self.up = _like(reader, columns, generator)

    def forward(self, below: Sequence[Tensor]) -> Tensor:
        """Gives what is added, in the shape of the reader's output; `below` are the h_j, in the reader's input's."""
        added: Tensor = self.up(torch.cat(tuple(below), 1))
        return added


class AdapterLateral(nn.Module):
    """`U s(V [alpha_j h_j]_j)` (eq. 2): V brings all columns' units down to as many as one of them has.

    Of maps V is a 1 x 1 convolution, and where the reader reads flattened maps V goes over their positions, too.

    Attributes:
        alpha: (k - 1,), scales of the columns, drawn from U(0, 0.1).
    """

    def __init__(self, reader: Layer, columns: int, units: int, generator: torch.Generator) -> None:
        """Draws U and V as PyTorch's layers begin.

        Args:
            reader: the layer of column k whose input to the activation the lateral adds to.
            columns: k - 1, at least 1.
            units: m, of one column at the layer below: channels, where maps are flattened.
            generator: on the CPU.
        """
        super().__init__()
        like = reader.weight
        scales = torch.rand(columns, generator=generator, dtype=torch.float64) * ALPHA
        self.alpha = nn.Parameter(scales.to(like))
        self.down = nn.Parameter(drawn((units, columns * units), columns * units, like, generator))
        self.up = _like(reader, 1, generator)

    def forward(self, below: Sequence[Tensor]) -> Tensor:
        """Gives what is added, in the shape of the reader's output; `below` are the h_j, in the reader's input's."""
        shape = below[0].shape
        stacked = torch.stack(tuple(below), 1)
        scaled = stacked * self.alpha.view(1, -1, *[1] * (len(shape) - 1))
        if len(shape) == 2 and shape[1] == len(self.down):
            return self.up(torch.relu(functional.linear(scaled.flatten(1), self.down)))
        positions = scaled.reshape(shape[0], self.down.shape[1], -1)
        return self.up(torch.relu(functional.conv1d(positions, self.down[:, :, None])).reshape(shape))


def lateral(
    adapter: Adapter, reader: Layer, columns: int, units: int, generator: torch.Generator
) -> LinearLateral | AdapterLateral:
    """The lateral of a kind that is not "none"; arguments as in `AdapterLateral`."""
    if adapter == "linear":
        return LinearLateral(reader, columns, generator)
    return AdapterLateral(reader, columns, units, generator)


def _like(reader: Layer, times: int, generator: torch.Generator) -> Layer:
    """A layer of the reader's form without bias that reads `times` as many channels."""
    weight = reader.weight
    shape = (len(weight), times * weight.shape[1], *weight.shape[2:])
    if isinstance(reader, nn.Conv2d):
        form: dict[str, Any] = {name: getattr(reader, name) for name in _FORM}
        made: Layer = nn.utils.skip_init(nn.Conv2d, shape[1], shape[0], bias=False, **form)
    else:
        made = nn.utils.skip_init(nn.Linear, shape[1], shape[0], bias=False)
    made.weight = nn.Parameter(drawn(shape, math.prod(shape[1:]), weight, generator))
    return made


_FORM = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
