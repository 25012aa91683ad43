"""Memory Aware Synapses (Aljundi et al., ECCV 2018): importance as the sensitivity of the outputs, without labels.

Symbols as in the paper: `F` the network's raw outputs (here `phi`, (B, K)), `Omega` the importance, `N` the number of
samples, `lambda` the strength. `docs/methods/mas.md` has the equations and the deviations.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from cl_ext.nn.parameters import ParameterBuffers
from cl_ext.nn.passes import evaluation_mode, labelled_batches, logits, preserved_random_state
from cl_ext.nn.sample_pass import dataset_sums, trained_outputs
from cl_ext.plugins.checks import check_choice, check_count, check_number
from cl_ext.plugins.quadratic import Heads, QuadraticPenaltyPlugin

import torch
from avalanche.benchmarks.utils import AvalancheDataset
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

Accumulate = Literal["sum", "mean"]
Outputs = Literal["trained", "all"]
Forget = Literal["nothing", "latest", "all"]


def squared_norm_seed(phi: Tensor, classes: Sequence[int] | None = None) -> Tensor:
    """Returns `d |F|_2^2 / d phi = 2 phi`, (1, B, K), with zeros for the outputs that are not in F.

    Args:
        phi: raw logits, (B, K).
        classes: the outputs of F; None for all.
    """
    seed = (2.0 * phi).unsqueeze(0)
    if classes is None:
        return seed
    left_out = torch.ones(phi.shape[1], dtype=torch.bool, device=phi.device)
    left_out[[k for k in classes if k < phi.shape[1]]] = False
    return seed.masked_fill(left_out, 0.0)


def trained_classes(loss: Callable[[Tensor, Tensor], Tensor], labels: Tensor, outputs: int) -> list[int]:
    """Returns which of the K outputs a loss reads for any of the labels that occur.

    Args:
        loss: from logits (B, K) and class labels (B,) to a scalar.
        labels: the labels that occur, each once.
        outputs: K.
    """
    read = trained_outputs(loss, torch.zeros(len(labels), outputs, device=labels.device), labels)
    return [int(k) for k in read.any(0).nonzero().flatten()]


def unlabelled_batches(
    data: Any, batch_size: int, device: torch.device | str = "cpu"
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yields inputs (B, ...), B >= 1, and task labels (B,) or None; a label is never looked at.

    Args:
        data: inputs (N, ...), or a data set, or an iterable of batches (a `DataLoader`). A batch or sample is `x`,
            `(x,)`, `(x, y)` or `(x, y, t)`.
        batch_size: of inputs and data sets; an iterable's batches are taken as they come.
        device: where the batches go.

    Raises:
        TypeError: if a batch does not begin with a tensor.
    """
    if isinstance(data, Tensor):
        data = data.split(batch_size)
    elif isinstance(data, Dataset | AvalancheDataset):
        data = data.eval() if hasattr(data, "eval") else data
        data = DataLoader(data, batch_size, collate_fn=getattr(data, "collate_fn", None)) if len(data) else []
    for batch in data:
        parts = batch if isinstance(batch, tuple | list) else (batch,)
        if not parts or not isinstance(parts[0], Tensor):
            raise TypeError(f"a batch must be x, (x,), (x, y) or (x, y, t) with tensors, got {type(batch).__name__}")
        if len(parts[0]):
            yield parts[0].to(device), parts[2].to(device) if len(parts) > 2 else None


