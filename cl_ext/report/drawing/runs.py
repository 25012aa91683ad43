"""A frame as what figures need: its boards, each with its finished runs by the scenario's own criterion."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from cl_ext.metrics import as_matrix
from cl_ext.metrics.matrix import FloatArray
from cl_ext.report.drawing.curves import Curve, curve_of
from cl_ext.report.rows.cells import BOARD
from cl_ext.report.rows.results import Results
from cl_ext.report.tables.texts import board_title
from cl_ext.study.cellspec import criterion

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Run:
    """A finished cell.

    Attributes:
        label: its row's.
        seed: its seed.
        matrix: its accuracy matrix, (T + 1, T).
        curve: its accuracies while training; None where its study evaluates between experiences only.
        sizes: what it holds before and after each experience: `parameters`, `nonzero`, `by_task`, `extra_bytes`; empty
            in records older than these.
        structure: what it tells of its network: `units`, `history`, or nothing.
        run_id: its cell's.
    """

    label: str
    seed: int
    matrix: FloatArray
    curve: Curve | None = None
    sizes: list[dict[str, Any]] = field(default_factory=list)
    structure: dict[str, Any] = field(default_factory=dict)
    run_id: str = ""


@dataclass(frozen=True)
class Board:
    """One scenario of one stream of one study.

    Attributes:
        place: study, stream, scenario.
        table: the board's rows of `leaderboard`, in their order.
        cells: its finished cells, prepared (see `cl_ext.report.rows.cells.prepare`).
        runs: those of them that have a matrix.
        failed: its cells that did not finish, prepared.
    """

    place: tuple[str, str, str]
    table: pd.DataFrame
    cells: pd.DataFrame
    runs: list[Run]
    failed: pd.DataFrame

    @property
    def title(self) -> str:
        """Study, scenario and stream."""
        return board_title(self.table)

    @cached_property
    def labels(self) -> list[str]:
        """The rows that have a run, the most accurate first."""
        return [label for label in self.table["label"] if label in self.runs_by_label]

    @cached_property
    def runs_by_label(self) -> dict[str, list[Run]]:
        """The runs of each row, in the order of their seeds."""
        found: dict[str, list[Run]] = {}
        for run in sorted(self.runs, key=lambda run: run.seed):
            found.setdefault(run.label, []).append(run)
        return found

    @cached_property
    def references(self) -> frozenset[str]:
        """The rows that bound the others and compete with none."""
        return frozenset(self.table.loc[self.table["reference"], "label"])

    @cached_property
    def experiences(self) -> int:
        """T."""
        return int(self.runs[0].matrix.shape[1])

    @cached_property
    def seeds(self) -> int:
        """How many seeds the board has."""
        return int(self.table["seeds"].iloc[0])

    @cached_property
    def complete(self) -> frozenset[str]:
        """The rows that finished at every seed of the board: only their means can be compared."""
        return frozenset(self.table.loc[self.table["complete"], "label"])

    @cached_property
    def names(self) -> dict[str, str]:
        """How a figure names each row: its label, with the number of seeds where some of the board's are missing."""
        rows = zip(self.table["label"], self.table["n"], strict=True)
        return {label: label if n == self.seeds else f"{label} ({n}/{self.seeds} seeds)" for label, n in rows}

    def mean_matrix(self, label: str) -> FloatArray:
        """The mean accuracy matrix of a row over its seeds, NaN where a seed's is undefined."""
        return np.mean([run.matrix for run in self.runs_by_label[label]], axis=0)

    def over(self, measure: Callable[[FloatArray], FloatArray]) -> dict[str, FloatArray]:
        """A measure with a value an experience: by row, (seeds, experiences), NaN where undefined."""
        return {label: np.stack([measure(run.matrix) for run in self.runs_by_label[label]]) for label in self.labels}

    def values(self, column: str) -> dict[str, dict[int, float]]:
        """A column of the frame by row and seed; NaN where undefined."""
        found: dict[str, dict[int, float]] = {label: {} for label in self.table["label"]}
        if column in self.cells:
            for label, seed, value in self.cells[["label", "seed", column]].itertuples(index=False):
                found[label][int(seed)] = float(value)
        return {label: values for label, values in found.items() if values}

    def only(self, names: Collection[str]) -> "Board":
        """The board with some of its rows.

        Args:
            names: methods or labels, at least one of them a row's of this board.
        """
        keep = self.table["label"].isin(names) | self.table["method"].isin(names)
        kept = set(self.table.loc[keep, "label"])
        return replace(
            self,
            table=self.table[keep].reset_index(drop=True),
            cells=self.cells[self.cells["label"].isin(kept)],
            runs=[run for run in self.runs if run.label in kept],
            failed=self.failed[self.failed["label"].isin(kept)],
        )


