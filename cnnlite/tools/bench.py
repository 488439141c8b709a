"""Benchmarks of whole training steps on random images, for `cnnlite bench`."""

import contextlib
import copy
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cnnlite.config.load import Config
from cnnlite.errors import ConfigError, Problem
from cnnlite.nn.hooks import WAYS, watched, working_layers
from cnnlite.nn.layers.base import Layer, dotted
from cnnlite.nn.network import Network
from cnnlite.runs.restore import check_model
from cnnlite.runtime import engine, machine
from cnnlite.runtime.arrays import Slabs
from cnnlite.runtime.team import Team
from cnnlite.training import step as training
from cnnlite.utils.hints import Override
from cnnlite.utils.text import aligned, size_text
from cnnlite.utils.types import Array

WARM_UP_STEPS = 3
_SECONDS = 2.0
"""Duration of a measurement, unless the number of steps is given."""


@dataclass(frozen=True)
class Timing:
    """Cost of a training step (forward, loss, backward, update) on a batch in memory."""

    step_ms_median: float
    step_ms_min: float
    images_per_second: float
    gflops: float
    """Achieved: operations of convolutions and linear layers and of their gradients, counted as direct convolutions."""
    gemm_peak_gflops: float
    peak_memory_bytes: int
    """Of the whole process during the steps; 0 if the system does not tell."""
    workers: int
    blas_kernel: str


@dataclass(frozen=True)
class LayerTiming:
    """Median time of a layer in a training step, in milliseconds, without the layers inside it."""

    name: str
    kind: str
    """Name in configs; ``batch_norm + relu`` for layers fused into one."""
    forward_ms: float
    backward_ms: float
    serial_ms: float
    """Of both, the part that each worker spends, however many they are; see `measure_layers`."""


@dataclass(frozen=True)
class Report:
    """Results of a benchmark."""

    batch_size: int
    timing: Timing
    layers: list[LayerTiming] | None
    rest_ms: float
    """Median milliseconds of loss and update in a step; 0 if layers were not timed."""
    rest_serial_ms: float
    """The part of that which workers do not divide."""

    def facts(self) -> dict[str, Any]:
        """Return the results as an object for JSON."""
        facts = {"batch_size": self.batch_size, **asdict(self.timing)}
        if self.layers is not None:
            rest = {"rest_ms": self.rest_ms, "rest_serial_ms": self.rest_serial_ms}
            facts |= {"layers": [asdict(row) for row in self.layers], **rest}
        return facts

    def describe(self, name: str) -> str:
        """Format the results as text, with a table if layers were timed."""
        found = self.timing
        memory = size_text(found.peak_memory_bytes) if found.peak_memory_bytes else "unknown"
        lines = [
            f"{name}: training steps of {self.batch_size} random images, workers {found.workers}, "
            f"BLAS kernel {found.blas_kernel}",
            f"  step         {found.step_ms_median:,.2f} ms (median; least {found.step_ms_min:,.2f} ms)",
            f"  speed        {found.images_per_second:,.0f} images/s",
            f"  GFLOP/s      {found.gflops:,.1f}, counting convolutions as direct ones: "
            f"{found.gflops / found.gemm_peak_gflops:.0%} of the {found.gemm_peak_gflops:,.1f} of matrix products here",
            f"  peak memory  {memory}",
        ]
        if self.layers is not None:
            lines += ["", _table(self.layers, self.rest_ms, self.rest_serial_ms)]
        return "\n".join(lines)


