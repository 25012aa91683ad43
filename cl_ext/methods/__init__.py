"""Every method that can be compared: `METHODS[name]` is its row; nothing here needs torch until a cell is built."""

from typing import Any

from cl_ext.methods.budget import Budget
from cl_ext.methods.method import HyperParameter, Method, MethodTable, UnknownMethodError, strength
from cl_ext.methods.table import METHODS

__all__ = [
    "METHODS",
    "Budget",
    "Built",
    "Context",
    "HyperParameter",
    "Method",
    "MethodTable",
    "UnknownMethodError",
    "strength",
]


def __getattr__(name: str) -> Any:
    if name in ("Built", "Context"):
        from cl_ext.methods import context

        return getattr(context, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
