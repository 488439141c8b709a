"""Reads the pickles of the CIFAR datasets without ever running what a pickle asks for.

Nothing of NumPy's own unpickling is used: the three globals the files need become the two stand-ins below, which keep
a uint8 array as shape and bytes. Every other global is refused, so a hostile file ends in a DataError.
"""

import copyreg
import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np

from cnnlite.types import Array


class RefusedError(Exception):
    """The pickle is damaged, or holds something that CIFAR files do not."""


class _DType:
    """Stands in for ``numpy.dtype``; only uint8 is known."""

    def __init__(self, name: object = None, *_: object):
        if name not in (b"u1", "u1"):
            raise RefusedError(f"an array of type {name!r} instead of uint8")

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, which mean nothing for bytes."""


class _ArrayStandIn:
    """Stands in for ``numpy.ndarray`` and for the function that makes an empty one."""

    def __init__(self, *_: object):
        self.array: Array | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _DType) or not isinstance(data, bytes):
            raise RefusedError("an array that is not plain bytes")
        if not all(type(n) is int and n >= 0 for n in shape) or math.prod(shape) != len(data):
            raise RefusedError(f"an array of shape {shape} with {len(data)} bytes")
        self.array = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")


_ALLOWED: dict[tuple[str, str], type] = {
    ("numpy.core.multiarray", "_reconstruct"): _ArrayStandIn,
    ("numpy", "ndarray"): _ArrayStandIn,
    ("numpy", "dtype"): _DType,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise RefusedError(f"it asks for {module}.{name}, which CIFAR files do not need") from None

    def persistent_load(self, pid: object) -> object:
        raise RefusedError("it holds a persistent id, which CIFAR files do not need")


def read_pickle(data: bytes) -> dict[bytes, Any]:
    """The dict in a CIFAR pickle, its keys as bytes and its arrays uint8; raises RefusedError."""
    # An extension code that was resolved before skips find_class. Nothing here registers any, so the scan is rare.
    if vars(copyreg)["_extension_registry"]:
        _refuse_extensions(data)
    try:
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except RefusedError:
        raise
    except Exception as error:  # pickle raises whatever the bytes lead it into
        raise RefusedError(f"damaged or cut short ({error})") from None
    if not isinstance(content, dict):
        raise RefusedError(f"a {type(content).__name__} instead of a dict")
    return {key: value.array if isinstance(value, _ArrayStandIn) else value for key, value in content.items()}


def _refuse_extensions(data: bytes) -> None:
    try:
        if any(opcode.name.startswith("EXT") for opcode, _, _ in pickletools.genops(data)):
            raise RefusedError("it holds an extension code, which CIFAR files do not need")
    except ValueError as error:
        raise RefusedError(f"damaged or cut short ({error})") from None
