"""Networks; `NetworkSpec` needs no torch, the rest is imported when first asked for."""

from cl_ext._lazy import lazy
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

__getattr__ = lazy(__name__, _HOMES)
