"""Studies: YAML -> cells -> records -> one tidy frame. Imports no torch; a cell's process does."""

from typing import Any

from cl_ext.study.cellspec import CellSpec
from cl_ext.study.document import StudyError
from cl_ext.study.spec import Study
from cl_ext.study.store import Store

__all__ = ["CellSpec", "Store", "Study", "StudyError", "collect", "load_records", "plan", "run"]

_WHERE = {"run": "runner", "plan": "runner", "collect": "frame", "load_records": "frame"}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        from importlib import import_module

        return getattr(import_module(f"cl_ext.study.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
