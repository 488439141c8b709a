from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from cnnlite.annotations import Option, describe, options_of
from cnnlite.builder import MAX_PROBLEMS, Problems, construct
from cnnlite.errors import ConfigError, Problem
from cnnlite.layers.base import Layer, layers
from cnnlite.registry import Registry
from cnnlite.types import Array, DType, Shape
from cnnlite.yaml_reader import BROKEN, Steps, read_yaml


class Shade(ABC):  # noqa: B024 - a base to register by
    """Stands for Loss, Optimizer and their like."""

    path = ""


class Even:
    """A class that reads its own text."""

    def __init__(self, half: int):
        self.half = half

    @classmethod
    def from_config(cls, value: Any) -> "Even":
        if type(value) is not int or value % 2:
            raise ValueError(f"{value!r} is not even")
        return cls(value // 2)

    def to_config(self) -> int:
        return 2 * self.half


class Plain(Shade):
    pass


class Matte(Shade):
    def __init__(self, depth: float, *, label: str = "m", even: Even = Even(2), inner: Shade | None = None):  # noqa: B008
        if not 0 <= depth < 1:
            raise ValueError(f"depth {depth} is not in [0, 1)")
        if label == "bad":
            raise ValueError("the label is bad")
        self.depth, self.label, self.even, self.inner = depth, label, even, inner


@dataclass(frozen=True)
class Tone:
    """Options of an option."""

    hue: int = 1
    parts: tuple[float, ...] = (1, 2)


class Toned(Shade):
    def __init__(self, tone: Tone = Tone(), inner: Shade = Matte(0.25)):  # noqa: B008
        self.tone, self.inner = tone, inner


class Picky(Shade):
    def __init__(self, groups: list[dict[str, Any]] | None = None):
        if groups:
            raise ValueError("groups[1]: no such thing")


@dataclass
class Room:
    shade: Shade
    size: tuple[int, int] = (3, 4)
    height: float = 2
    door: bool = True
    name: str = "hall"
    side: Literal["left", "right"] = "left"
    padding: int | tuple[int, int] | Literal["same", "valid"] = 0
    walls: list[float] = field(default_factory=lambda: [1.0])
    notes: dict[str, Any] = field(default_factory=dict)
    other: Shade = field(default_factory=Plain)
    weight: Annotated[float, lambda x: None] | None = None
    made_by: str = field(default="us", metadata={"option": False})

    def __post_init__(self) -> None:
        if self.name == "cellar":
            raise ConfigError([Problem("", "no light here")])


class Dense(Layer):
    def __init__(self, units: int):
        super().__init__()
        if units < 1:
            raise ValueError(f"units must be at least 1, not {units}")
        self.units = units

    def build(self, in_shape: Shape, rng: np.random.Generator, dtype: DType) -> Shape:
        raise NotImplementedError

    def forward(self, x: Array, *, training: bool) -> Array:
        raise NotImplementedError

    def backward(self, dy: Array) -> Array | None:
        raise NotImplementedError


class Chain(Dense):
    def __init__(self, layers: list[Layer]):
        super().__init__(1)
        self.layers = layers


class Fork(Dense):
    def __init__(self, branches: list[Layer], tail: Layer | None = None):
        super().__init__(1)
        self.branches, self.tail = branches, tail


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registries of this test alone: shades, and toy layers in the place of the real ones."""
    monkeypatch.setattr(Registry, "by_base", dict(Registry.by_base))
    shades: Registry[Shade] = Registry("shade", Shade)
    shades.register("plain")(Plain)
    shades.register("matte")(Matte)
    shades.register("picky")(Picky)
    shades.register("toned")(Toned)
    monkeypatch.setattr(layers, "_classes", {"dense": Dense, "sequential": Chain, "fork": Fork})


def build(annotation: Any, text: str) -> tuple[Any, Any]:
    """Object and resolved data; and proof that the resolved data gives the same resolved data again."""
    document = read_yaml(text, "f.yaml")
    problems = Problems({steps: ("f.yaml", line) for steps, line in document.lines.items()}, document.problems)
    made, resolved = construct(annotation, document.data, (), problems)
    problems.raise_any()
    again, resolved_again = construct(annotation, resolved, (), problems)
    problems.raise_any()
    assert type(again) is type(made)
    assert resolved_again == resolved
    return made, resolved


def faults(annotation: Any, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build(annotation, text)
    return str(caught.value).splitlines()


def test_options_are_the_constructors_parameters() -> None:
    options = options_of(Matte)
    assert list(options) == ["depth", "label", "even", "inner"]
    assert options["depth"] == Option(float, None)
    assert options_of(Plain) == {}
    assert "made_by" not in options_of(Room)


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
    assert room.shade.even.half == 4
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


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("height: '0.1'", "height: expected a number, got the text '0.1'; write it without quotes"),
        ("height: '08'", "height: expected a number, got the text '08'"),
        ("height: true", "height: expected a number, got true"),
        ("height: null", "height: expected a number, got nothing (null)"),
        ("height: [1]", "height: expected a number, got a list"),
        ("height: .nan", "height: expected a finite number, got nan"),
        ("height: -.inf", "height: expected a finite number, got -inf"),
        ("height: 1.0e+400", "height: 1.0e+400 is too large"),
        ("height: tall", "height: expected a number, got the text 'tall'"),
        ("door: 1", "door: expected true or false, got 1"),
        ("door: on", "door: expected true or false, got the text 'on'; write true"),
        ("door: 'false'", "door: expected true or false, got the text 'false'; write it without quotes"),
        ("name: 3", "name: expected text, got 3"),
        ("name: no", None),
        ('name: "a\\0b"', "name: 'a\\x00b' holds a character that no text can hold"),
        ('name: "\\ud800"', "name: '\\ud800' holds a character"),
        ("side: lift", "side: expected left or right, got the text 'lift'; did you mean 'left'?"),
        ("side: 3", "side: expected left or right, got 3"),
        ("size: 3", "size: expected a list of 2: [a whole number, a whole number], got 3"),
        ("size: [1, 2, 3]", "size: expected a list of 2: [a whole number, a whole number], got 3 items"),
        ("size: [1, 2.0]", "size[1]: expected a whole number, got 2.0; write 2"),
        ("size: [1, 2.5]", "size[1]: expected a whole number, got 2.5"),
        ("size: [1, 1e4]", "size[1]: expected a whole number, got 10000.0; write 10000"),
        ("padding: smae", "or same or valid, got the text 'smae'; did you mean 'same'?"),
        ("padding: '3'", "got the text '3'; write it without quotes"),
        ("padding: {a: 1}", "got a mapping with a"),
        ("padding: [1, x]", "padding[1]: expected a whole number, got the text 'x'"),
        ("padding: true", "padding: expected a whole number,"),
        ("walls: 3", "walls: expected a list, got 3"),
        ("walls: [1, 2, x]", "walls[2]: expected a number"),
        ("walls: []", None),
        ("notes: []", "notes: expected options (name: value), got an empty list"),
        ("notes: {a: [.nan]}", "notes.a[0]: expected a finite number"),
        ("weight: x", "weight: expected a number or null"),
        ("nmae: x", "nmae: unknown option; did you mean 'name'?"),
        ("zzzzz: x", "zzzzz: unknown option; known: shade, size, height"),
        ("made_by: them", "made_by: unknown option"),
        ("name: cellar", "no light here"),
        ("other: plane", "other: unknown shade 'plane'; did you mean 'plain'?"),
        ("other: 3", "other: expected a shade (its name, or {name: {option: value}}), got 3"),
        ("other: {}", "other: expected a shade (its name, or {name: {option: value}}), got an empty mapping"),
        ("other: [plain]", "other: expected a shade"),
        ("other: {plain: 3}", "other.plain: expected no options: write just plain; got 3"),
        ("other: {plain: {a: 3}}", "other.plain.a: unknown option; there are none here"),
        ("other: matte", "other.matte: the option 'depth' is missing; add depth: a number"),
        ("other: {matte: 0.5}", "other.matte: expected options such as {depth: ...}; got 0.5"),
        ("other: {matte: {depth: 1.5}}", "other.matte.depth: depth 1.5 is not in [0, 1)"),
        ("other: {matte: {depth: 0, label: bad}}", "other.matte: the label is bad"),
        ("other: {matte: {depth: 0, even: 3}}", "other.matte.even: 3 is not even"),
        ("other: {picky: {groups: [{a: 1}, {}]}}", "other.picky.groups[1]: no such thing"),
        ("other: {matte: null, depth: 3}", "got a mapping with matte, depth; indent depth below matte"),
        ("other: {matte: null, plain: null}", "expected one shade, got matte, plain; a list has a dash before each"),
    ],
)
def test_a_wrong_value_is_told_with_place_and_way_out(option: str, words: str | None) -> None:
    text = "shade: plain\n\n" + option
    if words is None:
        build(Room, text)
        return
    found = faults(Room, text)
    assert len(found) == 1
    assert words in found[0]
    assert found[0].startswith("f.yaml:3: ") or option == "name: cellar"


def test_all_problems_are_found_at_once_in_the_order_of_lines() -> None:
    text = (
        "name: 3\nshade: {matte: {depht: 1, inner: {matte: {depth: x}}}}\nwalls: [a, 1, b]\nheight: 08\nsize:\n  - 1\n"
    )
    places = [line.rsplit(": ", 1)[0].split(": ")[:2] for line in faults(Room, text)]
    assert places == [
        ["f.yaml:1", "name"],
        ["f.yaml:2", "shade.matte.depht"],
        ["f.yaml:2", "shade.matte"],
        ["f.yaml:2", "shade.matte.inner.matte.depth"],
        ["f.yaml:3", "walls[0]"],
        ["f.yaml:3", "walls[2]"],
        ["f.yaml:4", "height"],
        ["f.yaml:5", "size"],
    ]


def test_many_problems_are_cut_short() -> None:
    found = faults(Room, "{shade: plain, walls: [" + "x, " * 15_000 + "]}")
    assert len(found) == MAX_PROBLEMS + 1
    assert "more problems" in found[-1]


def test_a_huge_integer_from_elsewhere_than_a_file_is_refused() -> None:
    for annotation in (int, float, Any, int | None, list[int]):
        problems = Problems()
        value = [10**5000] if annotation == list[int] else 10**5000
        assert construct(annotation, value, ("x",), problems) == (BROKEN, BROKEN)
        assert "64 bits" in problems.found[0].message


def test_data_that_is_not_of_a_config_is_refused() -> None:
    for kind, value in ((Any, {1: 2}), (Any, b"x"), (Any, {"a": {3}}), (Any, [object()]), (Shade, {"matte": {1: 2}})):
        problems = Problems()
        assert construct(kind, value, ("x",), problems)[0] is BROKEN
        assert len(problems.found) == 1
    endless: list[Any] = []
    endless.append(endless)
    for annotation in (Any, Layer):
        problems = Problems()
        assert construct(annotation, endless, (), problems)[0] is BROKEN
        assert "levels deep" in problems.found[0].message


def test_models_as_deep_as_a_file_may_be_are_built() -> None:
    model, _ = build(Layer, "[" * 64 + "]" * 64)
    for _ in range(63):
        [model] = model.layers
    assert model.layers == []


def test_a_misplaced_option_is_sent_where_it_belongs() -> None:
    class Knowing(Problems):
        def misplaced(self, steps: Steps, key: str) -> str:
            return "the attic" if key == "box" else ""

    problems = Knowing()
    construct(Room, {"shade": "plain", "box": 1}, (), problems)
    assert [problem.message for problem in problems.found] == ["unknown option; it belongs at the attic"]


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


def test_describes_what_to_write() -> None:
    assert (
        describe(int | tuple[int, int] | None)
        == "a whole number, a list of 2: [a whole number, a whole number] or null"
    )
    assert describe(Literal["a", "b", "c"]) == "one of a, b, c"
    assert describe(Layer) == "a layer (its name, or {name: {option: value}})"
