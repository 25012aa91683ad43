"""Data sets and how they become streams: a :class:`StreamSpec` in, an ordinary Avalanche benchmark out.

Importing this package imports no torch; the names below that need it are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cl_ext._lazy import lazy
from cl_ext.streams.catalogue import DATASETS
from cl_ext.streams.spec import StreamSpec

if TYPE_CHECKING:
    from cl_ext.streams.build import build_stream, stream_checksum
    from cl_ext.streams.loading import BatchedLoading
    from cl_ext.streams.materialise import batched
    from cl_ext.streams.tensors import as_tensors

__all__ = ["DATASETS", "BatchedLoading", "StreamSpec", "as_tensors", "batched", "build_stream", "stream_checksum"]

_LAZY = {
    "BatchedLoading": "loading",
    "as_tensors": "tensors",
    "batched": "materialise",
    "build_stream": "build",
    "stream_checksum": "build",
}

__getattr__ = lazy(__name__, _LAZY)
