"""Sums over samples of `f(g_n)`, with g_n sample n's own gradient and f entry by entry, at the price of the batch's.

With `a_n` a layer's input and `d_n` the gradient of the summed loss by the layer's output, for sample n of a batch,
sample n's gradient by a linear layer's weight is `g_n = d_n a_n^T`, so that

    sum_n f(g_n) = f(d)^T f(a)        where f is multiplicative: the square, the absolute value, the identity

is one matrix product: exact, and as cheap as the batch gradient. The square gives the diagonal of a Fisher matrix, the
absolute value the importance of MAS. `PerSampleSums` records `a` and `d` by hooks while a training step runs, so that
no second pass is needed; `nn/sample_pass.py` sums over a data set. `sums_by_loop` is the readable form of both.

Batch norm in train mode ties the samples of a batch together, and then no per-sample gradient exists. Here `g_n` is
then the part of the batch gradient that flows through row n of a layer's output: the rows still add up to the batch
gradient, and they are the per-sample gradients exactly where batch norm is in eval mode or absent.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cl_ext.nn.parameters import parameter_aliases

import torch
from torch import Tensor, nn
from torch.nn import functional

Entrywise = Callable[[Tensor], Tensor]
"""A multiplicative function of each entry alone, `f(a b) = f(a) f(b)`: `torch.square`, `torch.abs`, the identity."""

_CHUNK_FLOATS = 2**24
_RANDOM = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _sum_over_samples(d: Tensor, a: Tensor, f: Entrywise) -> Tensor:
    """Returns `sum_n f(sum_s d_ns a_ns^T)` for d (B, S, out) and a (B, S, in): (out, in), in chunks of samples."""
    total = d.new_zeros(d.shape[2], a.shape[2])
    size = max(1, _CHUNK_FLOATS // max(1, total.numel()))
    for d_part, a_part in zip(d.split(size), a.split(size), strict=True):
        total += f(torch.bmm(d_part.transpose(1, 2), a_part)).sum(0)
    return total


def linear_sums(layer: nn.Linear, a: Tensor, d: Tensor, f: Entrywise) -> dict[str, Tensor]:
    """Returns `sum_n f(g_n)` of a linear layer's parameters.

    Args:
        layer: the layer.
        a: its input, (B, in) or (B, ..., in).
        d: the gradient of the summed loss by its output, (B, out) or (B, ..., out).
        f: what is summed of each sample's gradient.
    """
    if a.dim() == 2:
        return {"weight": f(d).t() @ f(a), "bias": f(d).sum(0)}
    a, d = a.flatten(1, -2), d.flatten(1, -2)
    return {"weight": _sum_over_samples(d, a, f), "bias": f(d.sum(1)).sum(0)}


def unfolded(layer: nn.Conv2d, a: Tensor) -> Tensor:
    """Returns a zero-padded convolution's input (B, in, H, W) as patches, (B, H' W', in kernel^2)."""
    assert not isinstance(layer.padding, str)
    return functional.unfold(a, layer.kernel_size, layer.dilation, layer.padding, layer.stride).transpose(1, 2)


def conv2d_sums(layer: nn.Conv2d, a: Tensor, d: Tensor, f: Entrywise, u: Tensor | None = None) -> dict[str, Tensor]:
    """Returns `sum_n f(g_n)` of a zero-padded convolution's parameters.

    Args:
        layer: the convolution; groups are allowed.
        a: its input, (B, in, H, W).
        d: the gradient of the summed loss by its output, (B, out, H', W').
        f: what is summed of each sample's gradient.
        u: `unfolded(layer, a)`, where there are several `d` for one `a`.
    """
    # the positions s of one sample are summed before squaring: g_n = sum_s d_ns u_ns^T with u the unfolded input
    u = unfolded(layer, a) if u is None else u
    d = d.flatten(2).transpose(1, 2)
    groups = zip(d.chunk(layer.groups, 2), u.chunk(layer.groups, 2), strict=True)
    weight = torch.cat([_sum_over_samples(d_group, u_group, f) for d_group, u_group in groups])
    return {"weight": weight.view_as(layer.weight), "bias": f(d.sum(1)).sum(0)}


