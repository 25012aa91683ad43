"""The loss of the three scenarios: classes are left out here and in the argmax, nowhere else."""

from collections.abc import Sequence
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor
from torch.nn import functional


class ScenarioCrossEntropy(SupervisedPlugin):
    """Cross-entropy of logits `(B, K)` over the classes that a scenario trains on.

    Task-incremental: over the classes of each sample's own task, which makes one shared head equal to a head a task.
    The task follows from the label, because labels are global class ids: no task label is read. Class-incremental:
    over all K classes, or over the `seen` ones. Domain-incremental: over all.

    Args:
        tasks: The class ids of each task, or None where no task splits the classes.
        seen_only: Leaves out classes of experiences that have not begun.
        reduction: As in `torch.nn.functional.cross_entropy`.
    """

    supports_distributed = False

    def __init__(
        self, tasks: Sequence[Sequence[int]] | None = None, seen_only: bool = False, reduction: str = "mean"
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.seen_only = seen_only
        self._seen: set[int] = set()
        self._excluded: Tensor | None = None
        if tasks is not None:
            classes = 1 + max(max(task) for task in tasks)
            excluded = torch.ones(classes, classes, dtype=torch.bool)
            for task in tasks:
                ids = torch.tensor(list(task))
                excluded[ids[:, None], ids[None, :]] = False
            self._excluded = excluded

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Adds the classes of the experience, and of a joint or cumulative data set, to the seen ones."""
        if self.seen_only:
            self._seen.update(int(c) for c in strategy.experience.classes_in_this_experience)
            self._seen.update(int(c) for c in strategy.adapted_dataset.targets.uniques)

    def excluded(self, targets: Tensor, classes: int) -> Tensor | None:
        """The classes left out for each sample: `(B, K)` or `(K,)` booleans, None where none is."""
        if self._excluded is not None:
            missing = classes - len(self._excluded)
            if missing > 0:  # a stream's beginning, under the head of the whole: no known task has the other classes
                self._excluded = functional.pad(self._excluded, (0, missing, 0, missing), value=True)
            if self._excluded.device != targets.device:
                self._excluded = self._excluded.to(targets.device)
            return self._excluded[targets, :classes]
        if self.seen_only and self._seen:
            mask = torch.ones(classes, dtype=torch.bool)
            mask[[c for c in self._seen if c < classes]] = False
            return mask.to(targets.device)
        return None

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits `(B, K)` at targets `(B,)`."""
        excluded = self.excluded(targets, logits.shape[1])
        if excluded is not None:
            logits = logits.masked_fill(excluded, float("-inf"))
        return functional.cross_entropy(logits, targets, reduction=self.reduction)
