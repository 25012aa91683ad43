"""A search on the terminal: what every value gave, what was chosen, and what to look at again."""

from collections.abc import Iterator, Sequence
from typing import Any

from cl_ext.study.spec import Study
from cl_ext.study.tune import Found, Tried

from rich.table import Table


def tuning_table(study: Study, found: Sequence[Found]) -> Table:
    """A row a method and scenario: accuracy in per cent by value, the chosen value, whether it lies on an edge."""
    table = Table(title=f"{study.name}: accuracy on held-out data in %", title_justify="left")
    for title in ("method", "scenario"):
        table.add_column(title, no_wrap=True)
    table.add_column("tuned")
    table.add_column("value: accuracy", overflow="fold")
    table.add_column("chosen", no_wrap=True)
    table.add_column("edge", no_wrap=True)
    for each in found:
        tried = ", ".join(f"{_point(one)}: {_accuracy(one)}" for one in each.tried)
        chosen = "-" if each.chosen is None else _point(each.chosen)
        names = ", ".join(each.tried[0].setting.values)
        table.add_row(each.method, each.scenario, names, tried, chosen, ", ".join(each.edges))
    return table


def tuning_lines(found: Sequence[Found]) -> Iterator[str]:
    """What to look at again: a best value on the edge of its grid, settings that did not finish."""
    for each in found:
        where = f"{each.method}, {each.scenario}-incremental"
        if each.chosen is None:
            yield f"{where}: no setting finished, so nothing is chosen; the study keeps what it had"
        for name in each.edges:
            low, high = map(_text, each.ends(name))
            value = _text(each.chosen.setting.values[name]) if each.chosen else ""
            yield f"{where}: best at the edge of its range: {name} = {value}, searched from {low} to {high}"
        failures = [f"{_point(one)} {one.failure}" for one in each.tried if one.failure]
        if failures and each.chosen is not None:
            yield f"{where}: not chosen from: {', '.join(failures)}"


def _accuracy(tried: Tried) -> str:
    return f"{100 * tried.mean:.1f}" if tried.mean is not None else tried.failure or "-"


def _point(tried: Tried) -> str:
    return "/".join(_text(value) for value in tried.setting.values.values())


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
