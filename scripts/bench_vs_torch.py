#!/usr/bin/env python3
"""Compare whole training steps with PyTorch's: the same networks, from the same configs, in turns on this machine.

Needs PyTorch, an idle machine and no data. Writes its figures between the marks in docs/benchmarks.md.
"""

import json
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from parts.markdown import write
from parts.sides import Match, Side, SideError, match, names, serve, warn_if_busy

from cnnlite.config.load import Config, load_config
from cnnlite.runs.environment import environment
from cnnlite.runtime import engine, machine
from cnnlite.tools.bench import prepare

REFERENCE = {
    "seed-advanced": 16,
    "small": 64,
    "resnet20": 128,
    "vgg11": 128,
    "resnet18": 128,
    "speedrun": 500,
    "mobilenet": 64,
}
"""Networks compared, and their batch sizes."""
VARIANTS = ("default", "channels_last", "compiled", "compiled channels_last")
UPDATE = "train.optimizer={sgd: {lr: 1e-4, momentum: 0.9}}"
TOLERANCE = 2e-3
"""Largest difference of outputs, relative to the largest: float32 sums in another order, through up to 20 layers."""
_PARITY_BATCH = 16
MARKS = ("<!-- figures -->", "<!-- end of figures -->")


def config_of(name: str) -> Config:
    """Return the config, with SGD with momentum as its optimizer."""
    return load_config(name, [UPDATE])


def _side(side: str, name: str, batch_size: int, threads: int) -> tuple[dict[str, Any], Callable[[], float]]:
    """Return facts about a side, and its step as a function."""
    config = config_of(name)
    engine.set_workers(None, threads)
    if side == "cnnlite":
        step = prepare(config, batch_size)
        step.settle()
        return {"kernel": machine.blas_kernel(), "workers": step.workers}, step
    from parts import torch_twin

    torch = torch_twin.torch
    torch.set_num_threads(threads)
    if side == "parity":
        return {"difference": torch_twin.parity(prepare(config, _PARITY_BATCH))}, lambda: 0.0
    torch.manual_seed(0)
    facts = {"version": torch.__version__, "kernel": torch.backends.cpu.get_cpu_capability()}
    return facts, torch_twin.training_step(prepare(config, batch_size), side)


@dataclass(frozen=True)
class Comparison:
    """Results for one network."""

    name: str
    batch_size: int
    difference: float
    match: Match

    def row(self) -> str:
        """Return a row of the table."""
        ours, theirs = (f"{size / 1e6:,.0f}" for size in self.match.memory)
        return f"| {self.name} | {self.batch_size} | {self.match.cells()} | {ours} | {theirs} | {self.difference:.0e} |"


def compare(
    name: str, batch_size: int, *, threads: int, rounds: int, steps: int | None, variants: Sequence[str]
) -> Comparison:
    """Check parity, choose PyTorch's fastest variant, and measure both sides in turns."""

    def start(side: str) -> Side:
        return Side(__file__, [side, name, batch_size, threads], threads)

    with start("parity") as check:
        difference = check.facts["difference"]
    if not difference < TOLERANCE:
        raise SideError(f"the outputs of the two networks differ by {difference:.2g} of the largest")
    return Comparison(name, batch_size, difference, match(start, variants, rounds, steps))


def describe(results: Sequence[Comparison], threads: int, rounds: int) -> Iterator[str]:
    """Yield the figures and the machine, as lines of Markdown."""
    ours, pytorch = results[0].match.facts
    about = environment()
    peak = machine.unpinned_gemm_peak()
    yield "| network | batch | cnnlite ms | PyTorch ms | its variant | ratio | in rounds | MB | PyTorch MB | parity |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for result in results:
        yield result.row()
    yield ""
    yield f"- Processor: {machine.cpu_name()}, {engine.available_cores()} cores, {machine.vectors() or 'no AVX2'};"
    yield f"  {platform.system()} {platform.machine()}; threads on each side: {threads}."
    yield f"- Speed of the machine: {'?' if peak is None else f'{peak:,.0f}'} GFLOP/s in float32 matrix products,"
    yield f"  {machine.memory_bandwidth():,.0f} GB/s in copies of memory."
    yield f"- cnnlite {about['cnnlite']} (commit {(about['commit'] or 'unknown')[:12]}), Python {about['python']},"
    yield f"  NumPy {about['numpy']}, {about['blas']}, kernel {ours['kernel']}."
    yield f"- PyTorch {pytorch['version']}, {pytorch['kernel']}. Trials:"
    for result in results:
        yield f"  - {result.name}: {'; '.join(f'{variant} {found}' for variant, found in result.match.trials.items())}"
    steps = ", ".join(str(len(result.match.ours[0])) for result in results)
    yield f"- {rounds} rounds of {steps} steps for these networks."


@click.command()
@click.option(
    "--configs", default=",".join(REFERENCE), callback=names, show_default=True, help="Configs, by name or file."
)
@click.option("--variants", default=",".join(VARIANTS), callback=names, show_default=True, help="Variants of PyTorch.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option(
    "--steps", type=click.IntRange(1), help="Number of steps in a round.  [default: about two seconds of them]"
)
@click.option("--threads", type=click.IntRange(1), default=engine.available_cores(), show_default=True)
@click.option("--batch-size", type=click.IntRange(1), help="Batch size for all networks.  [default: each its own]")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).parent.parent / "docs/benchmarks.md")
def main(
    configs: list[str],
    variants: list[str],
    rounds: int,
    steps: int | None,
    threads: int,
    batch_size: int | None,
    out: Path,
) -> None:
    """Compare training steps with PyTorch's and write the table to a Markdown file."""
    if unknown := set(variants) - set(VARIANTS):
        raise click.UsageError(f"--variants are {', '.join(VARIANTS)}; not {', '.join(sorted(unknown))}")
    warn_if_busy()
    engine.set_threads(threads)
    results = []
    for name in configs:
        size = batch_size or REFERENCE.get(name) or config_of(name).train.batch_size
        try:
            result = compare(name, size, threads=threads, rounds=rounds, steps=steps, variants=variants)
        except SideError as error:
            raise click.ClickException(f"{name}: {error}") from None
        click.echo(result.row())
        results.append(result)
    write(out, "\n".join(describe(results, threads, rounds)), MARKS)
    click.echo(f"written to {out}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(lambda: _side(*json.loads(sys.argv[2])))
    else:
        main()
