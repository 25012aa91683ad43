"""What a search leaves behind: `tuning.json` with all that was tried, and the study with the values it chose."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cl_ext.methods import METHODS
from cl_ext.study.document import Document, YamlLoader
from cl_ext.study.origins import combined_tuning
from cl_ext.study.protocol import Protocol
from cl_ext.study.reader import find_file
from cl_ext.study.spec import Study, StudyError
from cl_ext.study.tune import Found, Tried

import yaml


class _Dumper(yaml.SafeDumper):
    """Writes 1e-07 and 100 as a study's author does, not 1.0e-07 and 100.0, and equal lists out each time."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _number(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    if value.is_integer() and abs(value) < 1e6:
        return dumper.represent_int(int(value))
    text = f"{value:g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")
    return dumper.represent_scalar("tag:yaml.org,2002:float", text if float(text) == value else repr(value))


_Dumper.add_representer(float, _number)
_Dumper.yaml_implicit_resolvers = YamlLoader.yaml_implicit_resolvers  # what the reader takes for a number


def tuning_record(study: Study, protocol: Protocol, found: Sequence[Found]) -> dict[str, Any]:
    """All that was tried, as JSON values."""

    def setting(each: Found, tried: Tried) -> dict[str, Any]:
        return {
            "method": each.method,
            "scenario": each.scenario,
            "values": dict(tried.setting.values),
            "accuracy": tried.mean,
            "seeds": {
                str(cell.seed): {
                    "run_id": cell.run_id,
                    "status": tried.states[cell.seed],
                    "accuracy": tried.accuracies[cell.seed],
                }
                for cell in tried.setting.cells
            },
            "chosen": tried is each.chosen,
            "edges": list(each.edges) if tried is each.chosen else [],
        }

    return {
        "study": study.name,
        "version": study.version,
        "protocol": protocol.text(),
        "command": protocol.command(study.path or study.name),
        "validation": protocol.validation,
        "experiences": protocol.experiences,
        "seeds": list(protocol.seeds),
        "configurations": [setting(each, tried) for each in found for tried in each.tried],
    }


def check_place(study: Study, place: Path) -> None:
    """Refuses, before hours of search, a place where the tuned study can't be written.

    Raises:
        StudyError: It is the study's own file, or a folder.
    """
    if study.path is not None and place.resolve() == study.path.resolve():
        raise StudyError(f"--write is {place}, the study itself; a study with other values is a new file")
    if place.is_dir():
        raise StudyError(f"--write is {place}, which is a folder; it takes a file")


def write_tuned(
    study: Study, protocol: Protocol, found: Sequence[Found], out: Path, place: Path, data_root: Path | None = None
) -> list[Path]:
    """Writes `tuning.json` into the store and the study with the chosen values to its place.

    Returns:
        Both paths.
    """
    record = out / "tuning.json"
    write_text(record, json.dumps(tuning_record(study, protocol, found), indent=1, allow_nan=False) + "\n")
    write_text(place, tuned_text(study, protocol, found, place.parent, data_root))
    return [record, place]


def write_text(path: Path, text: str) -> None:
    """Writes a file beside its place and renames it into it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def merged_values(study: Study, found: Sequence[Found]) -> dict[str, dict[str, Any]]:
    """The study's `values` with the chosen ones in their places."""
    chosen = [(each.method, each.scenario, each.chosen.setting.values) for each in found if each.chosen is not None]
    return lay_over(study, chosen)


