"""Teams of workers that make steps of many networks, one after the other: forking once is enough for all of them."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from cnnlite.nn import network as networks
from cnnlite.nn.kernels import im2col, matmul, winograd
from cnnlite.nn.layers.base import Layer
from cnnlite.nn.losses import CrossEntropy
from cnnlite.nn.network import Network
from cnnlite.optim import SGD, Optimizer
from cnnlite.optim.averaging import Averaging, NoAveraging
from cnnlite.optim.base import Group
from cnnlite.runtime import engine
from cnnlite.runtime.workers import Workers
from cnnlite.training.step import Outcome, Step
from cnnlite.utils.rng import stream
from cnnlite.utils.types import Array, Shape
from tests.support.portable import Constants
from tests.support.watched_memory import Watch

CLASSES = 3
CONSTANTS = [
    (networks, "SHARD_WORK"),
    *((matmul, "LARGE_WEIGHTS"), (matmul, "LARGE_SHARE")),
    *((winograd, "LOCAL_WEIGHTS"), (winograd, "CHUNK_BYTES")),
    *((im2col, "LARGE_WEIGHTS"), (im2col, "CHUNK_BYTES")),
]
"""What `test_step` changes, so that small networks and weights are divided; spawned workers need it too."""


@dataclass
class Random:
    """Random batches of the given sizes, one size after the other."""

    shape: Shape
    sizes: Sequence[int]
    soft: bool = False
    """Whether targets are probabilities."""

    def size(self, step: int) -> int:
        return self.sizes[step % len(self.sizes)]

    def batch(self, step: int, part: slice) -> tuple[Array, Array]:
        rng = stream(0, "test", step)
        x = rng.standard_normal((self.size(step), *self.shape), np.float32)
        labels = rng.integers(CLASSES, size=len(x))
        return x[part], (np.eye(CLASSES, dtype=np.float32)[labels] * 0.7 + 0.1 if self.soft else labels)[part]


def make(
    model: Layer,
    shape: Shape,
    sizes: Sequence[int],
    optimizer: Optimizer | None = None,
    *,
    averaging: Averaging | None = None,
    clip_norm: float | None = None,
    soft: bool = False,
) -> Step:
    """Steps of a network, by default with SGD."""
    network = Network(model, shape, seed=0, classes=CLASSES)
    optimizer, averaging = optimizer or SGD(lr=0.05, momentum=0.9), averaging or NoAveraging()
    optimizer.bind(list(network.parameters.values()))
    optimizer.plan(12, 3)
    averaging.bind(network.state())
    source = Random(shape, sizes, soft)
    others = [Constants.of(*CONSTANTS)]
    return Step(
        *(network, optimizer, CrossEntropy(), source, _one),
        clip_norm=clip_norm,
        averaging=averaging,
        others=others,
    )


def _one(step: int) -> float:
    return 1.0


@contextlib.contextmanager
def crew(steps: Sequence[Step], size: int, watch: Watch | None = None) -> Iterator[Callable[[int, int], Outcome]]:
    """Yield a function that makes a step, by the number of its network and its own, with ``size`` workers."""
    if size == 1:
        with np.errstate(all="ignore"):  # as in training
            yield lambda which, step: steps[which]._make(step)
        return
    groups = [group for step in steps for group in step.optimizer.bound]
    with watch.off() if watch else contextlib.nullcontext():
        rows = [engine.shared((size, group.grads.size), group.grads.dtype) for group in groups]

    team = Workers(size, [step._make for step in steps], partial(_begin, groups, rows))
    try:
        with np.errstate(all="ignore"):
            yield team.call
    finally:
        team.close()
        for step in steps:
            step.dismiss()


def _begin(groups: Sequence[Group], rows: Sequence[Array], index: int) -> None:
    for group, own in zip(groups, rows, strict=True):
        group.rows = own
        group.attach(own[index])


def everything(step: Step) -> dict[str, Array]:
    """All that steps change."""
    return {
        **step.network.state(),
        **{f"optimizer/{name}": array for name, array in step.optimizer.state().items()},
        **{f"average/{name}": array for name, array in step.averaging.state().items()},
    }


def digest(step: Step) -> dict[str, str]:
    """All that steps change, in short."""
    return {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in everything(step).items()}
