"""Reads `benchmarks/reproduction/published.yaml`; a mistake is one sentence with file, line and entry."""

import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from cl_ext.methods import METHODS, UnknownMethodError
from cl_ext.report.rows.columns import COLUMNS, Column
from cl_ext.report.rows.published import KINDS, READ, Number, Published, Setting, short_citation
from cl_ext.study.document import Document, Key, StudyError
from cl_ext.study.spec import Study

_SETTING = ("says", "study", "stream", "scenarios", "margin", "given", "differs", "why")
_NUMBER = (
    "setting", "method", "paper", "where", "read", "metric", "value", "spread", "kind", "n", "variant", "study", "why",
)  # fmt: skip
_SCENARIOS = ("task", "domain", "class")


def read_published(path: Path | str) -> Published:
    """Reads and checks a file of published numbers (`cl_ext.report.rows.published` says its form).

    Args:
        path: The file; its studies lie relative to it.

    Raises:
        StudyError: Anything is wrong with it, or with a study that it names.
    """
    document = Document.load(Path(path))
    document.check_keys((), ("settings", "numbers", "without"))
    reader = _Reader(document, Path(path).parent)
    for key, kind in (("settings", dict), ("numbers", list)):
        if not isinstance(document.at((key,)), kind):
            raise document.error((key,), f"{key} is missing; it takes a {'mapping' if kind is dict else 'list'}")
    settings = {name: reader.setting(name) for name in document.values["settings"]}
    numbers = [one for index in range(len(document.values["numbers"])) for one in reader.numbers(index, settings)]
    seen: dict[tuple[object, ...], Number] = {}
    for one in numbers:
        what = (one.setting.key, one.scenario, one.row, one.column.key, one.paper, one.where)
        if what in seen:
            raise StudyError(f"{one.at}: {one.row} {one.scenario}: the same number stands at {seen[what].at}")
        seen[what] = one
    return Published(Path(path), settings, tuple(numbers), reader.without({one.method for one in numbers}))


