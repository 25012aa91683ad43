"""Each sample's gradient of a logit, or of a mean of logits, as a row over the parameters or as a layer's two factors.

Seeds (C, B, K) say what is derived: row (n, c) is `d (s_cn . phi_n) / d theta`. Rows come sample by sample, and a seed
of zeros gives no row.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from cl_ext.nn.orthogonal_factors import Factors, split_name
from cl_ext.nn.passes import labelled_batches, logits
from cl_ext.nn.per_sample import sample_gradient
from cl_ext.nn.sample_pass import LayerTape, Seeds, trained_outputs, way

import torch
from avalanche.models import MultiTaskModule
from torch import Tensor, nn
from torch.nn import functional

Variant = Literal["gtl", "all", "ave"]
_BATCH = 128
_CHUNK_FLOATS = 2**24


class Samples(NamedTuple):
    """Samples of one task label: inputs (B, ...), labels (B,), task labels (B,) or None where the data have none."""

    x: Tensor
    y: Tensor
    t: Tensor | None


def logit_seeds(variant: Variant, loss: Callable[[Tensor, Tensor], Tensor]) -> Seeds:
    """Returns what makes the seeds of one of OGD's variants.

    Args:
        variant: "gtl" is the logit of the true label; "all" each logit that the loss reads, one by one; "ave" their
            mean.
        loss: from logits (B, K) and labels (B,) to a scalar.
    """

    def seeds(phi: Tensor, y: Tensor) -> Tensor:
        if variant == "gtl":
            return functional.one_hot(y, phi.shape[1]).to(phi).unsqueeze(0)
        read = trained_outputs(loss, phi, y).to(phi)
        if variant == "ave":
            return (read / read.sum(1, keepdim=True).clamp_min(1.0)).unsqueeze(0)
        return torch.eye(phi.shape[1], dtype=phi.dtype, device=phi.device).unsqueeze(1) * read

    return seeds


def by_task(dataset: Any, device: torch.device) -> list[Samples]:
    """Returns all samples of a small data set, split by task label and cut into batches."""
    parts = list(labelled_batches(dataset, _BATCH, device))
    x, y = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    if parts[0][2] is None:
        return [Samples(*pair, None) for pair in zip(x.split(_BATCH), y.split(_BATCH), strict=True)]
    t = torch.cat([part[2] for part in parts if part[2] is not None])
    groups = [(x[t == task], y[t == task], t[t == task]) for task in t.unique()]
    return [Samples(*part) for g in groups for part in zip(*(v.split(_BATCH) for v in g), strict=True)]


def _rows_first(seeds: Tensor) -> tuple[Tensor, Tensor]:
    """Returns seeds (C, B, K) as (R, K) and the sample of each row, sample by sample, seeds of zeros left out."""
    flat = seeds.transpose(0, 1).flatten(0, 1)
    present = flat.any(1).nonzero().squeeze(1)
    return flat[present], present // len(seeds)


def count_rows(model: nn.Module, groups: list[Samples], seeds: Seeds) -> int:
    """Returns how many rows the samples give."""
    with torch.no_grad():
        return sum(len(_rows_first(seeds(logits(model, g.x, g.t), g.y))[0]) for g in groups)


def are_factored(model: nn.Module, parameters: Mapping[str, nn.Parameter], sample: Samples) -> bool:
    """Returns whether every parameter is of an `nn.Linear` with inputs (B, in) that splits off by layer."""
    if not owned_by_linear(model, parameters) or way(model, parameters, sample.x[:8], _head(sample.t)) != "layers":
        return False
    with LayerTape(model, parameters) as tape:
        logits(model, sample.x[:8], _head(sample.t))
    return all(a.dim() == 2 for a in tape.inputs.values())


def owned_by_linear(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> bool:
    """Returns whether every parameter is an `nn.Linear`'s."""
    return all(type(model.get_submodule(split_name(name)[0])) is nn.Linear for name in parameters)


def _head(t: Tensor | None) -> Tensor | None:
    return None if t is None else t[:8]


def logit_factors(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], groups: list[Samples], seeds: Seeds
) -> dict[str, Factors]:
    """Returns layer name -> factors of all rows, of a network for which `are_factored` holds.

    A layer that did not run (another task's head) has factors of zeros.

    Args:
        model: the network, in eval mode.
        parameters: by which to derive, by name.
        groups: the samples.
        seeds: gives (C, B, K) from logits and labels.
    """
    found: dict[str, list[Factors]] = {}
    for group in groups:
        with LayerTape(model, parameters) as tape:
            phi = logits(model, group.x, group.t)
        s = seeds(phi.detach(), group.y)
        modules = list(tape.edges)
        gradients = torch.autograd.grad(
            phi, [tape.edges[m] for m in modules], s, is_grads_batched=True, allow_unused=True
        )
        d_of = dict(zip(modules, gradients, strict=True))
        present = s.transpose(0, 1).flatten(0, 1).any(1)
        for module, own in tape.layers:
            assert isinstance(module, nn.Linear)
            d = d_of.get(module)
            rows = int(present.sum())
            if d is None:
                a, d = phi.new_zeros(rows, module.in_features), phi.new_zeros(rows, module.out_features)
            else:
                a = tape.inputs[module].repeat_interleave(len(s), 0)[present]
                d = d.transpose(0, 1).flatten(0, 1)[present]
            a = a if "weight" in own else a[:, :0]
            found.setdefault(split_name(next(iter(own.values())))[0], []).append(Factors(a, d))
    return {layer: Factors(*(torch.cat(parts) for parts in zip(*each, strict=True))) for layer, each in found.items()}


def logit_rows(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], groups: list[Samples], seeds: Seeds
) -> Iterator[Tensor]:
    """Yields all rows (c, P) in chunks: by `torch.func.vmap`, or one by one in a recurrent or multi-task network.

    Args:
        model: the network, in eval mode.
        parameters: by which to derive, by name; the order of a row's entries.
        groups: the samples.
        seeds: gives (C, B, K) from logits and labels.
    """
    own = {name: p.detach() for name, p in parameters.items()}
    gradient = sample_gradient(model, own)

    def row(x_n: Tensor, seed_n: Tensor) -> Tensor:
        return torch.cat([part.flatten() for part in gradient(x_n, seed_n).values()])

    one_by_one = any(isinstance(m, nn.RNNBase | MultiTaskModule) for m in model.modules())
    size = max(1, _CHUNK_FLOATS // max(1, sum(p.numel() for p in own.values())))
    for group in groups:
        with torch.no_grad():
            rows, samples = _rows_first(seeds(logits(model, group.x, group.t), group.y))
        for seed, n in zip(rows.split(size), samples.split(size), strict=True):
            if one_by_one:
                yield _one_by_one(model, list(parameters.values()), group, seed, n)
            else:
                yield torch.func.vmap(row)(group.x[n], seed)


@torch.enable_grad()
def _one_by_one(
    model: nn.Module, parameters: list[nn.Parameter], group: Samples, seeds: Tensor, samples: Tensor
) -> Tensor:
    rows = []
    for seed, n in zip(seeds, samples.tolist(), strict=True):
        phi = logits(model, group.x[n : n + 1], None if group.t is None else group.t[n : n + 1])
        gradients = torch.autograd.grad(phi[0], parameters, seed, allow_unused=True)
        parts = zip(gradients, parameters, strict=True)
        rows.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in parts]))
    return torch.stack(rows)
