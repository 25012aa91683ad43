"""cl_ext: continual-learning methods as Avalanche plugins, and the instrument that compares them all.

Import it before avalanche or torchvision: it makes torchvision importable beside CPU-only PyTorch. It imports neither
torch nor Avalanche itself.
"""

from cl_ext import _torchvision
from cl_ext._version import __version__

_torchvision.install()

__all__ = ["__version__"]
