"""What is measured of a task before it is trained on: a few of its samples, and their signature.

A signature is a tensor of one shape for all tasks, made by one network that never changes: the copy of the network
that is taken when the first task has been trained on. The network as it was initialised would do as well for features
(measured on rotated MNIST: no better), but its Fisher and its correlations of views tell little. The first task has no
other to be compared with, so it needs no signature before that.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cl_ext.nn.distillation import InputTap, head_of, snapshot
from cl_ext.nn.fisher import Loss, diagonal_fisher, random_subset, trained_softmax
from cl_ext.nn.passes import labelled_batches, logits, preserved_random_state
from cl_ext.nn.similarity import correlation_matrix, covariance, fisher_vector, readout_similarity
from cl_ext.nn.views import CorruptedViews, ImageViews, Views

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

Signature = Literal["covariance", "fisher", "correlation"]
"""Of features; the diagonal Fisher over the network's own labels; Barlow Twins' matrix of two views' features."""

_BATCH = 128


def mild_views(x: Tensor) -> Views:
    """Returns what makes the two views of a batch: crops by an eighth of the side, no mirror images, colours and blur.

    DualNet's own views move an image by 4 pixels and mirror it: of 8 x 8 pixels nothing is then left that two views
    share, and the signature is noise. Samples that are no images have entries replaced by other samples'.

    Args:
        x: inputs, (n, ...).
    """
    return ImageViews(padding=max(1, x.shape[-1] // 8), flip=0.0) if x.dim() == 4 else CorruptedViews()


@dataclass(frozen=True)
class TaskSample:
    """A few samples of a task.

    Attributes:
        task: which task, from 0.
        x: inputs, (n, ...).
        y: labels, (n,).
        t: task labels, (n,), or None.
    """

    task: int
    x: Tensor
    y: Tensor
    t: Tensor | None


class TaskProbe:
    """Draws the samples and makes their signatures; no random state and no module's mode changes.

    Attributes:
        network: the frozen copy; None until `freeze`.
    """

    def __init__(
        self, signature: Signature | None, n_samples: int, draws: Callable[[int], int], views: Callable[[int], int]
    ) -> None:
        """Makes a probe without a network.

        Args:
            signature: of which kind; None for none at all: no network is then kept.
            n_samples: drawn of a task, at most.
            draws: from a task's number to the seed by which its samples are drawn.
            views: the same for its views.
        """
        self.kind = signature
        self.n_samples = n_samples
        self._draws = draws
        self._views = views
        self.network: nn.Module | None = None
        self._label = 0
        self._loaded: dict[str, Tensor] = {}

    def draw(self, dataset: Any, task: int, device: torch.device) -> TaskSample:
        """Returns `n_samples` of a task, drawn without replacement, with the transforms of evaluation.

        Args:
            dataset: samples `(x, y)` or `(x, y, t)`.
            task: its number, from 0.
            device: where the samples go.
        """
        chosen = random_subset(dataset, self.n_samples, torch.Generator().manual_seed(self._draws(task)))
        with preserved_random_state():
            parts = list(zip(*labelled_batches(chosen, _BATCH, device), strict=True))
        x, y = torch.cat(parts[0]), torch.cat(parts[1])
        return TaskSample(task, x, y, None if parts[2][0] is None else torch.cat(parts[2]))

    def freeze(self, model: nn.Module, sample: TaskSample) -> None:
        """Takes the copy that all signatures are made with; a network with a head a task keeps using this task's."""
        if self.kind is not None:
            self.network = snapshot(model)
            self._label = 0 if sample.t is None else int(sample.t[0])

    @property
    def frozen(self) -> bool:
        """Whether there is a network, or none is needed."""
        return self.kind is None or self.network is not None or bool(self._loaded)

    def follow(self, model: nn.Module) -> None:
        """Makes the network of what `load_state_dict` took over; its heads have the size that they had.

        Args:
            model: of the same architecture, its heads perhaps grown.
        """
        if not self._loaded:
            return
        self.network = snapshot(model)
        for name, held in (*self.network.named_parameters(), *self.network.named_buffers()):
            if name in self._loaded:
                held.data = self._loaded[name]
        self._loaded = {}

    def signature(self, sample: TaskSample) -> Tensor:
        """Returns a task's signature: (D, D) of D features, (p,) of p parameters; (0,) where there is no network."""
        if self.network is None:
            return sample.x.new_zeros(0, dtype=torch.get_default_dtype())
        if self.kind == "fisher":
            return self._fisher(sample)
        if self.kind == "correlation":
            generator = torch.Generator().manual_seed(self._views(sample.task))
            first, second = mild_views(sample.x)(sample.x, generator)
            return correlation_matrix(self.features(first), self.features(second))
        return covariance(self.features(sample.x))

    def _labels(self, x: Tensor) -> Tensor:
        return torch.full((len(x),), self._label, dtype=torch.long, device=x.device)

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Returns what the frozen network's head is given, (n, D).

        Raises:
            ValueError: if the network has no head, or more than one.
        """
        assert self.network is not None
        tap = InputTap()
        tap.open(head_of(self.network))
        logits(self.network, x, self._labels(x))
        return tap.take(len(x))

    def _fisher(self, sample: TaskSample) -> Tensor:
        """The expectation over the network's own labels: the task's may be none of those that its head has."""
        assert self.network is not None
        x = sample.x
        labels = torch.zeros(len(x), dtype=torch.long, device=x.device)
        self.network.requires_grad_(True)
        try:
            fisher = diagonal_fisher(
                self.network, dict(self.network.named_parameters()), TensorDataset(x, labels, self._labels(x)),
                device=x.device,
            )  # fmt: skip
        finally:
            self.network.requires_grad_(False)
        return fisher_vector(fisher)

    def _held(self) -> dict[str, Tensor]:
        if self.network is None:
            return self._loaded
        return dict(self.network.named_parameters()) | dict(self.network.named_buffers())

    def bytes(self) -> int:
        """Returns the memory held, in bytes."""
        return sum(tensor.nbytes for tensor in self._held().values())

    def state_dict(self) -> dict[str, Any]:
        """Returns copies of the network's parameters and buffers, and the task label it is run with."""
        return {"label": self._label, "values": {name: t.detach().clone() for name, t in self._held().items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over copies of what `state_dict` gave; `follow` has to come before a signature."""
        self.network, self._label = None, int(state["label"])
        self._loaded = {name: tensor.clone() for name, tensor in state["values"].items()}


@torch.no_grad()
def readout_of(network: nn.Module, sample: TaskSample, loss: Loss, classes: int) -> float:
    """Returns how well a network already predicts a task's labels, in [0, 1]; see `readout_similarity`.

    The softmax is over the outputs that the loss reads, and a guess is among as many classes as it reads and as have
    been seen.

    Args:
        network: in eval mode; its head has the outputs of the sample's labels.
        sample: of the task.
        loss: from logits (B, K) and labels (B,) to a scalar.
        classes: how many have been seen, the sample's included.
    """
    p = trained_softmax(loss, logits(network, sample.x, sample.t), sample.y)
    read = int(p.ne(0).sum(1).max())
    cross_entropy = -p.gather(1, sample.y.unsqueeze(1)).log().mean()
    return readout_similarity(float(cross_entropy), min(classes, read))
