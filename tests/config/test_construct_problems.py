"""What is wrong with data is reported with its place and the way out, all at once."""

from typing import Any

import pytest

from cnnlite.config.construct import construct
from cnnlite.config.problem_list import MAX_PROBLEMS, Problems
from cnnlite.config.yaml_reader import BROKEN, Steps
from cnnlite.errors import OptionError
from cnnlite.nn.layers.base import Layer
from tests.support.construct_parts import (
    Room,
    Shade,
    build,
    faults,
    registries,  # noqa: F401 - a fixture of every test here
)


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


def test_a_misplaced_option_is_sent_where_it_belongs() -> None:
    class Knowing(Problems):
        def misplaced(self, steps: Steps, key: str) -> str:
            return "the attic" if key == "box" else ""

    problems = Knowing()
    construct(Room, {"shade": "plain", "box": 1}, (), problems)
    assert [problem.message for problem in problems.found] == ["unknown option; it belongs at the attic"]


def test_an_option_error_names_its_option_once() -> None:
    assert str(OptionError("decay 2 is not in [0, 1)", "decay")) == "decay 2 is not in [0, 1)"
    assert str(OptionError("needs at least one", "members")) == "members: needs at least one"
    nested = OptionError("no such thing", "groups", 1, "match")
    assert str(nested) == "groups[1].match: no such thing"
    assert (nested.message, nested.option) == ("no such thing", ("groups", 1, "match"))
