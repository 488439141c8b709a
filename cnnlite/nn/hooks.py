"""What the layers of a network are given and return, seen from outside while it works, and which of them work."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from cnnlite.nn.layers.base import Layer, dotted, layers
from cnnlite.nn.layers.containers import Sequential
from cnnlite.utils.types import Array

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


def working_layers(
    layer: Layer, works: Callable[[str], bool], name: str = "", absorbed: tuple[Layer, ...] = ()
) -> Iterator[tuple[str, str, Layer]]:
    """Layers that are called, depth first: name, kind as in a config, and the layer itself.

    A layer that is not called is done by the one before it, or, if it is the first, by the one around it, and is part
    of that one's kind: ``batch_norm + relu``. A sequence that does no other's work is left out.
    """
    groups: list[tuple[str, Layer, list[Layer]]] = []
    for key, child in layer.children.items():
        if works(dotted(name, key)):
            groups.append((dotted(name, key), child, []))
        elif groups:
            groups[-1][2].append(child)
        else:
            absorbed = (*absorbed, child)
    if absorbed or not isinstance(layer, Sequential):
        yield name, " + ".join(layers.name_of(type(part)) for part in (layer, *absorbed)), layer
    for child_name, child, done_by_it in groups:
        yield from working_layers(child, works, child_name, tuple(done_by_it))
