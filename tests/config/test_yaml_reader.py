import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnlite.config.yaml_reader import BROKEN, MAX_BYTES, MAX_DEPTH, dotted, read_yaml
from cnnlite.config.yaml_scalars import resolve
from cnnlite.utils.text import clip


def data(text: str) -> Any:
    document = read_yaml(text)
    assert document.problems == []
    return document.data


def error(source: str | Path) -> str:
    """All that is wrong, in words."""
    started = time.perf_counter()
    problems = read_yaml(source, "a.yaml").problems
    assert time.perf_counter() - started < 5
    assert problems
    return "\n".join(map(str, problems))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("5.0e-4", 5e-4),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-2.", -2.0),
        ("0.0e5", 0.0),
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("10_000", 10_000),
        ("0x1F", 31),
        ("0o17", 15),
        ("9223372036854775807", 2**63 - 1),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("y", "y"),
        ("2017-01-31", "2017-01-31"),
        ("2017-99-99", "2017-99-99"),
        ("12:30:45", "12:30:45"),
        ("=", "="),
        ("1_", "1_"),
        ("'12'", "12"),
        ('"1e-3"', "1e-3"),
        ("'null'", "null"),
        ("!!str 12", "12"),
        ("! 12", "12"),
        ("!!float 12", 12),
        ("[1, [a, {b: 2.5}]]", [1, ["a", {"b": 2.5}]]),
        ("!!seq [1]", [1]),
        ("!!map {a: 1}", {"a": 1}),
        ("a:\n", {"a": None}),
        ("|\n  two\n  lines\n", "two\nlines\n"),
        ("# nothing\n", None),
        ("", None),
    ],
)
def test_reads_scalars_and_collections(text: str, value: Any) -> None:
    read = data(text)
    assert read == value
    assert type(read) is type(value)


def test_infinity_and_nan_are_numbers_for_the_builder_to_refuse() -> None:
    assert data("[.inf, -.inf]") == [float("inf"), -float("inf")]
    assert data(".nan") != data(".nan")


def test_knows_the_line_of_every_value() -> None:
    document = read_yaml("a: 1\nb:\n  - x\n  - y:\n      3\n\nc: {d: [4,\n  5]}\n")
    assert {steps: line for steps, line in document.lines.items() if "?" not in steps} == {
        (): 1,
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 1): 4,
        ("b", 1, "y"): 4,
        ("c",): 7,
        ("c", "d"): 7,
        ("c", "d", 0): 7,
        ("c", "d", 1): 8,
    }


def test_an_alias_repeats_the_value_and_the_lines_where_it_is_written() -> None:
    document = read_yaml("a: &block\n  - x\n  - {y: 1}\nb: *block\nc: *block\n")
    assert document.data["b"] == document.data["c"] == ["x", {"y": 1}]
    assert document.data["b"] is not document.data["c"]
    assert document.lines["b",] == 4
    assert document.lines["b", 1, "y"] == 3


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\na: 2", 2, "the key 'a' stands here twice, first in line 1"),
        ("x: {b: 1, b: {c: 1}}", 1, "x: the key 'b' stands here twice"),
        ("x: 08", 1, "x: 08 starts with 0; leave the zero out"),
        ("x: -010", 1, "x: -010 starts with 0"),
        ("a: 1\nx: 1.0e+400", 2, "x: 1.0e+400 is too large"),
        ("x: 1e-400", 1, "x: 1e-400 is too small"),
        ("x: 9223372036854775808", 1, "x: 9223372036854775808 does not fit in 64 bits"),
        ("x: " + "9" * 5000, 1, "does not fit in 64 bits (5000 characters)"),
        ("x: " + "9" * 5000 + ".0", 1, "is too large"),
        ("x: !!python/object/apply:os.system [ls]", 1, "x: the tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
        ("x: !local y", 1, "x: the tag '!local' is not allowed"),
        ("x: !local {y: 1}", 1, "x: the tag '!local' is not allowed"),
        ("x: !!binary aGk=", 1, "is not allowed"),
        ("x: !!set {a}", 1, "is not allowed"),
        ("x: !!int y", 1, "'y' is not what its tag says"),
        ("x: !!bool 'yes'", 1, "is not what its tag says"),
        ("a:\n\tb: 1", 2, "a tab cannot indent YAML; use spaces"),
        ("a: 1\n---\nb: 2", 2, "a second document starts here"),
        ("a: 1\n...\n---\nb: 2", 3, "a second document starts here"),
        ("a: &x [1, *x]", 1, "a[1]: the alias *x stands inside what it repeats"),
        ("a: *x", 1, "a: the alias *x has no anchor &x above it"),
        ("8: x", 1, "a key must be a word"),
        ("true: x", 1, "a key must be a word"),
        ("? [a, b]\n: x", 1, "a key must be a word"),
        ("? {a: b}\n: x", 1, "a key must be a word"),
        ("a: &x {b: 1}\nc:\n  <<: *x", 3, "merge keys (<<) are not supported"),
        ("a: [1", 1, "not YAML"),
        ("a: 'b", 1, "not YAML"),
        (
            "a: b: c",
            1,
            "not YAML: mapping values are not allowed here; look at the indentation, or quote text that holds a colon",
        ),
        (
            "a:\n  - b\n - c",
            3,
            "not YAML: the indentation of this line does not match the mapping in line 1 that it stands in",
        ),
        ("a:\n  - b\n  c: d", 3, "does not match the list in line 2 that it stands in"),
        ("a:\n    b: 1\n  c: 2", 3, "does not match the mapping in line 1 that it stands in"),
        ("a: 'b' c", 1, "not YAML: nothing more can follow in this line; quotes and brackets go around the whole"),
        ("  a: 1\nb: 2", 2, "not YAML: this line does not continue what stands above it; look at the indentation"),
        ("a:\n  - b\n  -c\nd: 1", 3, "not YAML: put a colon behind a key, and a space behind a dash"),
        ("a: @b", 1, "not YAML"),
        ("a: %b", 1, "not YAML"),
        ("a: 1\nb: \x07", 2, "control character"),
        ('a: "\\UFFFFFFFF"', 0, "not YAML"),
        ("%YAML " + "9" * 5000 + ".1\n---\na", 0, "not YAML"),
        ("%YAML 2.0\n---\na", 1, "not YAML"),
    ],
)
def test_names_line_and_fault(text: str, line: int, words: str) -> None:
    message = error(text)
    assert message.startswith(f"a.yaml:{line}: " if line else "a.yaml: ")
    assert words in message
    assert len(message) < 300


