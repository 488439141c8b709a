"""What the layers of a network are given and return, seen from outside while it works."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from cnnlite.layers.base import Layer
from cnnlite.types import Array

WAYS: tuple[Literal["forward"], Literal["backward"]] = ("forward", "backward")


class Call(NamedTuple):
    """A call of a layer, which has just returned."""

    name: str
    """Dotted, as in the names of parameters; empty for the whole model."""
    layer: Layer
    way: Literal["forward", "backward"]
    given: Array
    """``x`` of forward, ``dy`` of backward."""
    returned: Array | None
    """``y`` of forward, ``dx`` of backward, which is None where nobody needs it."""
    seconds: float
    """How long it took, with the layers inside."""


@contextmanager
def watched(model: Layer, see: Callable[[Call], None]) -> Iterator[None]:
    """Call ``see`` after each call of a layer inside the block; those inside a layer are seen before it."""

    def watch(name: str, layer: Layer, way: Literal["forward", "backward"]) -> Callable[..., Array | None]:
        method: Callable[..., Array | None] = getattr(layer, way)

        def called(given: Array, **options: Any) -> Array | None:
            start = time.perf_counter()
            returned = method(given, **options)
            see(Call(name, layer, way, given, returned, time.perf_counter() - start))
            return returned

        return called

    parts = list(model.walk())
    for name, layer in parts:
        for way in WAYS:
            setattr(layer, way, watch(name, layer, way))
    try:
        yield
    finally:
        for _, layer in parts:
            for way in WAYS:
                delattr(layer, way)  # that of the class is back
