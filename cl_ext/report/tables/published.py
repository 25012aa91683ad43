"""`docs/reproduction.md`: published numbers beside ours, a table a method."""

import math
from collections.abc import Sequence

from cl_ext.methods import METHODS
from cl_ext.report.rows.measured import Measurement
from cl_ext.report.rows.published import READ, Number, Published, Setting
from cl_ext.report.rows.reproduction import STATUSES, Comparison
from cl_ext.report.tables.texts import DASH, scenario_name

_HEAD = """\
# Ours beside the papers

Written by `python scripts/published.py` from [published.yaml](../benchmarks/reproduction/published.yaml), what
papers say, and [reproduced.csv](../benchmarks/reproduction/reproduced.csv), what we measured, a history. Do not edit
it: a test holds the page to the two files.

Numbers are in per cent, differences in points. Ours is the mean over seeds ± half the width of its 95 % t-interval
(number of seeds); a paper's spread stands as printed, with its number of runs where it is known. With d = ours -
theirs, H half the width of its 95 % interval and m the setting's margin:

| status | when |
|---|---|
| reproduced | abs(d) <= m and H <= m |
| deviates | the whole interval of d lies beyond the margin, above m or below -m; a note says why |
| too few seeds to say | anything else (ours or theirs are too few), and always with fewer than three of ours |
| not tried | we have no measurement; a note says what is lacking |

The interval is Welch's where the paper's standard deviation and number of runs are known; else the paper's number is
taken as exact. Margins, and when they were set, stand with the [settings](#settings). *page*: no store is left of the
measurement, it was taken from a page of ours. *stale*: the row's revision or the study has changed since. *setting
differs*: our study is known to differ from the paper's setting, which stands there, too. A status says nothing about
how the paper's number came here; the word in brackets behind its source does:
"""


def reproduction_page(published: Published, comparisons: Sequence[Comparison]) -> str:
    """The page.

    Args:
        published: The published numbers.
        comparisons: Of `compare_published`.
    """
    parts = [_HEAD, _legend(), _counts(comparisons)]
    by_method: dict[str, list[Comparison]] = {}
    for one in comparisons:
        by_method.setdefault(one.number.method, []).append(one)
    for name in sorted(by_method, key=_order):
        parts.append(_method(name, by_method[name]))
    parts.append(_without(published))
    parts.append("## Settings\n")
    used = {one.number.setting.key for one in comparisons}
    parts += [_setting(setting) for key, setting in published.settings.items() if key in used]
    return "\n".join(parts).rstrip() + "\n"


def _order(name: str) -> tuple[int, str]:
    """Methods in the order of the table of methods, its references first."""
    names = list(METHODS.own_names)
    return (names.index(name) if name in names else len(names), name)


def _legend() -> str:
    return (
        "\n".join(["| source | what it means |", "|---|---|", *(f"| {key} | {said} |" for key, said in READ.items())])
        + "\n"
    )


def _counts(comparisons: Sequence[Comparison]) -> str:
    counted = {status: sum(one.status == status for one in comparisons) for status in STATUSES}
    lines = ["| numbers | " + " | ".join(STATUSES) + " |", "|---" * (len(STATUSES) + 1) + "|"]
    lines.append(f"| {len(comparisons)} | " + " | ".join(str(counted[status]) for status in STATUSES) + " |")
    return "\n".join(lines) + "\n"


def _method(name: str, rows: Sequence[Comparison]) -> str:
    """A method's measured numbers with their notes and commands, then those that were not tried."""
    parts = [f"## {name}\n"]
    if tried := [one for one in rows if one.ours is not None]:
        parts.append(_measured(tried))
    if untried := [one for one in rows if one.ours is None]:
        parts.append(_untried(untried))
    return "\n".join(parts)