def test_lesser_faults_are_found_together_and_leave_the_rest_readable() -> None:
    document = read_yaml("a: 08\nb: !x 1\nc: 3\nc: 4\nd: *e\n", "f.yaml")
    assert [problem.line for problem in document.problems] == [1, 2, 4, 5]
    assert document.data == {"a": BROKEN, "b": BROKEN, "c": 3, "d": BROKEN}


def test_lesser_faults_are_told_along_with_a_fatal_one() -> None:
    document = read_yaml("a: 08\nb: [")
    assert document.data is BROKEN
    assert [problem.path for problem in document.problems] == ["a", ""]


def test_depth_is_limited_in_every_style() -> None:
    assert data("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))
    for text in (
        "[" * 1000 + "]" * 1000,
        "{a: " * 1000 + "}" * 1000,
        "- " * 1000 + "x",
        "".join(" " * i + "a:\n" for i in range(500)),
        "? " * 1000 + "x",
        "[" * 190_000,
        "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2),
    ):
        message = error(text)
        assert f"nested more than {MAX_DEPTH} levels deep" in message
        assert len(message) < 200


def test_aliases_do_not_get_around_the_depth_limit() -> None:
    deep = "[" * 40 + "]" * 40
    assert "levels deep" in error(f"a: &x {deep}\nb: {'[' * 40}*x{']' * 40}")


def test_an_alias_bomb_is_stopped() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    message = error("\n".join(lines))
    assert "more than 20,000 values (repeats of aliases included)" in message


@pytest.mark.parametrize("text", ["x" * 199_000, "'" + "\n" * 199_000 + "'", "#" * 199_000, "&" + "a" * 199_000 + " b"])
def test_long_texts_take_no_time(text: str) -> None:
    started = time.perf_counter()
    read_yaml(text)
    assert time.perf_counter() - started < 5


def test_a_long_list_is_stopped() -> None:
    assert "more than 20,000 values" in error("[" + "1," * 90_000 + "]")


def test_reads_files_with_and_without_byte_order_mark(tmp_path: Path) -> None:
    for name, content in (("plain", b"a: \xc3\xa9\n"), ("marked", b"\xef\xbb\xbfa: \xc3\xa9\r\n")):
        (tmp_path / name).write_bytes(content)
        document = read_yaml(tmp_path / name)
        assert document.data == {"a": "é"}
        assert document.file == str(tmp_path / name)


def test_bad_utf8_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"a: 1\nb: \xe9\n")
    message = error(tmp_path / "latin")
    assert message == f"{tmp_path / 'latin'}:2: byte 0xe9 is not UTF-8; save the file with the encoding UTF-8"
    (tmp_path / "utf16").write_bytes("a: 1".encode("utf-16"))
    assert "is not UTF-8" in error(tmp_path / "utf16")


def test_refuses_what_is_not_a_small_regular_file(tmp_path: Path) -> None:
    assert error(tmp_path).endswith("is a directory, not a YAML file")
    assert "No such file" in error(tmp_path / "none.yaml")
    assert "cannot be read" in error(tmp_path / ("n" * 5000))
    assert "not a possible file name" in error(Path("a\0b"))
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(100_000_000)
    assert "has 100,000,000 bytes" in error(tmp_path / "huge")
    assert "bytes" in error(" " * (MAX_BYTES + 1))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_refuses_a_fifo_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "is not a regular file" in error(tmp_path / "pipe")
    assert "is not a regular file" in error(Path(os.devnull))


def test_an_unreadable_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (tmp_path / "secret").write_text("a: 1")
    monkeypatch.setattr("cnnlite.utils.files.open_at_once", refuse)  # a test run by root could open any file
    assert "cannot be read: Permission denied" in error(tmp_path / "secret")


def test_places_are_written_as_people_write_them() -> None:
    assert dotted(("model", 4, "conv2d", "kernel_size")) == "model[4].conv2d.kernel_size"
    assert dotted(("data", "a b\n")) == "data.'a b\\n'"
    assert dotted(()) == ""
    assert len(dotted(("x" * 10_000,))) < 80
    assert clip("abcdef", 5) == "ab..."


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from(list("ab01:-[]{}&*!|>'\"%@?,#<~.e+ \n\t\\x\ufeff\x85")), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    document = read_yaml(text)
    assert document.data is not BROKEN or document.problems
    assert all(problem.message for problem in document.problems)


@given(st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_python_writes_reads_back_exactly(number: float) -> None:
    assert resolve(repr(number)) == number
