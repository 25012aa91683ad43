"""The tidy frame made ready: each cell once, rows told apart by what differs, costs relative to `naive`.

A *board* is what is compared: one scenario of one stream of one study. Only cells of one board share a table.
"""

from collections.abc import Mapping
from typing import Any

from cl_ext.study.document import StudyError

import numpy as np
import pandas as pd

REFERENCES = frozenset({"naive", "joint", "joint_incremental", "cumulative", "separate", "from_scratch"})
"""Rows that bound the others and compete with none."""

BOARD = ["study", "stream", "scenario"]
ROW = [*BOARD, "method", "variant"]


def prepare(frame: pd.DataFrame) -> pd.DataFrame:
    """The tidy frame, ready to be summed up.

    A cell that several stores hold counts once. A method that one board holds with several sets of hyper-parameters is
    as many rows: `variant` names what differs ("ewc_lambda=10.0"), `label` is the method's name with it. The cost
    relative to `naive` joins as `cost_relative`, and `normalised_accuracy`.

    Args:
        frame: a row a cell, at least study, scenario, method, seed, status (see `cl_ext.study.collect`).

    Returns:
        The cells with `stream`, `variant`, `label`, `cost_relative`, `normalised_accuracy` and `error` (one line, ""
        for none).

    Raises:
        ValueError: a needed column is absent, or an accuracy is no fraction.
        StudyError: two different cells claim one seed of one row.
    """
    needed = ["study", "scenario", "method", "seed", "status"]
    if absent := [name for name in needed if name not in frame]:
        raise ValueError(f"the frame lacks the columns {absent}")
    # Python's own strings: with pyarrow installed pandas has others, which fail on frames without a row.
    texts = [name for name in (*BOARD, "method", "status", "tuning_protocol", "tuning_seeds") if name in frame]
    # frames that were put together may number their rows twice
    cells = frame.astype(dict.fromkeys(texts, object)).reset_index(drop=True).copy()
    if "accuracy" in cells and (outside := ~cells["accuracy"].astype(float).dropna().between(0, 1)).any():
        value = cells["accuracy"].dropna()[outside].iloc[0]
        raise ValueError(f"the frame has an accuracy of {value:g}; accuracies are fractions in [0, 1], not per cent")
    if "stream" not in cells:
        cells["stream"] = ""
    if "run_id" in cells:
        # A finished cell stands before a failed one of the same id, from another store.
        cells = cells.loc[cells["status"].ne("done").sort_values(kind="stable").index]
        cells = cells.drop_duplicates([*BOARD, "run_id"]).sort_index()
    cells["variant"] = _variants(cells)
    cells["label"] = cells["method"] + cells["variant"].map(lambda text: f" ({text})" if text else "")
    cells["error"] = cells["error"].map(one_line) if "error" in cells else ""
    if (twice := cells.duplicated([*ROW, "seed"])).any():
        cell = cells[twice].iloc[0]
        raise StudyError(
            f"study {cell['study']!r} has two different cells of {cell['label']!r} for seed {cell['seed']} in scenario "
            f"{cell['scenario']!r}: studies with different budgets or networks need different names"
        )
    if "train_cpu_seconds" in cells:
        naive = cells[cells["method"].eq("naive") & cells["status"].eq("done")]
        mean = naive.groupby(BOARD)["train_cpu_seconds"].mean().rename("naive_cpu_seconds")
        cells = cells.join(mean, on=BOARD)
        cells["cost_relative"] = cells["train_cpu_seconds"] / cells["naive_cpu_seconds"]
    if "accuracy" in cells:
        cells["normalised_accuracy"] = _normalised(cells)
    return cells


def _normalised(cells: pd.DataFrame) -> "pd.Series[float]":
    """(ACC - naive) / (joint - naive) of the same board and seed; NaN where joint training is not above fine-tuning."""
    accuracy = cells["accuracy"].astype(float).where(cells["status"].eq("done"))
    bounds = []
    for name in ("naive", "joint"):
        own = cells[[*BOARD, "seed"]].assign(bound=accuracy)[cells["label"].eq(name)]
        bounds.append(cells[[*BOARD, "seed"]].merge(own, how="left", on=[*BOARD, "seed"])["bound"].to_numpy())
    low, high = bounds
    return pd.Series((accuracy.to_numpy() - low) / np.where(high > low, high - low, np.nan), cells.index, float)


def one_line(error: object) -> str:
    """An error as one line: its type and message, whether it comes as a record's mapping or as text."""
    if isinstance(error, Mapping):
        error = f"{error.get('type', 'error')}: {error.get('message', '')}"
    if not isinstance(error, str):
        return ""  # None, or the NaN that pandas makes of it
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    if not lines:
        return ""
    # A traceback names its error in its last line, a message says it in its first.
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


def _variants(cells: pd.DataFrame) -> "pd.Series[str]":
    """For each cell, the hyper-parameters in which its method's cells differ inside its board."""
    group = cells.groupby([*BOARD, "method"]).ngroup()
    parts: dict[Any, list[str]] = {}
    for name in (str(name) for name in cells if str(name).startswith("hp.")):
        # Most hyper-parameters are of one method: only its groups can differ in it.
        inside = group.isin(group[cells[name].notna()].unique())
        values = cells.loc[inside, name].astype(str)
        differs = values.groupby(group[inside]).transform("nunique") > 1
        for at, value in values[differs].items():
            parts.setdefault(at, []).append(f"{name.removeprefix('hp.')}={value}")
    return pd.Series([", ".join(parts.get(at, ())) for at in cells.index], index=cells.index, dtype=object)
