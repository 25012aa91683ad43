"""The diagonal of a classifier's Fisher matrix over a data set, in the five forms that the field's codes use.

With `p = softmax(phi)` over the outputs that the loss reads and `g_n(c) = d log p_c(x_n) / d theta`, over N samples:

    exact       F = (1/N) sum_n sum_c p_c g_n(c)^2       the Fisher matrix: expectation over the model's own labels
    sampled     F = (1/N) sum_n g_n(c_n)^2,  c_n ~ p     one draw of that expectation a sample
    empirical   F = (1/N) sum_n g_n(y_n)^2               the true labels; vanishes where the network fits them
    predicted   F = (1/N) sum_n g_n(argmax p)^2          vanishes where the network is sure
    batch       F = mean over batches b of ((1/B) sum_{n in b} g_n(y_n))^2      not a Fisher: about 1/B of empirical

The likelihood is the softmax's whatever the loss is; of the loss only the outputs that it reads count. Exact, sampled,
empirical and predicted do not depend on the batch size.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from cl_ext.nn.passes import evaluation_mode, labelled_batches, logits, preserved_random_state
from cl_ext.nn.sample_pass import Seeds, dataset_sums, trained_outputs

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Subset

FisherKind = Literal["exact", "sampled", "empirical", "predicted", "batch"]
Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits (B, K) and labels (B,) to a scalar."""

_SEED_ROWS = 4096
"""Rows (seeds times samples) that the exact form takes backwards at a time where the batch size is free."""


def trained_softmax(loss: Loss, phi: Tensor, y: Tensor) -> Tensor:
    """Returns `p`, (B, K): the softmax over the outputs that the loss reads, 0 at the others.

    A sample's own label always counts as read: a loss over one class only, which has no gradient at all, gives `p = 1`.

    Args:
        loss: what is trained on; it is called on (B, K) zeros and `y`.
        phi: logits, (B, K).
        y: labels, (B,).
    """
    read = trained_outputs(loss, phi, y).scatter(1, y.unsqueeze(1), True)
    return phi.masked_fill(~read, float("-inf")).softmax(1)


def exact_seeds(p: Tensor) -> Tensor:
    """Returns `sqrt(p_c) (p - e_c)` for each label c with `p_c > 0` in some sample, (C, B, K).

    These are the gradients of `-log p_c` by the logits, each weighted so that its square counts `p_c` times.

    Args:
        p: probabilities, (B, K).
    """
    labels = p.ne(0).any(0).nonzero().flatten()
    one_hot = torch.eye(p.shape[1], dtype=p.dtype, device=p.device)[labels].unsqueeze(1)
    return p[:, labels].t().sqrt().unsqueeze(2) * (p.unsqueeze(0) - one_hot)


def label_seeds(p: Tensor, y: Tensor) -> Tensor:
    """Returns `p - e_y`, (1, B, K): the gradient of each sample's `-log p_y` by its logits.

    Args:
        p: probabilities, (B, K).
        y: labels, (B,).
    """
    return (p - functional.one_hot(y, p.shape[1]).to(p)).unsqueeze(0)


def sampled_labels(p: Tensor, generator: torch.Generator) -> Tensor:
    """Returns one label a sample drawn from `p` by inverting its distribution function, (B,).

    One number a sample is drawn, so that the draws do not depend on how the data are cut into batches.

    Args:
        p: probabilities, (B, K).
        generator: on the CPU.
    """
    u = torch.rand(len(p), 1, generator=generator, dtype=torch.float64).to(p.device)
    cumulated = p.double().cumsum(1)
    last = p.ne(0).long().cumsum(1).argmax(1, keepdim=True)  # where rounding takes u past the end
    drawn = torch.searchsorted(cumulated, u * cumulated[:, -1:], right=True)
    return torch.minimum(drawn, last).squeeze(1)


