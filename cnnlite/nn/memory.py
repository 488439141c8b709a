"""Memory estimates: the least that a network takes, known before anything is allocated."""

import math

from cnnlite.errors import ConfigError, Problem, StorageError
from cnnlite.nn.layers.base import Layer
from cnnlite.runtime import machine
from cnnlite.utils.hints import Override

_NUMBER = 4
"""Bytes of a float32."""


def refuse_if_too_large(model: Layer, batch_size: int = 1) -> None:
    """Refuse an inferred model that does not fit in this machine's memory.

    Raises:
        ConfigError: if the parameters and their gradients, or a layer's output for one image, do not fit.
        StorageError: if only a layer's output for a whole batch does not fit.
    """
    available = machine.memory()
    _refuse_above(available, "its parameters and their gradients", 2 * _NUMBER * count_parameters(model))
    for _, layer in model.walk():
        output = _NUMBER * math.prod(layer.out_shape or (0,))
        what = f"the output of {layer.path or 'the model'}"
        _refuse_above(available, what, output)
        if output * batch_size > available:
            hint = f"lower train.batch_size ({Override(f'train.batch_size={batch_size // 2}')})"
            raise StorageError(
                f"out of memory with batch size {batch_size}: {what} would take {_gigabytes(output * batch_size)}, "
                f"there are {_gigabytes(available)}; {hint}"
            )


def count_parameters(model: Layer) -> int:
    """Count the trained scalars of an inferred model."""
    parts = (layer for _, layer in model.walk())
    return sum(math.prod(spec.shape) for layer in parts for spec in layer.specs.values() if spec.trained)


def _refuse_above(available: int, what: str, size: int) -> None:
    if size > available:
        needed, there = _gigabytes(size), _gigabytes(available)
        raise ConfigError([Problem("model", f"{what} would take {needed} of memory; there are {there}")])


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
