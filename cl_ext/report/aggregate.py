"""From the tidy frame, a row a cell, to the leaderboard, a row a method.

A *board* is what is compared: one scenario of one stream of one study. Only cells of one board share a table.
"""

from collections.abc import Collection, Mapping

from cl_ext.report.columns import COLUMNS, Column
from cl_ext.report.statistics import FEW_SEEDS, half_width

import pandas as pd

REFERENCES = frozenset({"naive", "joint", "joint_incremental", "cumulative", "separate", "from_scratch"})
"""Rows that bound the others and compete with none."""

BOARD = ["study", "stream", "scenario"]
ROW = [*BOARD, "method", "variant"]
FAILURE_COLUMNS = [*BOARD, "label", "seed", "status", "error"]
MISSING_COLUMNS = [*BOARD, "label", "seed", "reason"]


def prepare(frame: pd.DataFrame) -> pd.DataFrame:
    """The tidy frame, ready to be summed up.

    A cell that several stores hold counts once. A method that one board holds with several sets of hyper-parameters is
    as many rows: `variant` names what differs ("ewc_lambda=10.0"), `label` is the method's name with it. The cost
    relative to `naive` joins as `cost_relative`.

    Args:
        frame: a row a cell, at least study, scenario, method, seed, status (see `cl_ext.study.collect`).

    Returns:
        The cells with `stream`, `variant`, `label`, `cost_relative` and `error` (one line, "" for none).

    Raises:
        ValueError: a needed column is absent, or two different cells claim one seed of one row.
    """
    needed = ["study", "scenario", "method", "seed", "status"]
    if absent := [name for name in needed if name not in frame]:
        raise ValueError(f"the frame lacks the columns {absent}")
    cells = frame.copy()
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
        raise ValueError(
            f"study {cell['study']!r} has two different cells of {cell['label']!r} for seed {cell['seed']} in scenario "
            f"{cell['scenario']!r}: studies with different budgets or networks need different names"
        )
    if "train_cpu_seconds" in cells:
        naive = cells[cells["method"].eq("naive") & cells["status"].eq("done")]
        mean = naive.groupby(BOARD)["train_cpu_seconds"].mean().rename("naive_cpu_seconds")
        cells = cells.join(mean, on=BOARD)
        cells["cost_relative"] = cells["train_cpu_seconds"] / cells["naive_cpu_seconds"]
    return cells


def leaderboard(frame: pd.DataFrame, methods: Mapping[str, Collection[str]] | None = None) -> pd.DataFrame:
    """One row per method of each board, the most accurate first.

    Args:
        frame: the tidy frame, a row a cell.
        methods: method -> the scenarios it can do. With it, a method of the study that a scenario lacks is a row with
            no numbers, and `absent` says why; without it, such a row is left out.

    Returns:
        A frame with the columns

        - study, stream, scenario, method, variant, label;
        - `reference`; `best`: the highest mean accuracy among the complete rows that are no reference;
        - `n` finished cells of `cells`, of `seeds` in the board; `failures` ("2 timeout, 1 diverged"); `few_seeds`
          (n < 5); `absent` ("not possible", "missing" or "");
        - for every entry of `COLUMNS` that the frame has, with key k: the mean k, `k_sd`, `k_half_width` (95 % Student
          t) and `k_n`, as fractions and plain units, not per cent.

    Raises:
        ValueError: see `prepare`.
    """
    cells = prepare(frame)
    done = cells[cells["status"].eq("done")]
    rows = cells.groupby([*ROW, "label"], as_index=False).agg(
        cells=("seed", "size"),
        n=("status", lambda status: int(status.eq("done").sum())),
        failures=("status", _failures),
    )
    rows = rows.join(cells.groupby(BOARD)["seed"].nunique().rename("seeds"), on=BOARD)
    rows["absent"] = ""
    rows = pd.concat([rows, _absent_rows(rows, methods)], ignore_index=True) if methods is not None else rows
    rows["reference"] = rows["method"].isin(REFERENCES)
    rows["few_seeds"] = rows["n"] < FEW_SEEDS

    keys = [column.key for column in COLUMNS if column.key in cells]
    by_row = done.astype(dict.fromkeys(keys, float)).groupby(ROW)
    measured = {}
    for key in keys:
        part = by_row[key].agg(["mean", "std", "count"])
        measured[key] = part["mean"]
        measured[f"{key}_sd"] = part["std"]
        measured[f"{key}_half_width"] = pd.Series(half_width(part["std"], part["count"]), part.index)
        measured[f"{key}_n"] = part["count"]
    if measured:  # where nothing finished, the frame may have no measured column at all
        rows = rows.join(pd.DataFrame(measured), on=ROW)
        rows = rows.fillna({f"{key}_n": 0 for key in keys}).astype({f"{key}_n": int for key in keys}).copy()

    if "accuracy" not in rows:
        rows["accuracy"] = float("nan")
    rows = rows.sort_values([*BOARD, "accuracy", "label"], ascending=[True] * 3 + [False, True], na_position="last")
    rows = rows.reset_index(drop=True)
    marks = [best(board, COLUMNS[0]) for _, board in rows.groupby(BOARD)]
    rows["best"] = pd.concat(marks).reindex(rows.index) if marks else pd.Series(dtype=bool)
    front = [*ROW, "label", "reference", "best", "n", "cells", "seeds", "few_seeds", "failures", "absent"]
    return rows[[*front, *(name for name in rows if name not in front)]]