def _measured(rows: Sequence[Comparison]) -> str:
    notes: dict[str, int] = {}
    lines = ["| setting | scenario | metric | paper | ours | difference | status | source |", "|---" * 8 + "|"]
    for one in rows:
        number = one.number
        note = f" ({notes.setdefault(number.why, len(notes) + 1)})" if number.why else ""
        marks = (", *stale*" if one.stale else "") + (", *setting differs*" if number.setting.differs else "")
        said = one.status + marks + note
        cells = [_place(number), number.scenario, number.column.title, _theirs(number), _ours(one), _difference(one)]
        lines.append(_line([*cells, said, _source(number)]))
    lines += ["", *(f"{mark}. {why}" for why, mark in notes.items()), *([""] if notes else [])]
    lines += [f"    {text}" for text in dict.fromkeys(command(one.number, one.ours) for one in rows)]
    return "\n".join(lines) + "\n"


def _untried(rows: Sequence[Comparison]) -> str:
    """A line for the scenarios of one entry."""
    together: dict[tuple[str, ...], list[Number]] = {}
    for one in rows:
        number = one.number
        why = number.why or f"Not run yet: `{command(number)}`"
        key = (_place(number), number.column.title, _source(number), why)
        together.setdefault(key, []).append(number)
    lines = ["Not tried:\n", "| setting | metric | paper | source | what is lacking |", "|---" * 5 + "|"]
    for (place, title, source, why), numbers in together.items():
        theirs = ", ".join(f"{number.scenario} {_theirs(number)}" for number in numbers)
        lines.append(_line([place, title, theirs, source, why]))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _place(number: Number) -> str:
    """The setting, with what is set otherwise than in its study."""
    key = number.setting.key
    return f"[{key}](#{key}){number.row.removeprefix(number.method)}"


def _source(number: Number) -> str:
    return f"{number.paper}, {number.where} ({number.read})"


def command(number: Number, ours: Measurement | None = None) -> str:
    """How a number is measured, with the seeds that were measured where they are not the study's."""
    study = number.setting.study
    if study is None or study.path is None:
        return ""
    seeds = f" --seeds {ours.seeds}" if ours is not None and ours.seeds else ""
    return f"cl-ext run benchmarks/{study.path.name} --data-root DATA --methods {number.method}{seeds}"


def _theirs(number: Number) -> str:
    """Value, spread and number of runs, with the decimals of the file."""
    text = _decimals(number.value)
    if not math.isnan(number.spread):
        text += f" ± {_decimals(number.spread)}"
    return text + (f" ({number.n})" if number.n else "")


def _ours(one: Comparison) -> str:
    ours, number = one.ours, one.number
    if ours is None:
        return DASH
    text = f"{ours.mean * number.scale:.2f}"
    if not math.isnan(ours.half_width):
        text += f" ± {ours.half_width * number.scale:.2f}"
    return f"{text} ({ours.n})" + ("" if ours.cell else ", *page*")


def _difference(one: Comparison) -> str:
    if one.difference is None:
        return DASH
    text = f"{one.difference.estimate:+.2f}"
    if math.isnan(one.difference.low):
        return text
    return f"{text} [{one.difference.low:+.2f}, {one.difference.high:+.2f}]"


def _decimals(value: float) -> str:
    """A number with at least one decimal and as many as were given."""
    text = f"{value:.10g}"
    return text if "." in text else f"{text}.0"


def _setting(setting: Setting) -> str:
    where = f"{setting.stream}, {' / '.join(scenario_name(one) for one in setting.scenarios)}"
    lines = [f"### {setting.key}\n", f"{setting.says} ({where}.)"]
    if setting.study is None:
        lines += ["", f"No study of ours: {setting.why}"]
    else:
        path = setting.study.path
        name = path.name if path is not None else setting.study.name
        lines += ["", f"Ours: [benchmarks/{name}](../benchmarks/{name}). {setting.differs}".rstrip()]
        lines += [f"Margin {setting.margin:g} points. {setting.given}"]
    return "\n".join(lines) + "\n"


def _without(published: Published) -> str:
    lines = ["## Rows with no number here\n", "| row | why |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {why} |" for name, why in published.without.items())]) + "\n"
