"""Gradient check: compares analytic gradients of a config's network with finite differences."""

import numpy as np

from cnnlite.config.load import Config
from cnnlite.nn.gradients import IMAGES, TOLERANCE, Check, check_layers, relative_error
from cnnlite.nn.network import Network
from cnnlite.runs.restore import infer_model
from cnnlite.utils.text import aligned
from cnnlite.utils.types import Array


def check(config: Config) -> list[Check]:
    """Check each layer of a config's network by itself, in order, then the whole network with its loss.

    Fused layers are checked together. See `infer_model` for errors.
    """
    in_shape = infer_model(config).in_shape
    checks = check_layers(config.model, in_shape, config.seed)
    network = Network(config.model, in_shape, seed=config.seed, dtype=np.float64)
    return [*checks, Check("", "whole network, with its loss", _network_errors(config, network))]


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


def _network_errors(config: Config, network: Network) -> dict[str, float]:
    """Return the error of the gradients for all parameters together."""
    rng = np.random.default_rng(config.seed)
    x = rng.standard_normal((IMAGES, *network.in_shape))
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
    return {"all parameters": relative_error(lambda: loss_and_gradient()[0], arrays, gradients, rng)}
