"""Training steps on one rank, started by `bench_scaling` and `bench_network` on one or several ranks.

    scaling_worker.py CONFIG BATCH THREADS SECONDS

Rank 0 prints the times and the communication of the steps, as one line of JSON.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from cnnlite.config.load import load_config
from cnnlite.runtime import distributed, engine
from cnnlite.runtime.distributed import Communicator
from cnnlite.runtime.distributed.messages import Traffic
from cnnlite.tools.bench import Step, prepare
from cnnlite.utils.signals import StopFlag

WARM_UP_STEPS = 2
LEAST_STEPS, MOST_STEPS = 3, 50
SIZES = (16, 4 * 1024, 64 * 1024, 2**20, 2**24)
"""Sizes in bytes of the sums whose times tell latency and bandwidth."""
_PROBES, _PROBE_BYTES = (5, 100), 2**26


def train_step(step: Step, stop: StopFlag) -> None:
    """Make one step as in the training loop."""
    stop.check()
    step()


def seconds_of(action: Callable[[], object], times: int) -> list[float]:
    """Return the seconds of each of ``times`` calls."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return taken


def measure(ranks: Communicator, name: str, batch: int, threads: int, seconds: float) -> dict[str, Any]:
    """Return times and traffic of steps that take about ``seconds`` in all."""
    engine.set_threads(threads)
    step, stop = prepare(load_config(name), batch), ranks.reduce_stop(StopFlag())

    def once() -> None:
        train_step(step, stop)

    with np.errstate(all="ignore"):
        last = seconds_of(once, WARM_UP_STEPS)[-1]
        steps = ranks.broadcast(lambda: max(LEAST_STEPS, min(MOST_STEPS, round(seconds / last))))
        before = traffic(ranks)
        times = seconds_of(once, steps)
        after = traffic(ranks)
    grads = [group.grads.nbytes for group in step.optimizer.bound]
    return {
        "seconds": statistics.median(times),
        "batch": batch,
        "gradients": grads,
        "exchanges": (after.exchanges - before.exchanges) / steps,
        "bytes_sent": (after.bytes_sent - before.bytes_sent) / steps,
        "waiting": (after.seconds - before.seconds) / steps,
        "sums": sums(ranks) if ranks.size > 1 else None,
        "adding": adding(),
    }


def traffic(ranks: Communicator) -> Traffic:
    """Return the traffic of this rank up to now."""
    messages = getattr(ranks, "messages", None)
    return Traffic() if messages is None else Traffic(**vars(messages.traffic))


def sums(ranks: Communicator) -> dict[str, float]:
    """Return the median seconds of sums over all ranks, by their size in bytes."""
    found = {}
    for size in SIZES:
        array = np.zeros(size // 4, np.float32)
        times = max(_PROBES[0], min(_PROBES[1], _PROBE_BYTES // size))
        found[str(size)] = statistics.median(seconds_of(lambda array=array: ranks.allreduce([array]), times))  # type: ignore[misc]
    return found


def adding() -> float:
    """Return the seconds per byte of adding large pieces of two ranks."""
    pieces = np.zeros((2, 2**21), np.float32)
    total = np.empty(pieces.shape[1], np.float32)

    def block(start: int, stop: int) -> None:
        np.add.reduce(pieces[:, start:stop], axis=0, out=total[start:stop])

    taken = seconds_of(lambda: engine.for_blocks(block, len(total), 3 * total.itemsize), 9)
    return statistics.median(taken) / pieces.nbytes


if __name__ == "__main__":
    name, batch, threads, seconds = sys.argv[1:]
    with distributed.joined() as ranks:
        found = measure(ranks, name, int(batch), int(threads), float(seconds))
        if ranks.first:
            print(json.dumps(found), flush=True)
