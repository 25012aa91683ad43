"""Ctrl-C is one sentence and exit code 130, while modules are still imported too."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interruptible(command: str) -> Iterator[None]:
    """Ends the process with code 130 where Ctrl-C is pressed inside.

    Args:
        command: Who says so.
    """
    try:
        yield
    except KeyboardInterrupt:
        sentence = "interrupted; finished cells are kept, and the same command goes on from here"
        print(f"{command}: {sentence}", file=sys.stderr)
        raise SystemExit(130) from None
