"""The grammar of configs as a JSON Schema (draft 7), so that editors complete and check YAML as it is written.

Everything is read from constructors: options from their signatures, descriptions from their docstrings.
"""

from typing import Any

from cnnlite.config.construct import with_options
from cnnlite.config.load import Config
from cnnlite.nn.layers.base import Layer
from cnnlite.utils.registry import Registry


def schema() -> dict[str, Any]:
    """Make the schema of a whole config."""
    whole = with_options(Config).schema()
    whole["properties"]["model"] = {
        "description": "a list of layers, or the name of a YAML file that holds one",
        "anyOf": [whole["properties"]["model"], {"type": "string", "pattern": r"\.ya?ml$"}],
    }
    whole["properties"]["plugins"] = {
        "description": "Python files whose layers, losses and so on this config may name",
        "anyOf": [{"type": "array", "items": {"type": "string"}}, whole["properties"]["plugins"]],
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A config of cnnlite",
        **whole,
        "definitions": {registry.kind: _named(registry) for registry in Registry.by_base.values()},
    }


def _named(registry: Registry[Any]) -> dict[str, Any]:
    """A bare name, a mapping from one name to its options, or, for layers, a list."""
    options = {name: with_options(registry[name]).schema() for name in registry}
    bare = [name for name, found in options.items() if "required" not in found]
    for name in bare:
        options[name]["type"] = ["object", "null"]  # as in `adam:`
    choices: list[dict[str, Any]] = [
        {
            "type": "object",
            "properties": options,
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
