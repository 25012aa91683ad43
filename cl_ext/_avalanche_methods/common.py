"""What several mends need: train/eval flags put back, and Avalanche's deprecation warnings kept quiet."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cl_ext  # noqa: F401  (the torchvision guard, before avalanche)

from avalanche import _annotations
from torch import nn


@contextmanager
def flags_kept(*networks: nn.Module) -> Iterator[None]:
    """Every module's train/eval flag is outside what it was before."""
    flags = [(module, module.training) for network in networks for module in network.modules()]
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Evaluation mode that `network.train()` can't leave; every flag is outside what it was before."""
    with flags_kept(network):
        network.eval()
        # an instance attribute stands before the class's method
        network.train = lambda mode=True: network  # type: ignore[method-assign]
        try:
            yield
        finally:
            del network.train


class _Silent:
    """Takes the place of the module `warnings` in Avalanche's decorator of deprecated functions."""

    @staticmethod
    def simplefilter(*args: Any, **kwargs: Any) -> None:
        """Leaves the filters as they are."""

    @staticmethod
    def warn(*args: Any, **kwargs: Any) -> None:
        """Says nothing."""


def silence_deprecations() -> None:
    """Stops the warnings that Avalanche's own plugins raise about each other.

    Its decorator calls `warnings.simplefilter("once", DeprecationWarning)` at every call, which overrides the user's
    filters and `-W ignore`; nobody who runs a study can act on them. May be called any number of times.
    """
    _annotations.warnings = _Silent
