"""Annotations of constructors read as a schema: what options there are, what data fits them, and how to say so."""

import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from cnnlite.config.yaml_scalars import MAX_INT, resolve
from cnnlite.nn.layers.base import Layer
from cnnlite.utils.registry import Registry
from cnnlite.utils.text import clip, did_you_mean

SCALARS: dict[Any, str] = {
    types.NoneType: "null",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}
_SPOKEN_BOOLS = {"on": "true", "yes": "true", "y": "true", "off": "false", "no": "false", "n": "false"}


@dataclasses.dataclass(frozen=True)
class Option:
    """A parameter of a constructor."""

    annotation: Any
    default: Callable[[], Any] | None
    """Makes the default; None if the option must be given."""


def options_of(cls: type) -> Mapping[str, Option]:
    """List the options of a class: its constructor's parameters, less fields with ``metadata={"option": False}``."""
    return _options_of(cls)


@functools.cache
def _options_of(cls: Any) -> Mapping[str, Option]:
    hints = get_type_hints(cls.__init__, include_extras=True)
    fields = {f.name: f for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else {}
    options = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        field = fields.get(name)
        if field is not None and not field.metadata.get("option", True):
            continue
        default: Callable[[], Any] | None = None
        if field is not None and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory
        elif parameter.default is not parameter.empty:
            default = functools.partial(_same, parameter.default)
        options[name] = Option(hints[name], default)
    return types.MappingProxyType(options)


def registry_of(annotation: Any) -> Registry[Any] | None:
    """Find the registry that an annotation refers to, also as ``X | None``; None if it means no registered class."""
    for choice in get_args(annotation) if is_union(annotation) else (annotation,):
        if isinstance(choice, type) and choice in Registry.by_base:
            return Registry.by_base[choice]
    return None


def to_plain(value: Any) -> Any:
    """Turn a default, or an object with ``to_config``, into what would be written in a config."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if hasattr(value, "to_config"):
        return value.to_config()
    options = {name: to_plain(getattr(value, name)) for name in options_of(type(value))}
    for registry in Registry.by_base.values():
        for name in registry:
            if registry[name] is type(value):
                return {name: options} if options else name
    return options


def accepts(annotation: Any, value: Any) -> bool:
    """Tell whether ``value`` is the kind of data that ``annotation`` is written as; its content may still be wrong."""
    origin = get_origin(annotation) or annotation
    if origin is Annotated:
        return accepts(get_args(annotation)[0], value)
    if is_union(annotation):
        return any(accepts(choice, value) for choice in get_args(annotation))
    if origin is Literal:
        return any(type(value) is type(choice) for choice in get_args(annotation))
    if origin is float:
        return type(value) in (int, float)
    if origin in SCALARS:
        return type(value) is origin
    if origin is Any or hasattr(annotation, "from_config"):
        return True
    if origin in (list, tuple, Sequence):
        return isinstance(value, list)
    if origin in Registry.by_base:
        return isinstance(value, (str, dict)) or (origin is Layer and isinstance(value, list))
    if origin in (dict, Mapping) or dataclasses.is_dataclass(origin):
        return isinstance(value, dict)
    raise TypeError(f"options of type {annotation} cannot be written in a config")


def is_union(annotation: Any) -> bool:
    """Tell whether ``annotation`` is ``X | Y``."""
    return get_origin(annotation) in (Union, types.UnionType)


def describe(annotation: Any) -> str:
    """Say what to write for ``annotation``; ``Annotated[type, text]`` says it itself."""
    origin = get_origin(annotation) or annotation
    arguments = get_args(annotation)
    if origin is Annotated:
        return next((text for text in arguments[1:] if isinstance(text, str)), describe(arguments[0]))
    if is_union(annotation):
        *first, last = (describe(choice) for choice in arguments)
        return f"{', '.join(first)} or {last}"
    if origin is Literal:
        return " or ".join(map(str, arguments)) if len(arguments) < 3 else f"one of {', '.join(map(str, arguments))}"
    if origin in SCALARS:
        return SCALARS[origin]
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)}: [{', '.join(describe(argument) for argument in arguments)}]"
    if origin in (list, tuple, Sequence):
        return "a list"
    if origin in Registry.by_base:
        return f"{_article(Registry.by_base[origin].kind)} (its name, or {{name: {{option: value}}}})"
    return "options (name: value)"


def show(value: Any) -> str:
    """Quote a value as it stands in a config, shortened."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {clip(value)!r}"
    if isinstance(value, (list, dict)):
        if not value:
            return "an empty list" if isinstance(value, list) else "an empty mapping"
        return "a list" if isinstance(value, list) else f"a mapping with {keys_of(value)}"
    return clip(repr(value)) if not isinstance(value, int) or abs(value) <= MAX_INT else "a number beyond 64 bits"


def literals_of(annotation: Any) -> tuple[Any, ...]:
    """List the values that ``annotation`` names one by one; those of all its parts if it is ``X | Y``."""
    if is_union(annotation):
        return tuple(value for choice in get_args(annotation) for value in literals_of(choice))
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def hint(annotation: Any, value: Any) -> str:
    """Name the way out of a wrong value, where it is clear."""
    if isinstance(value, str):
        if value.lower() in _SPOKEN_BOOLS and accepts(annotation, True):
            return f"; write {_SPOKEN_BOOLS[value.lower()]}"
        try:
            meant = resolve(value)
        except ValueError:
            return ""
        if not isinstance(meant, str) and accepts(annotation, meant):
            return "; write it without quotes"
        return did_you_mean(clip(value), [known for known in literals_of(annotation) if isinstance(known, str)])
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_INT and accepts(annotation, int(value)):
        return f"; write {int(value)}"
    return ""


def keys_of(value: Mapping[str, Any]) -> str:
    """Quote the first keys of a mapping."""
    names = [clip(str(key), 30) for key in value]
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _same(value: Any) -> Any:
    return value


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
