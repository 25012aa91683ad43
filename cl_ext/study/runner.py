"""From a study to records: which cells are left, run them, say how it goes."""

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cl_ext.methods import METHODS
from cl_ext.study.cellspec import CellSpec
from cl_ext.study.executors.local import LocalExecutor, Outcome
from cl_ext.study.origins import able, tuning_of
from cl_ext.study.spec import Study, StudyError
from cl_ext.study.store import FAILURES, FINISHED, Store
from cl_ext.study.tracking import Tracking


@dataclass(frozen=True)
class PlannedCell:
    """A cell and where it stands: `done`, `missing`, `stale`, or a failure's kind."""

    cell: CellSpec
    state: str


class Progress(Protocol):
    """What shows how a run goes."""

    def begin(self, study: Study, total: int, left: Sequence[CellSpec], workers: int) -> None:
        """The run begins: `left` cells of `total` are to be run."""

    def update(self, outcome: Outcome) -> None:
        """A cell started or ended."""

    def end(self) -> None:
        """The run is over, or was interrupted."""


@dataclass(frozen=True)
class Summary:
    """What a run did.

    Attributes:
        states: How many of the study's cells are in each state now.
        ran: Cells that this run finished or failed.
        seconds: Its wall time.
    """

    states: Counter[str]
    ran: int
    seconds: float

    @property
    def failed(self) -> int:
        """Cells of the study whose record is a failure."""
        return sum(self.states[kind] for kind in FAILURES)


def plan(study: Study, store: Store, device: str = "cpu") -> list[PlannedCell]:
    """The study's cells and their states; reads the store, runs nothing.

    A cell is stale where the store has it with another revision of its method.
    """
    stored = {run_id: store.spec(run_id) for run_id in store.run_ids()}
    siblings = {spec.sibling() for spec in stored.values() if spec is not None}
    planned = []
    for cell in study.cells(device):
        state = store.status(cell.run_id)
        if state is None:
            state = "stale" if cell.sibling() in siblings else "missing"
        planned.append(PlannedCell(cell, state))
    return planned


def run(
    study: Study,
    out: Path | str,
    *,
    workers: int | None = None,
    device: str = "cpu",
    data_root: Path | str | None = None,
    retry_failed: bool = False,
    time_limit: float | None = None,
    progress: Progress | None = None,
    tracking: Tracking | None = None,
) -> Summary:
    """Runs what is left of a study.

    Args:
        study: The study.
        out: The store; several studies may share one.
        workers: Cells at a time; by default as many as this process may use cores.
        device: `cpu` or `cuda`.
        data_root: Folder of the data sets, by default the environment variable `CL_EXT_DATA`.
        retry_failed: Whether cells whose record is a failure are run again.
        time_limit: Seconds that a cell may run.
        progress: Shows how it goes.
        tracking: A tracker in which the cells are followed too.

    Raises:
        StudyError: The number of workers, the device or the tracker is impossible.
    """
    workers = workers if workers is not None else _cores()
    if workers < 1:
        raise StudyError(f"--workers is {workers}; it takes a whole number of at least 1")
    if device not in ("cpu", "cuda"):
        raise StudyError(f"--device is {device!r}; it can be cpu or cuda")
    if time_limit is not None and time_limit <= 0:
        raise StudyError(f"--time-limit is {time_limit:g}; it takes a number of seconds above 0")
    store = Store(out)
    track = None if tracking is None else tracking.options(study.name, store.root)
    store.sweep()
    began = time.monotonic()
    planned = plan(study, store, device)
    store.write_study(study.name, described(study, store, [item.cell for item in planned], device))
    again = FAILURES if retry_failed else ()
    left = [item.cell for item in planned if item.state in ("missing", "stale", *again)]
    root = data_root if data_root is not None else os.environ.get("CL_EXT_DATA")
    options = {
        "data_root": str(Path(root).resolve()) if root is not None else None,
        "files": {checksum: str(path) for checksum, path in study.files.items()},
        "threads": 1,
        "tracking": track,
        "tuning": _origins(study),
    }
    ran = 0
    if progress is not None:
        progress.begin(study, len(planned), left, workers)
    outcomes = LocalExecutor(store, options, min(workers, max(1, len(left))), time_limit).run(left)
    try:
        for outcome in outcomes:
            ran += outcome.status in (FINISHED, *FAILURES)
            if progress is not None:
                progress.update(outcome)
    finally:
        outcomes.close()  # type: ignore[attr-defined]
        if progress is not None:
            progress.end()
    states = Counter(item.state for item in plan(study, store, device))
    return Summary(states, ran, time.monotonic() - began)


def _origins(study: Study) -> dict[str, dict[str, dict[str, object]]]:
    """By method and scenario, where the values come from; of those of which the study says it."""
    said: dict[str, dict[str, dict[str, object]]] = {}
    for name in study.methods:
        if METHODS[name].hyperparameters:
            ways = {scenario: tuning_of(study.tuning, name, scenario) for scenario in able(study, name)}
            said[name] = {scenario: how for scenario, how in ways.items() if any(how.values())}
    return said


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def described(study: Study, store: Store, cells: Sequence[CellSpec], device: str = "cpu") -> dict[str, object]:
    """What the store keeps of a study after this run: what earlier runs of it asked for stays asked for.

    A run may be of some methods or seeds only. Of what the store has, those methods stay that the study's file still
    lists, with all their seeds; their cells as far as values and revisions are today's. A search is what it is now: the
    settings of an earlier one cannot be told from its file.
    """
    if study.kind == "search":
        return describe(study, cells)
    known = store.studies().get(study.name, {})
    listed = [name for name in known.get("methods", ()) if name in (study.listed or study.methods)]
    wide = dataclasses.replace(
        study,
        methods=tuple(dict.fromkeys((*listed, *study.methods))),
        seeds=tuple(sorted({*known.get("seeds", ()), *study.seeds})),
    )
    if wide.methods == study.methods and wide.seeds == tuple(sorted(study.seeds)):
        return describe(study, cells)
    held = {*known.get("cells", ()), *(cell.run_id for cell in cells)}
    return describe(wide, [cell for cell in wide.cells(device) if cell.run_id in held])


def describe(study: Study, cells: Sequence[CellSpec]) -> dict[str, object]:
    """What the store keeps of a study."""
    return {
        "study": study.name,
        "kind": study.kind,
        "version": study.version,
        "title": study.title,
        "stream": study.stream_label(),
        "scenarios": list(study.scenarios),
        "methods": list(study.methods),
        "seeds": list(study.seeds),
        "tuning": dict(study.tuning),
        "cells": [cell.run_id for cell in cells],
    }
