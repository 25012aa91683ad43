"""Sliced Cramer Preservation (Kolouri et al., ICLR 2020): importance that preserves the distribution of outputs.

Symbols as in the paper: `phi` the network's raw logits, `m` their mean over the data, `xi` a direction on the unit
sphere (a slice), `Gamma` the importance. `J` is the Jacobian of `m`. `docs/methods/scp.md` has the derivation.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from cl_ext.nn.passes import batches, evaluation_mode, logits, preserved_random_state
from cl_ext.plugins.checks import check_choice, check_count, check_number
from cl_ext.plugins.quadratic import Heads, QuadraticPenaltyPlugin

import torch
from torch import Tensor, nn

PASS_BATCH = 128  # the importance pass makes K backward passes a batch: small batches would make it dear
Mode = Literal["exact", "sliced", "minibatch"]
Init = Literal["zero", "first"]
_ROW_FLOATS = 2**27
"""Jacobian entries held at a time: half a GiB in float32; a larger Jacobian takes several passes over the data."""


def unit_directions(slices: int, outputs: int, seed: int) -> Tensor:
    """Returns `xi`, (L, K) float64 rows drawn uniformly from the unit sphere by a generator of their own."""
    xi = torch.randn(slices, outputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return xi / xi.norm(dim=1, keepdim=True)


def slice_factor(xi: Tensor) -> Tensor:
    """Returns D with `D^T D = xi^T xi / L`, so that `|D J|^2` is the mean over slices of `(xi J)^2`.

    With `xi` (L, K) and L > K, D is the K x K Cholesky factor: L slices at the price of K. With fewer, D is
    `xi / sqrt L`.
    """
    slices, outputs = xi.shape
    if slices <= outputs:
        return xi / slices**0.5
    return torch.linalg.cholesky(xi.T @ xi / slices, upper=True)


def mean_jacobian_rows(
    output_sum: Tensor, parameters: Sequence[nn.Parameter], rows: range, samples: int, batched: bool = True
) -> list[Tensor]:
    """Returns the rows `k` of `(1/N) d(sum_n phi_k)/d theta`, each (R, *shape); a parameter not used gives zeros.

    Args:
        output_sum: the sum of logits over a batch, (K,), with its graph.
        parameters: what to derive by.
        rows: which outputs, R of them.
        samples: N.
        batched: one batched backward pass for all rows, which recurrent layers do not have, or one for each.
    """
    seeds = (
        torch.eye(len(output_sum), dtype=output_sum.dtype, device=output_sum.device)[rows.start : rows.stop] / samples
    )
    options: dict[str, Any] = {"retain_graph": True, "allow_unused": True}
    if batched:
        gradients = torch.autograd.grad(output_sum, parameters, seeds, is_grads_batched=True, **options)
    else:
        each = [torch.autograd.grad(output_sum, parameters, seed, **options) for seed in seeds]
        gradients = tuple(None if g[0] is None else torch.stack(g) for g in zip(*each, strict=True))  # type: ignore[misc]
    return [p.new_zeros(len(rows), *p.shape) if g is None else g for g, p in zip(gradients, parameters, strict=True)]


def active_rows(jacobian: Sequence[Tensor]) -> Tensor:
    """Returns which of a Jacobian's R rows are not all zero, (R,) bool.

    An output without any gradient (a unit masked to -1000, the padding of a narrow head) is not one of the K outputs.
    """
    return torch.stack([rows.flatten(1).ne(0).any(1) for rows in jacobian]).any(0)


@torch.no_grad()
def importance_from_jacobian(jacobian: Sequence[Tensor], factor: Tensor) -> list[Tensor]:
    """Returns `Gamma = sum_r (D J)_r^2` by parameter.

    Args:
        jacobian: by parameter, the rows of J, (K, *shape).
        factor: D, (R, K): `slice_factor` of the slices; `I / sqrt K` gives the expectation, `|J|^2 / K`.
    """
    return [torch.tensordot(factor.to(rows), rows, dims=1).square_().sum(0) for rows in jacobian]


Batches = Callable[[], Iterable[Tensor]]
"""Gives, each time it is called, the logits (B, K) of one pass over the data, batch by batch, with their graphs."""


def _rows_at_a_time(outputs: int, parameters: Sequence[Tensor]) -> list[range]:
    size = max(1, _ROW_FLOATS // max(1, sum(p.numel() for p in parameters)))
    return [range(start, min(start + size, outputs)) for start in range(0, outputs, size)]


def whole_jacobian(
    outputs: Batches, parameters: Sequence[nn.Parameter], rows: range, samples: int, batched: bool = True
) -> list[Tensor]:
    """Returns rows of J, the Jacobian of the mean logits over all N samples: the sum of the batches' shares."""
    total: list[Tensor] = []
    for phi in outputs():
        share = mean_jacobian_rows(phi.sum(0), parameters, rows, samples, batched)
        if total:
            torch._foreach_add_(total, share)
        else:
            total = share
    return total


