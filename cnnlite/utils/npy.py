"""Headers of .npy files and members."""

from typing import IO, Literal, NamedTuple

from numpy.lib import format as npy

from cnnlite.utils.types import DType, Shape

_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class Header(NamedTuple):
    """Shape and dtype of an array, and the order of its numbers, as announced: nothing says that they follow."""

    shape: Shape
    order: Literal["C", "F"]
    dtype: DType


def read_header(stream: IO[bytes]) -> Header:
    """Read the header of an array; ValueError if it is none."""
    version = npy.read_magic(stream)
    if version not in _READERS:
        raise ValueError(f"has .npy version {version}")
    try:
        shape, is_fortran, dtype = _READERS[version](stream)
    except Exception as error:  # the parsers of Python raise whatever a broken header leads them to
        raise ValueError(f"has a damaged header ({error})") from None
    return Header(shape, "F" if is_fortran else "C", dtype)
