"""Constructors as schemas: options from signatures, and words for annotations."""

from typing import Literal

from cnnlite.config.construct import kind_of
from cnnlite.config.options import Option, options_of
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
        kind_of(int | tuple[int, int] | None).words
        == "a whole number, a list of 2: [a whole number, a whole number] or null"
    )
    assert kind_of(Literal["a", "b", "c"]).words == "one of a, b, c"
    assert kind_of(Layer).words == "a layer (its name, or {name: {option: value}})"
