"""Networks; `NetworkSpec` needs no torch, the rest is imported when first asked for."""

from typing import Any

from cl_ext.models.spec import NetworkSpec

__all__ = ["Network", "NetworkSpec", "build_network", "dualnet", "dualnet_resnet18"]


def __getattr__(name: str) -> Any:
    if name in ("Network", "build_network"):
        from cl_ext.models import networks

        return getattr(networks, name)
    if name in ("dualnet", "dualnet_resnet18"):
        from cl_ext.models import slowfast

        return getattr(slowfast, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
