"""Protocols that search nothing: values as the study or the papers have them, and values tuned on another study."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cl_ext.methods import METHODS
from cl_ext.study.document import StudyError
from cl_ext.study.frame import tuning_of
from cl_ext.study.spec import Study
from cl_ext.study.tuned import combined_tuning, lay_over, study_text, write_text


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
    """The values as they are: the study's, else the rows' defaults, which are the papers'.

    Args:
        study: The study.
        methods: Only these.

    Raises:
        StudyError: See `Study.with_selection`; or none of the methods has a hyper-parameter.
    """
    names = _selected(study, methods)
    if not names:
        raise StudyError("--protocol fixed: none of these methods has a hyper-parameter, so there is nothing to say")
    whose = {name: "the study's values" if name in study.values else "the paper's values" for name in names}
    new = {name: {"protocol": f"fixed: {said}", "configurations": 0, "seeds": []} for name, said in whose.items()}
    return Given(study.values, combined_tuning(study, new), _command(study, "fixed", methods))


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
    new: dict[str, dict[str, Any]] = {}
    lines: list[str] = []
    silent: list[str] = []
    for name in _selected(study, methods):
        how = tuning_of(source.tuning, name)
        if name not in source.values or not how["protocol"]:
            silent.append(name)
            continue
        same_stream = study.stream_fields() == source.stream_fields()
        reported = [seed for seed in how["seeds"] or () if seed in study.seeds]
        if same_stream and reported:
            raise StudyError(
                f"--from: {name} was tuned on seed {reported[0]} of the same stream, and the study reports that seed"
            )
        able = [scenario for scenario in study.scenarios if scenario in METHODS[name].scenarios]
        shared = [scenario for scenario in able if scenario in source.scenarios]
        changes += [(name, scenario, _own(source, name, scenario)) for scenario in shared]
        if shared:
            place = f"{source.name}, version {source.version} ({source.stream_label()})"
            new[name] = how | {"protocol": f"transfer from {place}: {how['protocol']}"}
        lines += [
            f"{name}: {source.name} has no {scenario}-incremental values; the study keeps what it had there"
            for scenario in able if scenario not in shared
        ]  # fmt: skip
    if silent:
        lines.append(f"the study keeps what it had, because {source.name} was not tuned for it: {', '.join(silent)}")
    if not new:
        raise StudyError(
            f"--from: {source.name} has no tuned values of this study's methods in its scenarios; "
            f"`cl-ext tune {source.path or source.name}` makes a study that has"
        )
    command = _command(study, "transfer", methods, "--from", str(source.path or source.name))
    return Given(lay_over(study, changes), combined_tuning(study, new), command, tuple(lines))


def _own(source: Study, method: str, scenario: str) -> dict[str, Any]:
    """A method's values in one scenario, of those that its study sets."""
    given = source.values[method].items()
    own = {name: value.get(scenario) if isinstance(value, Mapping) else value for name, value in given}
    return {name: value for name, value in own.items() if value is not None}
