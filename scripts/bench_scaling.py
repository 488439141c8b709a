#!/usr/bin/env python3
"""Measure training on 1 and 2 ranks of this machine, and predict the speed of more ranks on networks.

In rounds that take turns: one rank of 1 and of 2 threads, and two ranks of 1 thread, with the same batch (strong
scaling) and with twice the batch (weak scaling); also what they send, and the time of sums of several sizes.
docs/distributed.md explains the model; the figures are written between its marks. Needs two idle cores, mpi4py and
mpiexec: pip install "cnnlite[mpi]".
"""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from parts.markdown import write
from parts.scaling_model import NETWORKS, Costs, Network

from cnnlite.runtime import machine

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "docs/distributed.md"
MARKS = ("<!-- scaling -->", "<!-- end of scaling -->")
ALONE, THREADS, PAIR = "1 rank of 1 thread", "1 rank of 2 threads", "2 ranks of 1 thread"
LARGE_BYTES = 128 * 1024
"""Size in bytes above which arrays are reduced piece by piece."""

Found = dict[str, Any]
"""Measurement of a worker."""
Rounds = dict[str, list[Found]]
"""Measurements by layout, one per round."""


def launch(
    ranks: int,
    *arguments: object,
    hosts: Sequence[Sequence[str]] | None = None,
    variables: dict[str, str] | None = None,
) -> Found:
    """Run a worker on each rank; ``hosts`` are commands that each run another command on some host."""
    mine = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    mpiexec = shutil.which("mpiexec", path=mine)
    if mpiexec is None:
        raise click.ClickException('there is no mpiexec: pip install "cnnlite[mpi]"')
    worker = [sys.executable, str(HERE / "parts" / "scaling_worker.py"), *map(str, arguments)]
    if hosts is not None:
        command = [mpiexec]
        for index in range(ranks):
            command += [*([":"] * (index > 0)), "-n", "1", *hosts[index], *worker]
    else:
        command = [mpiexec, "-n", str(ranks), *worker] if ranks > 1 else worker
    python = f"{HERE.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = {**machine.without_pins(), "PYTHONPATH": python, **(variables or {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)} failed:\n{done.stderr}")
    found: Found = json.loads(done.stdout)
    return found


