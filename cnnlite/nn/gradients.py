"""Gradients against finite differences, in float64.

Differences are taken along random directions. A wrong gradient agrees with the slope along a random direction with
probability 0, so a few directions check an array of any size.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from cnnlite.nn.fusion import fuse
from cnnlite.nn.hooks import watched, working_layers
from cnnlite.nn.layers.base import Context, Layer
from cnnlite.nn.losses import Loss
from cnnlite.nn.network import inferred
from cnnlite.utils.rng import stream
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
    path: str = ""
    """Place in the config."""

    @property
    def worst(self) -> str:
        """Name with the largest error; NaN counts as larger than any number."""
        return max(self.errors, key=lambda name: math.inf if math.isnan(self.errors[name]) else self.errors[name])

    @property
    def right(self) -> bool:
        """True if all gradients are correct."""
        return self.errors[self.worst] <= TOLERANCE


def check_layers(
    model: Layer, in_shape: Shape, seed: int, chosen: Callable[[str], bool] = lambda kind: True
) -> list[Check]:
    """Check each layer of a model by itself, in order, or those of a kind that is ``chosen``.

    Fused layers are one, of a kind such as ``batch_norm + relu``. Inputs are random, of the shapes that layers get in
    the model. ConfigError if the shapes do not fit.
    """
    # Not a `Network`, whose first layers leave out the gradient of their input.
    model = inferred(model, in_shape)
    fuse(model)
    wanted = [part for part in working_layers(model) if chosen(part[1])]
    if not wanted:
        return []
    model.allocate(stream(seed, "weights"), np.dtype(np.float64))
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((IMAGES, *in_shape))
    shapes: dict[str, Shape] = {}
    with watched(model, lambda call: shapes.update({call.name: call.given.shape})):
        model.forward(x, Context())  # evaluation mode leaves no branch out
    return [
        Check(name, kind, _layer_errors(layer, rng.standard_normal(shapes[name]), rng), layer.path)
        for name, kind, layer in wanted
    ]


def check_loss(loss: Loss, kind: str, classes: int, seed: int, *, mixed: bool) -> Check:
    """Check the gradient of a loss for logits, with classes as targets, or with their probabilities if ``mixed``."""
    rng = np.random.default_rng(seed)
    loss = loss.fit(np.arange(1, classes + 1))  # of classes that are not equally frequent
    logits = rng.standard_normal((IMAGES, classes))
    targets: Array = rng.dirichlet(np.ones(classes), IMAGES) if mixed else rng.integers(classes, size=IMAGES)
    gradient = loss.loss_and_gradient(logits, targets)[1]
    error = relative_error(
        lambda: loss.loss_and_gradient(logits, targets)[0], {"logits": logits}, {"logits": gradient}, rng
    )
    return Check("", kind, {"logits": error}, loss.path)


def slope(at: Callable[[float], float], distance: float) -> float:
    """Return the derivative of ``at`` at 0, by central differences of fourth order."""
    near, far = at(distance) - at(-distance), at(2 * distance) - at(-2 * distance)
    return (8 * near - far) / (12 * distance)


def relative_error(
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

    return {name: relative_error(loss, {name: array}, gradients, rng) for name, array in arrays.items()}
