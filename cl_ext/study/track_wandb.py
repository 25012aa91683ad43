"""A cell in Weights & Biases, through its own client; imported where a cell runs.

Avalanche 0.6.0's `WandBLogger` asks the client for `wandb.viz`, which its newer versions (tried: 0.31) no longer have.
Offline, unless WANDB_MODE says otherwise; `wandb sync` uploads what lies in the folder.
"""

import os
from collections.abc import Mapping, Sequence

from cl_ext.study.cellspec import CellSpec
from cl_ext.study.tracking import Tracking, run_name, settings

import wandb


class Tracker:
    """One run a cell, grouped by method and scenario."""

    def __init__(self, tracking: Tracking, cell: CellSpec) -> None:
        self._last = 0
        self._run = wandb.init(
            project=tracking.study,
            name=run_name(cell),
            id=f"{cell.run_id}-{os.getpid()}",
            group=f"{cell.method}-{cell.scenario}",
            dir=tracking.folder,
            config=settings(cell),
            save_code=False,
            mode="online" if os.environ.get("WANDB_MODE") == "online" else "offline",
            settings=wandb.Settings(console="off", silent=True),
        )

    def log(self, points: Sequence[tuple[int, str, float]]) -> None:
        """Shows values: step, name, value."""
        for step, name, value in points:
            self._last = max(self._last, step)  # wandb drops what is older than its last step
            self._run.log({name: value}, step=self._last)

    def end(self, status: str, measures: Mapping[str, float]) -> None:
        """Shows the final measures in the run's summary."""
        self._run.summary.update({f"final/{name}": value for name, value in measures.items()} | {"status": status})
        self._run.finish(exit_code=0 if status == "done" else 1)
