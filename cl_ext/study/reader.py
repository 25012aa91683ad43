"""Reads a study's YAML key by key; everything that can be wrong with it is found here, before anything runs."""

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cl_ext.methods import METHODS, Budget, UnknownMethodError
from cl_ext.models import NetworkSpec
from cl_ext.streams.spec import StreamSpec
from cl_ext.study.document import Document, Key, StudyError, dotted

_KEYS = (
    "study", "version", "title", "source", "stream", "scenarios", "network", "budget", "evaluation", "seeds",
    "methods", "values", "budgets", "tuning",
)  # fmt: skip
_SCENARIOS = ("task", "domain", "class")
_OPTIMIZER = ("optimizer", "lr", "momentum", "weight_decay")
_SCALARS = {"name": str, "dataset": str, "width": int, "experiences": int}
_TUNING: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "protocol": ("a text", lambda value: isinstance(value, str)),
    "configurations": ("a whole number", lambda value: type(value) is int and value >= 0),
    "seeds": ("a list of whole numbers", lambda value: isinstance(value, list) and all(type(n) is int for n in value)),
}
_T = TypeVar("_T", StreamSpec, NetworkSpec, Budget)


def method_problem(name: str, scenarios: Sequence[str], network: NetworkSpec) -> str | None:
    """Why a study can't name this method; None where it can."""
    try:
        return METHODS[name].problem(scenarios, network)
    except UnknownMethodError as error:
        return str(error)


def find_file(name: str, roots: Sequence[Path]) -> tuple[str, Path]:
    """A user's own data file under one of some folders: its content's checksum and its path.

    Raises:
        StudyError: There is no such file.
    """
    from cl_ext.streams.datasets import content_checksum  # numpy, which most studies need not load to be planned

    for root in roots:
        if (root / name).is_file():
            path = (root / name).resolve()
            return content_checksum(path), path
    raise StudyError(f"{name!r} is no file; looked at {', '.join(str(root / name) for root in roots)}")


def parse_seeds(text: str) -> tuple[int, ...]:
    """`0-4` or `0,2,5-7`, as `--seeds` has them.

    Raises:
        StudyError: The text is no such list.
    """
    seeds: list[int] = []
    for part in str(text).split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise StudyError(
                f"--seeds: the seeds are {text!r}; they are whole numbers and ranges, such as 0-4 or 0,2,5-7"
            )
        seeds += range(int(match[1]), int(match[2] or match[1]) + 1)
    return tuple(dict.fromkeys(seeds))


