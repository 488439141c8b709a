"""Forward and backward pass of one image, with all that layers give and get."""

from dataclasses import dataclass

import numpy as np

from cnnlite.errors import DivergedError
from cnnlite.nn.hooks import Call, watched
from cnnlite.nn.layers.base import Context, Layer
from cnnlite.nn.losses import Loss
from cnnlite.tools.show.graph import Graph
from cnnlite.utils.types import Array


@dataclass(frozen=True)
class Passes:
    """Activations and gradients of each node of a graph, without the batch axis: (H, W, C) or (features,)."""

    y: list[Array]
    """Outputs."""
    dy: list[Array | None]
    """Gradients of the loss with respect to them."""
    dx: list[Array | None]
    """Gradients with respect to inputs: the part of an input's gradient that comes back through this node."""
    loss: float
    strange: list[int]
    """Nodes whose output differs in training for a reason that this package does not know."""


def passes_of(model: Layer, graph: Graph, x: Array, loss: Loss, target: int) -> Passes:
    """Run an image ``x`` (1, H, W, C) of class ``target`` through an `evaluated` model, and back.

    Raises:
        DivergedError: If the logits or the loss are not finite.
    """
    seen: dict[tuple[str, str], Call] = {}

    def see(call: Call) -> None:
        seen[call.way, call.name] = call

    with watched(model, lambda call: seen.update({(f"plain {call.way}", call.name): call})):
        model.forward(x, Context())
    with watched(model, see):
        logits = model.forward(x, Context(training=True))
        value, gradient = loss.loss_and_gradient(logits, np.array([target]))
        if not (np.isfinite(logits).all() and np.isfinite(value)):
            raise DivergedError("what the network gives is not finite: its parameters have grown too large")
        image_gradient = model.backward(gradient)
    outputs, plain = [x], [x]
    back: list[Array | None] = [image_gradient]
    given: list[Array | None] = [None]
    for node in graph.nodes[1:]:
        for list_, way in ((outputs, "forward"), (plain, "plain forward")):
            list_ += [array for array in [seen[way, node.name].returned] if array is not None]
        call = seen.get(("backward", node.name))
        back.append(None if call is None else call.given)
        given.append(None if call is None else call.returned)
    strange = [
        number
        for number, node in enumerate(graph.nodes)
        if not np.array_equal(outputs[number], plain[number])
        and all(np.array_equal(outputs[index], plain[index]) for index in node.inputs)
    ]
    return Passes([y[0] for y in plain], _without_batch(back), _without_batch(given), value, strange)


def _without_batch(arrays: list[Array | None]) -> list[Array | None]:
    return [None if array is None else array[0] for array in arrays]