def exact_importance(
    outputs: Batches, count: int, parameters: Sequence[nn.Parameter], samples: int, batched: bool = True
) -> tuple[list[Tensor], int]:
    """Returns `Gamma = (1/K) sum_k J_k^2`, the expectation over all slices, and K, the number of active outputs.

    Args:
        outputs: passes over the data.
        count: columns of the logits.
        parameters: what to derive by.
        samples: N.
        batched: see `mean_jacobian_rows`.
    """
    total = [torch.zeros_like(p) for p in parameters]
    active = 0
    for rows in _rows_at_a_time(count, parameters):
        jacobian = whole_jacobian(outputs, parameters, rows, samples, batched)
        active += int(active_rows(jacobian).sum())
        torch._foreach_add_(total, [j.square_().sum(0) for j in jacobian])
    torch._foreach_div_(total, float(max(1, active)))
    return total, active


def sliced_importance(
    outputs: Batches,
    count: int,
    parameters: Sequence[nn.Parameter],
    samples: int,
    slices: int,
    seed: int,
    batched: bool = True,
) -> tuple[list[Tensor], int]:
    """Returns `Gamma = (1/L) sum_l (xi_l J)^2` and K; needs K x P floats whatever their size."""
    jacobian = whole_jacobian(outputs, parameters, range(count), samples, batched)
    active = active_rows(jacobian)
    k = int(active.sum())
    if k == 0:
        return [torch.zeros_like(p) for p in parameters], 0
    factor = slice_factor(unit_directions(slices, k, seed))
    return importance_from_jacobian([j[active] for j in jacobian], factor), k


def minibatch_importance(
    outputs: Batches, count: int, parameters: Sequence[nn.Parameter], batched: bool = True
) -> tuple[list[Tensor], int]:
    """Returns the mean over batches of `(1/K) sum_k J_bk^2`, J_b the Jacobian of a batch's mean logits, and K."""
    total = [torch.zeros_like(p) for p in parameters]
    active = torch.zeros(count, dtype=torch.bool)
    number = 0
    for phi in outputs():
        number += 1
        for rows in _rows_at_a_time(count, parameters):
            jacobian = mean_jacobian_rows(phi.sum(0), parameters, rows, len(phi), batched)
            active[rows.start : rows.stop] |= active_rows(jacobian).cpu()
            torch._foreach_add_(total, [j.square_().sum(0) for j in jacobian])
    k = int(active.sum())
    torch._foreach_div_(total, float(max(1, k) * number))
    return total, k


