"""A generative model beside the network: what it has to offer, and its training on a union of real and own samples."""

import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Protocol, runtime_checkable

from cl_ext.nn.divergence import DivergedError

import torch
from torch import Tensor

_CHECKED = 100  # steps between two looks at the loss, each of which waits for the device


@runtime_checkable
class Generator(Protocol):
    """A module that makes samples and can be trained on samples; a `torch.nn.Module` beside."""

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Returns n samples, (n, ...); their random numbers come from `generator`, which lives on the CPU."""

    def loss(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Returns the loss of a batch (B, ...), a scalar that is a mean over its samples."""


def real_counts(share: Fraction, batch_size: int, steps: int) -> list[int]:
    """Returns how many samples of each of `steps` batches are real: `floor((k + 1) r B) - floor(k r B)`.

    After every step the real ones are within one sample of the share `r` of all samples so far.

    Args:
        share: r in (0, 1].
        batch_size: B >= 1.
        steps: k goes from 0 to steps - 1.
    """
    sums = [math.floor(k * batch_size * share) for k in range(steps + 1)]
    return [after - before for before, after in pairwise(sums)]


def union_steps(real: int, share: Fraction, batch_size: int, epochs: int) -> int:
    """Returns the steps of `epochs` passes over a union whose `real` real samples are the share r of it."""
    return max(1, math.ceil(epochs * real / (share * batch_size)))


def train_on_union(
    model: torch.nn.Module, x: Tensor, replay: Callable[[int], Tensor] | None, share: Fraction, batch_size: int,
    steps: int, learning_rate: float, generator: torch.Generator,
) -> float:  # fmt: skip
    """Minimises `model.loss` by Adam on batches that are mixed of real and replayed samples; nothing of Adam is kept.

    Real samples come in random order, every one once before any comes again.

    Args:
        model: has `loss`, see `Generator`.
        x: the real samples, (N, ...), where the model is.
        replay: from n to n replayed samples, (n, ...); None where all samples are real.
        share: r, of the real ones, in (0, 1].
        batch_size: B, real and replayed ones together.
        steps: of Adam.
        learning_rate: Adam's.
        generator: draws order and noise; on the CPU.

    Returns:
        The mean loss of the last tenth of the steps.

    Raises:
        DivergedError: if the loss is not finite.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    counts = real_counts(Fraction(1) if replay is None else share, batch_size, steps)
    passes = math.ceil(sum(counts) / len(x))
    order = torch.cat([torch.randperm(len(x), generator=generator) for _ in range(passes)] or [torch.empty(0).long()])
    last, losses = max(1, steps // 10), []
    model.train()
    with torch.enable_grad():
        for step, chosen in enumerate(order[: sum(counts)].to(x.device).split(counts)):
            batch = x.index_select(0, chosen)
            if replay is not None and len(chosen) < batch_size:
                batch = torch.cat([batch, replay(batch_size - len(chosen))])
            loss = model.loss(batch, generator)  # type: ignore[operator]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if step % _CHECKED == _CHECKED - 1 or step == steps - 1:
                _check_finite(loss, step, steps, learning_rate)
            if step >= steps - last:
                losses.append(loss.detach())
    model.eval()
    mean = torch.stack(losses).mean()
    _check_finite(mean, steps - 1, steps, learning_rate)
    return mean.item()


def _check_finite(loss: Tensor, step: int, steps: int, learning_rate: float) -> None:
    if not math.isfinite(loss.item()):
        raise DivergedError(
            f"the generator's loss is {loss.item()} at step {step + 1} of {steps}; its learning rate is "
            f"{learning_rate:g}, and a smaller one may help"
        )
