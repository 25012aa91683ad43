"""What a store lacks: cells that failed, and cells that the study asks for or that their board makes one expect."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from cl_ext.report.rows.cells import BOARD, prepare
from cl_ext.study.store import Store

import pandas as pd

FAILURE_COLUMNS = [*BOARD, "label", "seed", "status", "error"]
DISAGREEING_COLUMNS = [*BOARD, "label", "seed", "accuracy", "elsewhere"]
MISSING_COLUMNS = [*BOARD, "label", "seed", "reason"]
Asked = Mapping[str, Mapping[str, Any]]
"""Study -> what it asks for: `stream`, `scenarios`, `methods`, `seeds`."""


def asked_of(stores: Sequence[Path | str]) -> dict[str, dict[str, Any]]:
    """What the studies of some stores ask for, by name; where stores share a study, all that any of them asks."""
    found: dict[str, dict[str, Any]] = {}
    for root in stores:
        for name, content in Store(root).studies().items():
            known = found.setdefault(name, {"stream": content["stream"]})
            for key in ("scenarios", "methods", "seeds"):
                known[key] = sorted({*known.get(key, ()), *content.get(key, ())})
    return found


def asked_for(asked: Asked | None, study: str, stream: str, key: str) -> set[Any]:
    """The `scenarios`, `methods` or `seeds` that a study asks for on a stream; empty where that is not known."""
    content = (asked or {}).get(study, {})
    return set(content.get(key, ())) if content.get("stream") == stream else set()


def failed_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells that did not finish: study, stream, scenario, label, seed, status, error (one line)."""
    cells = prepare(frame)
    failed = cells.loc[cells["status"].ne("done"), FAILURE_COLUMNS]
    return failed.sort_values([*BOARD, "label", "seed"]).reset_index(drop=True)


def disagreeing_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """The finished cells of which merged stores hold different results: the one that counts, and the others."""
    if "elsewhere" not in frame:
        return pd.DataFrame(columns=DISAGREEING_COLUMNS)
    cells = prepare(frame)
    found = cells.loc[cells["elsewhere"].fillna("").ne(""), DISAGREEING_COLUMNS]
    return found.sort_values([*BOARD, "label", "seed"]).reset_index(drop=True)


def missing_cells(
    frame: pd.DataFrame, methods: Mapping[str, Collection[str]] | None = None, asked: Asked | None = None
) -> pd.DataFrame:
    """The cells that should be there: study, stream, scenario, label, seed, reason.

    A seed that any row of a board has, or that the study asks for, is expected of every row. With `methods`, so is
    every method of the study in every scenario that it can do. Of a study without any cell all that it asks for is
    missing.

    Args:
        frame: the tidy frame, a row a cell.
        methods: method -> the scenarios it can do.
        asked: what the studies ask for (see `asked_of`): without it, a seed that no row has is not missed.
    """
    cells = prepare(frame)
    found = []
    for place, part in cells.groupby(["study", "stream"]):
        study, stream = map(str, place)
        names = set(part["method"]) | asked_for(asked, study, stream, "methods")
        for scenario in sorted(set(part["scenario"]) | asked_for(asked, study, stream, "scenarios")):
            board = part[part["scenario"].eq(scenario)]
            seeds = set(board["seed"]) | asked_for(asked, study, stream, "seeds")
            present = {str(label): set(seeds) for label, seeds in board.groupby("label")["seed"]}
            able = {name for name in names if scenario in (methods or {}).get(name, ())}
            present |= {name: set() for name in able - set(board["method"])}
            for label, held in sorted(present.items()):
                reason = "no record of this seed" if held else "no record in this scenario"
                found += [(study, stream, scenario, label, seed, reason) for seed in sorted(seeds - held)]
    for study, content in (asked or {}).items():
        if study in set(cells["study"]):
            continue
        for scenario, label in itertools.product(content.get("scenarios", ()), content.get("methods", ())):
            if methods is None or scenario in methods.get(label, ()):
                stream, reason = str(content["stream"]), "no record of this study"
                found += [(study, stream, scenario, label, seed, reason) for seed in content.get("seeds", ())]
    return pd.DataFrame(found, columns=MISSING_COLUMNS)