def best(board: pd.DataFrame, column: Column) -> "pd.Series[bool]":
    """Which rows of one board hold the best mean of a column, ties at the shown precision included.

    References compete with none. Nor do rows with failed or missing cells: a mean over the seeds that a method survived
    is not comparable with means over all seeds.

    Args:
        board: the rows of one board, as `leaderboard` gives them.
        column: the column; one with no direction has no best.

    Returns:
        A flag a row, indexed as `board`.
    """
    none = pd.Series(False, index=board.index)
    if column.higher_is_better is None or column.key not in board:
        return none
    complete = ~board["reference"] & board["n"].eq(board["seeds"])
    if f"{column.key}_n" in board:
        complete &= board[f"{column.key}_n"].eq(board["seeds"])
    means = board.loc[complete, column.key].dropna()
    if means.empty:
        return none
    winner = column.format(means.max() if column.higher_is_better else means.min())
    return none | means.map(column.format).eq(winner).reindex(board.index, fill_value=False)


def failed_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """The cells that did not finish: study, stream, scenario, label, seed, status, error (one line)."""
    cells = prepare(frame)
    failed = cells.loc[cells["status"].ne("done"), FAILURE_COLUMNS]
    return failed.sort_values([*BOARD, "label", "seed"]).reset_index(drop=True)


def missing_cells(frame: pd.DataFrame, methods: Mapping[str, Collection[str]] | None = None) -> pd.DataFrame:
    """The cells that the others of their board make one expect: study, stream, scenario, label, seed, reason.

    A seed that any row of the board has is expected of every row. With `methods`, so is every method of the study in
    every scenario that it can do.
    """
    cells = prepare(frame)
    found = []
    for place, board in cells.groupby(BOARD):
        study, stream, scenario = map(str, place)
        present = board.groupby("label")["seed"].agg(set)
        if methods is not None:
            same = cells["study"].eq(study) & cells["stream"].eq(stream)
            able = [name for name in cells.loc[same, "method"].unique() if scenario in methods.get(name, ())]
            absent = sorted(set(able) - set(board["method"]))
            present = pd.concat([present, pd.Series([set()] * len(absent), index=absent, dtype=object)])
        for label, seeds in present.items():
            reason = "no record of this seed" if seeds else "no record in this scenario"
            found += [(study, stream, scenario, label, seed, reason) for seed in sorted(set(board["seed"]) - seeds)]
    return pd.DataFrame(found, columns=MISSING_COLUMNS)


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


def _failures(status: "pd.Series[str]") -> str:
    """ "2 timeout, 1 diverged"; empty where every cell finished."""
    counts = status[status.ne("done")].value_counts()
    return ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()))


def _variants(cells: pd.DataFrame) -> "pd.Series[str]":
    """For each cell, the hyper-parameters in which its method's cells differ inside its board."""
    names = [name for name in cells if str(name).startswith("hp.")]
    variant = pd.Series("", index=cells.index, dtype=object)
    for _, group in cells.groupby([*BOARD, "method"]):
        values = group[names].astype(str)
        differing = values.columns[values.nunique() > 1]
        if len(differing):
            variant[group.index] = values[differing].apply(
                lambda row: ", ".join(f"{name.removeprefix('hp.')}={value}" for name, value in row.items()), axis=1
            )
    return variant


def _absent_rows(rows: pd.DataFrame, methods: Mapping[str, Collection[str]]) -> pd.DataFrame:
    """A row with no numbers for every method of a study that one of its scenarios lacks."""
    absent = []
    for (study, stream), part in rows.groupby(["study", "stream"]):
        for scenario, board in part.groupby("scenario"):
            for method in sorted(set(part["method"]) - set(board["method"])):
                able = scenario in methods.get(method, ())
                absent.append(
                    {
                        "study": study,
                        "stream": stream,
                        "scenario": scenario,
                        "method": method,
                        "variant": "",
                        "label": method,
                        "cells": 0,
                        "n": 0,
                        "failures": "",
                        "seeds": board["seeds"].iloc[0],
                        "absent": "missing" if able else "not possible",
                    }
                )
    return pd.DataFrame(absent, columns=rows.columns)
