"""Studies: YAML -> cells -> records -> one tidy frame. Imports no torch; a cell's process does."""

from cl_ext._lazy import lazy
from cl_ext.study.cellspec import CellSpec
from cl_ext.study.document import StudyError
from cl_ext.study.spec import Study
from cl_ext.study.store import Store

__all__ = ["CellSpec", "Store", "Study", "StudyError", "collect", "load_records", "plan", "run"]

__getattr__ = lazy(__name__, {"run": "runner", "plan": "runner", "collect": "frame", "load_records": "frame"})
