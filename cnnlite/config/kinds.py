"""Kinds of options, and how plain data of each becomes an object; `construct.kind_of` is the table of all.

A value that is not of its kind is answered here: `Kind.hint`.
"""

import math
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, TypeAlias

from cnnlite.config.options import show
from cnnlite.config.problem_list import FAILED, Problems
from cnnlite.config.yaml_reader import BROKEN, MAX_DEPTH, Steps
from cnnlite.config.yaml_scalars import MAX_INT, resolve
from cnnlite.utils.registry import Registry
from cnnlite.utils.suggest import did_you_mean
from cnnlite.utils.text import clip

Made: TypeAlias = tuple[Any, Any]
"""An object, and the data that it is of with every default; both ``BROKEN`` if there is a problem."""
SCALARS: dict[Any, tuple[str, str]] = {
    types.NoneType: ("null", "null"),
    bool: ("true or false", "boolean"),
    int: ("a whole number", "integer"),
    float: ("a number", "number"),
    str: ("text", "string"),
}
"""Names of the types, for people and for JSON Schema."""


def positive(number: float) -> None:
    """Check that a number is above 0."""
    if not number > 0:
        raise ValueError(f"must be above 0, not {number}")


def not_negative(number: float) -> None:
    """Check that a number is at least 0."""
    if not number >= 0:
        raise ValueError(f"must be at least 0, not {number}")


CHECKS: dict[Any, dict[str, Any]] = {positive: {"exclusiveMinimum": 0}, not_negative: {"minimum": 0}}
"""Keywords of JSON Schema for checks of ``Annotated``; others are left to cnnlite itself."""
_SPOKEN_BOOLS = {"on": "true", "yes": "true", "y": "true", "off": "false", "no": "false", "n": "false"}


@dataclass(frozen=True)
class Kind:
    """One kind of option: the data that it takes, and what is made of them."""

    words: str
    """Description of what to write."""
    accepts: Callable[[Any], bool]
    """Returns True if a value is the kind of data that this is written as; its content may still be wrong."""
    make: Callable[[Any, Steps, Problems], Made]
    """Turns a value that is accepted into an object."""
    schema: Callable[[], dict[str, Any]] = dict
    """Says in JSON Schema what is accepted."""
    inside: Callable[[Any], "Kind"] = lambda step: ANYTHING
    """Finds the kind of an entry or item of a value."""
    literals: Sequence[Any] = ()
    """The values that it names one by one."""
    registry: Registry[Any] | None = None
    """The classes of which it is one."""

    def construct(self, value: Any, steps: Steps, problems: Problems) -> Made:
        """Build the object that ``value`` describes; what is wrong goes to ``problems``."""
        if value is BROKEN or problems.full:
            return FAILED
        if len(steps) > MAX_DEPTH:
            return problems.add(steps[:3], f"nested more than {MAX_DEPTH} levels deep", steps)
        if not self.accepts(value):
            return problems.add(steps, f"expected {self.words}, got {show(value)}{self.hint(value)}")
        if not has_text_keys(value):
            return problems.add(steps, "all keys must be text")
        return self.make(value, steps, problems)

    def hint(self, value: Any) -> str:
        """Say what to write in place of a wrong value, where it is clear."""
        if isinstance(value, str):
            if value.lower() in _SPOKEN_BOOLS and self.accepts(True):
                return f"; write {_SPOKEN_BOOLS[value.lower()]}"
            try:
                meant = resolve(value)
            except ValueError:
                return ""
            if not isinstance(meant, str) and self.accepts(meant):
                return "; write it without quotes"
            return did_you_mean(clip(value), [known for known in self.literals if isinstance(known, str)])
        if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_INT and self.accepts(int(value)):
            return f"; write {int(value)}"
        return ""


def checked(inner: Kind, checks: Sequence[Any], value: Any, steps: Steps, problems: Problems) -> Made:
    """Make one of ``inner`` that passes the checks: each raises ValueError if not, and may return a better value."""
    made, resolved = inner.construct(value, steps, problems)
    if made is not BROKEN:
        for check in filter(callable, checks):
            try:
                better = check(made)
            except ValueError as error:
                return problems.add(steps, str(error))
            if better is not None:
                made = resolved = better
    return made, resolved


def one_of(choices: Sequence[tuple[Any, Kind]], value: Any, steps: Steps, problems: Problems) -> Made:
    """Make the first of several kinds that has no problem."""
    # A whole number is also fit for float; the type itself comes first. With one choice left its own messages are best.
    fitting = [(choice is not type(value), kind) for choice, kind in choices if kind.accepts(value)]
    *first, last = (kind for _, kind in sorted(fitting, key=lambda pair: pair[0]))
    for kind in first:
        trial = Problems()
        made = kind.construct(value, steps, trial)
        if not trial.found:
            return made
    return last.construct(value, steps, problems)


def scalar(kind: Any, value: Any, steps: Steps, problems: Problems) -> Made:
    """Take a scalar as it is, but for what cannot be written again."""
    if isinstance(value, int) and abs(value) > MAX_INT:
        return problems.add(steps, "does not fit in 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        return problems.add(steps, f"expected a finite number, got {value}")
    if isinstance(value, str) and any(ord(letter) == 0 or 0xD800 <= ord(letter) < 0xE000 for letter in value):
        return problems.add(steps, f"{clip(value)!r} holds a character that no text can hold")
    return (float(value),) * 2 if kind is float else (value, value)


def anything(value: Any, steps: Steps, problems: Problems) -> Made:
    """Take data of which nothing is known but that it must be data."""
    if isinstance(value, dict):
        return entries(ANYTHING, value, steps, problems)
    if isinstance(value, list):
        return items(repeat(ANYTHING), list, value, steps, problems)
    if type(value) in SCALARS:
        return scalar(type(value), value, steps, problems)
    return problems.add(steps, f"{type(value).__name__} is not data of a config")


def items(kinds: Iterable[Kind], made_by: type, value: list[Any], steps: Steps, problems: Problems) -> Made:
    """Make a list or tuple whose items are of these kinds."""
    pairs = [kind.construct(item, (*steps, i), problems) for i, (kind, item) in enumerate(zip(kinds, value))]  # noqa: B905
    if any(made is BROKEN for made, _ in pairs):
        return FAILED
    return made_by(made for made, _ in pairs), [resolved for _, resolved in pairs]


def row(kinds: Sequence[Kind], value: list[Any], steps: Steps, problems: Problems) -> Made:
    """Make a tuple of known length."""
    if len(value) != len(kinds):
        words = ", ".join(kind.words for kind in kinds)
        return problems.add(steps, f"expected a list of {len(kinds)}: [{words}], got {len(value)} items")
    return items(kinds, tuple, value, steps, problems)


def entries(kind: Kind, value: dict[str, Any], steps: Steps, problems: Problems) -> Made:
    """Make a mapping from any text to one kind."""
    made, resolved = {}, {}
    for key, item in value.items():
        if scalar(str, key, (*steps, "?"), problems)[0] is not BROKEN:
            made[key], resolved[key] = kind.construct(item, (*steps, key), problems)
    if len(made) < len(value) or any(item is BROKEN for item in made.values()):
        return FAILED
    return made, resolved


def has_text_keys(value: Any) -> bool:
    """True if ``value`` is no mapping, or one whose keys are all text."""
    return not isinstance(value, dict) or all(isinstance(key, str) for key in value)


OPTIONS = "options (name: value)"
ANYTHING: Kind = Kind(OPTIONS, lambda value: True, anything)
