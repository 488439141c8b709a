"""Constructors as schemas: options from signatures."""

from cnnlite.config.options import Option, options_of
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
