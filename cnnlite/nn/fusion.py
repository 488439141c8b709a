"""Layer fusion: neighbouring layers that share passes over memory, found once shapes are known."""

from cnnlite.nn.layers.activations import Activation
from cnnlite.nn.layers.base import Layer
from cnnlite.nn.layers.containers import Parallel, Sequential
from cnnlite.nn.layers.fused import FusedBatchNorm
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.nn.layers.pooling import MaxPool2d


def fuse(model: Layer) -> None:
    """Fuse the layers of an inferred model, in place, before its arrays are allocated.

    Batch norm is fused with the activation and the max pooling after it (see `kernels.fused`), a sum of branches with
    an activation whose gradient needs only its output. Parameter names and the list of layers do not change.
    """
    for _, layer in list(model.walk()):
        if isinstance(layer, Sequential):
            _fuse_sequence(layer)


def _fuse_sequence(sequence: Sequential) -> None:
    steps: list[Layer] = []
    for layer in sequence.layers:
        if not steps:
            steps.append(layer)
        elif isinstance(steps[-1], BatchNorm) and (fused := _with_following(steps[-1], layer)):
            index = sequence.layers.index(steps[-1])
            steps[-1] = sequence.layers[index] = sequence.children[str(index)] = fused
        elif not (isinstance(steps[-1], Parallel) and _activated(steps[-1], layer)):
            steps.append(layer)
    sequence.steps = steps


def _with_following(norm: BatchNorm, following: Layer) -> FusedBatchNorm | None:
    """Fuse batch norm with the ``following`` layer; None if it cannot be fused."""
    activation = norm.activation if isinstance(norm, FusedBatchNorm) else None
    pool = norm.pool if isinstance(norm, FusedBatchNorm) else None
    if isinstance(following, MaxPool2d) and pool is None and (activation is None or activation.monotonic):
        return FusedBatchNorm(norm, activation, following)
    if isinstance(following, Activation) and activation is None:
        return FusedBatchNorm(norm, following, pool)
    return None


def _activated(branches: Parallel, following: Layer) -> bool:
    """Fuse the ``following`` layer into a sum of branches; returns whether it could."""
    if branches.merge != "sum" or branches.activation is not None:
        return False
    if not isinstance(following, Activation) or not following.from_output:
        return False
    branches.activation = following
    return True
