"""An executor that invents its results: a search without training."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from cl_ext.cli import app
from cl_ext.study import CellSpec, Store, Study
from cl_ext.study.executors.local import Outcome
from cl_ext.study.protocol import Protocol, strength_of
from cl_ext.study.tune import read, search_of

import numpy as np
from typer.testing import CliRunner

from tests.study.helpers import TINY, write
from tests.study.test_store import record

TWO = TINY.replace("[naive, joint]", "[naive, lfl, scp]").replace("[class]", "[task, class]")


def call(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result.exit_code, re.sub(r"\s+", " ", result.output)


def write_record(store: Store, cell: CellSpec, result: float | str) -> str:
    """Writes a cell's record: an accuracy by its scenario's criterion, 0 by the other, or a failure."""
    if isinstance(result, str):
        store.write(cell, record(cell, result), {})
        return result
    own, other = [[0.1, 0.1], [1.0, 0.1], [result - 0.05, result + 0.05]], [[0.0, 0.0]] * 3
    names = ("task_aware", "task_agnostic") if cell.scenario == "task" else ("task_agnostic", "task_aware")
    store.write(cell, record(cell) | {"matrix": dict(zip(names, (own, other), strict=True))}, {})
    return "done"


class Fake:
    """Stands in for the executor: the cells' results come from a function."""

    def __init__(self, result: Callable[[CellSpec], float | str], stop_after: int | None = None) -> None:
        self.result, self.stop_after = result, stop_after
        self.ran: list[CellSpec] = []

    def __call__(self, store: Store, options: object, workers: int, time_limit: float | None = None) -> "Fake":
        self.store = store
        return self

    def run(self, cells: list[CellSpec]) -> Iterator[Outcome]:
        for number, cell in enumerate(cells):
            if number == self.stop_after:
                raise KeyboardInterrupt
            yield Outcome(cell, "started")
            self.ran.append(cell)
            yield Outcome(cell, write_record(self.store, cell, self.result(cell)), "", 0.1)


def strength(cell: CellSpec) -> float:
    return cell.hyperparameters[f"{cell.method}_lambda"]


def peak(cell: CellSpec) -> float:
    """Best at 1 task-incremental and at 10 class-incremental; the seeds differ by more than the neighbours do."""
    best = 0 if cell.scenario == "task" else 1
    return 0.7 - 0.05 * abs(np.log10(strength(cell)) - best) + (0.2 if cell.seed == 1001 else 0.0)


def found_of(tmp_path: Path, results: dict[float, float | str], method: str = "lfl", **protocol):
    """What is found where each strength has this result on both seeds, or `(first, second)`."""
    study = Study.load(write(tmp_path, TINY.replace("[naive, joint]", f"[{method}]")))
    name = strength_of(method)
    options = {"seeds": (1000, 1001), "grids": {name: tuple(results)}, "hyperparameters": (name,)} | protocol
    search, store = search_of(study, Protocol(**options)), Store(tmp_path / "store")
    for cell in search.cells():
        result = results[cell.hyperparameters[name]]
        write_record(store, cell, result[cell.seed - 1000] if isinstance(result, tuple) else result)
    return study, Protocol(**options), read(search, store)
