"""A cell in TensorBoard, through Avalanche's logger; imported where a cell runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)
from cl_ext.study.cellspec import CellSpec
from cl_ext.study.tracking import Tracking, run_name, settings

from avalanche.logging import TensorboardLogger


class Tracker:
    """One folder a cell: `tensorboard --logdir <folder>` shows them beside each other."""

    def __init__(self, tracking: Tracking, cell: CellSpec) -> None:
        self._settings = settings(cell)
        self._logger = TensorboardLogger(Path(str(tracking.folder)) / tracking.study / run_name(cell))
        self._logger.writer.add_text("cell", f"```\n{json.dumps(self._settings, indent=1)}\n```")

    def log(self, points: Sequence[tuple[int, str, float]]) -> None:
        """Shows values: step, name, value."""
        for step, name, value in points:
            self._logger.log_single_metric(name, value, step)
        self._logger.writer.flush()

    def end(self, status: str, measures: Mapping[str, float]) -> None:
        """Shows the final measures beside the hyper-parameters."""
        final = {f"final/{name}": value for name, value in measures.items()}
        self._logger.writer.add_hparams(self._settings | {"status": status}, final, run_name=".")
        self._logger.writer.close()
