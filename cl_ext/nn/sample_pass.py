"""Sums of per-sample gradients over a whole data set: one forward pass and one backward pass through the layers a seed.

For logits `phi` (B, K) and seeds `s_c` (C of them, each (B, K)) let `g_nc = d (s_cn . phi_n) / d theta`. What is summed
is `sum_n sum_c f(g_nc)`. The exact Fisher takes C = K seeds, MAS one. Gradients are taken by the layers' outputs only,
so a seed costs no weight gradient: with f multiplicative, `sum_c f(d_c)^T f(a) = (sum_c f(d_c))^T f(a)` is one product
a layer.

A network that does not split by layer (shared weights, a layer that runs twice) is done by `torch.func.vmap` over
samples, a recurrent or multi-task one sample by sample: exact, and slower.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from cl_ext.nn.passes import evaluation_mode, labelled_batches, logits, preserved_random_state
from cl_ext.nn.per_sample import Entrywise, conv2d_sums, sums_function, unfolded, vmap_sums

import torch
from avalanche.models import MultiTaskModule
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

Seeds = Callable[[Tensor, Tensor], Tensor]
"""From logits (B, K) and labels (B,) to seeds (C, B, K)."""

Way = Literal["layers", "vmap", "loop"]

_TOLERANCE = 1e-3


class UnsplittableError(NotImplementedError):
    """The network's per-sample gradients do not split by layer."""