def batch_norm_sums(layer: nn.Module, a: Tensor, d: Tensor, f: Entrywise) -> dict[str, Tensor]:
    """Returns `sum_n f(g_n)` of batch norm's scale and shift, (C,) each; `g_n` as the module's docstring says.

    Args:
        layer: the batch norm, in the mode in which it ran.
        a: its input, (B, C, ...).
        d: the gradient of the summed loss by its output, (B, C, ...).
        f: what is summed of each sample's gradient.
    """
    assert isinstance(layer, _BATCH_NORM)
    batch_statistics = layer.training or layer.running_mean is None
    mean = None if batch_statistics else layer.running_mean
    variance = None if batch_statistics else layer.running_var
    x_hat = functional.batch_norm(a, mean, variance, training=batch_statistics, eps=layer.eps)
    scale, shift = (d * x_hat).unsqueeze(-1).flatten(2), d.unsqueeze(-1).flatten(2)
    return {"weight": f(scale.sum(2)).sum(0), "bias": f(shift.sum(2)).sum(0)}


def sample_gradient(
    module: nn.Module, parameters: Mapping[str, Tensor]
) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
    """Returns the function from one input (...) and seed (...) to `d (seed . module(input)) / d theta`, for `vmap`.

    Args:
        module: a pure function of one tensor whose first dimension is the samples'.
        parameters: theta, detached, by name; what is not among them is held fixed.
    """
    own = dict(parameters)
    fixed = {name: p.detach() for name, p in module.named_parameters() if name not in own}
    aliases, buffers = parameter_aliases(module), dict(module.named_buffers())

    def gradient(a_n: Tensor, d_n: Tensor) -> dict[str, Tensor]:
        def forward(theta: dict[str, Tensor]) -> Tensor:
            both = fixed | theta
            values = {alias: both[name] for alias, name in aliases.items()}
            call = torch.func.functional_call(module, values | buffers, (a_n.unsqueeze(0),), tie_weights=False)
            return call.squeeze(0)

        return torch.func.vjp(forward, own)[1](d_n)[0]

    return gradient


