"""Local importances, layer by layer and forward only: products of what goes into a layer and what comes out of it.

For a layer with input `y` (held fixed) and `h = a(W y + b)`, `a` what follows it (batch norm in eval mode, ReLU), let
`F_l(x_n) = |h|_2^2`. Then `d F_l / d W_ij = 2 h_i y_j` where a is ReLU: a Hebbian rule without a backward pass. With
batch norm of scale `s_i` between, `2 h_i s_i y_j`. A convolution sums over its positions first. What is summed over
samples is the absolute value, since inputs and the logits may be negative.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cl_ext.nn.local_layers import LocalLayer, local_layers, refuse
from cl_ext.nn.passes import batches, evaluation_mode, logits, preserved_random_state
from cl_ext.nn.per_sample import sums_function

import torch
from torch import Tensor, nn

_PROBE = 2


def _read_units(h: Tensor, phi: Tensor, classes: Sequence[int] | None) -> Tensor:
    """Returns which units of the last layer are outputs of F, (k,) bool: shown in the logits, and among `classes`.

    Units masked to -1000 are not shown; the padding of a narrow head is no unit.

    Raises:
        NotImplementedError: if some outputs are left out, and the logits are not the last layer's own values.
    """
    every = torch.ones(h.shape[-1], dtype=torch.bool, device=h.device)
    shown = (h == phi[:, : h.shape[1]]).all(0) if h.dim() == 2 and h.shape[1] <= phi.shape[1] else ~every
    if not shown.any():
        if classes is None or set(range(phi.shape[1])) <= set(classes):
            return every
        raise refuse('the logits are not the last layer\'s output, so its unread units are unknown (outputs="all")')
    if classes is not None:
        read = torch.zeros_like(every)
        read[[k for k in classes if k < len(read)]] = True
        shown = shown & read
    return shown


@torch.no_grad()
def batch_local_sums(
    model: nn.Module, layers: Mapping[nn.Module, LocalLayer], x: Tensor, t: Tensor | None, factor: float,
    classes: Sequence[int] | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Returns name -> `sum_n |d F_l(x_n) / d theta| factor / 2` of a batch, for the layers that ran.

    Args:
        model: the network, in eval mode.
        layers: what `local_layers` gave.
        x: inputs, (B, ...).
        t: task labels, (B,), all the same, or None.
        factor: 2 is the derivative.
        classes: the outputs of F in the last layer; None for all.
    """
    seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[module] = inputs[0], layers[module].activation(output)  # now: a ReLU in place overwrites the output

    handles = [module.register_forward_hook(record) for module in layers]
    try:
        phi = logits(model, x, t)
    finally:
        for handle in handles:
            handle.remove()
    found: dict[str, Tensor] = {}
    last = next(reversed(seen), None)
    for module, (y, h) in seen.items():
        layer = layers[module]
        if module is last:
            h = h * _read_units(h, phi, classes)
        if layer.own:
            sums = sums_function(module)(module, y, layer.gradient(h, factor), torch.abs)
            found |= {name: sums[local] for local, name in layer.own.items()}
    return found


def local_sums(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], dataset: Any, factor: float = 2.0,
    classes: Sequence[int] | None = None, batch_size: int = 128, device: torch.device | str = "cpu",
) -> tuple[dict[str, Tensor], int]:  # fmt: skip
    """Returns name -> `sum_n |d F_l(x_n) / d theta| factor / 2` over a data set in eval mode, and N.

    Nothing else changes. A layer that does not run (another task's head) gives zeros.

    Args:
        model: the network; modes and random states come back as they were.
        parameters: the penalised ones, by name.
        dataset: samples `(x, y)` or `(x, y, t)`; y is not used.
        factor: 2 is the derivative.
        classes: the outputs of F in the last layer; None for all.
        batch_size: samples of one pass: speed and memory only.
        device: where `model` is.

    Raises:
        NotImplementedError: as `local_layers` does.
        TypeError: if the outputs are not (B, K).
        ValueError: if the data set is empty.
    """
    totals = {name: torch.zeros_like(p) for name, p in parameters.items()}
    known: dict[int | None, dict[nn.Module, LocalLayer]] = {}
    samples = 0
    with preserved_random_state(), evaluation_mode(model), torch.no_grad():
        for x, t in batches(dataset, batch_size, torch.device(device)):
            samples += len(x)
            for task in [None] if t is None else t.unique().tolist():
                rows = slice(None) if t is None else t == task
                x_t, t_t = x[rows], None if t is None else t[rows]
                if task not in known:
                    few = None if t_t is None else t_t[:_PROBE]
                    known[task] = local_layers(model, parameters, x_t[:_PROBE], few)
                for name, value in batch_local_sums(model, known[task], x_t, t_t, factor, classes).items():
                    totals[name] += value
    return totals, samples
