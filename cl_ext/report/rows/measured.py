"""Our measurements of published numbers: `benchmarks/reproduction/reproduced.csv`, read and appended to.

A line is a measurement; lines are appended and never edited, so that the file is a history, and the last line of a row
counts. Accuracies are fractions, as in `leaderboard.csv`.
"""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from cl_ext.report.rows.published import Number
from cl_ext.study.document import StudyError

HEAD = """\
# Our measurements of the numbers in published.yaml, one a line: appended by scripts/published.py and never edited.
# The last line of a row counts. mean and half_width (of the 95 % t-interval over the seeds) are as in leaderboard.csv:
# accuracies are fractions. commit: of the code measured. cell: the run id at seed 0 of what was measured; it is empty
# where no store is left and the number was taken from a page, named in note.
"""


@dataclass(frozen=True)
class Measurement:
    """One line.

    Attributes:
        date: The day on which the last of its cells finished, YYYY-MM-DD.
        commit: The commits of the code measured; "not recorded" where a record says none.
        study: The study's name.
        stream: As the leaderboard names it.
        scenario: `task`, `domain` or `class`.
        row: `er`, or `er (mem_size=500)`.
        metric: A column's key.
        mean: Over the seeds; accuracies as fractions.
        half_width: Half the width of the 95 % t-interval; NaN for one seed.
        n: How many seeds.
        seeds: Which, as `--seeds` takes them.
        cell: The run id of its cell at seed 0: it changes with the row's revision and with the study.
        machine: Kind, cores, versions.
        note: What else is to be said.
    """

    date: str
    commit: str
    study: str
    stream: str
    scenario: str
    row: str
    metric: str
    mean: float
    half_width: float
    n: int
    seeds: str
    cell: str = ""
    machine: str = ""
    note: str = ""

    @property
    def place(self) -> tuple[str, str, str, str, str]:
        """What it measures."""
        return self.study, self.stream, self.scenario, self.row, self.metric


_COLUMNS = tuple(field.name for field in dataclasses.fields(Measurement))
Place = tuple[str, str, str, str, str]


def place_of(number: Number) -> Place | None:
    """Which measurement is compared with a number; None where it is not tried."""
    if not number.tried or number.setting.study is None:
        return None
    return number.setting.study.name, number.setting.stream, number.scenario, number.row, number.column.key


def read_measured(path: Path | str) -> list[Measurement]:
    """The lines of a history, in its order.

    Raises:
        StudyError: The file is not there, or a line has not what it takes; names file, line and column.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: can't be read as a UTF-8 text file: {error}") from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if not line.startswith("#")]
    if not lines or tuple(next(csv.reader([lines[0][1]]))) != _COLUMNS:
        raise StudyError(f"{path}, line {lines[0][0] if lines else 1}: the head line must be {','.join(_COLUMNS)}")
    return [_measurement(line, f"{path}, line {number}") for number, line in lines[1:]]


def latest(lines: Sequence[Measurement]) -> dict[Place, Measurement]:
    """The line that counts of each row: its last one."""
    return {line.place: line for line in lines}


def append(path: Path | str, new: Sequence[Measurement]) -> list[Measurement]:
    """Appends the measurements that the file does not have yet; makes the file where there is none.

    Returns:
        What was appended: a measurement equal to the last line of its row, but for its day and note, is not.
    """
    path = Path(path)
    known = latest(read_measured(path)) if path.exists() else {}
    told = [line for line in new if line.place not in known or _apart(known[line.place]) != _apart(line)]
    if told:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        if not path.exists():
            out.write(HEAD)
            writer.writerow(_COLUMNS)
        writer.writerows([_text(getattr(line, name)) for name in _COLUMNS] for line in told)
        with path.open("a", encoding="utf-8") as file:
            file.write(out.getvalue())
    return told


def _apart(line: Measurement) -> tuple[str, ...]:
    """A measurement as the file holds it, without what does not tell it from another (NaN would equal nothing)."""
    return tuple(_text(getattr(line, name)) for name in _COLUMNS if name not in ("date", "note"))


def _measurement(line: str, where: str) -> Measurement:
    fields = next(csv.reader([line]), [])
    if len(fields) != len(_COLUMNS):
        raise StudyError(f"{where}: it has {len(fields)} fields; it takes {len(_COLUMNS)}: {', '.join(_COLUMNS)}")
    given = dict(zip(_COLUMNS, fields, strict=True))
    if absent := [name for name in _COLUMNS[:8] if not given[name].strip()]:
        raise StudyError(f"{where}, column {absent[0]}: it is empty")
    try:
        date.fromisoformat(given["date"])
    except ValueError:
        raise StudyError(f"{where}, column date: it is {given['date']!r}; it takes a day as 2026-11-22") from None
    numbers = {name: _float(given[name], where, name) for name in ("mean", "half_width", "n")}
    n = numbers["n"]
    if not n >= 1 or n != int(n):
        raise StudyError(f"{where}, column n: it is {given['n']!r}; it takes a whole number of at least 1")
    if not math.isfinite(numbers["mean"]):
        raise StudyError(f"{where}, column mean: it is {given['mean']!r}; it takes a number")
    if math.isnan(numbers["half_width"]) != (n == 1) or numbers["half_width"] < 0:
        raise StudyError(
            f"{where}, column half_width: it is {given['half_width']!r} with n = {n:g}; it takes a number of at least "
            "0, and nothing where n is 1"
        )
    texts = {name: given[name] for name in _COLUMNS if name not in numbers}
    return Measurement(mean=numbers["mean"], half_width=numbers["half_width"], n=int(n), **texts)


def _float(text: str, where: str, column: str) -> float:
    if not text.strip():
        return math.nan
    try:
        return float(text)
    except ValueError:
        raise StudyError(f"{where}, column {column}: it is {text!r}; it takes a number") from None


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.8g}"
    return str(value)
