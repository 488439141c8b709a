#!/usr/bin/env python3
"""Compare whole training steps with PyTorch's: the same networks, from the same configs, in turns on this machine.

Every side runs in a process of its own, which stays alive and makes steps when it is told to, so that building,
warming up and compiling are paid for once. PyTorch runs in each of its variants; the fastest in a short trial meets
cnnlite in the rounds that count.
"""

import contextlib
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from cnnlite import engine, machine
from cnnlite.bench import WARM_UP_STEPS, prepare
from cnnlite.config import Config, load_config
from cnnlite.runs import environment

REFERENCE = {"seed-advanced": 16, "small": 64, "resnet20": 128, "vgg11": 128, "resnet18": 128, "speedrun": 500}
"""The networks compared, and their batch sizes."""
VARIANTS = ("default", "channels_last", "compiled", "compiled channels_last")
UPDATE = "train.optimizer={sgd: {lr: 1e-4, momentum: 0.9}}"
TOLERANCE = 2e-3
"""Of outputs, relative to the largest: float32 in another order, through up to 20 layers."""
_PARITY_BATCH = 16
_ROUND_SECONDS = 2.0
_PATIENCE = 30
"""Seconds for a side to end when it is told to."""
MARKS = ("<!-- figures -->", "<!-- end of figures -->")


def config_of(name: str) -> Config:
    """The config, with SGD with momentum whatever it says."""
    return load_config(name, [UPDATE])


def serve(side: str, name: str, batch_size: int, threads: int) -> None:
    """Be one side: say when ready, then for each line on stdin make so many steps and answer with their times."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # whatever else is printed must not get among the answers

        def answer(**facts: Any) -> None:
            answers.write(json.dumps(facts) + "\n")
            answers.flush()

        try:
            ready, make_step = _side(side, name, batch_size, threads)
            for _ in range(WARM_UP_STEPS):
                make_step()
        except Exception as error:  # whatever it is, the other sides can do without this one
            answer(error=f"{type(error).__name__}: {error}".splitlines()[0])
            return
        machine.reset_peak_memory()
        answer(**ready)
        for line in sys.stdin:
            seconds = []
            make_step()  # fills the caches after the other side's turn
            for _ in range(int(line)):
                start = time.perf_counter()
                make_step()
                seconds.append(time.perf_counter() - start)
            answer(seconds=seconds, peak_memory_bytes=machine.peak_memory_bytes())


def _side(side: str, name: str, batch_size: int, threads: int) -> tuple[dict[str, Any], Callable[[], float]]:
    """Facts about a side, and what makes its step."""
    config = config_of(name)
    engine.set_threads(threads)
    if side == "cnnlite":
        return {"kernel": machine.blas_kernel()}, prepare(config, batch_size)
    import torch_twin

    torch = torch_twin.torch
    torch.set_num_threads(threads)
    if side == "parity":
        return {"difference": torch_twin.parity(prepare(config, _PARITY_BATCH))}, lambda: 0.0
    torch.manual_seed(0)
    facts = {"version": torch.__version__, "kernel": torch.backends.cpu.get_cpu_capability()}
    return facts, torch_twin.training_step(prepare(config, batch_size), side)


class SideError(Exception):
    """A side could not do its part."""


class Side:
    """A child process that makes steps of one network in one way."""

    def __init__(self, side: str, name: str, batch_size: int, threads: int):
        count = str(threads)
        variables = {
            "OMP_NUM_THREADS": count,  # cnnlite sets these for itself; PyTorch's may be different
            "MKL_NUM_THREADS": count,
            "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no processes that outlive the compiling
        }
        self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and file
            [sys.executable, __file__, "--serve", json.dumps([side, name, batch_size, threads])],
            env=machine.without_pins() | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.peak_memory_bytes = 0
        self.facts = self._answer()

    def seconds(self, steps: int) -> list[float]:
        """The times of so many steps."""
        assert self.process.stdin  # noqa: S101 - for the type checker
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer = self._answer()
        self.peak_memory_bytes = answer["peak_memory_bytes"]
        return list(answer["seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout  # noqa: S101 - for the type checker
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"ended with exit code {self.process.wait()}"}
        if "error" in answer:
            self.close()
            raise SideError(answer["error"])
        return dict(answer)

    def close(self) -> None:
        """Close the stdin of the process, at which it ends, and wait for that."""
        try:
            self.process.communicate(timeout=_PATIENCE)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class Comparison:
    """What came of one network."""

    name: str
    batch_size: int
    difference: float
    variant: str = ""
    ours: list[list[float]] = field(default_factory=list)
    """Seconds of the steps of each round."""
    theirs: list[list[float]] = field(default_factory=list)
    memory: tuple[int, int] = (0, 0)
    trials: dict[str, str] = field(default_factory=dict)
    """What each variant of PyTorch did in the trial: milliseconds, or why it did not run."""
    facts: dict[str, Any] = field(default_factory=dict)

    def row(self) -> str:
        """A row of the table."""
        a, b = (statistics.median(itertools.chain(*rounds)) * 1e3 for rounds in (self.ours, self.theirs))
        ratios = [
            statistics.median(theirs) / statistics.median(ours)
            for ours, theirs in zip(self.ours, self.theirs, strict=True)
        ]
        ours, theirs = (f"{size / 1e6:,.0f}" for size in self.memory)
        return (
            f"| {self.name} | {self.batch_size} | {a:.2f} | {b:.2f} | {self.variant} | **{b / a:.2f}** | "
            f"{min(ratios):.2f} to {max(ratios):.2f} | {ours} | {theirs} | {self.difference:.0e} |"
        )


def compare(
    name: str, batch_size: int, *, threads: int, rounds: int, steps: int | None, variants: Sequence[str]
) -> Comparison:
    """Check parity, choose PyTorch's fastest variant, and let the two sides take turns."""
    with Side("parity", name, batch_size, threads) as check:
        result = Comparison(name, batch_size, check.facts["difference"])
    if not result.difference < TOLERANCE:
        raise SideError(f"the outputs of the two networks differ by {result.difference:.2g} of the largest")
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(Side("cnnlite", name, batch_size, threads))
        steps = steps or max(5, min(500, round(_ROUND_SECONDS / statistics.median(ours.seconds(3)))))
        best, best_seconds = None, float("inf")
        for variant in variants:
            try:
                side = stack.enter_context(Side(variant, name, batch_size, threads))
                seconds = statistics.median(side.seconds(steps))
            except SideError as error:
                result.trials[variant] = f"skipped ({error})"
                continue
            result.trials[variant] = f"{seconds * 1e3:.2f} ms"
            if seconds >= best_seconds:
                side.close()
                continue
            if best:
                best.close()
            best, best_seconds, result.variant = side, seconds, variant
        if best is None:
            raise SideError(f"PyTorch does not run: {result.trials}")
        for _ in range(rounds):
            result.ours.append(ours.seconds(steps))
            result.theirs.append(best.seconds(steps))
        result.memory = ours.peak_memory_bytes, best.peak_memory_bytes
        result.facts = {"BLAS kernel": ours.facts["kernel"], "PyTorch": best.facts}
    return result


