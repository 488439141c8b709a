"""Gradient check: compares analytic gradients of a network with finite differences, in float64.

Differences are taken along random directions. A wrong gradient agrees with the slope along a random direction with
probability 0, so a few directions check an array of any size.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from cnnlite.config.load import Config
from cnnlite.nn.fusion import fuse
from cnnlite.nn.hooks import watched, working_layers
from cnnlite.nn.layers.base import Context, Layer
from cnnlite.nn.network import Network, inferred
from cnnlite.runs.restore import infer_model
from cnnlite.utils.rng import stream
from cnnlite.utils.text import aligned
from cnnlite.utils.types import Array, Shape

TOLERANCE = 1e-4
"""Largest error of a correct gradient, relative to its length; rounding and kinks cause a hundredth of it."""
IMAGES = 4
_DIRECTIONS = 2
_DISTANCES = (1e-7, 1e-8, 1e-6)
"""Tried in this order: functions with kinks (relu, max pooling) have a slope only up to the next kink."""


@dataclass(frozen=True)
class Check:
    """Result of the check of a layer, or of the whole network."""

    name: str
    """As in the names of its parameters; empty for the whole network."""
    kind: str
    errors: Mapping[str, float]
    """Error relative to the gradient's length, for ``input`` and each parameter; infinite if a gradient is missing."""

    @property
    def worst(self) -> str:
        """Name with the largest error; NaN counts as larger than any number."""
        return max(self.errors, key=lambda name: math.inf if math.isnan(self.errors[name]) else self.errors[name])

    @property
    def right(self) -> bool:
        """True if all gradients are correct."""
        return self.errors[self.worst] <= TOLERANCE


def check(config: Config) -> list[Check]:
    """Check each layer of a config's network by itself, in order, then the whole network with its loss.

    Fused layers are checked together. See `infer_model` for errors.
    """
    in_shape = infer_model(config).in_shape
    # Not a `Network`, whose first layers leave out the gradient of their input.
    model = inferred(config.model, in_shape)
    fuse(model)
    model.allocate(stream(config.seed, "weights"), np.dtype(np.float64))
    rng = np.random.default_rng(config.seed)
    x = rng.standard_normal((IMAGES, *in_shape))
    shapes: dict[str, Shape] = {}
    with watched(model, lambda call: shapes.update({call.name: call.given.shape})):
        model.forward(x, Context())  # evaluation mode leaves no branch out
    checks = [
        Check(name, kind, _layer_errors(layer, rng.standard_normal(shapes[name]), rng))
        for name, kind, layer in working_layers(model)
    ]
    network = Network(config.model, in_shape, seed=config.seed, dtype=np.float64)
    return [*checks, Check("", "whole network, with its loss", _network_errors(config, network, x, rng))]


def describe(checks: list[Check]) -> str:
    """Format the checks as a table, with a verdict."""
    rows = [
        (found.name, found.kind, f"{found.errors[found.worst]:.1e}", found.worst + "  WRONG" * (not found.right))
        for found in checks
    ]
    table = aligned([("layer", "kind", "error", "of the gradient for"), *rows], left=(0, 1, 3))
    wrong = [f"{found.name} ({found.kind})" if found.name else found.kind for found in checks if not found.right]
    if wrong:
        return f"{table}\nwrong: {', '.join(wrong)}; see `backward` there"
    return f"{table}\nall gradients are right: no error is above {TOLERANCE:g} of their length"


def slope(at: Callable[[float], float], distance: float) -> float:
    """Return the derivative of ``at`` at 0, by central differences of fourth order."""
    near, far = at(distance) - at(-distance), at(2 * distance) - at(-2 * distance)
    return (8 * near - far) / (12 * distance)


def _error(
    loss: Callable[[], float], arrays: Mapping[str, Array], gradients: Mapping[str, Array], rng: np.random.Generator
) -> float:
    """Return the error of ``gradients`` of ``loss()`` for ``arrays``, which it reads; relative to their length.

    All arrays move together, each in proportion to its own values. The error is infinite if a gradient is missing.
    """
    if any(name not in gradients or gradients[name].shape != array.shape for name, array in arrays.items()):
        return math.inf
    scales = {name: math.sqrt(np.square(array).mean()) or 1.0 for name, array in arrays.items()}
    length = math.sqrt(sum(float(np.square(scales[name] * gradients[name]).sum()) for name in arrays))
    origins = {name: array.copy() for name, array in arrays.items()}

    def along(directions: Mapping[str, Array]) -> float:
        def at(distance: float) -> float:
            for name, array in arrays.items():
                np.multiply(directions[name], distance, out=array)
                array += origins[name]
            return loss()

        exact = sum(float(np.vdot(gradients[name], directions[name])) for name in arrays)
        least = math.inf
        for distance in _DISTANCES:
            found = abs(slope(at, distance) - exact) / (length + 1e-3)
            least = found if math.isnan(found) else min(found, least)
            if not least > TOLERANCE / 100:
                break
        return least

    draws = [
        {name: scales[name] * rng.standard_normal(array.shape) for name, array in arrays.items()}
        for _ in range(_DIRECTIONS)
    ]
    found = [along(directions) for directions in draws]
    for name, array in arrays.items():
        array[...] = origins[name]
    return math.nan if any(map(math.isnan, found)) else max(found)


def _layer_errors(layer: Layer, x: Array, rng: np.random.Generator) -> dict[str, float]:
    """Return the errors of a layer's gradients for its input ``x`` and its parameters; the loss is ``sum(dy * y)``."""
    training = Context(training=True)
    dy = rng.standard_normal(layer.forward(x, training).shape)
    dx = layer.backward(dy)
    arrays = {"input": x, **layer.params}
    gradients = {name: array.copy() for name, array in {"input": dx, **layer.grads}.items() if array is not None}

    def loss() -> float:
        return float(np.vdot(layer.forward(x, training), dy))

    return {name: _error(loss, {name: array}, gradients, rng) for name, array in arrays.items()}


def _network_errors(config: Config, network: Network, x: Array, rng: np.random.Generator) -> dict[str, float]:
    """Return the error of the gradients for all parameters together."""
    labels = rng.integers(network.out_shape[0], size=len(x))
    loss = config.train.loss.fit(np.arange(1, network.out_shape[0] + 1))  # of classes that are not equally frequent

    def loss_and_gradient() -> tuple[float, Array]:
        return loss.loss_and_gradient(network.forward(x, training=True), labels)

    network.backward(loss_and_gradient()[1])
    own = network.parameters
    arrays = {name: parameter.value for name, parameter in own.items()}
    gradients = {
        name: parameter.grad.copy() for name, parameter in own.items() if parameter.key in parameter.layer.grads
    }
    return {"all parameters": _error(lambda: loss_and_gradient()[0], arrays, gradients, rng)}
