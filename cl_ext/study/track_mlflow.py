"""A cell in MLflow, through its own client; imported where a cell runs, and once before the first."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cl_ext.study.cellspec import CellSpec
from cl_ext.study.tracking import Tracking, mlflow_uri, run_name, settings

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

_LONGEST = 500  # characters of a parameter's value


def _client(tracking: Tracking) -> MlflowClient:
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=mlflow_uri(str(tracking.folder)))


def prepare(tracking: Tracking) -> str:
    """Makes the database and the study's experiment, once, before cells that run side by side would; gives its id."""
    client = _client(tracking)
    found = client.get_experiment_by_name(tracking.study)
    if found is not None:
        return str(found.experiment_id)
    try:
        artifacts = (Path(str(tracking.folder)) / "artifacts").as_uri()
        return str(client.create_experiment(tracking.study, artifact_location=artifacts))
    except MlflowException:
        found = client.get_experiment_by_name(tracking.study)
        if found is None:
            raise
        return str(found.experiment_id)  # another launcher made it in between


class Tracker:
    """One run a cell in the experiment of its study."""

    def __init__(self, tracking: Tracking, cell: CellSpec) -> None:
        self._client = _client(tracking)
        run = self._client.create_run(prepare(tracking), run_name=run_name(cell))
        self._run = run.info.run_id
        parameters = [Param(name, str(value)[:_LONGEST]) for name, value in settings(cell).items()]
        tags = [RunTag("cl_ext.run_id", cell.run_id), RunTag("cl_ext.study", tracking.study)]
        self._client.log_batch(self._run, params=parameters, tags=tags)

    def log(self, points: Sequence[tuple[int, str, float]]) -> None:
        """Shows values: step, name, value."""
        now = _milliseconds()
        self._client.log_batch(self._run, metrics=[Metric(name, value, now, step) for step, name, value in points])

    def end(self, status: str, measures: Mapping[str, float]) -> None:
        """Shows the final measures and how the cell ended."""
        now = _milliseconds()
        final = [Metric(f"final/{name}", value, now, 0) for name, value in measures.items()]
        self._client.log_batch(self._run, metrics=final, tags=[RunTag("status", status)])
        self._client.set_terminated(self._run, "FINISHED" if status == "done" else "FAILED")


def _milliseconds() -> int:
    return int(1000 * time.time())
