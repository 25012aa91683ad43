"""Local MAS, l-MAS (Aljundi et al., ECCV 2018): the Hebbian form of Memory Aware Synapses, without a backward pass.

Symbols as in the paper: `y` a layer's input and output activations. `docs/methods/mas.md` has the equations.
"""

from collections.abc import Sequence
from typing import Any

from cl_ext.nn.hebbian import local_sums
from cl_ext.plugins.checks import check_number
from cl_ext.plugins.mas import Accumulate, MASPlugin, Outputs
from cl_ext.plugins.quadratic import Heads

import torch
from torch import Tensor, nn


class LocalMASPlugin(MASPlugin):
    """Memory Aware Synapses with each layer's own function in place of the network's.

    For a layer with input `y_j` and output `y_i = relu(sum_j W_ij y_j + b_i)`, with the input held fixed,

        Omega_ij = (factor/N) sum_n |y_i y_j|,     factor/2 times the mean of | d |relu(W y)|_2^2 / d W_ij |

    and `(factor/N) sum_n y_i` for the bias. The layer of the logits has no ReLU: `|f_i y_j|`. Batch norm between the
    layer and its ReLU is part of its function, and a layer itself; a convolution sums over its positions before the
    absolute value. Everything else is as in `MASPlugin`, `update_importance` included.
    """

    name = "LocalMAS"

    def __init__(
        self,
        mas_lambda: float = 1.0,
        local_factor: float = 2.0,
        accumulate: Accumulate = "sum",
        outputs: Outputs = "trained",
        heads: Heads = "include",
        batch_size: int = 128,
    ) -> None:
        """Sets the hyper-parameters.

        Args:
            mas_lambda: strength of the penalty, >= 0; no factor 1/2.
            local_factor: > 0; 2 is the derivative, 1 the bare product of activations.
            accumulate: how the experiences' importances make Omega: their "sum" or their "mean".
            outputs: which logits the last layer's function has, see `MASPlugin`.
            heads: "include" or "exclude" the network's heads from the penalty.
            batch_size: samples of one pass when Omega is computed, >= 1: speed and memory only.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        super().__init__(mas_lambda, accumulate, outputs, heads, batch_size)
        self.local_factor = check_number(type(self).__name__, "local_factor", local_factor, 0.0, above=True)

    def sums(
        self, model: nn.Module, dataset: Any, classes: Sequence[int] | None = None, device: torch.device | str = "cpu"
    ) -> tuple[dict[str, Tensor], int]:
        """Returns `factor/2 sum_n | d F_l(x_n) / d theta |` by parameter name, and N; nothing else changes.

        Args:
            model: a network from inputs (and task labels, if it is an Avalanche multi-task module) to logits (B, K).
            dataset: samples `(x, y)` or `(x, y, t)`; y is not used.
            classes: the outputs of F in the layer of the logits; None for all.
            device: where `model` is.

        Raises:
            NotImplementedError: if a layer has no local form (`cl_ext.nn.local_layers`).
            TypeError: if the outputs are not (B, K).
            ValueError: if the dataset is empty.
        """
        parameters = self._penalised(model)
        return local_sums(model, parameters, dataset, self.local_factor, classes, self.batch_size, device)