class Reader:
    """Reads a document key by key; every method raises a `StudyError` that names the line."""

    def __init__(self, document: Document, path: Path, data_root: Path | None) -> None:
        self.document = document
        self.path = path
        self.data_root = data_root
        self.files: dict[str, Path] = {}

    def fields(self) -> dict[str, Any]:
        """All fields of a `Study`, checked."""
        document = self.document
        document.check_keys((), _KEYS)
        for key in ("stream", "seeds", "methods"):
            if key not in document.values:
                raise document.error((), f"the key {key} is missing; a study needs stream, seeds and methods")
        name = self.value(("study",), str, self.path.stem)
        if not re.fullmatch(r"[\w.-]+", name):
            raise document.error(("study",), f"study is {name!r}; it takes letters, digits, '_', '-' and '.'")
        stream = self.stream()
        scenarios = self.scenarios(stream)
        network = self.part(("network",), NetworkSpec)
        budget = self.part(("budget",), Budget)
        return {
            "name": name,
            "version": self.value(("version",), int, 1),
            "title": self.value(("title",), str, name),
            "stream": stream,
            "scenarios": scenarios,
            "network": network,
            "budget": budget,
            "evaluation": self.evaluation(),
            "seeds": self.seeds(),
            "methods": self.methods(scenarios, network),
            "values": self.values(),
            "budgets": self.budgets(budget),
            "tuning": self.tuning(),
            "files": self.files,
            "path": self.path,
        }

    def value(self, key: Key, kind: type, default: Any) -> Any:
        """A scalar of a type, or the default where the key is missing."""
        value = self.document.at(key)
        if value is None:
            return default
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, kind) or (kind in (int, float) and isinstance(value, bool)):
            words = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}[kind]
            raise self.document.error(key, f"{dotted(key)} is {value!r}; it takes {words}")
        return value

    def part(self, key: Key, kind: type[_T], base: _T | None = None, only: Sequence[str] = (), **fixed: Any) -> _T:
        """A mapping as a dataclass: unknown keys, wrong types and bad values are refused with their lines.

        Args:
            key: Where it stands.
            kind: The dataclass.
            base: What the fields are that the mapping does not name; by default the dataclass's own defaults.
            only: The keys that it may have, where not all.
            fixed: Fields that are set elsewhere.
        """
        document = self.document
        fields = [f for f in dataclasses.fields(kind) if f.name not in fixed and (not only or f.name in only)]
        if document.at(key) is None:
            return base or kind(**fixed)
        document.check_keys(key, [f.name for f in fields])
        given: dict[str, Any] = dict(fixed)
        for f in fields:
            if document.at((*key, f.name)) is None:
                continue
            sequence = isinstance(f.default, tuple) or f.name in ("angles", "dataset")
            if sequence and isinstance(document.at((*key, f.name)), list):
                given[f.name] = tuple(document.at((*key, f.name)))
            else:
                scalar = type(f.default) if f.default not in (None, dataclasses.MISSING) else _SCALARS.get(f.name, int)
                if sequence and scalar is tuple:
                    raise document.error(
                        (*key, f.name), f"{dotted((*key, f.name))} is {document.at((*key, f.name))!r}; it takes a list"
                    )
                given[f.name] = self.value((*key, f.name), scalar, None)
        try:
            return kind(**given) if base is None else dataclasses.replace(base, **given)
        except (ValueError, TypeError) as error:
            culprit: list[str] = [f.name for f in fields if f.name in str(error)]
            raise document.error((*key, *culprit[:1]), str(error)) from error

    def stream(self) -> StreamSpec:
        """The stream; a user's own file is found, and known by its checksum from here on."""
        document = self.document
        if not isinstance(document.at(("stream",)), dict):
            raise document.error(("stream",), "stream takes a mapping, such as {name: split, dataset: digits}")
        for unwanted, where in (("scenario", "scenarios"), ("seed", "seeds")):
            if unwanted in document.at(("stream",)):
                raise document.error(("stream", unwanted), f"stream.{unwanted} is said by the study's key {where}")
        spec = self.part(("stream",), StreamSpec, scenario=self._first_scenario(), seed=0, validation=0.0, first=None)
        names = [spec.dataset] if isinstance(spec.dataset, str) else list(spec.dataset)
        found = [str(self._file(name)) if name.endswith(".npz") else name for name in names]
        dataset = found[0] if isinstance(spec.dataset, str) else tuple(found)
        return dataclasses.replace(spec, dataset=dataset)

    def _first_scenario(self) -> str:
        given = self.document.at(("scenarios",))
        return given[0] if isinstance(given, list) and given and given[0] in _SCENARIOS else "class"

    def _file(self, name: str) -> Path:
        try:
            checksum, path = find_file(name, [self.path.parent, Path(), *([self.data_root] if self.data_root else [])])
        except StudyError as error:
            raise self.document.error(("stream", "dataset"), f"stream.dataset: {error}") from None
        self.files[checksum] = path
        return path

    def scenarios(self, stream: StreamSpec) -> tuple[str, ...]:
        given = self.document.at(("scenarios",))
        if given is None:
            given = ["domain"] if stream.name in ("permuted", "rotated") else ["class"]
        if not isinstance(given, list) or not given or any(s not in _SCENARIOS for s in given):
            raise self.document.error(
                ("scenarios",), f"scenarios is {given!r}; it takes a list of task, domain and class"
            )
        for scenario in given:
            try:
                dataclasses.replace(stream, scenario=scenario).validate()
            except (ValueError, TypeError) as error:
                key = ("scenarios",) if "scenario" in str(error) else ("stream",)
                raise self.document.error(key, str(error)) from error
        return tuple(dict.fromkeys(given))

    def evaluation(self) -> str | int:
        given = self.document.at(("evaluation",))
        if given is None:
            return "experience"
        if given in ("experience", "epoch") or (type(given) is int and given >= 1):
            return given
        raise self.document.error(
            ("evaluation",), f"evaluation is {given!r}; it takes experience, epoch, or a number of iterations"
        )

    def seeds(self) -> tuple[int, ...]:
        given = self.document.at(("seeds",))
        if isinstance(given, list) and given and all(type(seed) is int and seed >= 0 for seed in given):
            return tuple(dict.fromkeys(given))
        try:
            return parse_seeds("" if isinstance(given, (list, dict, bool)) else str(given))
        except StudyError:
            raise self.document.error(
                ("seeds",), f"seeds is {given!r}; it takes whole numbers: a list, or a range such as 0-4"
            ) from None

    def methods(self, scenarios: Sequence[str], network: NetworkSpec) -> tuple[str, ...]:
        given = self.document.at(("methods",))
        if given == "all":
            return tuple(name for name in METHODS if METHODS[name].problem(scenarios, network) is None)
        if not isinstance(given, list) or not given or any(not isinstance(name, str) for name in given):
            raise self.document.error(("methods",), f"methods is {given!r}; it takes all, or a list of names")
        for index, name in enumerate(given):
            problem = method_problem(name, scenarios, network)
            if problem:
                raise self.document.error(("methods", index), problem)
        return tuple(dict.fromkeys(given))

    def values(self) -> dict[str, dict[str, Any]]:
        """The hyper-parameters that the study sets, checked against each method's row."""
        document = self.document
        given = document.at(("values",))
        if given is None:
            return {}
        if not isinstance(given, dict):
            raise document.error(("values",), f"values is {given!r}; it takes a mapping of method to values")
        for name, settings in given.items():
            try:
                method = METHODS[name]
            except UnknownMethodError as error:
                raise document.error(("values", name), str(error)) from error
            if not isinstance(settings, dict):
                raise document.error(("values", name), f"values.{name} is {settings!r}; it takes a mapping")
            for parameter, value in settings.items():
                by_scenario = value if isinstance(value, dict) else {None: value}
                for scenario, one in by_scenario.items():
                    if scenario is not None and scenario not in _SCENARIOS:
                        raise document.error(
                            ("values", name, parameter, scenario),
                            f"values.{name}.{parameter} has the key {scenario!r}; it takes task, domain and class",
                        )
                    try:
                        method.resolve({parameter: one})
                    except (ValueError, TypeError) as error:
                        raise document.error(("values", name, parameter), f"values.{name}: {error}") from error
        return given

    def budgets(self, budget: Budget) -> dict[str, Budget]:
        """The budgets of methods whose optimizer is set otherwise; how much they may spend is the same for all."""
        document = self.document
        given = document.at(("budgets",))
        if given is None:
            return {}
        if not isinstance(given, dict):
            raise document.error(("budgets",), f"budgets is {given!r}; it takes a mapping of method to settings")
        for name in given:
            try:
                _ = METHODS[name]
            except UnknownMethodError as error:
                raise document.error(("budgets", name), str(error)) from error
        return {name: self.part(("budgets", name), Budget, budget, _OPTIMIZER) for name in given}

    def tuning(self) -> dict[str, Any]:
        """How the values were chosen; each key holds one value, or a mapping of method to one, by scenario or not."""
        document = self.document
        if document.at(("tuning",)) is None:
            return {}
        document.check_keys(("tuning",), _TUNING)
        for key, given in document.at(("tuning",)).items():
            takes, fits = _TUNING[key]
            for name, own in given.items() if isinstance(given, dict) else [(None, given)]:
                where: Key = ("tuning", key) if name is None else ("tuning", key, name)
                try:
                    _ = name in (None, "all") or METHODS[name]
                except UnknownMethodError as error:
                    raise document.error(where, str(error)) from error
                nested = name is not None and isinstance(own, dict)
                for scenario, one in own.items() if nested else [(None, own)]:
                    at = where if scenario is None else (*where, scenario)
                    if scenario not in (None, *_SCENARIOS):
                        sentence = f"{dotted(where)} has the key {scenario!r}; it takes task, domain and class"
                        raise document.error(at, sentence)
                    if not fits(one):
                        raise document.error(at, f"{dotted(at)} is {one!r}; it takes {takes}")
        return dict(document.at(("tuning",)))