def measure(name: str, batch: int, rounds: int, seconds: float) -> Rounds:
    """Run all layouts in turns."""
    layouts = {
        ALONE: (1, batch, 1),
        f"{ALONE}, half batch": (1, batch // 2, 1),
        THREADS: (1, batch, 2),
        f"{THREADS}, quarter batch": (1, batch // 4, 2),
        PAIR: (2, batch, 1),
        f"{PAIR}, double batch": (2, 2 * batch, 1),
    }
    found: Rounds = {layout: [] for layout in layouts}
    for _ in range(rounds):
        for layout, (ranks, images, threads) in layouts.items():
            found[layout].append(launch(ranks, name, images, threads, seconds))
    return found


def middle(runs: list[Found]) -> Found:
    """Return the run with the median step time."""
    return sorted(runs, key=lambda run: float(run["seconds"]))[len(runs) // 2]


def costs_of(found: Rounds, alone: str) -> Costs:
    """Fit the model: compute from ranks ``alone``, of 1 or of 2 threads; traffic from the two ranks."""
    more, less = middle(found[alone]), middle(found[f"{alone}, {'half' if alone == ALONE else 'quarter'} batch"])
    per_image = (more["seconds"] - less["seconds"]) / (more["batch"] - less["batch"])
    pair = middle(found[PAIR])
    large = [size for size in pair["gradients"] if size > LARGE_BYTES]
    return Costs(
        fixed=max(0.0, more["seconds"] - per_image * more["batch"]),
        per_image=per_image,
        gradient_bytes=sum(large),
        gradient_arrays=len(large),
        adding=more["adding"],
        small_exchanges=pair["exchanges"] - 2 * len(large),
        small_bytes=pair["bytes_sent"] - sum(large),  # each of 2 ranks sends the gradients once
    )


def network_of(pair: Found) -> Network:
    """Return latency and bandwidth between two ranks, from a tiny sum and from one of 16 MB."""
    latency, size = pair["sums"]["16"], 2**24
    return latency, size / max(1e-9, pair["sums"][str(size)] - 2 * latency - size * pair["adding"])


def ratio(found: Rounds, fast: str, slow: str) -> str:
    """Format the speed-up of one layout over another per image, with its range over the rounds."""
    pairs = zip(found[fast], found[slow], strict=True)
    ratios = [one["batch"] / one["seconds"] / (other["batch"] / other["seconds"]) for one, other in pairs]
    return f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds)"


def describe(name: str, batch: int, found: Rounds, counts: Sequence[int]) -> Iterator[str]:
    """Yield the figures of a network as text and tables."""
    pair, hosts, here = middle(found[PAIR]), costs_of(found, THREADS), network_of(middle(found[PAIR]))
    alone = costs_of(found, ALONE)
    yield f"### `{name}`, batch {batch}"
    yield ""
    yield "| layout | batch | ms a step |"
    yield "|---|---|---|"
    for layout, runs in found.items():
        run = middle(runs)
        yield f"| {layout.split(',')[0]} | {run['batch']} | {run['seconds'] * 1e3:,.1f} |"
    yield ""
    wide = f"{PAIR}, double batch"
    yield f"- Images a second of {PAIR}, divided by those of {THREADS}: {ratio(found, PAIR, THREADS)};"
    yield f"  by those of {ALONE}: {ratio(found, PAIR, ALONE)} (strong scaling), with twice the batch"
    yield f"  {ratio(found, wide, ALONE)} (weak scaling)."
    sent, waiting = pair["bytes_sent"] / 1e6, pair["waiting"]
    yield f"- A rank of two sends {sent:,.2f} MB a step in {pair['exchanges']:,.0f} exchanges. In them it spends"
    yield f"  {waiting * 1e3:,.1f} ms, {waiting / pair['seconds']:.1%} of the step, and waits for the other rank."
    parts = [alone.compute(2, batch), alone.gradients(2, here), alone.small(2, here)]
    computing, gradients, small = (f"{part * 1e3:,.1f}" for part in parts)
    yield f"- The model, fitted to one thread, expects {sum(parts) * 1e3:,.1f} ms of two ranks"
    error = sum(parts) / pair["seconds"] - 1
    yield f"  ({error:+.1%}): {computing} computing, {gradients} gradients, {small} other sums."
    yield f"- A host of two threads: a = {hosts.fixed * 1e3:,.1f} ms, c = {hosts.per_image * 1e3:,.3f} ms,"
    yield f"  G = {hosts.gradient_bytes / 1e6:,.2f} MB in {hosts.gradient_arrays}, s = {hosts.adding * 1e9:,.3f} ns,"
    yield f"  k = {hosts.small_exchanges:.0f}, S = {hosts.small_bytes / 1e3:,.1f} kB."
    yield ""
    yield f"| network | efficiency | {' | '.join(f'{count} hosts' for count in counts)} |"
    yield f"|---|---|{'---|' * len(counts)}"
    for network, speed in NETWORKS.items():
        rows = {
            f"weak, {batch} images each": [hosts.weak(count, batch, speed) for count in counts],
            "weak, were gradients hidden": [hosts.weak(count, batch, speed, hidden=True) for count in counts],
            f"strong, {batch} images in all": [hosts.strong(count, batch, speed) for count in counts],
        }
        for kind, values in rows.items():
            yield f"| {network} | {kind} | {' | '.join(f'{value:.1%}' for value in values)} |"


def describe_sums(pair: Found) -> Iterator[str]:
    """Yield a description of the machine, and the times of sums between two of its ranks."""
    latency, bandwidth = network_of(pair)
    yield f"{machine.cpu_name()}, {platform.system()}. Between two ranks here: L = {latency * 1e6:,.0f} us,"
    yield f"B = {bandwidth / 1e9:,.2f} GB/s; sums of"
    yield ", ".join(f"{int(size):,} bytes {seconds * 1e6:,.0f} us" for size, seconds in pair["sums"].items()) + "."


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("configs", nargs=-1)
@click.option("--batch-size", type=click.IntRange(4), default=128, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--seconds", type=float, default=4.0, show_default=True, help="Seconds of steps per layout and round.")
@click.option("--hosts", type=click.IntRange(2), multiple=True, default=(4, 16, 64, 256), show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="JSON file for all measurements.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT)
def main(
    configs: tuple[str, ...],
    batch_size: int,
    rounds: int,
    seconds: float,
    hosts: tuple[int, ...],
    json_file: Path | None,
    out: Path,
) -> None:
    """Measure CONFIGS (vgg11, resnet18 and vgg19 if left out), print, and write to --out."""
    blocks, everything, found = [], {}, {}
    for name in configs or ("vgg11", "resnet18", "vgg19"):
        found = measure(name, batch_size, rounds, seconds)
        blocks.append("\n".join(describe(name, batch_size, found, hosts)))
        click.echo(blocks[-1] + "\n")
        everything[name] = {"measured": found, "host": asdict(costs_of(found, THREADS))}
    text = "\n\n".join(["\n".join(describe_sums(middle(found[PAIR]))), *blocks])
    write(out, text, MARKS)
    if json_file:
        json_file.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
