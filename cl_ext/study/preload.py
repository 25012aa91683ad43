"""What the fork server imports once for all cells. It runs no operator and touches no CUDA: forks are safe."""

import gc

from cl_ext.methods import METHODS
from cl_ext.study import cell
from cl_ext.study.environment import environment

environment()  # kept from now on: the commit is that of the code that is loaded here, not of a later one

for _module in sorted({METHODS[name].build.partition(":")[0] for name in METHODS.own_names}):
    __import__(_module)

# what is imported by now lives for good: keep the collector from touching, and so copying, the shared pages
gc.collect()
gc.freeze()

__all__ = ["cell"]
