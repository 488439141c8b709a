#!/usr/bin/env python3
"""Measure training on 1 and 2 ranks of this machine, and predict from that what more ranks would do on networks.

    scripts/bench_scaling.py [CONFIG ...] [--rounds 3] [--steps 8] [--ranks 4 16 64 256] [--json FILE]

Measured, in rounds that take turns: one rank of 1 and of 2 threads, and two ranks of 1 thread, with the same batch
(strong scaling) and with twice the batch (weak scaling); what they send; and the latency and bandwidth between them.
docs/distributed.md explains the model. Needs mpi4py and mpiexec: pip install "cnnlite[mpi]".
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

NETWORKS = {"10 Gbit/s": (25e-6, 0.9 * 10e9 / 8), "100 Gbit/s": (3e-6, 0.9 * 100e9 / 8)}
"""Assumed: seconds a small message takes (TCP over Ethernet; RDMA), and bytes a second (nine tenths of the line)."""


@dataclass(frozen=True)
class Costs:
    """What a training step of a network costs on one rank, and what it exchanges with others."""

    fixed: float
    """Seconds of a step, whatever the batch: update, and loading the weights into caches."""
    per_image: float
    """Seconds for each image of this rank."""
    gradient_bytes: float
    """Of the flat arrays that are added up piece by piece."""
    small_exchanges: float
    """Sums sent whole to all: statistics of batch_norm, its backward sums, figures, the question for signals."""
    small_bytes: float
    """In all of these together, for each rank they go to."""

    def step(self, ranks: int, batch: float, latency: float, bandwidth: float) -> float:
        """Seconds of a step with a batch of ``batch`` images altogether."""
        others = ranks - 1
        compute = self.fixed + self.per_image * max(1.0, batch / ranks)
        if not others:
            return compute
        gradients = 2 * others * latency + 2 * others / ranks * self.gradient_bytes / bandwidth
        small = self.small_exchanges * math.ceil(math.log2(ranks)) * latency + others * self.small_bytes / bandwidth
        return compute + gradients + small

    def weak(self, ranks: int, batch: int, network: tuple[float, float]) -> float:
        """Efficiency with ``batch`` images for each rank: time alone by time together."""
        return self.step(1, batch, *network) / self.step(ranks, batch * ranks, *network)

    def strong(self, ranks: int, batch: int, network: tuple[float, float]) -> float:
        """Efficiency with ``batch`` images for all ranks together: speed-up by number of ranks."""
        return self.step(1, batch, *network) / (ranks * self.step(ranks, batch, *network))


def worker(name: str, batch: int, threads: int, steps: int) -> None:
    """Make training steps as one of the ranks; rank 0 prints what they took."""
    import numpy as np

    from cnnlite import distributed, engine
    from cnnlite.bench import Step, prepare
    from cnnlite.config import load_config

    with distributed.joined() as ranks:
        engine.set_threads(threads)
        step = prepare(load_config(name), batch)
        traffic = ranks.messages.traffic if ranks.size > 1 else None  # type: ignore[attr-defined]

        def once(step: Step) -> None:
            which = ranks.split(batch)
            logits = step.network.forward(step.x[which], training=True, step=step.count)
            ranks.figures(step.loss.forward(logits, step.labels[which]), 0.0)
            step.network.backward(ranks.part(step.loss.backward()))
            ranks.add_up(group.grads for group in step.optimizer.bound)
            step.optimizer.gradient_norm()
            step.optimizer.step(step.count, 1e-3)
            step.count += 1

        times = []
        with np.errstate(all="ignore"):
            for index in range(steps + 2):
                if index == 2 and traffic:  # after two that warm up
                    traffic.exchanges = traffic.bytes_sent = 0
                    traffic.seconds = 0.0
                began = time.perf_counter()
                once(step)
                times.append(time.perf_counter() - began)
        found: dict[str, Any] = {"seconds": statistics.median(times[2:]), "batch": batch}
        if traffic:
            large = [group.grads.nbytes for group in step.optimizer.bound if group.grads.nbytes > 32 * 1024]
            found |= {"exchanges": traffic.exchanges / steps, "bytes_sent": traffic.bytes_sent / steps}
            found |= {"waiting": traffic.seconds / steps / found["seconds"]}
            found |= {"large": len(large), "gradient_bytes": sum(large)}
            found |= {"latency": _seconds(ranks, 2, 200), "exchange_16_MB": _seconds(ranks, 4 * 2**20, 10)}
        if ranks.first:
            print(json.dumps(found), flush=True)


def _seconds(ranks: Any, count: int, times: int) -> float:
    """Median seconds of adding up so many numbers, a few float64 or many float32."""
    import numpy as np

    array = np.zeros(count, np.float64 if count < 100 else np.float32)
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        ranks.add_up([array])
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def launch(name: str, ranks: int, batch: int, threads: int, steps: int) -> dict[str, Any]:
    """Run workers; returns what they found."""
    root = Path(__file__).resolve().parent.parent
    sys.path.insert(0, str(root))
    from cnnlite.machine import without_pins

    mine = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    mpiexec = shutil.which("mpiexec", path=mine)
    if mpiexec is None:
        sys.exit('bench_scaling: there is no mpiexec: pip install "cnnlite[mpi]"')
    command = [sys.executable, __file__, "--worker", name, str(batch), str(threads), str(steps)]
    command = [mpiexec, "-n", str(ranks), *command] if ranks > 1 else command
    environment = {**without_pins(), "PYTHONPATH": f"{root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        sys.exit(f"bench_scaling: {' '.join(command)} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(name: str, batch: int, rounds: int, steps: int) -> dict[str, dict[str, Any]]:
    """Run all layouts in turns; returns for each the round whose step time is the median."""
    layouts = {
        "1 rank of 1 thread": (1, batch, 1),
        "1 rank of 1 thread, half batch": (1, batch // 2, 1),
        "1 rank of 2 threads": (1, batch, 2),
        "1 rank of 2 threads, quarter batch": (1, batch // 4, 2),
        "2 ranks of 1 thread": (2, batch, 1),
        "2 ranks of 1 thread, double batch": (2, 2 * batch, 1),
    }
    found: dict[str, list[dict[str, Any]]] = {layout: [] for layout in layouts}
    for _ in range(rounds):
        for layout, (ranks, images, threads) in layouts.items():
            found[layout].append(launch(name, ranks, images, threads, steps))
    return {layout: sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2] for layout, runs in found.items()}


def costs_of(found: dict[str, dict[str, Any]], threads: int) -> Costs:
    """Fit the model: compute from ranks alone, of 1 or 2 ``threads``; traffic from the two ranks."""
    kind = "1 rank of 1 thread" if threads == 1 else "1 rank of 2 threads"
    more, less = found[kind], found[f"{kind}, {'half' if threads == 1 else 'quarter'} batch"]
    per_image = (more["seconds"] - less["seconds"]) / (more["batch"] - less["batch"])
    pair = found["2 ranks of 1 thread"]
    return Costs(
        fixed=max(0.0, more["seconds"] - per_image * more["batch"]),
        per_image=per_image,
        gradient_bytes=pair["gradient_bytes"],
        small_exchanges=pair["exchanges"] - 2 * pair["large"],
        small_bytes=pair["bytes_sent"] - pair["gradient_bytes"],  # with 2 ranks each sends the gradients once
    )


def describe(name: str, batch: int, found: dict[str, dict[str, Any]], counts: list[int]) -> str:
    """Put the figures of a network into words and tables."""
    pair, double = found["2 ranks of 1 thread"], found["2 ranks of 1 thread, double batch"]
    one, two = found["1 rank of 1 thread"]["seconds"], found["1 rank of 2 threads"]["seconds"]
    here = pair["latency"], 16 * 2**20 / pair["exchange_16_MB"]
    expected = costs_of(found, 1).step(2, batch, *here)
    hosts = costs_of(found, 2)
    lines = [
        f"## {name}, batch {batch}",
        "",
        "| layout | batch | ms a step |",
        "|---|---|---|",
        *(
            f"| {layout.split(',')[0]} | {run['batch']} | {run['seconds'] * 1e3:,.1f} |"
            for layout, run in found.items()
        ),
        "",
        f"- 2 ranks of 1 thread are {two / pair['seconds']:.2f} times as fast as 1 rank of 2 threads",
        f"- strong scaling, 2 ranks: {one / (2 * pair['seconds']):.1%}; weak scaling: {one / double['seconds']:.1%}",
        f"- a rank sends {pair['bytes_sent'] / 1e6:,.2f} MB a step in {pair['exchanges']:,.0f} exchanges, "
        f"{pair['gradient_bytes'] / 1e6:,.2f} MB of it gradients; in exchanges it spends {pair['waiting']:.1%} "
        "of the step, waiting for the other rank included",
        f"- between the ranks: {here[0] * 1e6:,.0f} us for a small exchange, {here[1] / 1e9:,.2f} GB/s for large sums",
        f"- the model expects {expected * 1e3:,.1f} ms of 2 ranks here: {expected / pair['seconds'] - 1:+.1%}",
        "",
        f"Predicted efficiency of ranks that are hosts with 2 cores like these, {batch} images for each rank (weak) or "
        f"for all (strong):",
        "",
        f"| network | scaling | {' | '.join(f'{count} ranks' for count in counts)} |",
        f"|---|---|{'---|' * len(counts)}",
    ]
    for network, speed in NETWORKS.items():
        for kind in ("weak", "strong"):
            cells = " | ".join(f"{getattr(hosts, kind)(count, batch, speed):.0%}" for count in counts)
            lines.append(f"| {network} | {kind} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("configs", nargs="*", default=["vgg11", "resnet18", "vgg19"], metavar="CONFIG")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 16, 64, 256])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        name, *numbers = arguments.worker
        worker(name, *map(int, numbers))
        return
    everything = {}
    for name in arguments.configs:
        found = measure(name, arguments.batch_size, arguments.rounds, arguments.steps)
        print(describe(name, arguments.batch_size, found, arguments.ranks), end="\n\n", flush=True)
        everything[name] = {"measured": found, "model": asdict(costs_of(found, 2))}
    if arguments.json:
        arguments.json.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
