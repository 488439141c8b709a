"""Where numbers stopped being finite and what to try next, for the message that ends a diverged run."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from cnnlite.nn.hooks import Call, watched
from cnnlite.nn.losses import Loss
from cnnlite.nn.network import Network
from cnnlite.utils.hints import Override
from cnnlite.utils.types import Array


def first_not_finite(network: Network, loss: Loss, x: Array, targets: Array, step: int) -> str | None:
    """Name the first thing that holds NaN or infinity, in the order of the computation; None if only the loss does.

    That is the input, a parameter, the output of a layer, the gradient of the loss, or what the backward pass of a
    layer wrote. Makes training step ``step`` on the batch once more; the network is of no use afterwards.
    """
    return next(_suspects(network, loss, x, targets, step), None)


def _suspects(network: Network, loss: Loss, x: Array, targets: Array, step: int) -> Iterator[str]:
    if not np.isfinite(x).all():
        yield "the input"
    for name, parameter in network.parameters.items():
        if not np.isfinite(parameter.value).all():
            yield f"parameter {name}, changed by an earlier update"
    # For faults that do not come again. A backward pass goes from the end to the start.
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
    """Say which output or gradient of a layer is not finite."""
    place = call.layer.path or type(call.layer).__name__
    if call.way == "backward":
        for key, grad in call.layer.grads.items():
            if not np.isfinite(grad).all():
                yield f"the gradient of parameter {call.name}.{key}, in {place} (backward)"
    if call.returned is not None and not np.isfinite(call.returned).all():
        what = "the output" if call.way == "forward" else "the gradient for the input"
        yield f"{what} of {place} ({call.way})"


def advice(train: Mapping[str, Any]) -> str:
    """Say which overrides to try, from the part ``train`` of a resolved config whose training diverged."""
    ((name, options),) = train["optimizer"].items()
    lower = "a tenth of the learning rates"
    if "lr" in options:  # a composite's members have their own
        lower = str(Override(f"train.optimizer.{name}.lr={options['lr'] / 10:g}"))
    clip = f" or {Override('train.clip_norm=1')}" if train["clip_norm"] is None else ""
    return f"start again with {lower}{clip}"
