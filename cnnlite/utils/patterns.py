"""Untrusted regular expressions, searched for in names without backtracking.

Python's `re` only parses a pattern here, and says which letters a part of it takes; it does not search. Sets of places,
the bits of an integer, are taken through the pattern instead, for all names at once: from where a part of it may end to
where it may begin. Nothing is tried twice, so that repetitions and alternatives do not multiply.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from itertools import accumulate, pairwise
from operator import or_
from re import _compiler, _parser  # type: ignore[attr-defined]  # private, the same from Python 3.11 to 3.14
from typing import Any

LONGEST = 200
"""Maximum length of a pattern."""
STEPS = 10_000
"""Maximum parts of a pattern in a search, again for each repetition; sensible ones take a hundred or two."""
_END = "\n"
"""Character that ends each name, and is in none."""
_UNICODE = 32
"""Flag that all patterns have."""


class NamePattern:
    """A regular expression to search for in names.

    Raises:
        ValueError: if the text is none, or needs what is not supported: flags, and whatever depends on how something
            was matched, as references to groups and possessive repetitions do.
    """

    def __init__(self, text: str):
        self.text = text
        try:
            if len(text) > LONGEST:
                raise ValueError(f"it has more than {LONGEST} characters")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # some patterns may mean something else some day
                tree = _parser.parse(text)
            if tree.state.flags != _UNICODE:
                raise ValueError("flags such as (?i) are not known here")
            self._parts: list[Any] = tree.data
            self.among(["a"])
        except (ValueError, _parser.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{text!r:.60} is not a regular expression that can be used: {error}") from None

    def among(self, names: Sequence[str]) -> list[bool]:
        """Search for the pattern in each of ``names``; ValueError if that takes more than `STEPS`."""
        search = _Search(names)
        begins = search.bits(search.reached(self._parts, search.everywhere, back=True))
        edges = accumulate((len(name) + len(_END) for name in names), initial=0)
        return ["1" in begins[start:stop] for start, stop in pairwise(edges)]


def renaming(match: str, name: str) -> Callable[[str], str]:
    """Return a function that puts ``name`` in the place of what ``match`` finds in a text, as `re.sub` does.

    That searches with backtracking, so it is for patterns of the user's own alone, at the moment when they are needed.

    Raises:
        ValueError: if ``match`` is no `NamePattern`, or ``name`` refers to a group that it does not have.
    """
    NamePattern(match)
    pattern = re.compile(match)
    try:
        pattern.sub(name, "")
    except (re.error, IndexError) as error:
        raise ValueError(f"{name!r:.60} cannot take the place of {match!r:.60}: {error}") from None
    return lambda text: pattern.sub(name, text)


class _Search:
    """Sets of places: bit i is the place before letter i of all names, each followed by its end."""

    def __init__(self, names: Sequence[str]):
        self._text = "".join(name + _END for name in names)
        self.everywhere = (1 << len(self._text)) - 1
        self._ends = self.everywhere ^ self._before(lambda letter: True)
        self._of_part: dict[int, int] = {}
        self._steps = 0

    def bits(self, places: int) -> str:
        """Format a set with a digit for each place, the first one first."""
        return f"{places:0{len(self._text)}b}"[::-1]

    def reached(self, parts: Iterable[Any], places: int, *, back: bool) -> int:
        """Go through parts of a pattern, one after another, forward or ``back``, from any of the ``places``."""
        for part in reversed([*parts]) if back else parts:
            self._steps += 1
            if self._steps > STEPS:
                raise ValueError("it has too many repetitions within one another")
            name, value = str(part[0]), part[1]
            if name in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
                letters = self._letters(part)
                places = places >> 1 & letters if back else (places & letters) << 1
            elif name == "AT":
                places &= self._at(str(value))
            elif name == "BRANCH":
                places = reduce(or_, [self.reached(way, places, back=back) for way in value[1]])
            elif name == "SUBPATTERN" and not value[1] and not value[2]:
                places = self.reached(value[3], places, back=back)
            elif name in ("MAX_REPEAT", "MIN_REPEAT"):
                places = self._repeated(value, places, back=back)
            elif name in ("ASSERT", "ASSERT_NOT"):
                holds = self.reached(value[1], self.everywhere, back=value[0] > 0)
                places &= holds if name == "ASSERT" else ~holds
            else:
                raise ValueError(f"{name.lower().replace('_', ' ')} is not known here")
        return places

    def _repeated(self, repetition: tuple[int, int, Any], places: int, *, back: bool) -> int:
        """Go through parts of a pattern from so many to so many times."""
        least, most, parts = repetition
        for _ in range(least):
            before, places = places, self.reached(parts, places, back=back)
            if places == before:  # and so they stay
                break
        found, times = places, least
        while places and times < most:
            places = self.reached(parts, places, back=back) & ~found
            found |= places
            times += 1
        return found

    def _letters(self, part: Any) -> int:
        """Places before the letters that a part for a single letter takes."""
        if id(part) not in self._of_part:
            takes = _compiler.compile(_parser.SubPattern(_parser.State(), [part]), _UNICODE).match
            self._of_part[id(part)] = self._before(takes)
        return self._of_part[id(part)]

    def _before(self, takes: Callable[[str], object]) -> int:
        """Places before the letters that ``takes`` is true for."""
        digits = {ord(letter): "01"[letter != _END and bool(takes(letter))] for letter in {*self._text}}
        return int(self._text.translate(digits)[::-1] or "0", 2)

    def _at(self, where: str) -> int:
        if "BOUNDARY" in where:
            words = self._before(lambda letter: letter.isalnum() or letter == "_")
            edges = words ^ words << 1
            return ~edges if "NON" in where else edges
        return self._ends if "END" in where else (self._ends << 1 | 1) & self.everywhere
