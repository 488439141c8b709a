"""Docstrings and comments say what they say in the field's words."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "cnnlite"
MODULES = sorted(PACKAGE.rglob("*.py"))
QUESTION = re.compile(r"(what|how|which|whether)\b", re.IGNORECASE)
REPLACED = {
    r"rooms?": "module, package; memory, space",
    r"ways? out": "hint",
    r"sittings?": "session",
    r"absorb\w*": "fuse",
    r"unfold\w*": "im2col",
    r"misfits?": "shape errors",
    r"unfriendly": "untrusted",
    r"never (fall|ris)(s|es|ing)": "monotonic, in descending order",
    r"tells? whether": "True if",
    r"each_alone|from_first": "allgather_local, broadcast",
}
"""Words of the house, and the field's in their place; names in backquotes are nobody's prose."""


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Lines and texts of all docstrings, those of attributes and of private names too."""
    for node in ast.walk(ast.parse(source)):
        for child in ast.iter_child_nodes(node):
            match child:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield child.lineno, text


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Lines and texts of all comments."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def questions(source: str) -> list[str]:
    """Docstrings that begin as a question does, with their lines."""
    return [f"{line}: {text:.60}" for line, text in docstrings(source) if QUESTION.match(text.strip())]


def replaced_words(source: str) -> list[str]:
    """Words of the house in docstrings and comments, with their lines."""
    found = []
    for line, text in (*docstrings(source), *comments(source)):
        prose = re.sub(r"(`+)[^`]*\1", "", text)
        for word, better in REPLACED.items():
            hits = re.finditer(rf"\b({word})\b", prose, re.IGNORECASE)
            found += [f"{line}: {hit[0]} (write {better})" for hit in hits]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_docstrings_say_what_is_returned_or_done_in_the_fields_words(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert not questions(source)
    assert not replaced_words(source)


def test_questions_and_replaced_words_are_found_wherever_they_are() -> None:
    lines = [
        '"""Whether so."""',
        "x = 1",
        '"""How many."""',
        "def f():",
        '    """What it is."""',
        "    return 2  # a room, `room`",
    ]
    source = "\n".join([*lines, ""])
    assert [entry.partition(":")[0] for entry in questions(source)] == ["1", "3", "5"]
    assert replaced_words(source) == ["6: room (write module, package; memory, space)"]
