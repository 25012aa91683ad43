"""Networks; `NetworkSpec` needs no torch, the rest is imported when first asked for."""

from importlib import import_module
from typing import Any

from cl_ext.models.spec import NetworkSpec

__all__ = [
    "Network",
    "NetworkSpec",
    "build_network",
    "dualnet",
    "dualnet_resnet18",
    "expandable",
    "experts",
    "pathnet",
    "progressive",
]  # fmt: skip

_HOMES = {  # no module bears the name of a function: importing it would hide the function
    "Network": "networks",
    "build_network": "networks",
    "dualnet": "slowfast",
    "dualnet_resnet18": "slowfast",
    "expandable": "expansion",
    "experts": "expert_network",
    "pathnet": "modular",
    "progressive": "columns",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