class _Reader:
    def __init__(self, document: Document, folder: Path) -> None:
        self.document = document
        self.folder = folder
        self.bibtex = (files("cl_ext") / "references.bib").read_text(encoding="utf-8")

    def setting(self, name: str) -> Setting:
        """One setting, with its study loaded."""
        key: Key = ("settings", name)
        self.document.check_keys(key, _SETTING)
        scenarios = self.document.at((*key, "scenarios"))
        if not isinstance(scenarios, list) or not scenarios or set(scenarios) - set(_SCENARIOS):
            raise self._error(
                (*key, "scenarios"), f"scenarios is {scenarios!r}; it takes a list of task, domain, class"
            )
        fields: dict[str, Any] = {
            "says": self._text((*key, "says")),
            "stream": self._text((*key, "stream")),
            "scenarios": tuple(scenarios),
            "differs": self._text((*key, "differs"), needed=False),
            "why": self._text((*key, "why"), needed=False),
        }
        if "study" not in self.document.at(key):
            raise self._error(key, "study is missing; it takes a study's file, or null where there is none")
        if self.document.at((*key, "study")) is None:
            if not fields["why"]:
                raise self._error(key, "study is null, so why has to say what is lacking")
            return Setting(name, **fields)
        study = self._study(key)
        if study.stream_label() != fields["stream"]:
            raise self._error(
                (*key, "stream"), f"stream is {fields['stream']!r}; the study's is {study.stream_label()!r}"
            )
        if left := set(scenarios) - set(study.scenarios):
            can = ", ".join(study.scenarios)
            raise self._error((*key, "scenarios"), f"the study has no scenario {sorted(left)[0]!r}; it has {can}")
        margin, given = self._number((*key, "margin"), least=0.0), self._text((*key, "given"))
        return Setting(name, study=study, margin=margin, given=given, **fields)

    def numbers(self, index: int, settings: Mapping[str, Setting]) -> list[Number]:
        """One entry, a number a scenario."""
        key: Key = ("numbers", index)
        self.document.check_keys(key, _NUMBER)
        name = self._text((*key, "setting"))
        if name not in settings:
            raise self._error((*key, "setting"), f"there is no setting {name!r}; there are {', '.join(settings)}")
        setting = settings[name]
        entry: Mapping[str, Any] = self.document.at(key)
        if "study" in entry and entry["study"] is not None:
            raise self._error((*key, "study"), f"study is {entry['study']!r}; here it is null or left out")
        tried = setting.study is not None and "study" not in entry
        value = entry.get("value")
        scenarios = tuple(value) if isinstance(value, Mapping) else setting.scenarios
        if wrong := [one for one in scenarios if one not in setting.scenarios]:
            can = ", ".join(setting.scenarios)
            raise self._error((*key, "value"), f"the setting has no scenario {wrong[0]!r}; it has {can}")
        if not isinstance(value, Mapping) and len(scenarios) > 1:
            raise self._error((*key, "value"), f"value takes a mapping of {', '.join(scenarios)} to numbers")
        method, variant = self._row(key, setting if tried else None, scenarios)
        fields: dict[str, Any] = {
            "method": method,
            "variant": variant,
            "column": self._column(key),
            "paper": self._paper((*key, "paper")),
            "where": self._text((*key, "where")),
            "read": self._choice((*key, "read"), READ),
            "kind": self._choice((*key, "kind"), KINDS, "unknown"),
            "n": 0 if entry.get("n") is None else int(self._number((*key, "n"), least=1.0, whole=True)),
            "tried": tried,
            "at": str(self.document.error(key, "")).rstrip(": "),
        }
        found = []
        for scenario in scenarios:
            why = self._of(key, "why", scenario)
            if "study" in entry and not why:
                raise self._error(key, f"study is null, so why has to say what is lacking ({scenario})")
            spread = self._of(key, "spread", scenario)
            found.append(
                Number(
                    setting,
                    scenario,
                    value=self._number(self._key(key, "value", scenario)),
                    spread=math.nan if spread is None else self._number(self._key(key, "spread", scenario), least=0.0),
                    why=self._text(self._key(key, "why", scenario), needed=False) or ("" if tried else setting.why),
                    **fields,
                )
            )
        return found

    def without(self, methods: set[str]) -> dict[str, str]:
        """Rows without a number, with the reason."""
        given = self.document.at(("without",)) or {}
        if given:
            self.document.check_keys(("without",), METHODS)
        for name in given:
            if name in methods:
                raise self._error(("without", name), f"{name} has numbers above, so it can't be without any")
        return {name: self._text(("without", name)) for name in given}

    def _study(self, key: Key) -> Study:
        name = self._text((*key, "study"))
        try:
            return Study.load(self.folder / name)
        except StudyError as error:
            raise self._error((*key, "study"), f"its study can't be read: {error}") from error

    def _row(self, key: Key, setting: Setting | None, scenarios: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
        """The row and what is set otherwise; `setting` where its study runs it."""
        name = self._text((*key, "method"))
        variant = self.document.at((*key, "variant")) or {}
        if not isinstance(variant, Mapping):
            raise self._error((*key, "variant"), f"variant is {variant!r}; it takes a mapping of names to values")
        try:
            row = METHODS[name]
            row.resolve(variant)
        except (UnknownMethodError, ValueError, TypeError) as error:
            where = "method" if isinstance(error, UnknownMethodError) else "variant"
            raise self._error((*key, where), str(error)) from error
        if setting is not None and setting.study is not None:
            if unable := [one for one in scenarios if one not in row.scenarios]:
                raise self._error((*key, "method"), f"{name} can't run {unable[0]}-incremental; say study: null")
            if name not in setting.study.methods:
                raise self._error(
                    (*key, "method"),
                    f"the study {setting.study.name} does not run {name}; add it there, or say study: null",
                )
        return name, dict(variant)

    def _column(self, key: Key) -> Column:
        name = self.document.at((*key, "metric")) or "accuracy"
        known = {column.key: column for column in COLUMNS}
        if name not in known:
            raise self._error((*key, "metric"), f"there is no column {name!r}; columns are {', '.join(known)}")
        return known[name]

    def _paper(self, key: Key) -> str:
        """A citation: from the key of `references.bib`, or a text as it stands."""
        given = self._text(key)
        if " " in given:
            return given
        said = short_citation(self.bibtex, given)
        if said is None:
            raise self._error(key, f"cl_ext/references.bib has no key {given!r}; a paper without one takes a text")
        return said

    def _key(self, key: Key, name: str, scenario: str) -> Key:
        """Where a value of this scenario stands: under it, or one for all."""
        return (*key, name, scenario) if isinstance(self.document.at((*key, name)), Mapping) else (*key, name)

    def _of(self, key: Key, name: str, scenario: str) -> Any:
        return self.document.at(self._key(key, name, scenario))

    def _choice(self, key: Key, allowed: Mapping[str, str], default: str | None = None) -> str:
        given = self.document.at(key)
        given = default if given is None else given
        if given not in allowed:
            raise self._error(key, f"{key[-1]} is {given!r}; it can be one of {', '.join(allowed)}")
        return str(given)

    def _text(self, key: Key, needed: bool = True) -> str:
        given = self.document.at(key)
        if given is None and not needed:
            return ""
        if not isinstance(given, str) or not given.strip():
            raise self._error(key, f"{key[-1]} is {given!r}; it takes a text")
        return " ".join(given.split())

    def _number(self, key: Key, least: float = -math.inf, whole: bool = False) -> float:
        given = self.document.at(key)
        number = isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given)
        if not number or given < least or (whole and given != int(given)):
            bound = f" of at least {least:g}" if least > -math.inf else ""
            raise self._error(key, f"{key[-1]} is {given!r}; it takes a {'whole ' if whole else ''}number{bound}")
        return float(given)

    def _error(self, key: Key, sentence: str) -> StudyError:
        """An error at a key, with what the entry is."""
        entry = ".".join(str(part) for part in key[:2])
        return self.document.error(key, f"{entry}: {sentence}")