class Step:
    """A training step of a network on one random batch, to be repeated.

    Args:
        network: network to train.
        config: config with loss and optimizer.
        batch_size: number of images in the batch.
    """

    def __init__(self, network: Network, config: Config, batch_size: int):
        rng = np.random.default_rng(config.seed)
        self.network = network
        self.loss = config.train.loss.fit(np.ones(network.out_shape[0]))  # of classes that are equally frequent
        self.optimizer = copy.deepcopy(config.train.optimizer)
        self.optimizer.bind(network.trainable)
        self.x = rng.standard_normal((batch_size, *network.in_shape), network.dtype)
        self.labels = rng.integers(network.out_shape[0], size=batch_size)
        self.count = 0
        self.step = training.Step(
            *(network, self.optimizer, self.loss, self, _small_factor),
            others=[_memory_of_workers, _work_of_workers],
        )
        self.choice = training.Choice(self.step, engine.workers(), engine.most_workers())

    def size(self, step: int) -> int:
        """Number of images in the batch, the same in each step."""
        return len(self.x)

    def batch(self, step: int, part: slice) -> tuple[Array, Array]:
        """Return a part of the batch, the same in each step."""
        return self.x[part], self.labels[part]

    def __call__(self) -> float:
        """Make one step, and return the loss before it."""
        outcome = self.choice(self.count)
        self.count += 1
        return outcome.loss

    def settle(self) -> str:
        """Make steps until the number of workers is chosen; returns what was found, if there was a choice."""
        with np.errstate(all="ignore"):
            while not self.choice.settled:
                self()
        return self.choice.message

    @property
    def workers(self) -> int:
        """Number of workers that make the steps, or of threads."""
        return engine.threads() if self.step.team is None else self.step.team.size

    def peak_memory_bytes(self) -> int:
        """Peak physical memory of all workers, what they share counted once; 0 if the system does not tell."""
        team = self.step.team
        return machine.peak_memory_bytes() if team is None else sum(team.call(1, 0))

    def work(self) -> list[float]:
        """Seconds of processor time that each worker has spent so far, but for waiting."""
        team = self.step.team
        found: list[float] = _work_of_workers(0) if team is None else team.call(2, 0)
        return found

    @contextlib.contextmanager
    def as_first_of(self, size: int) -> Iterator[None]:
        """Make steps as the first of ``size`` workers would, inside the block; the others are not there."""
        self.step.dismiss()
        for group in self.optimizer.bound:
            group.rows = np.zeros((size, group.grads.size), group.grads.dtype)
            group.attach(group.rows[0])
        engine.set_team(_FirstWorker(size))
        try:
            yield
        finally:
            engine.set_team(Team())
            self.step.dismiss()

    def seconds(self, steps: int) -> list[float]:
        """Make ``steps`` steps, and return their times in seconds."""
        times = []
        with np.errstate(all="ignore"):  # as in training
            for _ in range(steps):
                start = time.perf_counter()
                self()
                times.append(time.perf_counter() - start)
        return times


def bench(config: Config, *, batch_size: int | None = None, steps: int | None = None, layers: bool = False) -> Report:
    """Benchmark the network of a config; see `prepare` and `measure`. ``layers`` also times each layer."""
    step = prepare(config, batch_size)
    with step.step.working():
        timing = measure(step, steps)
        rows, *rest = measure_layers(step, steps) if layers else (None, 0.0, 0.0)
    return Report(len(step.x), timing, rows, *rest)


