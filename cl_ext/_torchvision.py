"""Makes torchvision importable beside a CPU-only build of PyTorch.

The package index has CUDA builds of torchvision only. Beside a CPU build of PyTorch its compiled operators do not load,
and its Python part then fails at import with "operator torchvision::nms does not exist", because it registers a
meta kernel for an operator that nobody declared. Declaring the two schemas first is enough: Avalanche needs
torchvision's data sets and transforms, never its detection operators.

Only where PyTorch is a CPU build: beside a CUDA build torchvision declares the operators itself, and a second
declaration would clash. Nothing here imports torch before torchvision does.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def declare_operators() -> None:
    """Declares torchvision's two missing operators; does nothing beside a CUDA build or where they exist."""
    import torch

    if torch.version.cuda is not None:
        return
    for name in _OPERATORS:
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", _SCHEMA)


class _TorchvisionGuard(importlib.abc.MetaPathFinder):
    """Declares the operators at the moment torchvision is first looked for, then steps out of the way."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            declare_operators()
        return None


def install() -> None:
    """Installs the guard once; a torchvision that is already imported needs none."""
    if "torchvision" in sys.modules or any(isinstance(finder, _TorchvisionGuard) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _TorchvisionGuard())
