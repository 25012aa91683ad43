"""Batch norm that each task has for itself: what of it is kept, and how that of a task that is over is read."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

_PARTS = ("weight", "bias", "running_mean", "running_var")


def parts_of(norm: nn.Module) -> dict[str, Tensor]:
    """What evaluation reads of one batch norm, by its names there: not a copy."""
    found = {part: getattr(norm, part) for part in _PARTS}
    return {part: tensor for part, tensor in found.items() if tensor is not None}


def norms_of(features: nn.Module) -> dict[str, Tensor]:
    """What evaluation reads of all batch norms: weights, biases, running means and variances by name; not copies."""
    return {
        f"{path}.{part}" if path else part: tensor
        for path, module in features.named_modules()
        if isinstance(module, _BatchNorm)
        for part, tensor in parts_of(module).items()
    }


@contextmanager
def resting_norms(features: nn.Module) -> Iterator[None]:
    """Batch norm uses its running statistics and leaves them as they are; its flags are put back on leaving."""
    norms = [module for module in features.modules() if isinstance(module, _BatchNorm) and module.training]
    for norm in norms:
        norm.training = False
    try:
        yield
    finally:
        for norm in norms:
            norm.training = True


def rested(norm: _BatchNorm, h: Tensor, parts: dict[str, Tensor]) -> Tensor:
    """What batch norm with these parts makes of `h` (B, n, ...), by its statistics, which stay, in train mode, too."""
    mean, variance, weight, bias = (parts.get(part) for part in ("running_mean", "running_var", "weight", "bias"))
    return functional.batch_norm(h, mean, variance, weight, bias, training=mean is None, eps=norm.eps)
