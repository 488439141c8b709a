"""Measure whole training steps: what `cnnlite bench` prints."""

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from cnnlite import engine, machine
from cnnlite.config import Config
from cnnlite.layers.base import Layer
from cnnlite.network import Network
from cnnlite.types import Array, Shape

WARM_UP_STEPS = 3


@dataclass(frozen=True)
class Timing:
    """What a training step costs: forward, loss, backward and update, on a batch that lies in memory."""

    batch_size: int
    steps: int
    step_ms_median: float
    step_ms_min: float
    images_per_second: float
    gflops: float
    """From the multiply-adds of convolutions and linear layers: forward and both gradients, as if done directly."""
    gemm_peak_gflops: float
    peak_memory_bytes: int
    threads: int
    blas_kernel: str


@dataclass
class LayerTiming:
    """Median milliseconds of one layer in a training step."""

    name: str
    kind: str
    forward_ms: float
    backward_ms: float


class Step:
    """A training step of ``config`` on one random batch, made again and again."""

    def __init__(self, config: Config, in_shape: Shape, classes: int, batch_size: int):
        rng = np.random.default_rng(config.seed)
        self.network = Network(config.model, in_shape, seed=config.seed, classes=classes)
        self.loss = copy.deepcopy(config.train.loss)
        self.optimizer = copy.deepcopy(config.train.optimizer)
        self.optimizer.bind(list(self.network.parameters.values()))
        self.x = rng.standard_normal((batch_size, *in_shape)).astype(np.float32)
        self.labels = rng.integers(classes, size=batch_size)
        self.count = 0

    def __call__(self) -> None:
        """Make one step."""
        logits = self.network.forward(self.x, training=True, step=self.count)
        self.loss.forward(logits, self.labels)
        self.network.backward(self.loss.backward())
        self.optimizer.step(self.count, 1e-3)  # small, so that random labels do not drive weights far
        self.count += 1

    def seconds(self, steps: int) -> list[float]:
        """The times of ``steps`` steps, in seconds."""
        times = []
        for _ in range(steps):
            start = time.perf_counter()
            self()
            times.append(time.perf_counter() - start)
        return times


def bench(step: Step, steps: int) -> Timing:
    """Time ``steps`` training steps after a few that warm up."""
    step.seconds(WARM_UP_STEPS)
    times = step.seconds(steps)
    memory = machine.peak_memory_bytes()  # before the measurement of the peak takes some for itself
    median = statistics.median(times)
    batch_size = len(step.x)
    return Timing(
        batch_size=batch_size,
        steps=steps,
        step_ms_median=median * 1e3,
        step_ms_min=min(times) * 1e3,
        images_per_second=batch_size / median,
        gflops=2 * training_multiply_adds(step.network) * batch_size / median / 1e9,
        gemm_peak_gflops=machine.gemm_peak(),
        peak_memory_bytes=memory,
        threads=engine.threads(),
        blas_kernel=machine.blas_kernel(),
    )


def training_multiply_adds(network: Network) -> int:
    """Multiply-adds of a training step for one sample: forward, and once each for the two gradients that are needed."""
    return sum(layer.multiply_adds * (3 if layer.needs_dx else 2) for _, layer in network.model.walk())


def bench_layers(step: Step, steps: int) -> list[LayerTiming]:
    """Time each layer without layers inside it; a layer whose work an earlier one does has no time of its own."""
    timings: list[LayerTiming] = []
    with _watched(step.network.model) as times:
        step.seconds(WARM_UP_STEPS + steps)
        for name, layer in step.network.model.walk():
            if layer.children:
                continue
            forward, backward = (
                statistics.median(times[name, way][-steps:] or [0.0]) * 1e3 for way in ("forward", "backward")
            )
            timings.append(LayerTiming(name, type(layer).__name__, forward, backward))
    return timings


@contextmanager
def _watched(model: Layer) -> Iterator[dict[tuple[str, str], list[float]]]:
    """Note how long each call of each innermost layer's ``forward`` and ``backward`` takes."""
    times: dict[tuple[str, str], list[float]] = {}

    def watch(key: tuple[str, str], method: Callable[..., Array | None]) -> Callable[..., Array | None]:
        noted = times.setdefault(key, [])

        def timed(*args: Array, **options: bool) -> Array | None:
            start = time.perf_counter()
            result = method(*args, **options)
            noted.append(time.perf_counter() - start)
            return result

        return timed

    innermost = [(name, layer) for name, layer in model.walk() if not layer.children]
    for name, layer in innermost:
        for way in ("forward", "backward"):
            setattr(layer, way, watch((name, way), getattr(layer, way)))
    try:
        yield times
    finally:
        for _, layer in innermost:
            del layer.forward, layer.backward  # those of the class are back
