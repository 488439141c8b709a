"""The grammar of configs as a JSON Schema (draft 7), so that editors complete and check YAML as it is written.

Everything is read from constructors: options from their signatures, descriptions from their docstrings.
"""

import dataclasses
import inspect
import re
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from cnnlite.config.load import Config
from cnnlite.config.options import Option, is_union, options_of, to_plain
from cnnlite.config.settings import Interval, not_negative, positive
from cnnlite.nn.layers.base import Layer
from cnnlite.utils.registry import Registry

_SCALARS: dict[Any, str] = {types.NoneType: "null", bool: "boolean", int: "integer", float: "number", str: "string"}
_CHECKS: dict[Any, dict[str, Any]] = {positive: {"exclusiveMinimum": 0}, not_negative: {"minimum": 0}}
"""What a check of ``Annotated`` says to a schema; others are left to cnnlite itself."""
_INTERVAL = {
    "anyOf": [
        {"type": "integer", "minimum": 1},
        {"type": "string", "pattern": r"^([0-9]+ steps?|[0-9]+(\.[0-9]+)? epochs?)$"},
    ]
}


def schema() -> dict[str, Any]:
    """Make the schema of a whole config."""
    whole = _options(Config)
    whole["properties"]["model"] = {
        "description": "a list of layers, or the name of a YAML file that holds one",
        "anyOf": [whole["properties"]["model"], {"type": "string", "pattern": r"\.ya?ml$"}],
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A config of cnnlite",
        **whole,
        "definitions": {registry.kind: _named(registry) for registry in Registry.by_base.values()},
    }


def _named(registry: Registry[Any]) -> dict[str, Any]:
    """A bare name, a mapping from one name to its options, or, for layers, a list."""
    classes = {name: registry[name] for name in registry}
    bare = [name for name, cls in classes.items() if all(option.default for option in options_of(cls).values())]
    choices: list[dict[str, Any]] = [
        {
            "type": "object",
            "properties": {name: _options(cls, optional=name in bare) for name, cls in classes.items()},
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        }
    ]
    if bare:
        choices.insert(0, {"enum": bare})
    if registry.base is Layer:
        choices.append({"type": "array", "items": {"$ref": f"#/definitions/{registry.kind}"}})
    return {"anyOf": choices}


def _options(cls: type, *, optional: bool = False) -> dict[str, Any]:
    """The options of a class as a mapping; nothing at all will do as well if they are ``optional``."""
    options = options_of(cls)
    described = _descriptions(cls)
    properties = {name: _option(option, described.get(name, "")) for name, option in options.items()}
    required = [name for name, option in options.items() if option.default is None]
    return {
        "type": ["object", "null"] if optional else "object",
        "description": (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " "),
        "properties": properties,
        **({"required": required} if required else {}),
        "additionalProperties": False,
    }


def _option(option: Option, description: str) -> dict[str, Any]:
    found = _type(option.annotation)
    if "$ref" in found:
        found = {"allOf": [found]}  # beside a $ref nothing else is read
    if description:
        found = {"description": description, **found}
    if option.default is not None:
        found = {**found, "default": to_plain(option.default())}
    return found


def _type(annotation: Any) -> dict[str, Any]:
    origin, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if origin is Annotated:
        inner, *checks = arguments
        return {**_type(inner), **{key: value for check in checks for key, value in _CHECKS.get(check, {}).items()}}
    if is_union(annotation):
        return {"anyOf": [_type(choice) for choice in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in _SCALARS:
        return {"type": _SCALARS[origin]}
    if origin is tuple and arguments[-1] is not Ellipsis:
        items = [_type(item) for item in arguments]
        return {"type": "array", "items": items, "minItems": len(items), "maxItems": len(items)}
    if origin in (list, tuple, Sequence):
        return {"type": "array", "items": _type(arguments[0]) if arguments else {}}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _type(arguments[1]) if arguments else {}}
    if origin in Registry.by_base:
        return {"$ref": f"#/definitions/{Registry.by_base[origin].kind}"}
    if origin is Interval:
        return _INTERVAL
    return _options(origin) if dataclasses.is_dataclass(origin) and isinstance(origin, type) else {}


def _descriptions(cls: type) -> dict[str, str]:
    """The part ``Args:`` of a docstring: text by option."""
    _, _, text = (inspect.getdoc(cls) or "").partition("Args:\n")
    section = re.split(r"\n(?=\S)", text)[0]
    entries = re.findall(r"^    (\w+): (.*(?:\n     .*)*)", section, re.MULTILINE)
    return {name: re.sub(r"\s+", " ", words).replace("``", "'") for name, words in entries}
