"""Summary of a network: its layers with output shapes and sizes, as a table and for programs."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cnnlite.config.load import Config
from cnnlite.nn.layers.base import Layer, dotted
from cnnlite.nn.layers.base import layers as registry
from cnnlite.nn.layers.containers import Parallel, Repeat, Sequential
from cnnlite.nn.network import Network
from cnnlite.runs.restore import infer_model
from cnnlite.utils.text import aligned, size_text
from cnnlite.utils.types import Shape

_TITLES = ("layer", "output", "parameters", "multiply-adds", "memory")


@dataclass(frozen=True)
class Row:
    """A layer with everything inside it; rows are equal if their layers are, regardless of their names."""

    name: str = field(compare=False)
    """As in the names of its parameters, such as ``3.body.0``."""
    label: str = field(compare=False)
    """Its place in the layer around it: ``0``, ``body``, ``branch 1``."""
    kind: str
    """Name in configs."""
    out_shape: Shape
    parameters: int
    frozen_parameters: int
    """Those of them that ``train.freeze`` keeps from training."""
    multiply_adds: int
    """Of the forward pass for one image."""
    activation_bytes: int
    """Size of the outputs of all layers for one image, as if each wrote an output of its own."""
    inside: tuple["Row", ...] = ()
    repeated: bool = False
    """True if the layers inside are repetitions of one."""

    def walk(self) -> Iterator["Row"]:
        """Yield this row and those of all layers inside it, depth first."""
        yield self
        for row in self.inside:
            yield from row.walk()


@dataclass(frozen=True)
class Summary:
    """Layers and sizes of a network."""

    in_shape: Shape
    model: Row
    batch_size: int
    parameter_bytes: int
    frozen: str
    """Line about what is frozen; empty if nothing is."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """Rows of the outermost layers: those of the list that a model usually is."""
        return self.model.inside if self.model.kind == "sequential" else (self.model,)

    def facts(self) -> dict[str, Any]:
        """Return the summary as an object for JSON: totals, then ``layers``, outer before inner."""
        figures = ("parameters", "frozen_parameters", "multiply_adds", "activation_bytes")
        return {
            "in_shape": self.in_shape,
            "out_shape": self.model.out_shape,
            **{name: getattr(self.model, name) for name in figures},
            "batch_size": self.batch_size,
            "batch_activation_bytes": self.batch_size * self.model.activation_bytes,
            "layers": [
                {name: getattr(row, name) for name in ("name", "kind", "out_shape", *figures)}
                for outer in self.rows
                for row in outer.walk()
            ],
        }

    def describe(self, name: str) -> str:
        """Format a table with nested layers indented, and totals; a layer that holds others shows their sum."""
        model = self.model
        rows = [cells for row in self.rows for cells in _cells(row, 0)]
        total = ("total", "", f"{model.parameters:,}", f"{model.multiply_adds:,}", size_text(model.activation_bytes))
        inputs = ("input", shape_text(self.in_shape), "", "", "")
        heading, *lines, totals = aligned([_TITLES, inputs, *rows, total], left=(0, 1)).split("\n")
        rule = "-" * max(map(len, (heading, *lines, totals)))
        batch = size_text(self.batch_size * model.activation_bytes)
        return "\n".join(
            [
                f"{name}: from {shape_text(self.in_shape)} to {shape_text(model.out_shape)}",
                *("", heading, rule, *lines, rule, totals, ""),
                f"parameters     {model.parameters:,}, {size_text(self.parameter_bytes)}",
                *([f"frozen         {self.frozen}"] if self.frozen else []),
                f"multiply-adds  {model.multiply_adds:,} for an image; a training step has about three times as many",
                f"memory         {size_text(model.activation_bytes)} of outputs for an image, "
                f"{batch} for a batch of {self.batch_size}",
            ]
        )


def summarize(config: Config) -> Summary:
    """Infer the network of a config and list its layers; see `infer_model` for errors."""
    network = infer_model(config)
    parameter_bytes = network.size * network.dtype.itemsize
    frozen = "".join(network.describe_frozen()).removeprefix("frozen: ")
    return Summary(network.in_shape, _row(network.model, network), config.train.batch_size, parameter_bytes, frozen)


def _row(layer: Layer, network: Network, name: str = "", label: str = "") -> Row:
    inside = tuple(
        _row(child, network, dotted(name, key), f"branch {key}" if type(layer) is Parallel else key)
        for key, child in layer.children.items()
    )
    own = 0 if isinstance(layer, Sequential) else math.prod(layer.out_shape) * network.dtype.itemsize
    sizes = {dotted(name, key): math.prod(spec.shape) for key, spec in layer.specs.items() if spec.trained}
    return Row(
        name=name,
        label=label,
        kind=registry.name_of(type(layer)),
        out_shape=layer.out_shape,
        parameters=sum(sizes.values()) + sum(row.parameters for row in inside),
        frozen_parameters=sum(size for key, size in sizes.items() if key in network.frozen)
        + sum(row.frozen_parameters for row in inside),
        multiply_adds=layer.multiply_adds + sum(row.multiply_adds for row in inside),
        activation_bytes=own + sum(row.activation_bytes for row in inside),
        inside=inside,
        repeated=isinstance(layer, Repeat),
    )


def _cells(row: Row, depth: int, label: str = "") -> Iterator[tuple[str, ...]]:
    """Yield the lines of a row and of all inside it; equal layers of a repeat share one line."""
    label = label or row.label
    kind = row.kind
    if kind == "sequential" and row.label:
        kind = "" if row.inside else "(its input)"
    if row.frozen_parameters:
        kind += ", frozen" if row.frozen_parameters == row.parameters else ", partly frozen"
    yield (
        "  " * depth + f"{label} {kind}".strip(),
        shape_text(row.out_shape),
        f"{row.parameters:,}" if row.parameters else "",
        f"{row.multiply_adds:,}" if row.multiply_adds else "",
        size_text(row.activation_bytes) if row.activation_bytes else "",
    )
    position = 0
    while position < len(row.inside):
        first = row.inside[position]
        alike = 1
        while row.repeated and position + alike < len(row.inside) and row.inside[position + alike] == first:
            alike += 1
        last = row.inside[position + alike - 1].label
        yield from _cells(first, depth + 1, f"{first.label} to {last}, each:" if alike > 1 else "")
        position += alike


def shape_text(shape: Shape) -> str:
    """Format a shape for people: ``32 x 32 x 3``."""
    return " x ".join(map(str, shape))
