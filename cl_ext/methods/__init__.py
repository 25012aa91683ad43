"""Every method that can be compared: `METHODS[name]` is its row; nothing here needs torch until a cell is built."""

from cl_ext._lazy import lazy
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

__getattr__ = lazy(__name__, {"Built": "context", "Context": "context"})
