#!/usr/bin/env python3
"""Measure the scaling of training steps with workers and batch size, and the share of time spent preparing batches.

Needs an idle machine and no data. Writes its figures between the marks in docs/benchmarks.md.
"""

import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from parts.markdown import bullets, write

from cnnlite.config.load import load_config
from cnnlite.data import Batches, Images, Normalizer
from cnnlite.runtime import engine, machine
from cnnlite.tools.bench import WARM_UP_STEPS, prepare
from cnnlite.training.step import Step

OUT = Path(__file__).parent.parent / "docs/benchmarks.md"
NETWORKS = {"small": 30, "vgg11": 3}
"""Networks measured, and the number of steps in a round of each."""
BATCHES = (64, 128, 256, 512)
MARKS = ("<!-- growth -->", "<!-- end of growth -->")


def worker_speedups(name: str, counts: tuple[int, int], rounds: int, steps: int) -> list[float]:
    """Return the speed-up of the second number of workers over the first, for each round."""
    step = prepare(load_config(name)).step
    ratios = []
    with step.working():
        for _ in range(rounds):
            medians = []
            for count in counts:
                step.hire(count)
                for number in range(WARM_UP_STEPS):
                    step(number)
                medians.append(statistics.median(_seconds(step, steps)))
            ratios.append(medians[0] / medians[1])
    return ratios


def _seconds(step: Step, steps: int) -> Iterator[float]:
    for number in range(steps):
        start = time.perf_counter()
        step(number)
        yield time.perf_counter() - start


def batch_times(name: str, rounds: int) -> dict[int, float]:
    """Return the median milliseconds of a step by batch size; the sizes take turns."""
    found: dict[int, list[float]] = {size: [] for size in BATCHES}
    for _ in range(rounds):
        for size in BATCHES:
            step = prepare(load_config(name), size)
            with step.step.working():
                step.settle()
                step.seconds(WARM_UP_STEPS)
                found[size] += step.seconds(max(3, 1024 // size))
            del step
            engine.release()
    return {size: statistics.median(seconds) * 1e3 for size, seconds in found.items()}


def straight_line(times: dict[int, float]) -> tuple[float, float, float]:
    """Return the milliseconds per step and per image that fit ``times`` best, and the largest relative error."""
    sizes, found = np.array(list(times), float), np.array(list(times.values()))
    (fixed, each), *_ = np.linalg.lstsq(np.stack([1 / found, sizes / found], axis=1), np.ones(len(found)), rcond=None)
    return float(fixed), float(each), float(np.abs((fixed + each * sizes) / found - 1).max())


def preparation_share(name: str, steps: int) -> tuple[float, float]:
    """Return the median milliseconds of making a batch, and of the training step with it."""
    config = load_config(name)
    rng = np.random.default_rng(0)
    count = 4096
    images = Images(rng.integers(256, size=(count, 32, 32, 3), dtype=np.uint8), rng.integers(10, size=count))
    normalizer = Normalizer.fit(images.images, config.data.normalize)
    batches = Batches(
        images, config.train.batch_size, seed=0, transforms=config.data.augment, normalizer=normalizer, drop_last=True
    )
    making = []
    for number in range(steps):
        start = time.perf_counter()
        batches.batch(number)
        making.append(time.perf_counter() - start)
    step = prepare(config)
    with step.step.working():
        step.settle()
        training = step.seconds(steps)
    return statistics.median(making) * 1e3, statistics.median(training) * 1e3


def figures(rounds: int) -> Iterator[str]:
    """Yield the figures, as items of a list in Markdown."""
    cores = engine.available_cores()
    for name, steps in NETWORKS.items():
        ratios = worker_speedups(name, (1, cores), rounds, steps)
        yield (
            f"Workers: `{name}` ({load_config(name).train.batch_size}) is **{statistics.median(ratios):.2f}** times as "
            f"fast with {cores} as with 1 ({min(ratios):.2f} to {max(ratios):.2f} in {rounds} rounds)."
        )
    for name in NETWORKS:
        times = batch_times(name, rounds)
        fixed, each, worst = straight_line(times)
        yield (
            f"Batches: a step of `{name}` takes {fixed:.1f} ms and {each:.3f} ms for each image, give or take "
            f"{worst:.0%}: {', '.join(f'{ms:.0f} ms for {size}' for size, ms in times.items())}."
        )
    making, training = preparation_share("small", 200)
    share = making / (making + training)
    yield (
        f"Batches of `small` are made in {making:.2f} ms each (order, flips, crops, normalization), before steps of "
        f"{training:.1f} ms: **{share:.1%}** of the time."
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=OUT)
def main(rounds: int, out: Path) -> None:
    """Measure, print, and write to --out."""
    if os.environ.keys() & set(machine.PINS):
        os.execve(sys.executable, [sys.executable, *sys.argv], machine.without_pins())  # noqa: S606 - ourselves
    text = "\n".join(bullets(figures(rounds)))
    click.echo(text)
    write(out, text, MARKS)


if __name__ == "__main__":
    main()