class _FirstWorker(Team):
    """Team of which only the first worker is there: what the others would give is made up, and only its time counts."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size
        self.slabs = _Zeros()

    def gather(self, rows: Array, first: int, count: int) -> Array:
        return np.resize(rows, (count, *rows.shape[1:]))

    def numbers(self, count: int) -> Array:
        return np.zeros(count)


class _Zeros(Slabs):
    """Memory that begins as zeros: computing with whatever was there could take longer."""

    def allocate(self, size: int) -> Array:
        return np.zeros(size, np.uint8)[:]


def _small_factor(step: int) -> float:
    """Return a factor for the learning rate so small that random labels do not drive weights far."""
    return 1e-3


def _memory_of_workers(_: int) -> list[int]:
    """Gather the physical memory of each worker, of what they share its part."""
    return engine.team().exchange(machine.proportional_memory_bytes())


def _work_of_workers(_: int) -> list[float]:
    """Gather the processor time of each worker, but for what it spent on waiting."""
    return engine.team().exchange(time.process_time() - engine.team().waited)


def prepare(config: Config, batch_size: int | None = None) -> Step:
    """Build the network of a config and a random batch for it, by default of the config's batch size.

    Raises:
        ConfigError: If the network cannot be built without the files of the dataset.
    """
    machine.reset_peak_memory()
    checked = check_model(config)
    if checked is None:
        why = "the shape of its images is known from its files only"
        raise ConfigError([Problem("data.dataset", f"{why}; try {Override('data.dataset=cifar10')}")])
    network = Network(config.model, checked.in_shape, seed=config.seed, frozen=config.train.freeze)
    return Step(network, config, batch_size or config.train.batch_size)


def measure(step: Step, steps: int | None = None) -> Timing:
    """Time ``steps`` training steps, by default two seconds of them and at least ten, after a warm-up."""
    step.settle()
    warm_up = step.seconds(WARM_UP_STEPS)
    times = step.seconds(steps or _enough_steps(warm_up))
    memory = step.peak_memory_bytes()  # read before `gemm_peak` allocates
    median, workers = statistics.median(times), step.workers
    peak = machine.gemm_peak(workers)
    return Timing(
        step_ms_median=median * 1e3,
        step_ms_min=min(times) * 1e3,
        images_per_second=len(step.x) / median,
        gflops=2 * training_multiply_adds(step.network) * len(step.x) / median / 1e9,
        gemm_peak_gflops=peak,
        peak_memory_bytes=memory,
        workers=workers,
        blas_kernel=machine.blas_kernel(),
    )


def training_multiply_adds(network: Network) -> int:
    """Return the multiply-adds of a training step for one sample: forward, and each gradient that is needed."""
    return sum(
        layer.multiply_adds * (1 + ("weight" in layer.params and not layer.is_frozen) + layer.needs_dx)
        for _, layer in network.model.walk()
    )


def measure_layers(step: Step, steps: int | None = None) -> tuple[list[LayerTiming], float, float]:
    """Time each layer over ``steps`` training steps; fused layers share a row.

    Rows are in the order of the network. A sequence has none, as all its time is that of its layers. What is serial,
    as Amdahl (1967) calls it, follows from the times of one worker, serial + parallel, and of the first of as many
    workers as there are shards, serial + parallel / shards.

    Returns:
        The rows, and the median milliseconds of the rest of a step, loss and update: of all, and of what is serial.
    """
    shards = step.network.shards(len(step.x))
    times = alone = _layer_ms(step, steps)
    if step.workers > 1:
        step.choice = training.Choice(step.step, 1, 1)
        alone = _layer_ms(step, steps)
    with step.as_first_of(shards):
        first = _layer_ms(step, steps)
    serial = np.maximum(shards * first - alone, 0) / (shards - 1) if shards > 1 else alone
    serial = np.minimum(serial, times)  # the three were measured one after another, and a machine is never quite still
    found = list(zip(working_layers(step.network.model), times, serial.sum(axis=1).tolist(), strict=False))
    rows = [LayerTiming(name, kind, float(ways[0]), float(ways[1]), part) for (name, kind, _), ways, part in found]
    return rows, float(times[-1].sum()), float(serial[-1].sum())


def _layer_ms(step: Step, steps: int | None) -> Array:
    """Measure the median milliseconds of each of `working_layers`, forward and backward, and of the rest: (rows, 2)."""
    model = step.network.model
    seconds: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    with watched(model, lambda call: seconds[call.name, call.way].append(call.seconds)):
        steps = steps or _enough_steps(step.seconds(WARM_UP_STEPS))
        whole = np.array(step.seconds(steps))

    def last(name: str, way: str) -> Array:
        times = seconds[name, way]  # none if the gradient of the layer's output is not needed
        return np.array(times[-steps:] if times else [0.0] * steps)

    def own(name: str, layer: Layer, way: str) -> float:
        inside = sum(last(dotted(name, child), way) for child in layer.children)
        return max(0.0, float(np.median(last(name, way) - inside)))

    rows = [[own(name, layer, way) for way in WAYS] for name, _, layer in working_layers(model)]
    rest = whole - last("", "forward") - last("", "backward")
    return np.array([*rows, [float(np.median(rest)), 0.0]]) * 1e3


def _enough_steps(warm_up: list[float]) -> int:
    """Return the number of steps to time, judged by the last warm-up step."""
    return max(10, min(2000, round(_SECONDS / warm_up[-1])))


def _table(rows: list[LayerTiming], rest_ms: float, rest_serial_ms: float) -> str:
    """Format the times of layers and of the rest, and the share of a step that workers do not divide."""
    times = [(row.forward_ms, row.backward_ms, row.serial_ms) for row in rows]
    sums = [sum(column) for column in zip(*times, strict=True)]
    total, serial = sums[0] + sums[1] + rest_ms, sums[2] + rest_serial_ms
    lines = [("layer", "kind", "forward ms", "backward ms", "share", "serial ms")]
    for row in [*rows, LayerTiming("", "all layers", *sums)]:
        share = (row.forward_ms + row.backward_ms) / total
        ways = (f"{row.forward_ms:.3f}", f"{row.backward_ms:.3f}")
        lines.append((row.name, row.kind, *ways, f"{share:.1%}", f"{row.serial_ms:.3f}"))
    lines.append(("", "loss and update", f"{rest_ms:.3f}", "", f"{rest_ms / total:.1%}", f"{rest_serial_ms:.3f}"))
    lines.append(("", "the whole step", "", "", "", f"{serial:.3f}"))
    return aligned(lines, left=(0, 1))
