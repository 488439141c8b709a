"""How much memory a network takes at the least, found out before any is allocated."""

import contextlib
import copy
import math
from typing import Any

import numpy as np

from cnnlite.errors import ConfigError, Problem, StorageError
from cnnlite.nn.layers.base import Layer
from cnnlite.runtime import machine
from cnnlite.utils.types import Shape

_NUMBER = 4
"""Bytes of a float32."""
_NOTHING = np.dtype([])
"""Of arrays that have a shape and no bytes."""
_BEYOND = 2**37
"""Numbers that no machine has memory for; there is no need to go on."""


class _Unfilled(np.ndarray[Any, Any]):
    """An array of any shape that takes no memory; whatever is done with it, it stays as it is."""

    def astype(self, *_: Any, **__: Any) -> Any:
        return self

    def __setitem__(self, *_: Any) -> None:
        pass

    def __array_ufunc__(self, *_: Any, **__: Any) -> Any:
        return self

    def __array_function__(self, *_: Any, **__: Any) -> Any:
        return self


class _Sparing(np.random.Generator):
    """Draws arrays without numbers, and counts how many there would be."""

    drawn = 0

    def standard_normal(self, size: Any = None, *_: Any, **__: Any) -> Any:
        self.drawn += math.prod(size)
        if self.drawn > _BEYOND:
            raise MemoryError
        return np.broadcast_to(np.float32(0), size).view(_Unfilled)

    def uniform(self, low: Any = 0, high: Any = 1, size: Any = None) -> Any:
        return self.standard_normal(size)


def refuse_if_too_large(model: Layer, in_shape: Shape, batch_size: int = 1) -> None:
    """Raise ConfigError if this machine cannot hold the parameters with their gradients, or an image's layer output.

    StorageError if only a whole batch of such outputs is too much. What cannot be built passes: building it for real
    says why.
    """
    parts, parameters = _built(model, in_shape)
    available = machine.memory()
    _refuse_above(available, "its parameters and their gradients", 2 * _NUMBER * parameters)
    for layer in parts:
        output = _NUMBER * math.prod(layer.out_shape or (0,))
        what = f"the output of {layer.path or 'the model'}"
        _refuse_above(available, what, output)
        if output * batch_size > available:
            raise StorageError(
                f"out of memory with batch size {batch_size}: {what} would take {_gigabytes(output * batch_size)}, "
                f"there are {_gigabytes(available)}; lower train.batch_size (-o train.batch_size={batch_size // 2})"
            )


def count_parameters(model: Layer, in_shape: Shape) -> int:
    """How many numbers a network would train, without making room for them; those before a layer that does not fit."""
    return _built(model, in_shape)[1]


def _built(model: Layer, in_shape: Shape) -> tuple[list[Layer], int]:
    """All layers with their shapes, up to one that cannot be built, and how many numbers they would train."""
    model, rng = copy.deepcopy(model), _Sparing(np.random.PCG64(0))
    with contextlib.suppress(Exception):  # a layer may look at its numbers, of which there are none
        model.build(in_shape, rng, _NOTHING)
    layers = [layer for _, layer in model.walk()]
    return layers, max(rng.drawn, sum(math.prod(array.shape) for layer in layers for array in layer.params.values()))


def _refuse_above(available: int, what: str, size: int) -> None:
    if size > available:
        needed, there = _gigabytes(size), _gigabytes(available)
        raise ConfigError([Problem("model", f"{what} would take {needed} of memory; there are {there}")])


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