def describe(results: Sequence[Comparison], threads: int, rounds: int) -> Iterator[str]:
    """The figures and the machine, as lines of Markdown."""
    ours, pytorch = results[0].facts["BLAS kernel"], results[0].facts["PyTorch"]
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
    yield f"  NumPy {about['numpy']}, {about['blas']}, kernel {ours}."
    yield f"- PyTorch {pytorch['version']}, {pytorch['kernel']}. Trials:"
    for result in results:
        yield f"  - {result.name}: {'; '.join(f'{variant} {found}' for variant, found in result.trials.items())}"
    yield f"- {rounds} rounds of {', '.join(str(len(result.ours[0])) for result in results)} steps for these networks."


def write(out: Path, figures: str, marks: tuple[str, str] = MARKS) -> None:
    """Put the figures between the marks in the file, or into a new file."""
    first, last = marks
    block = f"{first}\n{figures}\n{last}"
    if not out.exists():
        out.write_text(f"{block}\n", encoding="utf-8")
        return
    before, begin, rest = out.read_text(encoding="utf-8").partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end):
        raise click.ClickException(f"{out}: has no lines {first} and {last} to write between")
    out.write_text(f"{before}{block}{after}", encoding="utf-8")


def _names(_: click.Context, __: click.Parameter, value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]


@click.command()
@click.option("--configs", default=",".join(REFERENCE), callback=_names, show_default=True, help="Names or files.")
@click.option("--variants", default=",".join(VARIANTS), callback=_names, show_default=True, help="Of PyTorch.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--steps", type=click.IntRange(1), help="Steps in a round.  [default: about two seconds of them]")
@click.option("--threads", type=click.IntRange(1), default=engine.available_cores(), show_default=True)
@click.option("--batch-size", type=click.IntRange(1), help="For all networks.  [default: each its own]")
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
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > 0.5:
        click.echo(
            f"warning: other processes are at work (load {load:.1f}): the figures will not be worth much", err=True
        )
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
    write(out, "\n".join(describe(results, threads, rounds)))
    click.echo(f"written to {out}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*json.loads(sys.argv[2]))
    else:
        main()
