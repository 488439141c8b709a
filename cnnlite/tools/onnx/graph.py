"""An ONNX graph under construction, and the registry of exporters for layer classes."""

import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from cnnlite.errors import ConfigError
from cnnlite.nn.layers.base import Layer
from cnnlite.utils.types import Array


class Graph:
    """Nodes and constants of a graph; images inside are channels first, (N, C, H, W), as in ONNX."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._names: set[str] = set()

    def add(self, op: str, *inputs: str, name: str, **attributes: Any) -> str:
        """Append a node, and return the name of its output, ``name.Op``."""
        from onnx import helper

        output = self._free(f"{name}.{op}")
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Array | float | list[int]) -> str:
        """Add an array to the file, numbers as float32 and lists as int64, and return its name."""
        from onnx import numpy_helper

        array = np.asarray(value, np.int64 if isinstance(value, list) else np.float32)
        name = self._free(name)
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
        return name

    def layer(self, layer: Layer, x: str, name: str) -> str:
        """Append the nodes of a built layer with the input ``x``, and return the name of its output.

        Raises:
            ConfigError: If there is no exporter for this class of layers.
        """
        try:
            write = exporters[type(layer)]
        except KeyError:
            raise ConfigError(f"{layer.path or name}: {type(layer).__name__} cannot be exported to ONNX") from None
        return write(self, layer, x, name)

    def _free(self, name: str) -> str:
        name = free = name.lstrip(".")  # a model that is one layer, not a list of layers, has no name
        for number in itertools.count(2):
            if free not in self._names:
                break
            free = f"{name}_{number}"
        self._names.add(free)
        return free


Exporter: TypeAlias = Callable[[Graph, Any, str, str], str]
"""Called with graph, layer, name of the input and name of the layer; returns the name of the output."""

exporters: dict[type[Layer], Exporter] = {}


def exports(*classes: type[Layer]) -> Callable[[Exporter], Exporter]:
    """Register a function as the exporter of layers of ``classes``, but not of their subclasses."""

    def add(write: Exporter) -> Exporter:
        exporters.update(dict.fromkeys(classes, write))
        return write

    return add