def lay_over(study: Study, changes: Iterable[tuple[str, str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The study's `values` with others in their places; one value where all scenarios agree on it.

    Args:
        study: The study.
        changes: Method, scenario, and its hyper-parameters.
    """
    merged: dict[str, dict[str, Any]] = {method: dict(values) for method, values in study.values.items()}
    for method, scenario, new in changes:
        values = merged.setdefault(method, {})
        scenarios = [name for name in study.scenarios if name in METHODS[method].scenarios]
        for name, value in new.items():
            given = values.get(name)
            old = given if isinstance(given, Mapping) else {} if given is None else dict.fromkeys(scenarios, given)
            values[name] = dict(old) | {scenario: value}
    for method, values in merged.items():
        scenarios = [name for name in study.scenarios if name in METHODS[method].scenarios]
        for name, value in values.items():
            if isinstance(value, Mapping) and set(scenarios) <= set(value) and len(set(value.values())) == 1:
                values[name] = next(iter(value.values()))
    return merged


def merged_tuning(study: Study, protocol: Protocol, found: Sequence[Found]) -> dict[str, Any]:
    """The study's `tuning` after the search: what was not chosen now keeps how it was chosen before."""
    how = {"protocol": protocol.text(), "seeds": list(protocol.seeds)}
    chosen = [each for each in found if each.chosen is not None]
    return combined_tuning(
        study, {(each.method, each.scenario): how | {"configurations": len(each.tried)} for each in chosen}
    )


def tuned_text(
    study: Study, protocol: Protocol, found: Sequence[Found], folder: Path, data_root: Path | None = None
) -> str:
    """The study's file with the chosen values; its other lines stay as they are, comments included.

    Args:
        study: The study, read from a file.
        protocol: How the search was made.
        found: What it found.
        folder: Where the text is to lie: a user's own data that would not be found from there gets its full path.
        data_root: Where data are looked for too.
    """
    command = protocol.command(study.path or study.name)
    values, tuning = merged_values(study, found), merged_tuning(study, protocol, found)
    return study_text(study, values, tuning, command, folder, data_root)


def study_text(
    study: Study, values: Mapping[str, Any], tuning: Mapping[str, Any], command: str, folder: Path,
    data_root: Path | None = None,
) -> str:  # fmt: skip
    """The study's file with other `values` and `tuning`, and the command that chose them."""
    if study.path is None:
        raise ValueError("the study was not read from a file")
    text = _with_data(study, folder, data_root)
    comment = [f"# Tuned by: {command}"]
    root = _root(text)
    aliases = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text))
    if root.flow_style or aliases:  # its lines can't be told apart
        rest = {key: value for key, value in Document(text, str(study.path)).values.items() if key not in _REPLACED}
        lines, at = _dump(rest, flow=False).splitlines(), None
    else:
        lines, at, said = _without(text.splitlines(), root)
        comment += ["# What the study said of its values before:", *said] if said else []
    block = ["tuning:"] if tuning else []
    block += [f"  {key}: {_dump(value)}" for key, value in tuning.items()]
    block += ["values:"] if values else []
    block += [f"  {method}: {_dump(given)}" for method, given in values.items()]
    at = len(lines) if at is None else at
    return "\n".join([*lines[:at], *comment, *block, *lines[at:]]) + "\n"


_REPLACED = ("tuning", "values")


def _dump(value: Any, flow: bool = True) -> str:
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=flow, width=10**6, sort_keys=False, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _root(text: str) -> yaml.MappingNode:
    """The mapping that a study's file is, with the places of its keys."""
    root = yaml.compose(text, Loader=YamlLoader)
    assert isinstance(root, yaml.MappingNode)
    return root


def _without(lines: list[str], root: yaml.MappingNode) -> tuple[list[str], int | None, list[str]]:
    """The lines without the keys that are replaced, where the first of those stood, and the comments above them."""
    starts = [key.start_mark.line for key, _ in root.value]
    gone: set[int] = set()
    said: list[str] = []
    for (key, _), start, following in zip(root.value, starts, [*starts[1:], len(lines)], strict=True):
        if key.value not in _REPLACED:
            continue
        # comments at the margin after the last line of a key belong to the next one
        last = max(n for n in range(start, following) if n == start or (lines[n].strip() and lines[n][0] != "#"))
        first = start
        while first > 0 and lines[first - 1].startswith("#"):
            first -= 1
        said += lines[first:start]
        gone |= set(range(first, last + 1))
    kept = [line for number, line in enumerate(lines) if number not in gone]
    return kept, min(gone, default=None), said


def _with_data(study: Study, folder: Path, data_root: Path | None) -> str:
    """The study's text with full paths of data files that would not be found from another folder."""
    assert study.path is not None
    text = study.path.read_text(encoding="utf-8")
    stream = next(value for key, value in _root(text).value if key.value == "stream")
    node = next(value for key, value in stream.value if key.value == "dataset")
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    roots = [folder, Path(), *([data_root] if data_root else [])]
    for one, path in reversed(list(zip(nodes, study.stream.datasets, strict=True))):
        if path.endswith(".npz") and not _same_file(one.value, path, roots):
            text = text[: one.start_mark.index] + json.dumps(path) + text[one.end_mark.index :]
    return text


def _same_file(name: str, path: str, roots: Sequence[Path]) -> bool:
    try:
        return find_file(name, roots)[1] == Path(path)
    except StudyError:
        return False