class LayerTape:
    """Records, in one forward pass, the input of each layer and the place of its output in the graph."""

    def __init__(self, model: nn.Module, names: Mapping[str, Tensor]) -> None:
        """Finds the modules that own the parameters `names`.

        Raises:
            UnsplittableError: if two modules share a parameter, or one has no per-sample form.
        """
        self.layers: list[tuple[nn.Module, dict[str, str]]] = []
        self.inputs: dict[nn.Module, Tensor] = {}
        self.edges: dict[nn.Module, GradientEdge] = {}
        owners: set[nn.Parameter] = set()
        for prefix, module in model.named_modules():
            own = {}
            for local, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
                name = f"{prefix}.{local}".lstrip(".")
                if parameter in owners:
                    raise UnsplittableError(f"{name} is shared with another layer")
                owners.add(parameter)
                if name in names:
                    own[local] = name
            if own:
                try:
                    sums_function(module)
                except NotImplementedError as error:
                    raise UnsplittableError(str(error)) from error
                self.layers.append((module, own))

    def __enter__(self) -> "LayerTape":
        self.inputs, self.edges = {}, {}
        self._handles = [module.register_forward_hook(self._record) for module, _ in self.layers]
        return self

    def __exit__(self, *exc: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _record(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        one = len(inputs) == 1 and isinstance(inputs[0], Tensor) and isinstance(output, Tensor)
        if module in self.inputs or not one:
            raise UnsplittableError(f"a {type(module).__name__} runs twice, or is not from one tensor to one tensor")
        self.inputs[module] = inputs[0].detach()
        if output.requires_grad:
            self.edges[module] = get_gradient_edge(output)  # before an in-place activation moves the output on

    def sums(self, phi: Tensor, seeds: Tensor, f: Entrywise) -> dict[str, Tensor]:
        """Returns name -> `sum_n sum_c f(g_nc)` of the recorded pass.

        Args:
            phi: its logits, (B, K).
            seeds: (C, B, K).
            f: see `nn/per_sample.py`.
        """
        found: dict[str, Tensor] = {}
        modules = list(self.edges)
        gradients = torch.autograd.grad(
            phi, [self.edges[m] for m in modules], seeds, is_grads_batched=True, allow_unused=True
        )
        d_of = dict(zip(modules, gradients, strict=True))
        for module, own in self.layers:
            d = d_of.get(module)
            if d is None:
                continue
            a = self.inputs[module]
            if type(module) is nn.Linear and a.dim() == 2:
                fd = f(d).sum(0)
                own_sums = {"weight": fd.t() @ f(a), "bias": fd.sum(0)}
                found |= {name: own_sums[local] for local, name in own.items()}
                continue
            if isinstance(module, nn.Conv2d) and sums_function(module) is conv2d_sums:
                u = unfolded(module, a)
                each = [conv2d_sums(module, a, d_c, f, u) for d_c in d]
            else:
                each = [sums_function(module)(module, a, d_c, f) for d_c in d]
            own_sums = {local: torch.stack([sums[local] for sums in each]).sum(0) for local in own}
            found |= {name: own_sums[local] for local, name in own.items()}
        return found


def _by_loop(
    model: nn.Module, parameters: list[nn.Parameter], x: Tensor, t: Tensor | None, seeds: Tensor, f: Entrywise
) -> list[Tensor]:
    """Sums over samples one by one: recurrent and multi-task networks."""
    totals = [torch.zeros_like(p) for p in parameters]
    for n in range(len(x)):
        phi = logits(model, x[n : n + 1], None if t is None else t[n : n + 1])
        for seed in seeds[:, n, : phi.shape[1]]:
            gradients = torch.autograd.grad(phi[0], parameters, seed, retain_graph=True, allow_unused=True)
            for total, gradient in zip(totals, gradients, strict=True):
                if gradient is not None:
                    total += f(gradient)
    return totals


def _multi_task(model: nn.Module) -> bool:
    return any(isinstance(module, MultiTaskModule) for module in model.modules())


def way(model: nn.Module, parameters: Mapping[str, nn.Parameter], x: Tensor, t: Tensor | None) -> Way:
    """Returns how a network's per-sample gradients can be had: the fastest way that is exact.

    "layers" is taken only where the rows recorded layer by layer add up to the batch gradient, as they must: a network
    that uses a weight outside its layer's own forward pass (a tied decoder, a parametrisation) fails that.

    Args:
        model: the network, in eval mode.
        parameters: by which to derive, by name.
        x: a few inputs, (B, ...).
        t: task labels, (B,), or None.
    """
    if any(isinstance(module, nn.RNNBase) for module in model.modules()):
        return "loop"
    multi_task = _multi_task(model)
    if multi_task and (t is None or len(t.unique()) > 1):
        return "loop"
    slow: Way = "loop" if multi_task else "vmap"
    try:
        with LayerTape(model, parameters) as tape:
            phi = logits(model, x, t)
        rows = tape.sums(phi, torch.ones_like(phi).unsqueeze(0), lambda g: g)
    except UnsplittableError:
        return slow
    gradients = torch.autograd.grad(logits(model, x, t).sum(), list(parameters.values()), allow_unused=True)
    for name, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            error = gradient - rows.get(name, torch.zeros_like(gradient))
            if float(error.norm()) > _TOLERANCE * (float(gradient.norm()) + _TOLERANCE):
                return slow
    return "layers"


def batch_sums(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], x: Tensor, t: Tensor | None, y: Tensor, seeds: Seeds,
    f: Entrywise, how: Way = "layers",
) -> dict[str, Tensor]:  # fmt: skip
    """Returns name -> `sum_n sum_c f(g_nc)` of one batch, (parameter's shape).

    Args:
        model: the network, in the mode in which its gradients are wanted.
        parameters: by which to derive, by name.
        x: inputs, (B, ...).
        t: task labels, (B,), or None.
        y: labels, (B,); only `seeds` looks at them.
        seeds: gives (C, B, K).
        f: see `nn/per_sample.py`.
        how: what `way` said of the network.
    """
    if how == "layers":
        with LayerTape(model, parameters) as tape:
            phi = logits(model, x, t)
        found = tape.sums(phi, seeds(phi.detach(), y), f)
        return {name: found[name] if name in found else torch.zeros_like(p) for name, p in parameters.items()}
    with torch.no_grad():
        s = seeds(logits(model, x, t), y)
    if how == "vmap":
        each = [vmap_sums(model, parameters, x, seed, f) for seed in s]
        return {name: torch.stack([sums[name] for sums in each]).sum(0) for name in parameters}
    return dict(zip(parameters, _by_loop(model, list(parameters.values()), x, t, s, f), strict=True))


def dataset_sums(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], dataset: Any, seeds: Seeds, f: Entrywise,
    batch_size: int = 128, device: torch.device | str = "cpu", limit: int | None = None,
) -> tuple[dict[str, Tensor], int]:  # fmt: skip
    """Returns name -> `sum_n sum_c f(g_nc)` over a data set in eval mode, and N; nothing else changes.

    Args:
        model: the network; modes and random states come back as they were.
        parameters: by which to derive, by name.
        dataset: samples `(x, y)` or `(x, y, t)`.
        seeds: gives (C, B, K) from logits and labels.
        f: see `nn/per_sample.py`.
        batch_size: samples of one pass: speed and memory only.
        device: where `model` is.
        limit: stop after so many samples; None for all.

    Raises:
        TypeError: if the outputs are not (B, K).
        ValueError: if the data set is empty.
    """
    totals = {name: torch.zeros_like(p) for name, p in parameters.items()}
    samples = 0
    with preserved_random_state(), evaluation_mode(model), torch.enable_grad():
        for x, y, t in labelled_batches(dataset, batch_size, torch.device(device)):
            if limit is not None and samples + len(x) > limit:
                x, y, t = x[: limit - samples], y[: limit - samples], None if t is None else t[: limit - samples]
            if not samples:
                how = way(model, parameters, x[:8], None if t is None else t[:8])
            mixed = how == "layers" and t is not None and len(t.unique()) > 1 and _multi_task(model)
            sums = batch_sums(model, parameters, x, t, y, seeds, f, "loop" if mixed else how)
            torch._foreach_add_(list(totals.values()), list(sums.values()))
            samples += len(x)
            if samples == limit:
                break
    return totals, samples


def trained_outputs(loss: Callable[[Tensor, Tensor], Tensor], phi: Tensor, y: Tensor) -> Tensor:
    """Returns which of the K outputs the loss reads for each sample, (B, K) bool.

    A loss over some classes only (those of a task, those seen so far) has a gradient of exactly zero by the others'
    logits.

    Args:
        loss: from logits (B, K) and labels (B,) to a scalar.
        phi: logits.
        y: labels.
    """
    with torch.enable_grad():
        leaf = torch.zeros_like(phi).requires_grad_()  # equal logits: no softmax underflows to zero
        (gradient,) = torch.autograd.grad(loss(leaf, y), leaf)
    return gradient.ne(0)
