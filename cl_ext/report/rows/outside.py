"""Results of others, from a documented CSV: shown beside our own and marked, compared with nothing.

The file has a head line and one line a result, either a seed or a mean over `n` seeds:

==========  ==========================================================================================
study       the board it stands in, as the leaderboard names it: study, stream and scenario
stream      likewise
scenario    likewise: task, domain or class
method      how the row is called
seed        the seed, where the line is one run; then `n` and `sd` are empty
n           how many runs the mean is over, where it is one; then `seed` is empty
accuracy    final average accuracy, a fraction in [0, 1], not per cent
sd          sample standard deviation over the n runs, a fraction; may be empty: there is no interval then
source      where the number stands: paper and table
url         a link to it; may be empty
==========  ==========================================================================================

Further columns may be any that a leaderboard has (`forgetting`, `bwt`, `extra_bytes`, ...), in its units; empty where
the source does not say.
"""

import csv
import io
import math
from pathlib import Path
from typing import Any

from cl_ext.report.rows.cells import BOARD
from cl_ext.report.rows.columns import COLUMNS
from cl_ext.report.statistics import FEW_SEEDS, half_width, summarize
from cl_ext.study.document import StudyError

import pandas as pd

_NEEDED = ("study", "stream", "scenario", "method", "accuracy", "source")
_TEXTS = ("study", "stream", "scenario", "method", "source", "url")
_KEYS = tuple(column.key for column in COLUMNS)
_FRACTIONS = {column.key for column in COLUMNS if column.unit == "%"}
_ALLOWED = (*_TEXTS, "seed", "n", "sd", *_KEYS)


class OutsideError(StudyError):
    """A file with results of others does not say what it has to."""


def read_outside(path: Path | str) -> pd.DataFrame:
    """The results in a CSV file of the form above, checked.

    Args:
        path: the file, UTF-8, separated by commas.

    Returns:
        A row a line: the text columns, `seed` and `n` (NaN where the line has the other one), `sd`, and the measured
        columns of the file as floats; `line`, `file` for later messages.

    Raises:
        OutsideError: the file is not there, or lacks or has too much; names file, line, column, and what is allowed.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise OutsideError(f"{path}: can't be read as a UTF-8 text file: {error}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    heads = reader.fieldnames = [str(name).strip() for name in reader.fieldnames or ()]
    if absent := [name for name in _NEEDED if name not in heads]:
        raise OutsideError(f"{path}, line 1: the columns {', '.join(absent)} are missing; it has {', '.join(heads)}")
    if unknown := [name for name in heads if name not in _ALLOWED]:
        raise OutsideError(f"{path}, line 1: unknown column {unknown[0]!r}; columns can be {', '.join(_ALLOWED)}")
    if twice := [name for name in heads if heads.count(name) > 1]:
        raise OutsideError(f"{path}, line 1: the column {twice[0]!r} stands there twice")
    rows = [_line(row, f"{path}, line {reader.line_num}") | {"file": str(path)} for row in reader]
    if not rows:
        raise OutsideError(f"{path}: it has a head line and no results; it takes a line for each")
    columns = [*_TEXTS, "seed", "n", "sd", *(key for key in _KEYS if key in heads), "line", "file"]
    return pd.DataFrame(rows, columns=columns)


def outside_rows(outside: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of a leaderboard from results of others: means where the file has seeds, never a tier, test or bold.

    Args:
        outside: what `read_outside` gave.
        rows: the leaderboard's own rows, whose boards these join.

    Returns:
        A row a method and source, with the columns of `rows` that apply.

    Raises:
        OutsideError: a result names no board of the leaderboard, or seeds and means of one row are mixed.
    """
    boards = set(rows[BOARD].itertuples(index=False, name=None))
    unsaid: dict[str, Any] = {name: 0 for name in map(str, rows) if name.endswith("_n")}
    unsaid |= {name: "" for name in ("tuning_protocol", "tuning_seeds") if name in rows}
    found = []
    for (*place, method, source), part in outside.groupby([*BOARD, "method", "source"], sort=False):
        where = f"{part['file'].iloc[0]}, line {part['line'].iloc[0]}"
        if tuple(place) not in boards:
            names = "; ".join(", ".join(map(str, board)) for board in sorted(boards))
            said = ", ".join(map(str, place))
            raise OutsideError(f"{where}: there is no table of study, stream, scenario {said}; there are: {names}")
        if (seeds := part["seed"].notna()).any() and (not seeds.all() or part["seed"].duplicated().any()):
            raise OutsideError(f"{where}: {method!r} of {source!r} has a seed twice, or seeds beside a mean")
        if not seeds.any() and len(part) > 1:
            raise OutsideError(f"{where}: {method!r} of {source!r} has {len(part)} means; one row has one")
        n = len(part) if seeds.any() else int(part["n"].iloc[0])
        row = unsaid | dict(zip(BOARD, place, strict=True)) | {
            "method": method, "variant": "", "label": method, "outside": source, "url": part["url"].iloc[0],
            "reference": False, "complete": False, "few_seeds": n < FEW_SEEDS, "absent": "", "failures": "",
            "n": n, "cells": n, "seeds": n, "asked": n,
        }  # fmt: skip
        for key in (key for key in _KEYS if key in part and key in rows):
            summary = summarize(part[key])
            sd = float(part["sd"].iloc[0]) if key == "accuracy" and not seeds.any() else summary.sd
            row |= {
                key: summary.mean,
                f"{key}_sd": sd,
                f"{key}_half_width": float(half_width(sd, n)),
                f"{key}_n": n if summary.n == len(part) else summary.n,
            }
        found.append(row)
    return pd.DataFrame(found, columns=rows.columns)


