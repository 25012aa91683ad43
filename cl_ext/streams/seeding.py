"""Random numbers that are the same on every machine and in every year. numpy only."""

from __future__ import annotations

import zlib

import numpy as np


def random_state(seed: int, purpose: str, *key: int) -> np.random.RandomState:
    """A generator of its own for one decision.

    numpy's policy freezes what ``RandomState`` draws, which it does not for ``Generator``. The purpose and the key
    keep decisions apart: drawing more for one never moves another.

    Args:
        seed: non-negative; the stream's or the cell's.
        purpose: what is decided, e.g. ``"class order"``.
        key: which one of several, e.g. the experience and the epoch; non-negative.

    Raises:
        ValueError: a negative seed or key.
    """
    words = (seed, *key)
    if any(word < 0 for word in words):
        raise ValueError(f"the seed and the key of a random decision have to be non-negative, not {words}")
    # crc32 and not hash(): the latter differs between two Python processes. The length of the key goes in because
    # SeedSequence pads with zeros: (1,) and (1, 0) would be one generator.
    entropy = [zlib.crc32(purpose.encode()), len(key), *key, seed]
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(entropy)))
