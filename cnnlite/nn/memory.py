"""Memory estimates: the least that a network takes, known before anything is allocated."""

import math

from cnnlite.errors import ConfigError, Problem, StorageError
from cnnlite.nn.layers.base import Layer
from cnnlite.runtime import machine
from cnnlite.utils.hints import Override
from cnnlite.utils.text import size_text
from cnnlite.utils.types import Shape

_NUMBER = 4
"""Bytes of a float32."""
_AT_ONCE = 2**30
"""Bytes of the largest array that networks are run on, or give, when they do not train."""


def refuse_if_too_large(model: Layer, batch_size: int = 1, image: Shape = (0,)) -> None:
    """Refuse an inferred model, for images of shape ``image``, that does not fit in this machine's memory.

    Raises:
        ConfigError: if the parameters and their gradients, an image, or a layer's output for it, do not fit.
        StorageError: if only a layer's output for a whole batch does not fit.
    """
    available = machine.memory()
    _refuse_above(available, "its parameters and their gradients", 2 * _NUMBER * count_parameters(model))
    _refuse_above(available, "an image", _NUMBER * math.prod(image))
    for _, layer in model.walk():
        output = _NUMBER * math.prod(layer.out_shape or (0,))
        what = f"the output of {layer.path or 'the model'}"
        _refuse_above(available, what, output)
        if output * batch_size > available:
            hint = f"lower train.batch_size ({Override(f'train.batch_size={batch_size // 2}')})"
            raise StorageError(
                f"out of memory with batch size {batch_size}: {what} would take {size_text(output * batch_size)}, "
                f"there are {size_text(available)}; {hint}"
            )


def images_at_once(most: int, image: Shape, model: Layer | None = None) -> int:
    """Count the images, at most ``most``, that are shown to a network at once, so that large ones do not fill memory.

    It follows from shapes alone, that of an image and those of what an inferred ``model`` makes of it, and not from
    the machine: the last bits of a matrix product may depend on its size.
    """
    shapes = [image, *(layer.out_shape for _, layer in model.walk())] if model else [image]
    return max(1, min(most, _AT_ONCE // (_NUMBER * max(map(math.prod, shapes)))))


def count_parameters(model: Layer) -> int:
    """Count the trained scalars of an inferred model."""
    parts = (layer for _, layer in model.walk())
    return sum(math.prod(spec.shape) for layer in parts for spec in layer.specs.values() if spec.trained)


def _refuse_above(available: int, what: str, size: int) -> None:
    if size > available:
        sizes = f"{size_text(size)} of memory; there are {size_text(available)}"
        raise ConfigError([Problem("model", f"{what} would take {sizes}")])