def vmap_sums(
    module: nn.Module, parameters: Mapping[str, Tensor], a: Tensor, d: Tensor, f: Entrywise
) -> dict[str, Tensor]:
    """Returns `sum_n f(g_n)` by `torch.func.vmap` over the samples, in chunks; the module's forward is run again.

    Args:
        module: see `sample_gradient`.
        parameters: by which to derive, by name.
        a: its input, (B, ...).
        d: the gradient of the summed loss by its output, (B, ...).
        f: what is summed of each sample's gradient.
    """
    own = {name: p.detach() for name, p in parameters.items()}
    gradient = torch.func.vmap(sample_gradient(module, own))
    size = max(1, _CHUNK_FLOATS // max(1, sum(p.numel() for p in own.values())))
    totals = {name: torch.zeros_like(p) for name, p in own.items()}
    for a_part, d_part in zip(a.split(size), d.split(size), strict=True):
        for name, rows in gradient(a_part, d_part).items():
            totals[name] += f(rows).sum(0)
    return totals


def module_sums(module: nn.Module, a: Tensor, d: Tensor, f: Entrywise) -> dict[str, Tensor]:
    """Returns `sum_n f(g_n)` of any module's own parameters, those of its children held fixed; see `vmap_sums`."""
    return vmap_sums(module, dict(module.named_parameters(recurse=False)), a, d, f)


def sums_function(module: nn.Module) -> Callable[[Any, Tensor, Tensor, Entrywise], dict[str, Tensor]]:
    """Returns the function that gives a module's `sum_n f(g_n)`; closed forms where there is one.

    Raises:
        NotImplementedError: if the module draws random numbers inside, so that running it again would differ.
    """
    if type(module) is nn.Linear:
        return linear_sums
    if type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        return conv2d_sums
    if type(module) in _BATCH_NORM:
        return batch_norm_sums
    if isinstance(module, nn.RNNBase) or any(isinstance(child, (*_RANDOM, *_BATCH_NORM)) for child in module.modules()):
        raise NotImplementedError(
            f"per-sample gradients are not available for {type(module).__name__}: it is recurrent, or has dropout or "
            'batch norm beside parameters of its own; use the batch form, fisher="batch"'
        )
    return module_sums


def sums_by_loop(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    f: Entrywise = torch.square,
) -> dict[str, Tensor]:
    """Returns name -> `sum_n f(g_n)`, one sample at a time: what the fast forms are tested against.

    Args:
        model: the network, (B, ...) -> (B, K); its gradients are left alone.
        loss: a mean or sum over a batch; on one sample they are the same.
        x: inputs, (B, ...).
        y: targets, (B,).
        f: what is summed of each sample's gradient; any function of each entry.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    totals = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for x_n, y_n in zip(x.split(1), y.split(1), strict=True):
        gradients = torch.autograd.grad(loss(model(x_n), y_n), list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                totals[name] += f(gradient)
    return totals


class PerSampleSums:
    """Records one forward and backward pass through hooks and adds its `sum_n f(g_n)` to a moving average.

    Usage: `attach` once the network is built, `start` before the forward pass, `stop` after the backward pass, then
    `update_`. Between `stop` and `start` the hooks do nothing, so evaluation may come between.
    """

    def __init__(self, f: Entrywise = torch.square) -> None:
        """Records nothing yet.

        Args:
            f: what is summed of each sample's gradient.
        """
        self._f = f
        self._modules: list[tuple[nn.Module, list[tuple[str, str]]]] = []
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._active = False
        self._inputs: dict[nn.Module, Tensor] = {}
        self._outputs: dict[nn.Module, Tensor] = {}

    def attach(self, model: nn.Module, names: Sequence[str]) -> None:
        """Hooks the modules that own the parameters `names`; earlier hooks are removed.

        Raises:
            NotImplementedError: if two modules share a parameter, or a module has no per-sample form.
        """
        self.detach()
        wanted = set(names)
        owners: dict[nn.Parameter, str] = {}
        for prefix, module in model.named_modules():
            own: list[tuple[str, str]] = []
            for local, parameter in module.named_parameters(prefix="", recurse=False, remove_duplicate=False):
                name = f"{prefix}.{local}".lstrip(".")
                if parameter in owners:
                    raise NotImplementedError(
                        f"parameters {owners[parameter]} and {name} are one shared tensor, whose per-sample gradients "
                        'do not split by layer; use the batch form, fisher="batch"'
                    )
                owners[parameter] = name
                if name in wanted:
                    own.append((local, name))
            if own:
                sums_function(module)
                self._modules.append((module, own))
                self._handles.append(module.register_forward_hook(self._record))

    def detach(self) -> None:
        """Removes the hooks and forgets what was recorded."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._modules, self._active = [], [], False
        self._clear()

    def _clear(self) -> None:
        self._inputs, self._outputs = {}, {}

    def _record(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not self._active or not torch.is_grad_enabled():
            return
        kind = type(module).__name__
        if module in self._inputs:
            raise NotImplementedError(
                f"a {kind} ran twice in one forward pass, so its per-sample gradients do not split by call; use the "
                'batch form, fisher="batch"'
            )
        if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor):
            raise NotImplementedError(
                f"per-sample gradients need layers from one tensor to one tensor, which this {kind} is not; use the "
                'batch form, fisher="batch"'
            )
        self._inputs[module] = inputs[0].detach()
        if output.requires_grad:

            def keep(gradient: Tensor) -> None:
                self._outputs[module] = gradient.detach()

            output.register_hook(keep)

    def start(self) -> None:
        """Records from here on; what was recorded before is forgotten."""
        self._clear()
        self._active = True

    def stop(self, parameters: Mapping[str, Tensor]) -> None:
        """Ends the recording of a step.

        Args:
            parameters: the parameters given to `attach`, by name, with the step's gradients.

        Raises:
            NotImplementedError: if a parameter got a gradient from elsewhere than its own module's forward pass.
        """
        self._active = False
        for module, own in self._modules:
            if module not in self._outputs and any(parameters[name].grad is not None for _, name in own):
                raise NotImplementedError(
                    f"parameter {own[0][1]} got a gradient although its {type(module).__name__} did not run, so its "
                    'per-sample gradients are unknown; use the batch form, fisher="batch"'
                )

    @torch.no_grad()
    def update_(self, averages: Mapping[str, Tensor], decay: float, weight: float) -> None:
        """Sets `average <- decay * average + weight * sum_n g_n^2` for every parameter given to `attach`.

        A module that the step did not use counts as a gradient of zero.

        Args:
            averages: name -> moving average, changed in place.
            decay: factor of the old value.
            weight: factor of the new one; it carries what the loss's reduction needs. `d` is the gradient of the loss
                as it was reduced, so the mean of squares over B samples takes `B` after a mean loss, since it is
                `(1/B) sum_n (B d_n a_n)^2`, and `1/B` after a sum.
        """
        for module, own in self._modules:
            d = self._outputs.get(module)
            if d is None:
                for _, name in own:
                    averages[name].mul_(decay)
                continue
            a = self._inputs[module]
            if type(module) is nn.Linear and a.dim() == 2:
                # the same as linear_sums, with the average's own update inside the matrix product
                fd = self._f(d)
                fast = {"weight": (fd.t(), self._f(a)), "bias": (fd.t(), fd.new_ones(fd.shape[0], 1))}
                for local, name in own:
                    target = averages[name] if local == "weight" else averages[name].unsqueeze(1)
                    target.addmm_(*fast[local], beta=decay, alpha=weight)
                continue
            sums = sums_function(module)(module, a, d, self._f)
            for local, name in own:
                averages[name].mul_(decay).add_(sums[local], alpha=weight)
        self._clear()
