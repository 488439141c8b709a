"""Names for the array types used in every signature."""

from typing import Any, TypeAlias

from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
"""A NumPy array; the docstring of whoever takes it gives shape and dtype."""

Shape: TypeAlias = tuple[int, ...]
"""The shape of one sample, without the batch axis: ``(H, W, C)`` or ``(features,)``."""
