"""Constructors as schemas: options from signatures, and words for annotations."""

from typing import Literal

from cnnlite.config.options import Option, describe, options_of
from cnnlite.nn.layers.base import Layer
from tests.support.construct_parts import (
    Matte,
    Plain,
    Room,
    registries,  # noqa: F401 - a fixture of every test here
)


def test_options_are_the_constructors_parameters() -> None:
    options = options_of(Matte)
    assert list(options) == ["depth", "label", "even", "inner"]
    assert options["depth"] == Option(float, None)
    assert options_of(Plain) == {}
    assert "made_by" not in options_of(Room)


def test_describes_what_to_write() -> None:
    assert (
        describe(int | tuple[int, int] | None)
        == "a whole number, a list of 2: [a whole number, a whole number] or null"
    )
    assert describe(Literal["a", "b", "c"]) == "one of a, b, c"
    assert describe(Layer) == "a layer (its name, or {name: {option: value}})"
