"""Which tracker a study's cells are followed in, and where; imports none of them.

TensorBoard, MLflow and Weights & Biases show how cells go while they run. The store stays the record: a cell's record
is the same with and without a tracker, and a tracker that fails is said in the cell's log and left behind.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cl_ext.study.cellspec import CellSpec
from cl_ext.study.document import StudyError

TRACKERS = ("tensorboard", "mlflow", "wandb")


@dataclass(frozen=True)
class Tracking:
    """Where cells are followed.

    Attributes:
        kind: `tensorboard`, `mlflow` or `wandb`.
        folder: Where the tracker writes; by default `tracking` in the store.
        study: The study's name, which the tracker groups by; set where the study runs.
    """

    kind: str
    folder: str | None = None
    study: str = ""

    def options(self, study: str, store: Path) -> dict[str, Any]:
        """What a cell needs to know, as JSON values; the folder and what has to lie in it are made.

        Args:
            study: The study's name.
            store: The store.

        Raises:
            StudyError: There is no such tracker, it is not installed, or the folder can't be made.
        """
        if self.kind not in TRACKERS:
            raise StudyError(f"--track is {self.kind!r}; it can be {', '.join(TRACKERS)}")
        if find_spec(self.kind) is None:
            raise StudyError(f"--track: {self.kind} is not installed; `pip install cl_ext[tracking]` brings it")
        folder = Path(self.folder) if self.folder is not None else store / "tracking"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudyError(f"--track-dir is {folder}, where no folder can be made: {error.strerror}") from None
        placed = Tracking(self.kind, str(folder.resolve()), study)
        if self.kind == "mlflow":
            from cl_ext.study.track_mlflow import prepare

            prepare(placed)
        return asdict(placed)


def tracking_of(kind: str | None, folder: Path | None) -> Tracking | None:
    """The tracker that `--track` and `--track-dir` ask for.

    Raises:
        StudyError: A folder, and no tracker.
    """
    if kind is None:
        if folder is not None:
            raise StudyError(f"--track-dir goes with --track, which can be {', '.join(TRACKERS)}")
        return None
    return Tracking(kind, None if folder is None else str(folder))


def mlflow_uri(folder: str) -> str:
    """Where MLflow writes: `MLFLOW_TRACKING_URI` where the user has set it, else a database file in the folder.

    Since version 3.7 MLflow's default is a database; its newer versions refuse the older folders of text files.
    """
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path(folder) / 'mlflow.db'}"


def run_name(cell: CellSpec) -> str:
    """A cell's name among a tracker's runs: `ewc-class-seed0-1f2e3d4c`."""
    return f"{cell.method}-{cell.scenario}-seed{cell.seed}-{cell.run_id[:8]}"


def settings(cell: CellSpec) -> dict[str, bool | int | float | str]:
    """A cell's description as flat values, the method's hyper-parameters as `hp.<name>`."""
    flat: dict[str, bool | int | float | str] = {"run_id": cell.run_id}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, item in value.items():
                add(f"{prefix}.{name}" if prefix else str(name), item)
        elif value is not None:
            flat[prefix] = value if isinstance(value, (bool, int, float, str)) else str(value)

    fields = cell.to_dict()
    add("hp", fields.pop("hyperparameters"))
    add("", fields)
    return flat
