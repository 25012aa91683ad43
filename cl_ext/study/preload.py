"""What the fork server imports once for all cells. It runs no operator and touches no CUDA: forks are safe."""

import gc

from cl_ext.methods import METHODS
from cl_ext.study import cell

for _module in sorted({METHODS[name].build.partition(":")[0] for name in METHODS.own_names}):
    __import__(_module)

# what is imported by now lives for good: keep the collector from touching, and so copying, the shared pages
gc.collect()
gc.freeze()

__all__ = ["cell"]
