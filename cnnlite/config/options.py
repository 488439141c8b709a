"""Constructors read as a schema: their parameters are the options, and their docstrings describe them."""

import dataclasses
import functools
import inspect
import re
import types
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from cnnlite.config.yaml_scalars import MAX_INT
from cnnlite.utils.registry import Registry
from cnnlite.utils.text import clip


@dataclasses.dataclass(frozen=True)
class Option:
    """A parameter of a constructor."""

    annotation: Any
    default: Callable[[], Any] | None
    """Makes the default; None if the option must be given."""
    parameter: str
    """Name of the parameter: that of the option, with an underscore behind it if that is a keyword of Python."""


def options_of(cls: type) -> Mapping[str, Option]:
    """List the options of a class: its constructor's parameters, less fields with ``metadata={"option": False}``.

    The option of a parameter ``from_`` is called ``from``.
    """
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
        if name not in hints:
            raise TypeError(f"the option {name!r} has no annotation, as in {name}: float")
        options[name.removesuffix("_")] = Option(hints[name], default, name)
    return types.MappingProxyType(options)


def descriptions_of(cls: type) -> dict[str, str]:
    """Find the descriptions of options, in ``Args:`` of a class and its bases; its first sentence has an empty name."""
    described: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        text = inspect.cleandoc(base.__doc__ or "")
        section = re.split(r"\n(?=\S)", text.partition("Args:\n")[2])[0]
        entries = re.findall(r"^    (\w+): (.*(?:\n     .*)*)", section, re.MULTILINE)
        described |= {name: re.sub(r"\s+", " ", words).replace("``", "'") for name, words in entries}
    return {**described, "": text.partition("\n\n")[0].replace("\n", " ")}


def to_plain(value: Any) -> Any:
    """Turn a default, or an object made of options, into what would be written in a config."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    options = {name: to_plain(getattr(value, option.parameter)) for name, option in options_of(type(value)).items()}
    named = (name for registry in Registry.by_base.values() for name in registry if registry[name] is type(value))
    if name := next(named, None):
        return {name: options} if options else name
    return options


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


def keys_of(value: Mapping[str, Any]) -> str:
    """Quote the first keys of a mapping."""
    names = [clip(str(key), 30) for key in value]
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _same(value: Any) -> Any:
    return value
