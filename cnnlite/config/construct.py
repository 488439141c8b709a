"""Builds objects from plain config data: the constructor's signature says which options there are and of what type.

``construct`` takes an annotation and data and returns the object together with the same data in which every default
is written out. Problems are collected, so that one reading of a config finds all of them.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from cnnlite.config.options import (
    SCALARS,
    Option,
    accepts,
    describe,
    hint,
    is_union,
    keys_of,
    options_of,
    show,
    to_plain,
)
from cnnlite.config.yaml_reader import BROKEN, MAX_DEPTH, Steps, dotted
from cnnlite.config.yaml_scalars import MAX_INT
from cnnlite.errors import ConfigError, Problem
from cnnlite.utils.registry import Registry
from cnnlite.utils.text import clip, did_you_mean

MAX_PROBLEMS = 100
_FAILED = (BROKEN, BROKEN)


class Problems:
    """What is wrong with a config, each with the place where it stands."""

    def __init__(self, places: Mapping[Steps, tuple[str, int]] | None = None, found: Sequence[Problem] = ()):
        self.places = places or {}
        """File and line of values; the place of a value not listed is that of the nearest one around it."""
        self.found = list(found)

    def add(self, steps: Steps, message: str, at: Steps | None = None) -> tuple[Any, Any]:
        """Note that the value at ``steps`` is wrong; ``at`` is where to look if that is elsewhere."""
        at = steps if at is None else at
        file, line = next((self.places[at[:n]] for n in range(len(at), -1, -1) if at[:n] in self.places), ("", 0))
        self.found.append(Problem(dotted(steps), message, file, line))
        return _FAILED

    def misplaced(self, steps: Steps, key: str) -> str:
        """Where the unknown option ``key`` of the object at ``steps`` would be right; empty if nobody knows."""
        return ""

    def raise_any(self) -> None:
        """ConfigError with all problems, in the order of the file, if there are any."""
        if self.found:
            shown = sorted(self.found, key=lambda problem: (problem.file, problem.line))[:MAX_PROBLEMS]
            more = [Problem("", "there may be more problems; mend these first")] if self.full else []
            raise ConfigError(shown + more)

    @property
    def full(self) -> bool:
        """True if there are so many that looking for more helps nobody."""
        return len(self.found) >= MAX_PROBLEMS


def construct(annotation: Any, value: Any, steps: Steps, problems: Problems) -> tuple[Any, Any]:
    """Build the object that ``annotation`` and ``value`` describe; return it, and ``value`` with every default.

    Both are ``BROKEN`` if there is a problem, which is then in ``problems``. TypeError for an annotation that
    configs cannot express.
    """
    if value is BROKEN or problems.full:
        return _FAILED
    if len(steps) > MAX_DEPTH:
        return problems.add(steps[:3], f"nested more than {MAX_DEPTH} levels deep", steps)
    origin = get_origin(annotation)
    if origin is Annotated:
        return _checked(annotation, value, steps, problems)
    if is_union(annotation):
        return _one_of(annotation, value, steps, problems)
    if not accepts(annotation, value):
        return problems.add(steps, f"expected {describe(annotation)}, got {show(value)}{hint(annotation, value)}")
    if annotation in SCALARS or origin is Literal:
        return _scalar(annotation, value, steps, problems)
    if not _has_text_keys(value):
        return problems.add(steps, "all keys must be text")
    if annotation is Any:
        return _anything(value, steps, problems)
    if (origin or annotation) in (list, tuple, Sequence):
        return _items(annotation, value, steps, problems)
    if (origin or annotation) in (dict, Mapping):
        return _entries(annotation, value, steps, problems)
    if hasattr(annotation, "from_config"):
        try:
            made = annotation.from_config(value)
        except ValueError as error:
            return problems.add(steps, clip(str(error), 300))
        return made, to_plain(made)
    if annotation in Registry.by_base:
        return _registered(Registry.by_base[annotation], value, steps, problems)
    return _with_options(annotation, value, steps, problems)


def _has_text_keys(value: Any) -> bool:
    return not isinstance(value, dict) or all(isinstance(key, str) for key in value)


def _anything(value: Any, steps: Steps, problems: Problems) -> tuple[Any, Any]:
    """Data of which nothing is known but that it must be data."""
    kind = dict[str, Any] if isinstance(value, dict) else list[Any] if isinstance(value, list) else type(value)
    if kind in SCALARS or isinstance(value, (dict, list)):
        return construct(kind, value, steps, problems)
    return problems.add(steps, f"{kind.__name__} is not data of a config")


def _checked(annotation: Any, value: Any, steps: Steps, problems: Problems) -> tuple[Any, Any]:
    """``Annotated[type, check, ...]``: each check raises ValueError for a bad value, and may return a better one."""
    inner, *checks = get_args(annotation)
    made, resolved = construct(inner, value, steps, problems)
    if made is not BROKEN:
        for check in filter(callable, checks):
            try:
                better = check(made)
            except ValueError as error:
                return problems.add(steps, str(error))
            if better is not None:
                made = resolved = better
    return made, resolved


def _one_of(annotation: Any, value: Any, steps: Steps, problems: Problems) -> tuple[Any, Any]:
    choices = get_args(annotation)
    fitting = [
        c for c in choices if accepts(c, value) and (get_origin(c) is not Literal or _is_one_of(value, get_args(c)))
    ]
    if not fitting:
        return problems.add(steps, f"expected {describe(annotation)}, got {show(value)}{hint(annotation, value)}")
    # A whole number is also fit for float; the type itself comes first. With one choice left its own messages are best.
    fitting.sort(key=lambda choice: choice is not type(value))
    for choice in fitting[:-1]:
        trial = Problems()
        made = construct(choice, value, steps, trial)
        if not trial.found:
            return made
    return construct(fitting[-1], value, steps, problems)


def _is_one_of(value: Any, choices: tuple[Any, ...]) -> bool:
    return any(type(value) is type(choice) and value == choice for choice in choices)


def _scalar(annotation: Any, value: Any, steps: Steps, problems: Problems) -> tuple[Any, Any]:
    if isinstance(value, int) and abs(value) > MAX_INT:
        return problems.add(steps, "does not fit in 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        return problems.add(steps, f"expected a finite number, got {value}")
    if isinstance(value, str) and any(ord(character) == 0 or 0xD800 <= ord(character) < 0xE000 for character in value):
        return problems.add(steps, f"{clip(value)!r} holds a character that no text can hold")
    if get_origin(annotation) is Literal and not _is_one_of(value, get_args(annotation)):
        return problems.add(steps, f"expected {describe(annotation)}, got {show(value)}{hint(annotation, value)}")
    if annotation is float:
        value = float(value)
    return value, value


def _items(annotation: Any, value: list[Any], steps: Steps, problems: Problems) -> tuple[Any, Any]:
    origin, arguments = get_origin(annotation) or annotation, get_args(annotation) or (Any,)
    if origin is tuple and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            return problems.add(steps, f"expected {describe(annotation)}, got {len(value)} items")
    else:
        arguments = (arguments[0],) * len(value)
    pairs = [
        construct(kind, item, (*steps, i), problems)
        for i, (kind, item) in enumerate(zip(arguments, value, strict=True))
    ]
    made = [pair[0] for pair in pairs]
    if any(item is BROKEN for item in made):
        return _FAILED
    return tuple(made) if origin is tuple else made, [pair[1] for pair in pairs]


def _entries(annotation: Any, value: dict[str, Any], steps: Steps, problems: Problems) -> tuple[Any, Any]:
    _, kind = get_args(annotation) or (str, Any)
    made, resolved = {}, {}
    for key, item in value.items():
        if construct(str, key, (*steps, "?"), problems)[0] is not BROKEN:
            made[key], resolved[key] = construct(kind, item, (*steps, key), problems)
    if len(made) < len(value) or any(item is BROKEN for item in made.values()):
        return _FAILED
    return made, resolved


def _registered(registry: Registry[Any], value: Any, steps: Steps, problems: Problems) -> tuple[Any, Any]:
    """A bare name, a one-key mapping from the name to options, or a list of layers, which is a sequence."""
    if isinstance(value, list):
        return _sequence(registry, value, steps, problems)
    if isinstance(value, str):
        value = {value: None}
    if len(value) != 1:
        message = f"expected {describe(registry.base)}, got {show(value)}"
        name, *rest = value or [""]
        if name in registry and any(key in registry for key in rest):
            message = f"expected one {registry.kind}, got {keys_of(value)}; a list has a dash before each"
        elif name in registry:
            message += f"; indent {', '.join(clip(str(key), 30) for key in rest[:3])} below {name}"
        elif named := [word for word in value.values() if isinstance(word, str) and word in registry]:
            message += f"; write {named[0]}: {{option: value}}"
        return problems.add(steps, message)
    [(name, options)] = value.items()
    try:
        cls = registry[name if len(name) < 60 else clip(name)]
    except ValueError as error:
        message = "put a space after the colon" if ":{" in name else str(error)
        return problems.add(steps, message, (*steps, name))
    at = (*steps, name)
    if options is not None and not isinstance(options, dict):
        if options is BROKEN:
            return _FAILED
        first = next(iter(options_of(cls)), "")
        way_out = f"options such as {{{first}: ...}}" if first else f"no options: write just {name}"
        return problems.add(at, f"expected {way_out}; got {show(options)}")
    if not _has_text_keys(options):
        return problems.add(at, "all keys must be text")
    made, resolved = _with_options(cls, options or {}, at, problems)
    if made is BROKEN:
        return _FAILED
    return made, {name: resolved} if resolved else name


def _sequence(registry: Registry[Any], value: list[Any], steps: Steps, problems: Problems) -> tuple[Any, Any]:
    made, resolved = _items(list[registry.base], value, steps, problems)  # type: ignore[name-defined]
    if made is BROKEN:
        return _FAILED
    cls = registry["sequential"]
    return _call(cls, {next(iter(options_of(cls))): made}, steps, problems), resolved


def _with_options(cls: type, given: dict[str, Any], steps: Steps, problems: Problems) -> tuple[Any, Any]:
    """An object of a class whose constructor takes the options ``given``."""
    options = options_of(cls)
    made, resolved = {}, {}
    unknown = [key for key in given if key not in options]
    for key in unknown:
        _unknown(key, options, steps, problems)
    for name, option in options.items():
        if name in given:
            made[name], resolved[name] = construct(option.annotation, given[name], (*steps, name), problems)
        elif option.default is not None:
            _, resolved[name] = construct(option.annotation, to_plain(option.default()), (*steps, name), problems)
        else:
            problems.add(steps, f"the option {name!r} is missing; add {name}: {describe(option.annotation)}")
            made[name] = BROKEN
    if unknown or any(value is BROKEN for value in [*made.values(), *resolved.values()]):
        return _FAILED
    return _call(cls, made, steps, problems), resolved


def _unknown(key: str, options: Mapping[str, Option], steps: Steps, problems: Problems) -> None:
    if home := problems.misplaced(steps, key):
        way_out = f"; it belongs at {home}"
    elif not (way_out := did_you_mean(clip(key), options)):
        way_out = f"; known: {', '.join(options)}" if options else "; there are none here"
    problems.add((*steps, key), f"unknown option{way_out}")


def _call(cls: type, arguments: dict[str, Any], steps: Steps, problems: Problems) -> Any:
    try:
        made = cls(**arguments)
    except ConfigError as error:
        problems.found += error.problems
        return BROKEN
    except ValueError as error:
        message = clip(str(error), 300)
        # A message that starts with an option's name, as in "groups[0]: ...", is about that option.
        if (place := re.match(r"(\w+)((?:\[\d+\])*)(: )?", message)) and place[1] in arguments:
            steps = (*steps, place[1], *map(int, re.findall(r"\d+", place[2])))
            message = message[place.end() :] if place[3] else message
        return problems.add(steps, message)[0]
    if hasattr(cls, "path") and "path" not in arguments:
        made.path = dotted(steps)
    return made
