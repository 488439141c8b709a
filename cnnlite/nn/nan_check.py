"""NaN check: the first array that is not finite, and advice, for the message that ends a diverged run."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cnnlite.nn.hooks import Call, watched
from cnnlite.nn.losses import Loss
from cnnlite.nn.network import Network
from cnnlite.utils.hints import Override
from cnnlite.utils.types import Array


def first_not_finite(network: Network, loss: Loss, x: Array, targets: Array, step: int) -> str | None:
    """Name the first array that holds NaN or infinity, in order of computation; None if only the loss does.

    Checked are the input, parameters, layer outputs, the gradient of the loss, and gradients that layers write in
    backward. Repeats training step ``step`` on the batch; the network is not usable afterwards.
    """
    return next(_suspects(network, loss, x, targets, step), None)


def _suspects(network: Network, loss: Loss, x: Array, targets: Array, step: int) -> Iterator[str]:
    if not np.isfinite(x).all():
        yield "the input"
    for name, parameter in network.parameters.items():
        if not np.isfinite(parameter.value).all():
            yield f"parameter {name}, changed by an earlier update"
    # For faults that do not occur again. A backward pass goes from the end to the start.
    gradients = reversed(network.parameters.items())
    before = [name for name, parameter in gradients if not np.isfinite(parameter.grad).all()]
    found: list[str] = []
    with watched(network.model, lambda call: found.extend(_faults(call))):
        logits = network.forward(x, training=True, step=step)
        yield from found
        value, gradient = loss.loss_and_gradient(logits, targets)
        if np.isfinite(value):
            if not np.isfinite(gradient).all():
                yield "the gradient of the loss (backward)"
            network.backward(gradient)
            yield from found
            yield from (f"the gradient of parameter {name} (backward)" for name in before)


def _faults(call: Call) -> Iterator[str]:
    """Name the output and the gradients of a layer call that are not finite."""
    place = call.layer.path or type(call.layer).__name__
    if call.way == "backward":
        for key, grad in call.layer.grads.items():
            if not np.isfinite(grad).all():
                yield f"the gradient of parameter {call.name}.{key}, in {place} (backward)"
    if call.returned is not None and not np.isfinite(call.returned).all():
        what = "the output" if call.way == "forward" else "the gradient for the input"
        yield f"{what} of {place} ({call.way})"


def advice(train: Mapping[str, Any]) -> str:
    """Suggest overrides to try, given the ``train`` part of a resolved config whose training diverged."""
    ((name, options),) = train["optimizer"].items()
    lower = "a tenth of the learning rates"
    if "lr" in options:  # a composite's members have their own
        lower = str(Override(f"train.optimizer.{name}.lr={options['lr'] / 10:g}"))
    clip = f" or {Override('train.clip_norm=1')}" if train["clip_norm"] is None else ""
    return f"start again with {lower}{clip}"
