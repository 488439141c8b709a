"""Random streams that are functions of (seed, purpose, number): nothing to save, nothing to replay."""

import zlib

import numpy as np


def stream(seed: int, purpose: str, number: int = 0, skip: int = 0) -> np.random.Generator:
    """Return a generator that depends on its arguments alone, such as ``stream(0, "augment", step)``.

    Philox4x64 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") has a 128-bit key, here
    (seed, purpose), and a 256-bit counter, whose upper half holds ``number``; the lower half leaves
    each stream 2^128 draws of its own. The first ``skip`` times four 64-bit numbers, or eight float32, are skipped.
    """
    key = np.array([seed % 2**64, zlib.crc32(purpose.encode())], dtype=np.uint64)
    counter = np.array([skip, 0, number, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
