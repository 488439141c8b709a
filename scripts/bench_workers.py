#!/usr/bin/env python3
"""Predict the speed of training steps on more cores than this machine has.

Processor time does not mind that eight workers share two cores. What the busiest worker spends on a step, but for
waiting, is what the step would take if each had a core of its own, and memory enough bandwidth for all of them. Writes
its table between the marks in docs/workers.md. Needs an idle machine and no data.
"""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
from bench_vs_torch import REFERENCE, config_of
from parts.markdown import write
from parts.sides import names, warn_if_busy

from cnnlite.runs.environment import environment
from cnnlite.runtime import engine, machine
from cnnlite.tools.bench import WARM_UP_STEPS, prepare

OUT = Path(__file__).parent.parent / "docs/workers.md"
MARKS = ("<!-- workers -->", "<!-- end of workers -->")
WORKERS = (1, 2, 4, 8)


def work(name: str, workers: int, steps: int) -> list[float]:
    """Return the milliseconds of processor time that each worker spends on a step, the median of all steps."""
    engine.set_workers(workers)
    step = prepare(config_of(name), REFERENCE[name])
    with step.step.working(), np.errstate(all="ignore"):
        step.settle()
        for _ in range(WARM_UP_STEPS):
            step()
        spent = [step.work()]
        for _ in range(steps):
            step()
            spent.append(step.work())
    each = np.diff(np.array(spent), axis=0) * 1e3  # (steps, workers)
    return [statistics.median(column) for column in each.T.tolist()]


def table(configs: Sequence[str], steps: int) -> Iterator[str]:
    """Yield the rows of the table."""
    yield "| network | batch | workers | all | busiest | predicted |"
    yield "|---|---|---|---|---|---|"
    for name in configs:
        alone = 0.0
        for workers in WORKERS:
            spent = work(name, workers, steps)
            alone = alone or max(spent)
            row = f"{sum(spent):,.1f} | {max(spent):,.1f} | **{alone / max(spent):.2f}**"
            yield f"| {name} | {REFERENCE[name]} | {workers} | {row} |"
            click.echo(row, err=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--configs", default=",".join(REFERENCE), callback=names, show_default=True, help="Configs, by name.")
@click.option("--steps", type=click.IntRange(1), default=8, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=OUT)
def main(configs: list[str], steps: int, out: Path) -> None:
    """Measure, print, and write to --out."""
    warn_if_busy()
    rows = list(table(configs, steps))
    commit = (environment()["commit"] or "unknown")[:12]
    about = f"- {machine.cpu_name()}, {engine.available_cores()} cores; {steps} steps each; commit {commit}."
    write(out, "\n".join([*rows, "", about]), MARKS)


if __name__ == "__main__":
    main()
