"""Hooks: a callback after each forward and backward call of a layer, and the list of layers that are called."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from cnnlite.nn.layers.base import Layer, dotted, layers
from cnnlite.nn.layers.containers import Sequential
from cnnlite.utils.types import Array

WAYS: tuple[Literal["forward"], Literal["backward"]] = ("forward", "backward")


class Call(NamedTuple):
    """One completed call of a layer's ``forward`` or ``backward``."""

    name: str
    """Dotted name, as of parameters; empty for the whole model."""
    layer: Layer
    way: Literal["forward", "backward"]
    given: Array
    """``x`` of forward, ``dy`` of backward."""
    returned: Array | None
    """``y`` of forward, ``dx`` of backward, which is None where it is not needed."""
    seconds: float
    """Duration, including the layers inside."""


@contextmanager
def watched(model: Layer, see: Callable[[Call], None]) -> Iterator[None]:
    """Call ``see`` after each layer call made inside the block; inner layers come before their container."""

    def watch(name: str, layer: Layer, way: Literal["forward", "backward"]) -> Callable[..., Array | None]:
        method: Callable[..., Array | None] = getattr(layer, way)

        def called(given: Array, *context: Any) -> Array | None:
            start = time.perf_counter()
            returned = method(given, *context)
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
                delattr(layer, way)  # uncovers the class's method


def working_layers(layer: Layer, name: str = "", fused: tuple[Layer, ...] = ()) -> Iterator[tuple[str, str, Layer]]:
    """Iterate over the layers that are called, depth first: name, kind as in a config, and the layer itself.

    A fused layer is part of the kind of the one before it, as in ``batch_norm + relu``; sequences are left out.
    """
    if isinstance(layer, Sequential):
        starts = [layer.layers.index(step) for step in layer.steps]
        for start, stop in itertools.pairwise([*starts, len(layer.layers)]):
            step, *done_by_it = layer.layers[start:stop]
            yield from working_layers(step, dotted(name, str(start)), tuple(done_by_it))
        return
    yield name, " + ".join(layers.name_of(type(part)) for part in (layer, *fused)), layer
    for key, child in layer.children.items():
        yield from working_layers(child, dotted(name, key))
