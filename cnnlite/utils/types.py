"""Names for the array types used in every signature."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
"""A NumPy array; the docstring of whoever takes it gives shape and dtype."""

DType: TypeAlias = np.dtype[Any]
"""Type of an array's numbers: float32 to train, float64 to check gradients."""

Shape: TypeAlias = tuple[int, ...]
"""The shape of one sample, without the batch axis: ``(H, W, C)`` or ``(features,)``."""
