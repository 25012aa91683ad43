"""What stores say of published numbers: new lines for `benchmarks/reproduction/reproduced.csv`."""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cl_ext.report.rows.measured import Measurement, Place, place_of
from cl_ext.report.rows.published import Number, Published
from cl_ext.report.statistics import summarize
from cl_ext.study.store import FINISHED, Store

import pandas as pd


def cell_of(number: Number, seed: int = 0, device: str = "cpu") -> str:
    """The run id of a number's cell in our study: what it measures, the row's revision included."""
    study = number.setting.study
    if study is None or not number.tried:
        raise ValueError(f"{number.at}: it has no study")
    values = {**study.values, number.method: {**study.values.get(number.method, {}), **number.variant}}
    own = dataclasses.replace(
        study, values=values, methods=(number.method,), scenarios=(number.scenario,), seeds=(seed,)
    )
    return own.cells(device)[0].run_id


def measure(
    published: Published,
    frame: pd.DataFrame,
    stores: Sequence[Path | str],
    seeds: Sequence[int] | None = None,
    device: str = "cpu",
) -> tuple[list[Measurement], list[str]]:
    """What stores say of the published numbers: the cells are those of the studies as they stand, found by run id.

    A row is measured where each seed that was asked for has finished: those given, else all of its study's. Without
    `seeds` further finished ones count too. A row with a failed cell is not measured: a mean over the seeds that a
    method survived stands beside nothing.

    Args:
        published: The numbers.
        frame: `collect(*stores)`.
        stores: The folders, for the days on which cells finished.
        seeds: Seeds that were run, where they are not the study's.
        device: Where the cells ran.

    Returns:
        The measurements, and a sentence for each row of which the stores hold some cells but which is left out.
    """
    if frame.empty:
        return [], []
    cells = frame.loc[frame["status"].ne(FINISHED).sort_values(kind="stable").index].drop_duplicates("run_id")
    cells = cells.set_index("run_id")
    every = sorted({int(seed) for seed in cells["seed"]})
    found: dict[Place, Measurement] = {}
    left: dict[Place, str] = {}
    for number in published.numbers:
        place = place_of(number)
        study = number.setting.study
        if place is None or study is None or place in found or place in left:
            continue
        held = {seed: cell for seed in every if (cell := cell_of(number, seed, device)) in cells.index}
        asked = list(study.seeds if seeds is None else seeds)
        held = {seed: cell for seed, cell in held.items() if seeds is None or seed in asked}
        if not held:
            continue
        rows = cells.loc[list(held.values())]
        what = f"{study.name}, {number.scenario}: {number.row}"
        if failed := [seed for seed, cell in held.items() if rows.loc[cell, "status"] != FINISHED]:
            left[place] = f"{what}: left out, seed {_seeds(failed)} failed"
        elif missing := sorted(set(asked) - set(held)):
            left[place] = f"{what}: left out, it has seeds {_seeds(list(held))} and lacks {_seeds(missing)} (--seeds?)"
        elif number.column.key not in rows or rows[number.column.key].isna().any():
            left[place] = f"{what}: left out, its records have no {number.column.key}"
        else:
            summary = summarize(rows[number.column.key])
            found[place] = Measurement(
                _day(stores, list(held.values())),
                _commits(rows),
                *place,
                _rounded(summary.mean),
                _rounded(summary.half_width),
                summary.n,
                _seeds(list(held)),
                cell_of(number, 0),
                _machines(rows),
            )
    return list(found.values()), list(left.values())


def _rounded(value: float) -> float:
    """As the file holds it, so that one measurement taken twice is the same."""
    return float(f"{value:.8g}")


def _seeds(seeds: Sequence[int]) -> str:
    """Seeds as `--seeds` takes them: 0-4,7."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][-1] + 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _day(stores: Sequence[Path | str], cells: Sequence[str]) -> str:
    """The day, in UTC, on which the last of some cells was written."""
    files = [Store(store).folder(cell) / "record.json" for store in stores for cell in cells]
    newest = max(file.stat().st_mtime for file in files if file.exists())
    return datetime.fromtimestamp(newest, UTC).date().isoformat()


def _commits(rows: pd.DataFrame) -> str:
    found = {str(made.get("commit") or "not recorded") for made in rows["environment"]}
    return ", ".join(sorted(found))


def _machines(rows: pd.DataFrame) -> str:
    """Kind, cores and versions of the machines, as far as the records say."""
    said = []
    for made in rows["environment"]:
        packages = made.get("packages") or {}
        parts = [made.get("machine"), made.get("cores") and f"{made['cores']} cores", made.get("device")]
        parts += [f"{name} {packages[name]}" for name in ("torch", "cl_ext") if packages.get(name)]
        said.append(" ".join(str(part) for part in parts if part))
    return "; ".join(sorted(set(said)))
