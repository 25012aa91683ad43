"""Numbers that papers have published: `benchmarks/reproduction/published.yaml`, read and checked.

settings:
  sequential_mnist_200:              # a name of our own
    says: ...                        # the paper's setting in a sentence
    study: ../sequential_mnist_200.yaml  # ours; null: we have none, and `why` says what is lacking
    stream: split mnist              # as the leaderboard names it; must be the study's
    scenarios: [class]
    margin: 0.8                      # within so many points (units of the metric's column) a number is reproduced
    given: ...                       # when that margin was set
    differs: ...                     # may be left out: how our study differs from the paper's setting
numbers:
  - setting: sequential_mnist_200
    method: er                       # a row of the table of methods
    paper: buzzega2020dark           # a key of cl_ext/references.bib, or a text where it has none
    where: ...                       # table, figure, file
    read: memory                     # how the number came here: a key of READ
    metric: accuracy                 # a column of the leaderboard; `accuracy` where left out
    value: 80.43                     # in the column's unit; {task: .., class: ..} where there are several scenarios
    spread: 1.89                     # as printed; `kind` says what it is: a key of KINDS; `n` the number of runs
    kind: sd
    n: 10
    variant: {mem_size: 200}         # may be left out: values laid over the study's
    study: null                      # where this one number is not tried; `why` says what is lacking
    why: ...                         # needed where ours deviates; may be {class: ..}
without:
  dualnet: ...                       # rows with no number here, and the reason
"""

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cl_ext.report.rows.columns import Column
from cl_ext.study.spec import Study

READ = {
    "read": "read in the paper",
    "figure": "read off a figure",
    "code": "from the authors' code, its output or its README",
    "second": "from a transcription of the paper or another paper's quotation",
    "slides": "from the authors' slides",
    "memory": "from memory in our specs or pages, not checked against the paper",
}
KINDS = {
    "sd": "sample standard deviation over the runs",
    "sem": "standard error of the mean",
    "unknown": "what it is is not known to us",
}

_ACCENTS = {"`": "\u0300", "'": "\u0301", "^": "\u0302", "~": "\u0303", '"': "\u0308"}


@dataclass(frozen=True)
class Setting:
    """A setting that a paper has numbers of.

    Attributes:
        key: Its name in the file.
        says: The paper's setting in a sentence.
        stream: The stream, as the leaderboard names it.
        scenarios: `task`, `domain`, `class`.
        study: Our study of it; None where there is none.
        margin: Within so many points a number counts as reproduced.
        given: When and where the margin was set.
        differs: How our study differs; "" for nothing that is known.
        why: What is lacking, where there is no study.
    """

    key: str
    says: str
    stream: str
    scenarios: tuple[str, ...]
    study: Study | None = None
    margin: float = math.nan
    given: str = ""
    differs: str = ""
    why: str = ""


@dataclass(frozen=True)
class Number:
    """One published number.

    Attributes:
        setting: Where it was measured.
        scenario: One of the setting's.
        method: The row of ours that is compared with it.
        column: What is measured; `value`, `spread` and margins are in its unit (per cent for accuracies).
        value: The number.
        paper: A key of `references.bib`, or a text.
        where: Table, figure or file.
        read: How it came here, a key of `READ`.
        spread: The spread as printed; NaN for none.
        kind: What the spread is, a key of `KINDS`.
        n: How many runs it is over; 0 where that is not said.
        variant: Values laid over the study's values of the method.
        tried: Whether the setting's study runs it.
        why: Why ours deviates, or what is lacking; "" where nothing has to be explained.
        at: File and line, for messages.
    """

    setting: Setting
    scenario: str
    method: str
    column: Column
    value: float
    paper: str
    where: str
    read: str
    spread: float = math.nan
    kind: str = "unknown"
    n: int = 0
    variant: Mapping[str, Any] = field(default_factory=dict)
    tried: bool = True
    why: str = ""
    at: str = ""

    @property
    def row(self) -> str:
        """The row as `reproduced.csv` names it: `er`, or `er (mem_size=500)`."""
        return row_label(self.method, self.variant)

    @property
    def sd(self) -> float:
        """The sample standard deviation of the paper's runs; NaN where spread, its kind or n is not known."""
        if self.n < 2 or self.kind == "unknown":
            return math.nan
        return self.spread * (math.sqrt(self.n) if self.kind == "sem" else 1.0)

    @property
    def scale(self) -> float:
        """From a record's value to the unit of the column: 100 for fractions that are shown in per cent."""
        return 100.0 if self.column.unit == "%" else 1.0


@dataclass(frozen=True)
class Published:
    """A checked file.

    Attributes:
        path: The file.
        settings: By name.
        numbers: In the file's order, one a scenario.
        without: Rows that have no number here, with the reason.
    """

    path: Path
    settings: Mapping[str, Setting]
    numbers: tuple[Number, ...]
    without: Mapping[str, str]


def row_label(method: str, variant: Mapping[str, Any]) -> str:
    """A method and what is set otherwise, as the leaderboard writes it."""
    said = ", ".join(f"{name}={value}" for name, value in variant.items())
    return f"{method} ({said})" if said else method


def short_citation(bibtex: str, key: str) -> str | None:
    """`Buzzega et al. 2020` for a key of a BibTeX text; None where it has no such key."""
    entry = re.search(rf"^@\w+\{{{re.escape(key)},\n(.*?)^\}}$", bibtex, re.DOTALL | re.MULTILINE)
    if entry is None:
        return None
    author, year = (re.search(rf"^\s*{name}\s*=\s*\{{(.*?)\}},?$", entry[1], re.DOTALL | re.MULTILINE)
                    for name in ("author", "year"))  # fmt: skip
    if author is None or year is None:
        return key
    names = [_plain(name.split(",")[0]).strip() for name in re.split(r"\s+and\s+", author[1])]
    who = names[0] if len(names) == 1 else " and ".join(names) if len(names) == 2 else f"{names[0]} et al."
    return f"{who} {year[1]}"


def _plain(name: str) -> str:
    """A BibTeX name without braces, its accents as letters."""
    bare = re.sub(r"[{}]", "", name)
    return unicodedata.normalize("NFC", re.sub(r"\\([`'\"^~])(\w)", lambda hit: hit[2] + _ACCENTS[hit[1]], bare))
