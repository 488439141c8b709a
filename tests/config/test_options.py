"""Constructors as schemas: options from signatures."""

from cnnlite.config.options import Option, options_of, to_plain
from cnnlite.config.settings import TrainSettings
from cnnlite.optim import SGD
from tests.support.construct_parts import (
    Matte,
    Plain,
    Room,
    registries,  # noqa: F401 - a fixture of every test here
)


def test_options_are_the_constructors_parameters() -> None:
    options = options_of(Matte)
    assert list(options) == ["depth", "label", "even", "inner"]
    assert options["depth"] == Option(float, None, "depth")
    assert options_of(Plain) == {}
    assert "made_by" not in options_of(Room)


def test_a_keyword_of_python_is_an_option_by_an_underscore_behind_the_parameter() -> None:
    option = options_of(TrainSettings)["from"]
    assert (option.parameter, option.default and option.default()) == ("from_", None)
    settings = TrainSettings(optimizer=SGD(lr=0.1), epochs=1, from_="small")
    assert to_plain(settings)["from"] == "small"
