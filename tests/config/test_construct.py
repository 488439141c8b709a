"""Data becomes objects, by the annotations of constructors."""

from collections.abc import Callable
from typing import Annotated

import pytest

from cnnlite.config.construct import construct
from cnnlite.config.problem_list import Problems
from cnnlite.nn.layers.base import Layer
from tests.support.construct_parts import (
    Chain,
    Fork,
    Plain,
    Room,
    Shade,
    Tone,
    build,
    faults,
    registries,  # noqa: F401 - a fixture of every test here
)


def test_every_default_is_written_out() -> None:
    room, resolved = build(Room, "shade: plain")
    assert room == Room(room.shade, other=room.other)
    assert resolved == {
        "shade": "plain",
        "size": [3, 4],
        "height": 2.0,
        "door": True,
        "name": "hall",
        "side": "left",
        "padding": 0,
        "walls": [1.0],
        "notes": {},
        "other": "plain",
        "weight": None,
    }
    assert type(resolved["height"]) is float


def test_defaults_that_are_objects_are_written_out_as_data() -> None:
    made, resolved = build(Shade, "toned")
    assert resolved == {
        "toned": {
            "tone": {"hue": 1, "parts": [1.0, 2.0]},
            "inner": {"matte": {"depth": 0.25, "label": "m", "even": 4, "inner": None}},
        }
    }
    assert build(Shade, "{toned: {tone: {hue: 2, parts: [3]}}}")[0].tone == Tone(2, (3.0,))
    assert made.tone == Tone()


def test_values_arrive_as_annotated() -> None:
    text = (
        "shade: {matte: {depth: 0, even: 8, inner: plain}}\nsize: [1, 2]\nheight: 3\npadding: [5, 6]\nwalls: [1, 2.5]"
    )
    room, resolved = build(Room, text + "\nnotes: {a: [1, {b: null}]}\nweight: 1")
    assert (room.size, room.height, room.padding, room.walls) == ((1, 2), 3.0, (5, 6), [1.0, 2.5])
    assert type(room.weight) is float
    assert type(room.shade.depth) is float
    assert room.shade.even == 8
    assert isinstance(room.shade.inner, Plain)
    assert room.notes == {"a": [1, {"b": None}]}
    assert resolved["shade"] == {"matte": {"depth": 0.0, "label": "m", "even": 8, "inner": "plain"}}
    assert build(Room, "{shade: plain, padding: same}")[0].padding == "same"
    assert build(Room, "{shade: plain, padding: 7}")[0].padding == 7


def test_a_name_may_come_bare_with_options_or_with_none() -> None:
    for text in ("plain", "{plain: {}}", "plain:"):
        made, resolved = build(Shade, text)
        assert isinstance(made, Plain)
        assert resolved == "plain"


def test_objects_with_a_path_learn_it() -> None:
    room, _ = build(Room, "shade: {matte: {depth: 0.5, inner: plain}}")
    assert room.shade.path == "shade.matte"
    assert room.shade.inner.path == "shade.matte.inner.plain"


def test_a_list_of_layers_is_a_sequence() -> None:
    model, resolved = build(
        Layer, "[{dense: {units: 1}}, [{dense: {units: 2}}], {fork: {branches: [[], [{dense: {units: 3}}]]}}]"
    )
    assert type(model) is Chain
    first, second, third = model.layers
    assert isinstance(second, Chain)
    assert isinstance(third, Fork)
    last = third.branches[1]
    assert isinstance(last, Chain)
    assert first.path == "[0].dense"
    assert second.layers[0].path == "[1][0].dense"
    assert last.layers[0].path == "[2].fork.branches[1][0].dense"
    assert resolved[2] == {"fork": {"branches": [[], [{"dense": {"units": 3}}]], "tail": None}}


def test_models_as_deep_as_a_file_may_be_are_built() -> None:
    model, _ = build(Layer, "[" * 64 + "]" * 64)
    for _ in range(63):
        [model] = model.layers
    assert model.layers == []


def test_checks_in_annotations_speak_for_their_value_alone() -> None:
    def small(x: int) -> None:
        if x > 9:
            raise ValueError(f"must be below 10, not {x}")

    check: Callable[[int], None] = small
    kind = list[Annotated[int, check]]
    assert faults(kind, "[1, 20, 30]") == [
        "f.yaml:1: [1]: must be below 10, not 20",
        "f.yaml:1: [2]: must be below 10, not 30",
    ]
    assert build(kind, "[1]")[1] == [1]


def test_annotations_a_config_cannot_express_are_bugs() -> None:
    for annotation in (bytes, set[int], Callable[[], int]):
        with pytest.raises(TypeError, match="cannot be written in a config"):
            construct(annotation, 1, (), Problems())
