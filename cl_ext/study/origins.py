"""Where a study's values come from: what its `tuning` says, by method and scenario. Neither numpy nor pandas."""

from collections.abc import Mapping
from typing import Any

from cl_ext.methods import METHODS
from cl_ext.study.spec import Study

Group = tuple[str, str]
"""A method and a scenario."""

ALL = "all"
"""In the place of a method's name in `tuning`: the methods that are not named."""

KEYS = ("protocol", "configurations", "seeds")


def tuning_of(tuning: Mapping[str, Any], method: str, scenario: str) -> dict[str, Any]:
    """How a method's values in one scenario were chosen, from a study's `tuning`; None for what it does not say.

    A key holds one value for all, or a mapping of method (or `all`, the others) to one for all scenarios or to a
    mapping of scenario to value. The number of configurations is a method's only in a mapping: a plain number counts
    those of all methods together. What that mapping leaves out, a method or one of its scenarios, has of the other
    keys only what names it.

    Returns:
        `protocol`, `configurations`, `seeds`.
    """
    counts = tuning.get("configurations")
    least = 0
    if isinstance(counts, Mapping) and _entry(counts, method, scenario)[0] is None:
        least = 2 if isinstance(counts.get(method, counts.get(ALL)), Mapping) else 1

    def own(key: str) -> Any:
        value, exact = _entry(tuning.get(key), method, scenario)
        return value if exact >= least else None

    return {
        "protocol": own("protocol"),
        "configurations": own("configurations") if isinstance(counts, Mapping) else None,
        "seeds": own("seeds"),
    }


def _entry(value: Any, method: str, scenario: str) -> tuple[Any, int]:
    """What a key of `tuning` holds for a method in a scenario, and whether it names neither (0), the method (1) or
    both (2)."""
    exact = 0
    if isinstance(value, Mapping):
        exact = int(method in value)
        value = value.get(method, value.get(ALL))
    if isinstance(value, Mapping):
        exact, value = 2, value.get(scenario)
    return value, exact


def able(study: Study, method: str) -> list[str]:
    """The study's scenarios that a method can do."""
    return [scenario for scenario in study.scenarios if scenario in METHODS[method].scenarios]


def own_values(study: Study, method: str, scenario: str) -> dict[str, Any]:
    """A method's values in one scenario, of those that the study sets."""
    given = study.values.get(method, {}).items()
    own = {name: value.get(scenario) if isinstance(value, Mapping) else value for name, value in given}
    return {name: value for name, value in own.items() if value is not None}


def is_named(tuning: Mapping[str, Any], method: str) -> bool:
    """Whether a study's `tuning` says something of this very method."""
    return any(isinstance(value, Mapping) and method in value for value in tuning.values())


def combined_tuning(study: Study, new: Mapping[Group, Mapping[str, Any]]) -> dict[str, Any]:
    """The study's `tuning` where some values were chosen anew; the others keep what the study said of them.

    Args:
        study: The study, with how its values were chosen before.
        new: By method and scenario, `protocol`, `configurations` and `seeds`.
    """
    if not new:
        return dict(study.tuning)
    every = dict(new)
    for method in study.methods:
        if method not in study.values and not is_named(study.tuning, method):
            continue  # one protocol for all is not that of defaults
        for scenario in able(study, method):
            before = tuning_of(study.tuning, method, scenario)
            if (method, scenario) not in new and any(before.values()):
                every[method, scenario] = before
    tuning = {}
    counted = {group for group, how in every.items() if how["configurations"] is not None}
    for key in KEYS:
        own = {group: how[key] for group, how in every.items() if how[key] is not None}
        if own:
            tuning[key] = _short(study, own, None if key == "configurations" else counted)
    return tuning


def _short(study: Study, own: Mapping[Group, Any], counted: set[Group] | None) -> Any:
    """One key of `tuning` in as few words as say the same (see `tuning_of`).

    Args:
        study: The study.
        own: What the key holds, by method and scenario.
        counted: Those that have a number of configurations; None for that key itself.
    """
    entries = {method: _by_scenario(study, method, own, counted) for method, _ in own}
    if not counted or not counted <= set(own):
        return entries
    one: dict[str, Any] = {}
    for method in entries:
        groups = [group for group in own if group[0] == method]
        if counted.issuperset(groups) and all(own[group] == own[groups[0]] for group in groups):
            one[method] = own[groups[0]]
    values = list(one.values())
    shared = max(values, key=values.count, default=None)
    agreeing = [method for method, value in one.items() if value == shared]
    if len(agreeing) == len(entries):
        return shared
    if len(agreeing) < 2:
        return entries
    return {ALL: shared} | {method: entry for method, entry in entries.items() if method not in agreeing}


def _by_scenario(study: Study, method: str, own: Mapping[Group, Any], counted: set[Group] | None) -> Any:
    """A method's entry: one value where it is that of all its scenarios, else a mapping of scenario to value."""
    scenarios = able(study, method)
    given = {scenario: own[method, scenario] for scenario in scenarios if (method, scenario) in own}
    first = next(iter(given.values()))
    some = {scenario for scenario in scenarios if counted and (method, scenario) in counted}
    whole = len(given) == len(scenarios) and len(some) in (0, len(scenarios))
    return first if whole and all(value == first for value in given.values()) else given
