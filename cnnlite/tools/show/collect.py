"""Collects what the page shows: nodes with their maps, parameters and gradients, for one image."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnlite.data import Normalizer
from cnnlite.nn.layers.containers import Residual
from cnnlite.nn.losses import ClassWeighted, CrossEntropy, Loss, softmax
from cnnlite.nn.memory import count_parameters
from cnnlite.tools.predict import Model
from cnnlite.tools.show.channels import chosen_channels
from cnnlite.tools.show.evaluated import evaluated
from cnnlite.tools.show.facts import Facts, Seen, facts_of
from cnnlite.tools.show.graph import JOINS, Graph, graph_of
from cnnlite.tools.show.numbers import Numbers, planar
from cnnlite.tools.show.passes import Passes, passes_of
from cnnlite.utils.types import Array

MOST_NUMBERS = 1_700_000
"""Maximum floats of maps, parameters and gradients; in base64 that is 9 MB."""


@dataclass(frozen=True)
class Subject:
    """The image that is shown to the network, after cropping."""

    image: Array
    """uint8 (H, W, C)."""
    label: int | None
    """Class, where it is known."""
    source: str
    """Where the image comes from."""


def collect(model: Model, loss: Loss, subject: Subject, step: int, numbers: Numbers) -> dict[str, Any]:
    """Run ``subject`` through the network and back, add arrays to ``numbers``, and return the facts about all of it.

    Without a label, the ``loss``, fitted as in training, is that of the most probable class. ``step`` is the training
    step of the checkpoint.

    Raises:
        DivergedError: If the network's outputs are not finite.
    """
    network = evaluated(model.network, model.config)
    graph = graph_of(network)
    x = model.normalizer(subject.image[None])
    with np.errstate(all="ignore"):
        target = subject.label
        if target is None:
            target = int(model.network.forward(x, training=False)[0].argmax())
        passes = passes_of(network, graph, x, loss, target)
        shown = chosen_channels(graph, passes.y, MOST_NUMBERS)
        nodes = [_node(graph, number, passes, shown, numbers, step) for number in range(len(graph.nodes))]
    nodes[0] |= _image(subject, model.normalizer, numbers)
    logits = passes.y[graph.last]
    return {
        "nodes": nodes,
        "drawing": graph.drawing,
        "last": graph.last,
        "classes": list(model.classes),
        "label": subject.label,
        "target": target,
        "source": subject.source,
        "probabilities": numbers.add(softmax(logits[None])[0]),
        "loss": passes.loss,
        "smoothing": loss.label_smoothing if type(loss) is CrossEntropy else None,
        "weight": loss.weight_of(target) if isinstance(loss, ClassWeighted) else 1.0,
        "parameters": count_parameters(network),
        "whole": all(len(channels) == y.shape[-1] for channels, y in zip(shown, passes.y, strict=True)),
    }


def _node(graph: Graph, number: int, passes: Passes, shown: list[Array], numbers: Numbers, step: int) -> Facts:
    node, y, dy, channels = graph.nodes[number], passes.y[number], passes.dy[number], shown[number]
    facts: Facts = {
        "kind": node.kind,
        "name": node.name,
        "path": "" if node.layer is None else node.layer.path,
        "inputs": node.inputs,
        "shape": list(y.shape),
        "channels": None if len(channels) == y.shape[-1] else channels.tolist(),
        "y": numbers.add(planar(y, channels)),
        "strange": number in passes.strange,
    }
    if dy is not None:
        facts["dy"] = numbers.add(planar(dy, channels))
    if node.kind in JOINS:
        probability = node.layer.drop_probability if isinstance(node.layer, Residual) else 0.0
        facts |= {"view": node.kind, "drop_probability": probability, "residual": isinstance(node.layer, Residual)}
    elif node.layer is not None:
        (source,) = node.inputs
        layer, dx = node.layer, passes.dx[number]
        facts |= {"parameters": count_parameters(layer), "multiply_adds": layer.multiply_adds}
        facts |= facts_of(Seen(layer, passes.y[source], dy, shown[source], channels, numbers, step))
        if dx is not None and len(graph.consumers(source)) > 1:
            facts["dx"] = numbers.add(planar(dx, shown[source]))
    return facts


def _image(subject: Subject, normalizer: Normalizer, numbers: Numbers) -> Facts:
    """Facts about the image itself: its bytes, and the statistics that normalize them."""
    everything = np.arange(subject.image.shape[-1])
    facts: Facts = {"view": "input", "bytes": numbers.add(planar(subject.image, everything))}
    for name, value in (("mean", normalizer.mean), ("std", normalizer.std)):
        facts[name] = numbers.add(planar(value, everything))
    return facts
