"""From the tidy frame, a row a cell, to the leaderboard, a row a method."""

from collections.abc import Collection, Mapping

from cl_ext.report.rows.cells import BOARD, REFERENCES, ROW, prepare
from cl_ext.report.rows.columns import COLUMNS, Column
from cl_ext.report.rows.gaps import Asked, asked_for
from cl_ext.report.rows.outside import outside_rows
from cl_ext.report.rows.verdicts import judge
from cl_ext.report.statistics import FEW_SEEDS, half_width

import numpy as np
import pandas as pd

__all__ = ["BOARD", "REFERENCES", "ROW", "best", "leaderboard", "prepare"]

_TUNING = {"tuning_protocol": "; ", "tuning_seeds": "; ", "tuning_configurations": None}
_FRONT = [
    *ROW, "label", "reference", "best", "tier", "n", "cells", "seeds", "asked", "complete", "few_seeds", "failures",
    "absent", "outside", "url",
]  # fmt: skip


def leaderboard(
    frame: pd.DataFrame,
    methods: Mapping[str, Collection[str]] | None = None,
    *,
    asked: Asked | None = None,
    within: Mapping[str, float] | None = None,
    outside: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """One row per method of each board, the most accurate first.

    Args:
        frame: the tidy frame, a row a cell.
        methods: method -> the scenarios it can do. With it, a method of the study that a scenario lacks is a row with
            no numbers, and `absent` says why; without it, such a row is left out.
        asked: what the studies ask for (see `cl_ext.report.rows.gaps.asked_of`): methods and seeds without any record
            count as missing, too.
        within: a budget: column -> the most that a row's mean may be, as {"extra_bytes": 1e6, "cost_relative": 2}. Rows
            above it, or with no number there, are left out before anything is compared; references stay.
        outside: results of others (see `cl_ext.report.rows.outside.read_outside`), which follow each board's own rows
            and are compared with none.

    Returns:
        A frame with the columns

        - study, stream, scenario, method, variant, label;
        - `reference`; `best`: the highest mean accuracy among the complete rows that are no reference; `tier`: 1 for
          the rows that no other is shown to beat, and so on; <NA> for references, incomplete rows and too few seeds;
        - `n` finished cells of `cells`, of `seeds` in the board and `asked` by the study; `complete` (n = seeds,
          each with an accuracy);
          `failures` ("2 timeout, 1 diverged"); `few_seeds` (n < 5); `absent` ("not possible", "missing" or "");
        - `kind`: what the board's study is (see `collect`), where the frame has it;
        - `outside`: the source of a result from elsewhere, "" for our own; `url`;
        - `tuning_protocol`, `tuning_configurations`, `tuning_seeds` where the frame has them;
        - for every entry of `COLUMNS` that the frame has, with key k: the mean k, `k_sd`, `k_half_width` (95 % Student
          t) and `k_n`, as fractions and plain units, not per cent;
        - the differences of `cl_ext.report.rows.verdicts.judge`: `from_best...`, `from_naive...`.

    Raises:
        ValueError: see `prepare`; `within` names a column that is none, or that the frame lacks.
    """
    cells = prepare(frame)
    rows = _rows(cells, asked)
    rows["absent"] = ""
    if methods is not None:
        rows = pd.concat([rows, _absent_rows(rows, methods, asked)], ignore_index=True)
    rows["reference"] = rows["method"].isin(REFERENCES)
    rows["few_seeds"] = rows["n"] < FEW_SEEDS
    rows["outside"], rows["url"] = "", ""
    rows = _measured(rows, cells)
    rows["complete"] = rows["n"].gt(0) & rows["n"].eq(rows["seeds"])
    if "accuracy_n" in rows:  # a cell may finish without a defined accuracy
        rows["complete"] &= rows["accuracy_n"].eq(rows["seeds"])
    if within is not None:
        rows = rows[rows["reference"] | _fits(rows, within)]
    if outside is not None:
        rows = pd.concat([rows, outside_rows(outside, rows)], ignore_index=True)
    rows = rows.sort_values(["accuracy", "label"], ascending=[False, True], na_position="last")
    rows = rows.sort_values("outside", key=lambda source: source.ne(""), kind="stable")
    rows = rows.sort_values(BOARD, kind="stable").reset_index(drop=True)
    marks = [best(board, COLUMNS[0]) for _, board in rows.groupby(BOARD)]
    marked = pd.concat(marks).reindex(rows.index) if marks else pd.Series(False, index=rows.index)
    rows = judge(pd.concat([rows, marked.rename("best")], axis=1), cells)
    return rows[[*_FRONT, *(name for name in rows if name not in _FRONT)]]


def best(board: pd.DataFrame, column: Column) -> "pd.Series[bool]":
    """Which rows of one board hold the best mean of a column, ties at the shown precision included.

    None does where all rows that compete tie.

    References compete with none. Nor do rows with failed or missing cells: a mean over the seeds that a method survived
    is not comparable with means over all seeds. Nor do results from elsewhere.

    Args:
        board: the rows of one board, as `leaderboard` gives them.
        column: the column; one with no direction has no best.

    Returns:
        A flag a row, indexed as `board`.
    """
    none = pd.Series(False, index=board.index)
    if column.higher_is_better is None or column.key not in board:
        return none
    complete = ~board["reference"] & board["complete"]
    if f"{column.key}_n" in board:
        complete &= board[f"{column.key}_n"].eq(board["seeds"])
    means = board.loc[complete, column.key].dropna()
    if means.empty:
        return none
    winner = column.format(means.max() if column.higher_is_better else means.min())
    shown = means.map(column.format).eq(winner)
    return none if shown.all() and len(shown) > 1 else none | shown.reindex(board.index, fill_value=False)


def _rows(cells: pd.DataFrame, asked: Asked | None) -> pd.DataFrame:
    """A row a method of each board, with its cells counted and what is said of its tuning."""
    held = [name for name in _TUNING if name in cells]
    kinds = {"kind": ("kind", "first")} if "kind" in cells else {}
    by_row = cells.groupby([*ROW, "label"], as_index=False)
    rows = by_row.agg(
        cells=("seed", "size"),
        n=("status", lambda status: int(status.eq("done").sum())),
        failures=("status", _failures),
        **kinds,
        **{name: (name, _said if _TUNING[name] else "max") for name in held},
    )
    rows = rows.join(cells.groupby(BOARD)["seed"].agg(set).rename("of"), on=BOARD)
    places = zip(rows["study"], rows["stream"], rows["of"], strict=True)
    rows["asked"] = [len(seeds | asked_for(asked, study, stream, "seeds")) for study, stream, seeds in places]
    rows["seeds"] = rows["of"].map(len).astype(int)
    return rows.drop(columns="of")


def _measured(rows: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """The rows with mean, spread, interval and count of every measured column."""
    keys = [column.key for column in COLUMNS if column.key in cells]
    done = cells.loc[cells["status"].eq("done"), [*ROW, *keys]]
    by_row = done.astype(dict.fromkeys(keys, float)).groupby(ROW)[keys]
    mean, sd, count = by_row.mean(), by_row.std(), by_row.count()
    measured = {}
    for key in keys:
        measured[key] = mean[key]
        measured[f"{key}_sd"] = sd[key]
        measured[f"{key}_half_width"] = pd.Series(half_width(sd[key], count[key]), sd.index)
        measured[f"{key}_n"] = count[key]
    if not measured:  # where nothing finished, the frame may have no measured column at all
        return rows.assign(accuracy=float("nan"))
    rows = rows.join(pd.DataFrame(measured), on=ROW)
    rows = rows.fillna({f"{key}_n": 0 for key in keys}).astype({f"{key}_n": int for key in keys}).copy()
    return rows if "accuracy" in rows else rows.assign(accuracy=float("nan"))


def _fits(rows: pd.DataFrame, within: Mapping[str, float]) -> "pd.Series[bool]":
    """Which rows keep to a budget."""
    known = [column.key for column in COLUMNS if column.key in rows]
    fits = pd.Series(True, index=rows.index)
    for key, limit in within.items():
        if key not in known:
            raise ValueError(f"within has {key!r}, which is no measured column here; there are {', '.join(known)}")
        fits &= rows[key].le(limit)  # NaN is above every limit: what is not known fits no budget
    return fits


def _failures(status: "pd.Series[str]") -> str:
    """ "2 timeout, 1 diverged"; empty where every cell finished."""
    counts = status[status.ne("done")].value_counts()
    return ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()))


def _said(values: "pd.Series[str]") -> str:
    """What the cells of a row say of their tuning: one text, or all that differ."""
    return "; ".join(sorted({str(value) for value in values.dropna()}))


def _absent_rows(
    rows: pd.DataFrame, methods: Mapping[str, Collection[str]], asked: Asked | None = None
) -> pd.DataFrame:
    """A row with no numbers for every method of a study that one of its scenarios lacks."""
    absent = []
    for place, part in rows.groupby(["study", "stream"]):
        study, stream = map(str, place)
        names = set(part["method"]) | (asked_for(asked, study, stream, "methods") & set(methods))
        for scenario, board in part.groupby("scenario"):
            for method in sorted(names - set(board["method"])):
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
                        "asked": board["asked"].iloc[0],
                        "absent": "missing" if able else "not possible",
                        **({"kind": board["kind"].iloc[0]} if "kind" in board else {}),
                        **{name: "" if _TUNING[name] else np.nan for name in _TUNING if name in rows},
                    }
                )
    return pd.DataFrame(absent, columns=rows.columns)
