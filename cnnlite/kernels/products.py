"""Matrix products over all threads."""

import numpy as np

from cnnlite import engine
from cnnlite.types import Array


def matmul(a: Array, b: Array, out: Array) -> Array:
    """Write ``a @ b`` to ``out``: (M, K) @ (K, N) -> (M, N), in blocks of rows of ``a``."""

    def block(_: int, start: int, stop: int) -> None:
        np.matmul(a[start:stop], b, out=out[start:stop])

    engine.for_blocks(block, len(a), (a.shape[1] + b.shape[1]) * a.itemsize)
    return out
