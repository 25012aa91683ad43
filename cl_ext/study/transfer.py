"""Protocols that search nothing: values as the study or the papers have them, and values tuned on another study."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cl_ext.methods import METHODS
from cl_ext.study.document import StudyError
from cl_ext.study.origins import Group, able, combined_tuning, is_named, own_values, tuning_of
from cl_ext.study.spec import Study
from cl_ext.study.tuned import lay_over, study_text, write_text


@dataclass(frozen=True)
class Given:
    """Values that were not searched here.

    Attributes:
        values: The study's `values` with them.
        tuning: The study's `tuning`, which says where they come from.
        command: The command line that gives them.
        lines: What there is to say of single methods.
    """

    values: Mapping[str, Mapping[str, Any]]
    tuning: Mapping[str, Any]
    command: str
    lines: tuple[str, ...] = ()

    def write(self, study: Study, place: Path, data_root: Path | None = None) -> Path:
        """Writes the study with these values."""
        text = study_text(study, self.values, self.tuning, self.command, place.parent, data_root)
        write_text(place, text)
        return place


def _selected(study: Study, methods: Sequence[str] | None) -> list[str]:
    names = study.with_selection(methods).methods
    return [name for name in names if METHODS[name].hyperparameters]


def _command(study: Study, protocol: str, methods: Sequence[str] | None, *more: str) -> str:
    words = ["cl-ext", "tune", str(study.path or study.name), "--protocol", protocol, *more]
    return shlex.join([*words, *(["--methods", ",".join(methods)] if methods else [])])


def fixed(study: Study, methods: Sequence[str] | None = None) -> Given:
    """The values as they are: the study's, else the defaults of its row, which `cl-ext methods NAME` explains.

    What the study says of how its values were found goes on being said.

    Args:
        study: The study.
        methods: Only these.

    Raises:
        StudyError: See `Study.with_selection`; or none of the methods has a hyper-parameter.
    """
    names = _selected(study, methods)
    if not names:
        raise StudyError("--protocol fixed: none of these methods has a hyper-parameter, so there is nothing to say")
    new = {(name, scenario): _as_it_was(study, name, scenario) for name in names for scenario in able(study, name)}
    return Given(study.values, combined_tuning(study, new), _command(study, "fixed", methods))


def _as_it_was(study: Study, method: str, scenario: str) -> dict[str, Any]:
    """Where fixed values come from: from what the study says, else from nowhere, and then nothing was tried."""
    values = own_values(study, method, scenario)
    how = tuning_of(study.tuning, method, scenario)
    if any(how.values()) and (values or is_named(study.tuning, method)):
        before = how["protocol"] or "the study's values"
        return how | {"protocol": before if before.startswith("fixed: ") else f"fixed: {before}"}
    said = "the study's values" if values else "the row's defaults"
    return {"protocol": f"fixed: {said}", "configurations": 0, "seeds": []}


def transferred(study: Study, source: Study, methods: Sequence[str] | None = None) -> Given:
    """The values that were tuned on another study, scenario by scenario (Cha & Cho 2024 ask how methods do so).

    Args:
        study: The study.
        source: The other one, as `cl-ext tune` wrote it.
        methods: Only these.

    Raises:
        StudyError: The other study has nothing to give, or it was tuned on data that this one reports.
    """
    changes: list[tuple[str, str, Mapping[str, Any]]] = []
    new: dict[Group, dict[str, Any]] = {}
    lines: list[str] = []
    silent: list[str] = []
    place = f"{source.name}, version {source.version} ({source.stream_label()})"
    for name in _selected(study, methods):
        ways = {scenario: _tuned(source, name, scenario) for scenario in able(source, name)}
        if not any(ways.values()):
            silent.append(name)
            continue
        for scenario in able(study, name):
            how = ways.get(scenario)
            if how is None:
                tuned = "tuned " if scenario in source.scenarios else ""
                missing = f"{source.name} has no {tuned}{scenario}-incremental values"
                lines.append(f"{name}: {missing}; the study keeps what it had there")
                continue
            _check_seeds(study, source, name, how["seeds"] or ())
            changes.append((name, scenario, own_values(source, name, scenario)))
            new[name, scenario] = how | {"protocol": f"transfer from {place}: {how['protocol']}"}
    if silent:
        lines.append(f"the study keeps what it had, because {source.name} was not tuned for it: {', '.join(silent)}")
    if not new:
        raise StudyError(
            f"--from: {source.name} has no tuned values of this study's methods in its scenarios; "
            f"`cl-ext tune {source.path or source.name}` makes a study that has"
        )
    command = _command(study, "transfer", methods, "--from", str(source.path or source.name))
    return Given(lay_over(study, changes), combined_tuning(study, new), command, tuple(lines))


def _tuned(source: Study, method: str, scenario: str) -> dict[str, Any] | None:
    """How a study's values of a method in a scenario were chosen; None where it has none, or does not say it."""
    how = tuning_of(source.tuning, method, scenario)
    return how if how["protocol"] and own_values(source, method, scenario) else None


def _check_seeds(study: Study, source: Study, method: str, seeds: Sequence[int]) -> None:
    reported = [seed for seed in seeds if seed in study.seeds]
    if reported and study.stream_fields() == source.stream_fields():
        raise StudyError(
            f"--from: {method} was tuned on seed {reported[0]} of the same stream, and the study reports that seed"
        )