def _line(row: dict[str, Any], where: str) -> dict[str, Any]:
    """One line's values; the message of an error names the line and the column."""
    if None in row or None in row.values():
        raise OutsideError(f"{where}: it has not as many fields as line 1 has columns")
    read: dict[str, Any] = {name: (row.get(name) or "").strip() for name in _TEXTS} | {"line": where.rpartition(" ")[2]}
    for name in _NEEDED:
        if not row[name].strip() and name != "stream":
            raise OutsideError(f"{where}, column {name}: it is empty; it takes {_meaning(name)}")
    for name in ("seed", "n", "sd", *_KEYS):
        if name in row or name in ("seed", "n", "sd"):
            read[name] = _number(name, (row.get(name) or "").strip(), where)
    if math.isnan(read["seed"]) == math.isnan(read["n"]):
        raise OutsideError(f"{where}: it takes either a seed or n, the number of runs that its mean is over")
    if not math.isnan(read["seed"]) and not math.isnan(read["sd"]):
        raise OutsideError(f"{where}, column sd: one run has none; leave it empty where there is a seed")
    return read


def _number(name: str, text: str, where: str) -> float:
    if not text:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    whole = name in ("seed", "n")
    least = {"seed": 0, "n": 1, "sd": 0}.get(name, -1 if name in _FRACTIONS - {"accuracy"} else 0)
    most = 1 if name in _FRACTIONS or name == "sd" else math.inf
    if not math.isfinite(value) or (whole and not value.is_integer()) or not least <= value <= most:
        raise OutsideError(f"{where}, column {name}: it is {text!r}; it takes {_meaning(name)}")
    return value


def _meaning(name: str) -> str:
    if name == "seed":
        return "a whole number of at least 0, or nothing"
    if name == "n":
        return "a whole number of at least 1, or nothing"
    if name in ("accuracy", "sd"):
        return "a fraction in [0, 1], not per cent"
    if name in _FRACTIONS:
        return "a fraction in [-1, 1], not per cent, or nothing"
    return "text" if name in _TEXTS else "a number of at least 0, or nothing"
