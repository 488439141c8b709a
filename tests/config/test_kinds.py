"""Kinds of options: the words for each, what is inside, and what it says in JSON Schema."""

from typing import Annotated, Any, Literal

from cnnlite.config.construct import kind_of
from cnnlite.config.kinds import ANYTHING, positive
from cnnlite.nn.layers.base import Layer
from tests.support.construct_parts import (
    Room,
    Shade,
    Tone,
    registries,  # noqa: F401 - a fixture of every test here
)


def test_describes_what_to_write() -> None:
    assert (
        kind_of(int | tuple[int, int] | None).words
        == "a whole number, a list of 2: [a whole number, a whole number] or null"
    )
    assert kind_of(Literal["a", "b", "c"]).words == "one of a, b, c"
    assert kind_of(Layer).words == "a layer (its name, or {name: {option: value}})"
    assert kind_of(Annotated[int, "a few"] | None).words == "a few or null"
    assert kind_of(dict[str, int]).words == kind_of(Tone).words == "options (name: value)"


def test_the_kind_of_an_entry_is_found_also_where_there_are_several_choices() -> None:
    assert kind_of(list[Shade] | None).inside(3).registry is kind_of(Shade).registry
    assert kind_of(dict[str, int] | None).inside("x").words == "a whole number"
    assert kind_of(tuple[int, str]).inside(1).words == "text"
    assert kind_of(Room).inside("height").words == "a number"
    assert kind_of(Room).inside("nowhere") is ANYTHING
    assert kind_of(Shade).inside("toned").inside("tone").inside("hue").words == "a whole number"


def test_a_kind_says_in_json_schema_what_it_accepts() -> None:
    assert kind_of(Annotated[int, positive] | None).schema() == {
        "anyOf": [{"type": "integer", "exclusiveMinimum": 0}, {"type": "null"}]
    }
    assert kind_of(dict[str, list[float]]).schema() == {
        "type": "object",
        "additionalProperties": {"type": "array", "items": {"type": "number"}},
    }
    assert kind_of(Any).schema() == {}