def boards(frame: pd.DataFrame) -> list[Board]:
    """The boards of a frame with their finished runs, in the leaderboard's order.

    Args:
        frame: the tidy frame; without the columns that `cl_ext.study.frame.OBJECTS` names, boards have no runs.

    Raises:
        ValueError: see `prepare`; or the matrices of one board differ in size.
    """
    return boards_of(Results(frame))


def boards_of(results: Results) -> list[Board]:
    """As `boards`, from what tables show; results of others have no cells, and are left out."""
    by_place = dict(list(results.cells.reset_index(drop=True).groupby(BOARD)))
    found = []
    own = results.table[results.table["outside"].eq("")]
    for key, table in own.groupby(BOARD):
        place = (str(key[0]), str(key[1]), str(key[2]))
        cells = by_place.get(key, results.cells.iloc[:0])
        done = cells["status"].eq("done")
        found.append(Board(place, table.reset_index(drop=True), cells[done], _runs(cells[done], place), cells[~done]))
    return found


def select(
    found: Sequence[Board],
    study: str | None = None,
    stream: str | None = None,
    scenario: str | None = None,
    methods: Collection[str] | None = None,
) -> list[Board]:
    """The boards of one study, stream or scenario, with some of their rows.

    Raises:
        ValueError: there is no such board, or no board has one of the methods.
    """
    for at, (name, wanted) in enumerate((("study", study), ("stream", stream), ("scenario", scenario))):
        if wanted is None:
            continue
        there = sorted({board.place[at] for board in found})
        found = [board for board in found if board.place[at] == wanted]
        if not found:
            raise ValueError(f"the frame has no {name} {wanted!r}; it has {', '.join(map(repr, there)) or 'none'}")
    if methods is None:
        return list(found)
    rows = {name for board in found for column in ("label", "method") for name in board.table[column]}
    if unknown := sorted(set(methods) - rows):
        raise ValueError(f"no row is called {', '.join(map(repr, unknown))}; there are {', '.join(sorted(rows))}")
    picked = [board.only(methods) for board in found]
    return [board for board in picked if len(board.table)]


def _runs(cells: pd.DataFrame, place: tuple[str, str, str]) -> list[Run]:
    """A board's finished cells that have a matrix by its scenario's criterion."""
    which = criterion(place[2])
    if f"matrix_{which}" not in cells:
        return []
    runs = []
    for cell in cells.to_dict("records"):
        R = cell[f"matrix_{which}"]
        if isinstance(R, (np.ndarray, list)):
            sizes, structure = cell.get("sizes"), cell.get("structure")
            runs.append(
                Run(
                    str(cell["label"]),
                    int(cell["seed"]),
                    as_matrix(R),
                    curve_of(cell.get("curve"), which),
                    sizes if isinstance(sizes, list) else [],
                    structure if isinstance(structure, dict) else {},
                    str(cell.get("run_id", "")),
                )
            )
    shapes = {run.matrix.shape for run in runs}
    if len(shapes) > 1:
        study, _, scenario = place
        raise ValueError(
            f"study {study!r} has accuracy matrices of {' and '.join(map(str, sorted(shapes)))} in scenario "
            f"{scenario!r}: streams of different lengths need different names"
        )
    return runs
