"""Records as what figures need: a board's finished runs, with their matrices by the scenario's own criterion."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cl_ext.metrics import accuracy_at_instants, as_matrix
from cl_ext.metrics.matrix import FloatArray
from cl_ext.report.aggregate import BOARD, leaderboard, prepare
from cl_ext.report.tables import board_title

import numpy as np
import pandas as pd


def criterion(scenario: str) -> str:
    """The matrix that a scenario is judged by: task-aware where the task is given, else task-agnostic."""
    return "task_aware" if scenario == "task" else "task_agnostic"


@dataclass(frozen=True)
class Run:
    """A finished cell.

    Attributes:
        label: its row's.
        seed: its seed.
        matrix: its accuracy matrix, (T + 1, T).
        instants: its anytime curve.
        sizes: what it holds before and after each experience: `parameters`, `nonzero`, `by_task`, `extra_bytes`; empty
            in records older than these.
        structure: what it tells of its network: `units`, `history`, or nothing.
        run_id: its cell's.
    """

    label: str
    seed: int
    matrix: FloatArray
    instants: pd.DataFrame
    sizes: list[dict[str, Any]] = field(default_factory=list)
    structure: dict[str, Any] = field(default_factory=dict)
    run_id: str = ""


@dataclass(frozen=True)
class Board:
    """One scenario of one stream of one study.

    Attributes:
        place: study, stream, scenario.
        table: the board's rows of `leaderboard`, in their order.
        runs: its finished cells.
    """

    place: tuple[str, str, str]
    table: pd.DataFrame
    runs: list[Run]

    @property
    def title(self) -> str:
        """Study, scenario and stream."""
        return board_title(self.table)

    @cached_property
    def labels(self) -> list[str]:
        """The rows that have a finished cell, the most accurate first."""
        ran = {run.label for run in self.runs}
        return [label for label in self.table["label"] if label in ran]

    @cached_property
    def experiences(self) -> int:
        """T; the longest stream's, should runs differ."""
        return max(run.matrix.shape[1] for run in self.runs)

    def mean_matrix(self, label: str) -> FloatArray:
        """The mean accuracy matrix of a row over its seeds, NaN where a seed's is undefined."""
        return np.mean([run.matrix for run in self.runs if run.label == label], axis=0)

    def over(self, measure: Callable[[FloatArray], FloatArray]) -> pd.DataFrame:
        """A measure with a value an experience, of every run: columns label, seed, experience (from 1), value."""
        parts = []
        for run in self.runs:
            values = measure(run.matrix)
            experience = np.arange(1, len(values) + 1)
            parts.append(
                pd.DataFrame({"label": run.label, "seed": run.seed, "experience": experience, "value": values})
            )
        return pd.concat(parts, ignore_index=True).dropna(subset="value")

    @cached_property
    def instants(self) -> pd.DataFrame:
        """Accuracy while training, of every run: columns label, seed, time (experiences trained), value."""
        parts = [run.instants.assign(label=run.label, seed=run.seed) for run in self.runs]
        return pd.concat(parts, ignore_index=True).dropna(subset="value")


def boards(records: Iterable[Mapping[str, Any]], frame: pd.DataFrame) -> list[Board]:
    """The boards of a frame with the finished runs among the records.

    Args:
        records: the cells' records with their spec's fields (run_id, status, matrix, curves, study, stream, scenario,
            method, seed).
        frame: the tidy frame of the same cells.

    Returns:
        The boards, in the leaderboard's order.
    """
    cells = prepare(frame)
    by_place: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for record in records:
        if record.get("status") == "done" and (record.get("matrix") or {}).get(criterion(str(record["scenario"]))):
            place = (str(record["study"]), str(record.get("stream", "")), str(record["scenario"]))
            by_place.setdefault(place, {})[str(record["run_id"])] = record
    found = []
    for (study, stream, scenario), table in leaderboard(frame).groupby(BOARD):
        place = (str(study), str(stream), str(scenario))
        mine = cells[cells["study"].eq(place[0]) & cells["stream"].eq(place[1]) & cells["scenario"].eq(place[2])]
        held = by_place.get(place, {})
        names = zip(mine["run_id"], mine["label"], strict=True) if "run_id" in mine else ()
        runs = [_run(held[run_id], label) for run_id, label in names if run_id in held]
        found.append(Board(place, table, runs))
    return found


def _run(record: Mapping[str, Any], label: str) -> Run:
    """A record's run by its scenario's criterion."""
    kind = criterion(str(record["scenario"]))
    matrix = as_matrix(record["matrix"][kind])
    points = (record.get("curves") or {}).get("accuracy") or []
    return Run(
        label,
        int(record["seed"]),
        matrix,
        _instants(points, kind),
        record.get("sizes") or [],
        record.get("structure") or {},
        str(record["run_id"]),
    )


def _instants(points: list[Mapping[str, Any]], kind: str) -> pd.DataFrame:
    """The recorded instants: columns time, value (mean accuracy on the experiences seen so far).

    `time` counts experiences; inside one, instants are evenly spaced and the last stands at its end, so that streams
    whose experiences differ in length line up.
    """
    if not points:
        return pd.DataFrame({"time": [], "value": []}, dtype=float)
    order = pd.DataFrame([{key: point[key] for key in ("experience", "epoch", "iteration")} for point in points])
    order = order.sort_values(["experience", "epoch", "iteration"], kind="stable")
    curve = np.array([points[index][kind] for index in order.index], dtype=float)
    within = order.groupby("experience").cumcount() + 1
    length = order.groupby("experience")["experience"].transform("size")
    time = order["experience"] - 1 + within / length
    return pd.DataFrame({"time": time.to_numpy(), "value": accuracy_at_instants(curve, order["experience"])})
