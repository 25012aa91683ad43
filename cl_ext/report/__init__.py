"""Tables and figures from records; needs neither torch nor Avalanche.

The names load where they are first used, so that importing the package costs neither pandas nor seaborn. No module here
bears the name of a function that the package exports: importing such a module would hide the function.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cl_ext.report.aggregate import leaderboard
    from cl_ext.report.plots import figures
    from cl_ext.report.tables import terminal_table, to_csv, to_latex, to_markdown, write_leaderboard

_HOMES = {
    "leaderboard": "aggregate",
    "figures": "plots",
    "terminal_table": "tables",
    "to_csv": "tables",
    "to_latex": "tables",
    "to_markdown": "tables",
    "write_leaderboard": "tables",
}

__all__ = [
    "figures",
    "leaderboard",
    "terminal_table",
    "to_csv",
    "to_latex",
    "to_markdown",
    "write_leaderboard",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
