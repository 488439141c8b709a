"""Two sides of a comparison with PyTorch, which take turns on this machine.

Every side runs in a process of its own, which stays alive and makes steps on request, so that building, warming up and
compiling are paid for once. PyTorch runs in each of its variants; the fastest in a short trial meets cnnlite in the
rounds that count.
"""

import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from cnnlite.runtime import machine
from cnnlite.tools.bench import WARM_UP_STEPS

_ROUND_SECONDS = 2.0
_PATIENCE = 30
"""Seconds that a side may take to end."""


class SideError(Exception):
    """A side failed."""


def serve(make: Callable[[], tuple[dict[str, Any], Callable[[], object]]]) -> None:
    """Run one side: make facts and a step, send the facts, then make as many steps as each line of stdin says."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # keep other output away from the answers

        def answer(**facts: Any) -> None:
            answers.write(json.dumps(facts) + "\n")
            answers.flush()

        try:
            ready, make_step = make()
            for _ in range(WARM_UP_STEPS):
                make_step()
        except Exception as error:  # any error: the other sides can go on without this one
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
            # a step of several processes knows what all of them take
            memory = getattr(make_step, "peak_memory_bytes", machine.peak_memory_bytes)
            answer(seconds=seconds, peak_memory_bytes=memory())


class Side:
    """A child process that makes steps: ``script --serve ARGUMENTS``, which has to call `serve`."""

    def __init__(self, script: str, arguments: Sequence[object], threads: int):
        count = str(threads)
        variables = {
            "OMP_NUM_THREADS": count,  # cnnlite sets these for itself; PyTorch's may be different
            "MKL_NUM_THREADS": count,
            "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no processes that outlive the compiling
        }
        self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and file
            [sys.executable, script, "--serve", json.dumps(arguments)],
            env=machine.without_pins() | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.peak_memory_bytes = 0
        self.facts = self._answer()

    def seconds(self, steps: int) -> list[float]:
        """Make ``steps`` steps, and return their times in seconds."""
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
        """Close the stdin of the process, so that it ends, and wait for it."""
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
class Match:
    """Results of two sides that took turns."""

    variant: str = ""
    """PyTorch's fastest variant, which took part."""
    ours: list[list[float]] = field(default_factory=list)
    """Seconds of the steps, by round."""
    theirs: list[list[float]] = field(default_factory=list)
    memory: tuple[int, int] = (0, 0)
    trials: dict[str, str] = field(default_factory=dict)
    """Result of each variant of PyTorch in the trial: milliseconds, or why it did not run."""
    facts: tuple[dict[str, Any], dict[str, Any]] = field(default_factory=lambda: ({}, {}))
    """Facts reported by each side."""

    def cells(self) -> str:
        """Return median milliseconds of both, the variant, their ratio, and its range over the rounds."""
        a, b = (statistics.median(itertools.chain(*rounds)) * 1e3 for rounds in (self.ours, self.theirs))
        ratios = [
            statistics.median(theirs) / statistics.median(ours)
            for ours, theirs in zip(self.ours, self.theirs, strict=True)
        ]
        return f"{a:.2f} | {b:.2f} | {self.variant} | **{b / a:.2f}** | {min(ratios):.2f} to {max(ratios):.2f}"


def match(start: Callable[[str], Side], variants: Sequence[str], rounds: int, steps: int | None) -> Match:
    """Choose the fastest of PyTorch's ``variants`` and run it in turns with "cnnlite"; SideError if none runs."""
    result = Match()
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(start("cnnlite"))
        steps = steps or max(5, min(500, round(_ROUND_SECONDS / statistics.median(ours.seconds(3)))))
        best, best_seconds = None, float("inf")
        for variant in variants:
            try:
                side = stack.enter_context(start(variant))
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
        result.facts = ours.facts, best.facts
    return result


def names(_: click.Context, __: click.Parameter, value: str) -> list[str]:
    """Return the names in the value of an option that takes several."""
    return [name.strip() for name in value.split(",") if name.strip()]


def warn_if_busy() -> None:
    """Warn if other processes are busy."""
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > 0.5:
        click.echo(
            f"warning: other processes are at work (load {load:.1f}): the figures will not be worth much", err=True
        )
