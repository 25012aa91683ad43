"""The Avalanche benchmark that our streams are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cl_ext.streams.tensors import TensorClassificationDataset

from avalanche.benchmarks.scenarios.deprecated.classification_scenario import GenericCLScenario


class TensorScenario(GenericCLScenario):
    """Avalanche's ``GenericCLScenario`` over data sets of tensors.

    Args:
        streams: the data sets of the experiences by stream; ``train`` and ``test`` have to be there.
        outputs: how many outputs a network needs at least: those of the whole, where this is a stream's beginning.
        data: the checksum of each data set that has a name, as it was loaded.

    Attributes:
        n_classes: the number of classes of all experiences of the training stream.
        outputs: see above.
        data: see above.
    """

    def __init__(
        self,
        streams: Mapping[str, Sequence[TensorClassificationDataset]],
        outputs: int = 0,
        data: Mapping[str, str] | None = None,
    ) -> None:
        self.outputs = outputs
        self.data = dict(data or {})
        self._classes = {
            name: [{int(label) for label in dataset.targets.uniques} for dataset in datasets]
            for name, datasets in streams.items()
        }
        self.n_classes = len(set().union(*self._classes["train"]))
        super().__init__(
            stream_definitions={
                name: (list(datasets), [sorted(dataset.targets_task_labels.uniques) for dataset in datasets])
                for name, datasets in streams.items()
            }
        )

    @property
    def classes_in_experience(self) -> Any:
        """Stream name -> one set of classes an experience. Avalanche's own walks all labels at every access."""
        return self._classes