def random_subset(dataset: Any, n_samples: int | None, generator: torch.Generator) -> Any:
    """Returns `n_samples` of `dataset`, drawn without replacement and in their order; all where it has no more.

    The first ones would do for shuffled data only: many streams hold their samples sorted by class.
    """
    if n_samples is None or n_samples >= len(dataset):
        return dataset
    chosen = torch.randperm(len(dataset), generator=generator)[:n_samples].sort().values.tolist()
    return dataset.subset(chosen) if hasattr(dataset, "subset") else Subset(dataset, chosen)


def _seeds(kind: FisherKind, loss: Loss, generator: torch.Generator) -> Seeds:
    def seeds(phi: Tensor, y: Tensor) -> Tensor:
        p = trained_softmax(loss, phi, y)
        if kind == "exact":
            return exact_seeds(p)
        if kind == "sampled":
            return label_seeds(p, sampled_labels(p, generator))
        return label_seeds(p, p.argmax(1) if kind == "predicted" else y)

    return seeds


def _exact_batch_size(model: nn.Module, dataset: Any, batch_size: int, device: torch.device, seeds: Seeds) -> int:
    """Returns a batch size whose seeds are at most `_SEED_ROWS` rows in one pass, judged by the first batch."""
    with preserved_random_state(), evaluation_mode(model), torch.no_grad():
        x, y, t = next(labelled_batches(dataset, batch_size, device))
        count = len(seeds(logits(model, x, t), y))
    return max(1, min(batch_size, _SEED_ROWS // count))


def _batch_form(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], dataset: Any, seeds: Seeds, batch_size: int,
    device: torch.device,
) -> dict[str, Tensor]:  # fmt: skip
    """Returns the mean over batches of the squared mean gradient; a short last batch counts as much as the others."""
    totals = [torch.zeros_like(p) for p in parameters.values()]
    number = 0
    with preserved_random_state(), evaluation_mode(model), torch.enable_grad():
        for x, y, t in labelled_batches(dataset, batch_size, device):
            phi = logits(model, x, t)
            seed = seeds(phi.detach(), y)[0] / len(x)
            gradients = torch.autograd.grad(phi, list(parameters.values()), seed, allow_unused=True)
            for total, gradient in zip(totals, gradients, strict=True):
                if gradient is not None:
                    total.addcmul_(gradient, gradient)
            number += 1
    torch._foreach_div_(totals, float(number))
    return dict(zip(parameters, totals, strict=True))


def diagonal_fisher(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], dataset: Any, kind: FisherKind = "exact",
    loss: Loss = functional.cross_entropy, batch_size: int | None = None, device: torch.device | str = "cpu",
    n_samples: int | None = None, generator: torch.Generator | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Returns name -> F, of its parameter's shape, in eval mode; modes and global random states stay as they are.

    Args:
        model: a network from inputs (and task labels, if it is an Avalanche multi-task module) to logits (B, K).
        parameters: by which to derive, by name.
        dataset: samples `(x, y)` or `(x, y, t)`.
        kind: see the module's docstring.
        loss: what the network is trained on; it says which outputs the softmax runs over.
        batch_size: samples of one pass, >= 1. For "batch" it is part of the definition, and needed; for the others it
            decides speed and memory only, and None takes at most 128.
        device: where `model` is.
        n_samples: use so many samples, drawn without replacement; None for all.
        generator: on the CPU, for the labels of "sampled" and the samples of `n_samples`; None for one of seed 0.

    Raises:
        TypeError: if the outputs are not (B, K).
        ValueError: if the data set is empty, or "batch" has no batch size.
    """
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    place = torch.device(device)
    data = random_subset(dataset, n_samples, generator)
    seeds = _seeds(kind, loss, generator)
    if kind == "batch":
        if batch_size is None:
            raise ValueError('the squared batch gradient, kind="batch", needs a batch size: its value depends on it')
        return _batch_form(model, parameters, data, seeds, batch_size, place)
    size = 128 if batch_size is None else batch_size
    if kind == "exact" and batch_size is None:
        size = _exact_batch_size(model, data, size, place, seeds)
    sums, samples = dataset_sums(model, parameters, data, seeds, torch.square, size, place)
    torch._foreach_div_(list(sums.values()), float(samples))
    return sums
