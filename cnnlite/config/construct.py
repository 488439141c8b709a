"""Builds objects from plain config data: the constructor's signature says which options there are and of what type.

An option that there is not, often a mistyped one, is answered here; a value that is no such thing, in `kinds`.
"""

import dataclasses
import types
from collections import ChainMap
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cnnlite.config import kinds
from cnnlite.config.kinds import ANYTHING, CHECKS, OPTIONS, SCALARS, Kind, Made
from cnnlite.config.options import Option, descriptions_of, keys_of, options_of, show, to_plain
from cnnlite.config.problem_list import FAILED, Problems
from cnnlite.config.yaml_reader import BROKEN, Steps, dotted
from cnnlite.errors import ConfigError, OptionError
from cnnlite.nn.layers.base import Layer
from cnnlite.utils.registry import Registry
from cnnlite.utils.suggest import did_you_mean
from cnnlite.utils.text import clip


def construct(annotation: Any, value: Any, steps: Steps, problems: Problems) -> Made:
    """Build the object that ``annotation`` and ``value`` describe: `Kind.construct`."""
    return kind_of(annotation).construct(value, steps, problems)


def kind_of(annotation: Any) -> Kind:
    """Find the kind of an annotation; TypeError if configs cannot express it."""
    origin, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if origin is Annotated:  # a type, checks, and perhaps the words for it
        inner, checks = kind_of(arguments[0]), arguments[1:]
        return dataclasses.replace(
            inner,
            words=next((text for text in checks if isinstance(text, str)), inner.words),
            make=partial(kinds.checked, inner, checks),
            schema=lambda: dict(ChainMap(*(CHECKS.get(check, {}) for check in checks), inner.schema())),
        )
    if origin in (Union, types.UnionType):
        choices = [kind_of(choice) for choice in arguments]
        return Kind(
            ", ".join(choice.words for choice in choices[:-1]) + f" or {choices[-1].words}",
            lambda value: any(choice.accepts(value) for choice in choices),
            partial(kinds.one_of, list(zip(arguments, choices, strict=True))),
            lambda: {"anyOf": [choice.schema() for choice in choices]},
            lambda step: next((kind for choice in choices if (kind := choice.inside(step)) is not ANYTHING), ANYTHING),
            [value for choice in choices for value in choice.literals],
            next((choice.registry for choice in choices if choice.registry), None),
        )
    if origin is Literal:
        names = [str(choice) for choice in arguments]
        return Kind(
            " or ".join(names) if len(names) < 3 else f"one of {', '.join(names)}",
            lambda value: any(type(value) is type(choice) and value == choice for choice in arguments),
            lambda value, steps, problems: (value, value),
            lambda: {"enum": list(arguments)},
            literals=arguments,
        )
    if origin in SCALARS:
        words, name = SCALARS[origin]
        fitting = (int, float) if origin is float else (origin,)
        return Kind(words, lambda value: type(value) in fitting, partial(kinds.scalar, origin), lambda: {"type": name})
    if origin is Any:
        return ANYTHING
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        row, count = [kind_of(argument) for argument in arguments], len(arguments)
        return Kind(
            f"a list of {count}: [{', '.join(kind.words for kind in row)}]",
            lambda value: isinstance(value, list),
            partial(kinds.row, row),
            lambda: {"type": "array", "items": [k.schema() for k in row], "minItems": count, "maxItems": count},
            lambda index: row[index],
        )
    if origin in (list, tuple, Sequence):
        item = kind_of(arguments[0]) if arguments else ANYTHING
        return Kind(
            "a list",
            lambda value: isinstance(value, list),
            partial(kinds.items, repeat(item), tuple if origin is tuple else list),
            lambda: {"type": "array", "items": item.schema()},
            lambda index: item,
        )
    if origin in (dict, Mapping):
        entry = kind_of(arguments[1]) if arguments else ANYTHING
        return Kind(
            OPTIONS,
            lambda value: isinstance(value, dict),
            partial(kinds.entries, entry),
            lambda: {"type": "object", "additionalProperties": entry.schema()},
            lambda key: entry,
        )
    if origin in Registry.by_base:
        registry = Registry.by_base[origin]
        article = "an" if registry.kind[0] in "aeiou" else "a"
        return Kind(
            f"{article} {registry.kind} (its name, or {{name: {{option: value}}}})",
            lambda value: isinstance(value, (str, dict, list) if origin is Layer else (str, dict)),
            partial(_named, registry),
            lambda: {"$ref": f"#/definitions/{registry.kind}"},
            lambda step: kind_of(origin) if isinstance(step, int) else with_options(registry[step]),
            registry=registry,
        )
    if isinstance(origin, type) and dataclasses.is_dataclass(origin):
        return with_options(origin)
    raise TypeError(f"options of type {annotation} cannot be written in a config")