class MASPlugin(QuadraticPenaltyPlugin):
    """Memory Aware Synapses.

    After an experience of N samples, in eval mode, with F the raw logits of the trained outputs and labels unused,

        Omega_t = (1/N) sum_n | d |F(x_n)|_2^2 / d theta |          the absolute value of each sample's own gradient
        Omega  <- Omega + Omega_t,   theta* := theta

    and later experiences train on `L(theta) + lambda sum Omega (theta - theta*)^2` (no factor 1/2).

    `update_importance` goes on with the latest experience's mean on unlabelled data, after deployment.

    Attributes:
        samples: how many samples the latest experience's mean is taken over, updates included.
        classes: the outputs of F in the latest experience; None for all.
    """

    name = "MAS"

    def __init__(
        self,
        mas_lambda: float = 1.0,
        accumulate: Accumulate = "sum",
        outputs: Outputs = "trained",
        heads: Heads = "include",
        batch_size: int = 128,
    ) -> None:
        """Sets the hyper-parameters.

        Args:
            mas_lambda: strength of the penalty, >= 0; no factor 1/2.
            accumulate: how the experiences' importances make Omega: their "sum" or their "mean".
            outputs: which logits F has. "trained": those that the loss reads for the classes of the experience, so
                that heads of other tasks stay out; it needs a loss of class labels. "all": every logit.
            heads: "include" or "exclude" the network's heads from the penalty.
            batch_size: samples of one pass when Omega is computed, >= 1: speed and memory only.

        Raises:
            TypeError: if a number is not one.
            ValueError: if an argument is out of its range.
        """
        owner = type(self).__name__
        super().__init__(check_number(owner, "mas_lambda", mas_lambda, 0.0), heads)
        self.accumulate: Accumulate = check_choice(owner, "accumulate", accumulate, Accumulate)
        self.outputs: Outputs = check_choice(owner, "outputs", outputs, Outputs)
        self.batch_size = check_count(owner, "batch_size", batch_size)
        self.samples = 0
        self.classes: list[int] | None = None
        self._estimates = 0
        self._past = ParameterBuffers()

    @property
    def mas_lambda(self) -> float:
        """The penalty's strength."""
        return self.strength

    def align(self, model: nn.Module) -> None:
        """Makes every buffer fit the model's present parameters."""
        super().align(model)
        self._past.align(self._parameters)

    def extra_bytes(self) -> int:
        """Returns the memory held beside the network, in bytes: 4 times the penalised parameters."""
        return super().extra_bytes() + self._past.bytes()

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole state between two experiences."""
        counts = {"samples": self.samples, "classes": self.classes, "estimates": self._estimates}
        return {**super().state_dict(), **counts, "past": self._past.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        super().load_state_dict(state)
        self.samples, self.classes = int(state["samples"]), state["classes"]
        self._estimates = int(state["estimates"])
        self._past.load_state_dict(state["past"])

    def sums(
        self, model: nn.Module, dataset: Any, classes: Sequence[int] | None = None, device: torch.device | str = "cpu"
    ) -> tuple[dict[str, Tensor], int]:
        """Returns `sum_n | d |F(x_n)|^2 / d theta |` by parameter name, and N; nothing else changes.

        Args:
            model: a network from inputs (and task labels, if it is an Avalanche multi-task module) to logits (B, K).
            dataset: samples `(x, y)` or `(x, y, t)`; y is not used.
            classes: the outputs of F; None for all.
            device: where `model` is.

        Raises:
            TypeError: if the outputs are not (B, K).
            ValueError: if the dataset is empty.
        """
        return dataset_sums(
            model, self._penalised(model), dataset, lambda phi, _: squared_norm_seed(phi, classes), torch.abs,
            self.batch_size, device,
        )  # fmt: skip

    def new_importance(
        self, model: nn.Module, dataset: Any, classes: Sequence[int] | None = None, device: torch.device | str = "cpu"
    ) -> dict[str, Tensor]:
        """Returns Omega_t, the mean over the data, by parameter name; arguments and errors as in `sums`."""
        totals, samples = self.sums(model, dataset, classes, device)
        return {name: total / samples for name, total in totals.items()}

    def consolidate(self, strategy: Any) -> None:
        """`Omega <- Omega + Omega_t` on the experience's own data, replayed samples left out."""
        dataset, device = strategy.experience.dataset, strategy.device
        with preserved_random_state(), evaluation_mode(strategy.model), torch.no_grad():
            x, _, t = next(labelled_batches(dataset, 1, device))
            outputs = logits(strategy.model, x, t).shape[1]
        if self.outputs == "trained":
            labels = torch.tensor(sorted(int(y) for y in dataset.targets.uniques), device=device)
            self.classes = trained_classes(strategy._criterion, labels, outputs)
        totals, samples = self.sums(strategy.model, dataset, self.classes, device)
        self._estimates += 1
        self._close_estimate()
        self.samples = 0
        self._enter(list(totals.values()), samples)
        self.publish(strategy, "Outputs", float(outputs if self.classes is None else len(self.classes)))

    @property
    def _weight(self) -> float:
        """What the latest experience's mean counts in Omega."""
        return 1.0 if self.accumulate == "sum" else 1.0 / self._estimates

    @torch.no_grad()
    def _close_estimate(self) -> None:
        """Keeps Omega as it is, as the share of the experiences before the one that begins."""
        self._past.copy_(self._penalty.importance.tensors)
        if self.accumulate == "mean":
            torch._foreach_mul_(self._past.tensors, (self._estimates - 1) / self._estimates)

    @torch.no_grad()
    def _enter(self, totals: list[Tensor], samples: int) -> None:
        """`Omega_t <- (n Omega_t + totals) / (n + samples)`, `n += samples`, with Omega = past + weight Omega_t."""
        omega = self._penalty.importance.tensors
        self.samples += samples
        torch._foreach_lerp_(omega, self._past.tensors, samples / self.samples)
        torch._foreach_add_(omega, totals, alpha=self._weight / self.samples)

    def update_importance(
        self, model: nn.Module, data: Any, classes: Sequence[int] | None = None, forget: Forget = "nothing"
    ) -> int:
        """Goes on with the importance on unlabelled data; weights, theta* and random states stay as they are.

        The latest experience's mean Omega_t, over n samples so far, takes the samples X in as the paper's running mean,
        `Omega_t <- (n Omega_t + sum_X |g|) / (n + |X|)`, `n <- n + |X|`, so neither their order nor their batches
        matter. What earlier experiences left in Omega is not diluted.

        Args:
            model: the trained network.
            data: inputs (N, ...), a data set, or an iterable of batches; a label in them is never looked at
                (`unlabelled_batches`).
            classes: the outputs of F; None for those of the latest experience, since data without labels do not say.
            forget: what is dropped first: "nothing"; "latest", the latest experience's mean, so that the data take its
                place; "all" importance, so that Omega is the mean over the data alone (adaptation to a user, or a
                recomputation over everything seen).

        Returns:
            |X|, the number of samples taken in.

        Raises:
            RuntimeError: if no experience has been trained on.
            TypeError: if a batch does not begin with a tensor, or the outputs are not (B, K).
            ValueError: if there is no sample, or `forget` is none of the three; nothing has changed then.
        """
        check_choice(type(self).__name__, "forget", forget, Forget)
        if self.experiences == 0:
            raise RuntimeError(f"{type(self).__name__}: update_importance needs an experience to have been trained on")
        self.align(model)
        totals, samples = self._sums_of_batches(model, data, self.classes if classes is None else classes)
        if forget != "nothing":
            self.samples = 0
        if forget == "all":
            self._past.zero_()
            self._estimates = 1
        self._enter(totals, samples)
        return samples

    @torch.no_grad()
    def _sums_of_batches(self, model: nn.Module, data: Any, classes: Sequence[int] | None) -> tuple[list[Tensor], int]:
        device = self._tensors[0].device
        totals, samples = [torch.zeros_like(p) for p in self._tensors], 0
        with preserved_random_state():
            stream: Iterable[tuple[Tensor, Tensor | None]] = unlabelled_batches(data, self.batch_size, device)
            for x, t in stream:
                columns = [x, torch.zeros(len(x), dtype=torch.long)] + ([] if t is None else [t])
                sums, number = self.sums(model, TensorDataset(*columns), classes, device)
                torch._foreach_add_(totals, list(sums.values()))
                samples += number
        if samples == 0:
            raise ValueError(f"{type(self).__name__}: update_importance needs at least one sample, got none")
        return totals, samples
