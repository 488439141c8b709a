"""Items of large JSON files, one by one."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

_PIECE = 2**20
_LARGEST = 2**26
"""Maximum characters of an item."""
_SPACE = re.compile(r"[ \t\n\r]*")


def json_items(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    """Yield the values of a JSON object with their keys; of a list, each item with the key of the list.

    Only the item that is read is in memory.

    Raises:
        ValueError: if the file holds no such thing.
        RecursionError: if an item is nested too deep.
    """
    text = _Text(file)
    text.skip("{")
    if text.ahead() == "}":
        return
    while True:
        key = text.value()
        if not isinstance(key, str):
            raise ValueError(f"holds {key!r:.40} where a key should be")
        text.skip(":")
        if text.ahead() == "[":
            text.skip("[")
            while text.ahead() != "]":
                yield key, text.value()
                if text.ahead() != "]":
                    text.skip(",")
            text.skip("]")
        else:
            yield key, text.value()
        if text.ahead() == "}":
            return
        text.skip(",")


class _Text:
    """Text of a file, of which a piece is in memory."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._decoder = json.JSONDecoder(parse_constant=_refuse)
        self._text = ""
        self._at = 0

    def ahead(self) -> str:
        """Return the next character that is no space; empty at the end."""
        while True:
            self._at = self._end_of_space(self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_more():
                return ""

    def skip(self, character: str) -> None:
        """Go past a character that must come next."""
        if (found := self.ahead()) != character:
            raise ValueError(f"is no JSON: has {found!r} where {character!r} should be" if found else "is cut short")
        self._at += 1

    def value(self) -> Any:
        """Read the value that comes next, with the character after it."""
        self.ahead()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                value, end, fault = None, len(self._text), error.msg
            else:
                fault = "is cut short"
            after = self._end_of_space(end)
            if self._text[after : after + 1] in (",", ":", "]", "}"):
                self._at = end
                return value
            if len(self._text) - self._at > _LARGEST:
                raise ValueError(f"holds an item of more than {_LARGEST:,} characters, or none: {fault}")
            if not self._read_more():
                raise ValueError(f"is no JSON, or cut short: {fault}")

    def _end_of_space(self, start: int) -> int:
        found = _SPACE.match(self._text, start)
        return found.end() if found else start

    def _read_more(self) -> bool:
        rest = self._text[self._at :]
        piece = self._file.read(max(_PIECE, len(rest)))  # twice as much each time: an item is not read again too often
        try:
            self._text, self._at = rest + self._utf8.decode(piece, final=not piece), 0
        except UnicodeDecodeError:
            raise ValueError("is no JSON: it is not in UTF-8") from None
        return bool(piece)


def _refuse(constant: str) -> Any:
    raise ValueError(f"holds {constant}, which JSON has not")
