"""YAML with line numbers: a mistake in a study is one sentence that says where, what was given and what is allowed."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml


class StudyError(ValueError):
    """A mistake in a study, said in one sentence; the command line prints it and exits with 2."""


class YamlLoader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-3 as text, because it wants a dot; a study's author means a number."""


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)

Key = tuple[str | int, ...]


class Document:
    """A YAML file: its values and the line of each key.

    Attributes:
        values: The content as dictionaries, lists and scalars.
        name: The file's name, for messages.
    """

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self._lines: dict[Key, int] = {}
        loader = YamlLoader(text)
        try:
            node = loader.get_single_node()
            self.values: Any = None if node is None else self._read(loader, node, ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise StudyError(f"{name}, line {line}: this is no YAML: {error.problem or error.context}") from error
        except yaml.YAMLError as error:
            raise StudyError(f"{name}: this is no YAML: {str(error).splitlines()[0]}") from error
        finally:
            loader.dispose()
        if not isinstance(self.values, dict):
            raise StudyError(f"{name}: a study is a mapping of keys to values; this file has none")

    @classmethod
    def load(cls, path: Path) -> "Document":
        """Reads a file; a missing one is a `StudyError`."""
        try:
            return cls(path.read_text(encoding="utf-8"), str(path))
        except FileNotFoundError:
            raise StudyError(f"{path}: there is no such file") from None
        except IsADirectoryError:
            raise StudyError(f"{path}: this is a folder; a study is a YAML file") from None
        except UnicodeDecodeError as error:
            raise StudyError(f"{path}: this is no text file in UTF-8 ({error.reason})") from None

    def _read(self, loader: YamlLoader, node: yaml.Node, key: Key) -> Any:
        self._lines.setdefault(key, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            mapping: dict[Any, Any] = {}
            for key_node, value_node in node.value:
                name = loader.construct_object(key_node)
                if not isinstance(name, str):
                    raise StudyError(
                        f"{self.name}, line {key_node.start_mark.line + 1}: the key {name!r} must be a word"
                    )
                if name in mapping:
                    raise StudyError(f"{self.name}, line {key_node.start_mark.line + 1}: {name} stands there twice")
                self._lines[(*key, name)] = key_node.start_mark.line + 1
                mapping[name] = self._read(loader, value_node, (*key, name))
            return mapping
        if isinstance(node, yaml.SequenceNode):
            return [self._read(loader, item, (*key, index)) for index, item in enumerate(node.value)]
        return loader.construct_object(node)

    def error(self, key: Key, sentence: str) -> StudyError:
        """A `StudyError` at a key: file, line and sentence."""
        while key and key not in self._lines:
            key = key[:-1]
        return StudyError(f"{self.name}, line {self._lines.get(key, 1)}: {sentence}")

    def check_keys(self, key: Key, allowed: Iterable[str]) -> None:
        """Refuses unknown keys of the mapping at `key`, and suggests the nearest."""
        mapping = self.at(key)
        if not isinstance(mapping, dict):
            raise self.error(key, f"{dotted(key)} is {mapping!r}; it takes a mapping with {', '.join(allowed)}")
        allowed = list(allowed)
        for name in mapping:
            if name not in allowed:
                near = difflib.get_close_matches(name, allowed, n=1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise self.error(
                    (*key, name), f"unknown key {dotted((*key, name))}{hint}; allowed: {', '.join(allowed)}"
                )

    def at(self, key: Key) -> Any:
        """The value at a key, None where there is none."""
        value = self.values
        for part in key:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value


def dotted(key: Key) -> str:
    """A key as people write it: `budget.lr`."""
    return ".".join(str(part) for part in key) or "the study"
