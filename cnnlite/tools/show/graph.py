"""Graph of a model: its layers as nodes, each with the nodes that it takes its input from."""

from dataclasses import dataclass, field
from typing import Any

from cnnlite.nn.layers.base import Layer, dotted, layers
from cnnlite.nn.layers.containers import Parallel, Residual, Sequential

JOINS = ("sum", "concat", "multiply")
"""Ways in which branches are joined, as in a config."""

Item = int | dict[str, Any]
"""Part of a drawing: the number of a node, or a group of parts."""


@dataclass
class Node:
    """A layer, a join of branches, or the image."""

    kind: str
    """Name of the layer as in a config; ``input`` for the image, and one of `JOINS`."""
    name: str
    """Dotted name, as of parameters; a join has that of its container."""
    layer: Layer | None
    """The layer; the container of a join; None for the image."""
    inputs: list[int]
    """Numbers of the nodes whose outputs it takes."""


@dataclass
class Graph:
    """Nodes in the order of the forward pass, and how to draw them."""

    nodes: list[Node] = field(default_factory=lambda: [Node("input", "", None, [])])
    drawing: list[Item] = field(default_factory=lambda: [0])
    """Nodes from top to bottom. ``{"branches": [[...], ...], "join": node}`` lie side by side, ``{"items": [...],
    "title": ...}`` belong together."""

    last: int = 0
    """Number of the node that gives the logits."""

    def consumers(self, number: int) -> list[int]:
        """Numbers of the nodes that take the output of a node, one for each time they do."""
        return [index for index, node in enumerate(self.nodes) for taken in node.inputs if taken == number]


def graph_of(model: Layer) -> Graph:
    """Lay out a model without fused layers; a container of an unknown kind is one node."""
    graph = Graph()
    graph.last, items = _lay_out(graph, model, "", 0)
    graph.drawing += items
    return graph


def _lay_out(graph: Graph, layer: Layer, name: str, source: int) -> tuple[int, list[Item]]:
    """Add a layer whose input is node ``source``; returns the node with its output, and what to draw."""
    if isinstance(layer, Sequential) and type(layer).forward is Sequential.forward:
        items: list[Item] = []
        repeats = layers.name_of(type(layer)) == "repeat"
        for key, child in layer.children.items():
            source, parts = _lay_out(graph, child, dotted(name, key), source)
            title = f"repeat {int(key) + 1} of {len(layer.children)}"
            items += [{"title": title, "items": parts}] if repeats else parts
        return source, items
    if isinstance(layer, Parallel) and type(layer).forward is Parallel.forward:
        ends, branches = [], []
        for key, child in layer.children.items():
            end, parts = _lay_out(graph, child, dotted(name, key), source)
            ends.append(end)
            branches.append(parts)
        join = _add(graph, Node(layer.merge, name, layer, ends))
        titles = list(layer.children) if isinstance(layer, Residual) else []
        return join, [{"branches": branches, "titles": titles, "join": join}]
    node = _add(graph, Node(layers.name_of(type(layer)), name, layer, [source]))
    return node, [node]


def _add(graph: Graph, node: Node) -> int:
    graph.nodes.append(node)
    return len(graph.nodes) - 1