def with_options(cls: type) -> Kind:
    """Make the kind of a class whose constructor takes options."""
    return Kind(
        OPTIONS,
        lambda value: isinstance(value, dict),
        partial(_with_options, cls),
        lambda: _schema(cls),
        lambda name: kind_of(options_of(cls)[name].annotation) if name in options_of(cls) else ANYTHING,
    )


def _named(registry: Registry[Any], value: Any, steps: Steps, problems: Problems) -> Made:
    """A registered class: a bare name, a one-key mapping from the name to options, or a list of layers."""
    if isinstance(value, list):
        return _sequence(registry, value, steps, problems)
    if isinstance(value, str):
        value = {value: None}
    if len(value) != 1:
        return problems.add(steps, f"expected {_one_name(registry, value)}")
    [(name, options)] = value.items()
    at = (*steps, name)
    try:
        cls = registry[name if len(name) < 60 else clip(name)]
    except ValueError as error:
        return problems.add(steps, "put a space after the colon" if ":{" in name else str(error), at)
    if options is BROKEN:
        return FAILED
    if options is not None and not isinstance(options, dict):
        first = next(iter(options_of(cls)), "")
        hint = f"options such as {{{first}: ...}}" if first else f"no options: write just {name}"
        return problems.add(at, f"expected {hint}; got {show(options)}")
    if not kinds.has_text_keys(options):
        return problems.add(at, "all keys must be text")
    made, resolved = _with_options(cls, options or {}, at, problems)
    if made is BROKEN:
        return FAILED
    return made, {name: resolved} if resolved else name


def _one_name(registry: Registry[Any], value: dict[str, Any]) -> str:
    """Describe what is expected in place of a mapping with several keys, or none."""
    name, *rest = value or [""]
    if name in registry and any(key in registry for key in rest):
        return f"one {registry.kind}, got {keys_of(value)}; a list has a dash before each"
    message = f"{kind_of(registry.base).words}, got {show(value)}"
    if name in registry:
        message += f"; indent {', '.join(clip(str(key), 30) for key in rest[:3])} below {name}"
    elif named := [word for word in value.values() if isinstance(word, str) and word in registry]:
        message += f"; write {named[0]}: {{option: value}}"
    return message


def _sequence(registry: Registry[Any], value: list[Any], steps: Steps, problems: Problems) -> Made:
    made, resolved = construct(list[registry.base], value, steps, problems)  # type: ignore[name-defined]
    if made is BROKEN:
        return FAILED
    cls = registry["sequential"]
    return _call(cls, {next(iter(options_of(cls))): made}, steps, problems), resolved


def _with_options(cls: type, given: dict[str, Any], steps: Steps, problems: Problems) -> Made:
    options = options_of(cls)
    made, resolved = {}, {}
    unknown = [key for key in given if key not in options]
    for key in unknown:
        _unknown(key, options, steps, problems)
    for name, option in options.items():
        kind, at = kind_of(option.annotation), (*steps, name)
        if name in given:
            made[name], resolved[name] = kind.construct(given[name], at, problems)
        elif option.default is not None:
            _, resolved[name] = kind.construct(to_plain(option.default()), at, problems)
        else:
            problems.add(steps, f"the option {name!r} is missing; add {name}: {kind.words}")
            made[name] = BROKEN
    if unknown or any(item is BROKEN for item in [*made.values(), *resolved.values()]):
        return FAILED
    return _call(cls, made, steps, problems), resolved


def _unknown(key: str, options: Mapping[str, Option], steps: Steps, problems: Problems) -> None:
    if home := problems.misplaced(steps, key):
        hint = f"; it belongs at {home}"
    elif not (hint := did_you_mean(clip(key), options)):
        hint = f"; known: {', '.join(options)}" if options else "; there are none here"
    problems.add((*steps, key), f"unknown option{hint}")


def _call(cls: type, arguments: dict[str, Any], steps: Steps, problems: Problems) -> Any:
    options = options_of(cls)
    try:
        made = cls(**{options[name].parameter: value for name, value in arguments.items()})
    except ConfigError as error:
        problems.found += error.problems
        return BROKEN
    except OptionError as error:
        return problems.add((*steps, *error.option), clip(error.message, 300))[0]
    except ValueError as error:
        return problems.add(steps, clip(str(error), 300))[0]
    if hasattr(cls, "path") and "path" not in arguments:
        made.path = dotted(steps)
    return made


def _schema(cls: type) -> dict[str, Any]:
    options, described = options_of(cls), descriptions_of(cls)
    required = [name for name, option in options.items() if option.default is None]
    return {
        "type": "object",
        "description": described[""],
        "properties": {name: _property(option, described.get(name, "")) for name, option in options.items()},
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


def _property(option: Option, description: str) -> dict[str, Any]:
    found = kind_of(option.annotation).schema()
    if "$ref" in found:
        found = {"allOf": [found]}  # beside a $ref nothing else is read
    if description:
        found = {"description": description, **found}
    if option.default is not None:
        found = {**found, "default": to_plain(option.default())}
    return found