class SCPPlugin(QuadraticPenaltyPlugin):
    """Sliced Cramer Preservation.

    After an experience of N samples, in eval mode, with `phi` the raw logits and labels never used,

        Gamma_new = E_xi [ (d/d theta  xi . m)^2 ],   m = (1/N) sum_n phi(x_n),   xi uniform on the sphere in R^K
        Gamma    <- alpha Gamma + (1 - alpha) Gamma_new,   theta* := theta

    and later experiences train on `L(theta) + lambda sum Gamma (theta - theta*)^2` (no factor 1/2). K counts the
    outputs that have a gradient at all: units masked to -1000 are none of them.

    The default strength, 100, is what the author's second version is run with, which is in these units; his first
    version's 1e6 (L = 100 slices, 600 batches) is about 167 of them. The paper's body was not read: equations and
    values are those of its author's code.
    """

    name = "SCP"

    def __init__(
        self,
        scp_lambda: float = 100.0,
        alpha: float = 0.25,
        mode: Mode = "exact",
        slices: int = 100,
        init: Init = "zero",
        heads: Heads = "include",
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        """Sets the hyper-parameters.

        Args:
            scp_lambda: strength of the penalty, >= 0; no factor 1/2.
            alpha: weight of the old Gamma in the moving average over experiences, in [0, 1].
            mode: "exact" is the expectation over all slices, `(1/K) sum_k J_k^2`; "sliced" is the mean over `slices`
                drawn ones; "minibatch" squares each batch's Jacobian before averaging, exact over slices: larger by
                the variance between batches, and dependent on the batch size.
            slices: L, >= 1; read in mode "sliced" only.
            init: "zero" starts the moving average from 0, so the first Gamma is (1 - alpha) Gamma_new; "first" from the
                first Gamma_new.
            heads: "include" or "exclude" the network's heads from the penalty.
            batch_size: samples of one forward pass when Gamma is computed, >= 1; None for the strategy's training
                batch size, or 128 if that is smaller and the mode is not "minibatch". In modes "exact" and "sliced"
                it decides speed and memory only.
            seed: of the slices, >= 0; each experience draws its own.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        owner = type(self).__name__
        super().__init__(check_number(owner, "scp_lambda", scp_lambda, 0.0), heads)
        self.alpha = check_number(owner, "alpha", alpha, 0.0, 1.0)
        self.mode: Mode = check_choice(owner, "mode", mode, Mode)
        self.slices = check_count(owner, "slices", slices)
        self.init: Init = check_choice(owner, "init", init, Init)
        self.batch_size = None if batch_size is None else check_count(owner, "batch_size", batch_size)
        self.seed = check_count(owner, "seed", seed, low=0)

    @property
    def scp_lambda(self) -> float:
        """The penalty's strength."""
        return self.strength

    def new_importance(
        self, model: nn.Module, dataset: Any, batch_size: int, device: torch.device | str = "cpu"
    ) -> tuple[dict[str, Tensor], int]:
        """Returns Gamma_new by parameter name, and K; `model`, its modes and the random state stay as they are.

        Args:
            model: a network from inputs (and task labels, if it is an Avalanche multi-task module) to logits (B, K).
            dataset: samples `(x, y)` or `(x, y, t)`; y is not used.
            batch_size: samples of one forward pass.
            device: where `model` is.

        Raises:
            TypeError: if the outputs are not (B, K).
            ValueError: if the dataset is empty.
        """
        penalised = self._penalised(model)
        parameters = list(penalised.values())
        batched = not any(isinstance(module, nn.RNNBase) for module in model.modules())

        def outputs() -> Iterable[Tensor]:
            for x, task_labels in batches(dataset, batch_size, torch.device(device)):
                yield logits(model, x, task_labels)

        with preserved_random_state(), evaluation_mode(model):
            with torch.no_grad():
                count = next(iter(outputs())).shape[1]
            with torch.enable_grad():
                if self.mode == "exact":
                    gamma, k = exact_importance(outputs, count, parameters, len(dataset), batched)
                elif self.mode == "sliced":
                    # a prime far from usual seeds keeps the experiences' draws of two seeds apart
                    seed = self.seed * 1_000_003 + self.experiences
                    gamma, k = sliced_importance(outputs, count, parameters, len(dataset), self.slices, seed, batched)
                else:
                    gamma, k = minibatch_importance(outputs, count, parameters, batched)
        return dict(zip(penalised, gamma, strict=True)), k

    def consolidate(self, strategy: Any) -> None:
        """`Gamma <- alpha Gamma + (1 - alpha) Gamma_new` on the experience's own data, replayed samples left out."""
        size = self.batch_size or strategy.train_mb_size
        if self.batch_size is None and self.mode != "minibatch":
            size = max(size, PASS_BATCH)
        new, k = self.new_importance(strategy.model, strategy.experience.dataset, size, strategy.device)
        gamma = self._penalty.importance
        if self.experiences == 0 and self.init == "first":
            gamma.copy_(list(new.values()))
        else:
            with torch.no_grad():
                torch._foreach_lerp_(gamma.tensors, list(new.values()), 1.0 - self.alpha)
        self.publish(strategy, "ActiveOutputs", float(k))
