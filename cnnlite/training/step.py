"""Training steps: forward, loss, backward, update, by this process or by a team of workers."""

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from cnnlite.errors import CnnliteError
from cnnlite.nn.losses import Loss
from cnnlite.nn.network import Network
from cnnlite.optim.averaging import Averaging, NoAveraging
from cnnlite.optim.base import Optimizer, gradient_norm, scale_gradients
from cnnlite.runs.scores import hits
from cnnlite.runtime import distributed, engine, shards
from cnnlite.runtime.processes import way
from cnnlite.runtime.workers import Workers, supported
from cnnlite.utils.types import Array

WARM_UP, TIMED = 2, 4
"""Steps made before those that are timed, to choose how many workers there should be."""
ENOUGH_SECONDS = 1.0
"""A step as long as this is timed once."""
GAIN = 0.97
"""Workers have to take less than this part of the time that one takes."""
SPAWNED_AFTER = 3.0
"""Seconds that a training takes before workers are spawned, which takes some tenths of one: short ones do not pay."""
LEAST_SECONDS, COST = 60.0, 0.01
"""Time until the choice is made again: at least so long, and so that choosing takes no more than this part of it."""


class Source(Protocol):
    """Batches by the number of the training step."""

    def size(self, step: int) -> int:
        """Number of images in the batch."""

    def batch(self, step: int, part: slice) -> tuple[Array, Array]:
        """Return inputs and targets of a part of the batch."""


class Outcome(NamedTuple):
    """Result of a step."""

    loss: float
    hits: float
    images: int
    fault: str
    """``loss`` or ``gradient`` if that is not finite, and nothing was updated; else empty."""


@dataclass
class Step:
    """Makes training steps of a network, the same ones to the bit for any number of workers.

    Calling it with the number of a step makes that step.
    """

    network: Network
    optimizer: Optimizer
    loss: Loss
    source: Source
    factor: Callable[[int], float]
    """Factor of the learning rate at a step."""
    clip_norm: float | None = None
    averaging: Averaging = field(default_factory=NoAveraging)
    others: Sequence[Callable[[int], Any]] = ()
    """Further functions that workers call together, after this one; see `Workers`."""
    team: Workers | None = None
    _rows: dict[int, list[Array]] = field(default_factory=dict)

    def __call__(self, step: int) -> Outcome:
        """Make a step together with the workers, if there are any."""
        found: Outcome = self._make(step) if self.team is None else self.team.call(0, step)
        return found

    def _make(self, step: int) -> Outcome:
        network, ranks, groups = self.network, distributed.current(), self.optimizer.active(step)
        count = self.source.size(step)
        network.freeze(self.optimizer.finished(step))
        with ranks.batch(count, network.shards) as part:
            x, targets = self.source.batch(step, part)
            logits = network.forward(x, training=True, step=step)
            rows, dlogits = self._losses(logits, targets, count if ranks.counts else 0)
            loss, correct = (float(total) for total in ranks.gather(rows).sum(axis=0))
            loss /= count
            if not math.isfinite(loss):
                return Outcome(loss, correct, count, "loss")
            network.backward(dlogits)
            del x, logits, dlogits
            engine.team().meet()  # now all gradients are written
            for group in groups:
                group.add_up()
            ranks.allreduce(group.grads for group in groups)
            norm = gradient_norm(groups)
            if not math.isfinite(norm):
                return Outcome(loss, correct, count, "gradient")
            with shards.lockstep():
                if self.clip_norm is not None and norm > self.clip_norm:
                    scale_gradients(groups, self.clip_norm / norm)
                self.optimizer.step(step, self.factor(step))
                self.averaging.update(step)
        return Outcome(loss, correct, count, "")

    def _losses(self, logits: Array, targets: Array, count: int) -> tuple[Array, Array]:
        """Compute the sum of losses and the number of hits of each shard, and the gradient of the batch's mean loss.

        ``count`` is the number of samples in the batch; 0 for a sample that does not count.
        """
        rows, gradients = [], []
        for start, stop in shards.bounds(len(logits)):
            loss, gradient = self.loss.loss_and_gradient(logits[start:stop], targets[start:stop])
            if stop - start != count:
                gradient *= (stop - start) / count if count else 0.0
            rows.append((loss * (stop - start), hits(logits[start:stop], targets[start:stop])))
            gradients.append(gradient)
        return np.array(rows), gradients[0] if len(gradients) == 1 else np.concatenate(gradients)

    # Workers

    def hire(self, size: int) -> str:
        """Let ``size`` workers make the steps from now on, but no more than there are shards; 1 dismisses them.

        They are threads where a batch has only one shard, and where processes cannot be started.

        Returns:
            A message for the user if the system does not let so many be started; else an empty string.
        """
        self.dismiss()
        engine.set_threads(1)
        if size == 1:
            return ""
        alone = distributed.current().size == 1  # ranks are not known to a process that begins anew
        if self.most_workers() == 1 or not supported() or (way() == "spawn" and not alone):
            return engine.set_threads(size)
        size = min(size, self.most_workers())
        try:
            if size not in self._rows:  # kept: memory that is shared in small pieces is not given back
                bound = self.optimizer.bound
                self._rows[size] = [engine.shared((size, group.grads.size), group.grads.dtype) for group in bound]
            self.team = Workers(size, [self._make, *self.others], partial(self._begin, size))
        except (OSError, MemoryError, CnnliteError) as error:
            self.dismiss()
            fewer = engine.set_threads(size)
            return fewer or f"{size} processes could not be started ({error}): threads compute, which is slower"
        return ""

    def _begin(self, size: int, index: int) -> None:
        """Begin as worker ``index``, whose gradients are in a row of its own."""
        for group, rows in zip(self.optimizer.bound, self._rows[size], strict=True):
            group.rows = rows
            group.attach(rows[index])

    def dismiss(self) -> None:
        """Let this process make the steps alone from now on."""
        team, self.team = self.team, None
        if team is not None:
            team.close()
        for group in self.optimizer.bound:
            group.rows = None
            group.attach(group.grads)

    def most_workers(self) -> int:
        """Number of workers among which a batch can be divided."""
        return self.network.shards(self.source.size(0))

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Dismiss all workers at the end of the block, and let threads compute as before."""
        threads = engine.threads()
        try:
            yield
        finally:
            self.dismiss()
            engine.set_threads(threads)


class Choice:
    """Choice of the number of workers by timing steps of the training itself: first alone, then with all workers.

    Machines are busy at one time and idle at another, so it is made again now and then.

    Args:
        step: makes the steps.
        size: number of workers; None to choose.
        most: maximum number to choose.
    """

    def __init__(self, step: Step, size: int | None, most: int):
        self.step = step
        shards = step.most_workers()
        self._all = [size] if size else sorted({1, most if shards == 1 else min(most, shards)})
        self._sizes = self._all
        self._medians: list[float] = []
        self._times: list[float] = []
        self._made = 0
        self._chosen = 0
        self._began = time.perf_counter()
        self._first_spawned = self._began + SPAWNED_AFTER if way() == "spawn" else 0.0
        self._again = math.inf
        self.message = ""
        """Message for the user about the choice, or an obstacle; emptied by whoever passes it on."""

    @property
    def settled(self) -> bool:
        """True once the number of workers is chosen, and they are at work."""
        return not self._sizes

    def __call__(self, step: int) -> Outcome:
        """Make a step, and hire or dismiss workers before it where it is time to."""
        if self.settled and time.perf_counter() > self._again:
            self._sizes, self._began = self._all, time.perf_counter()
        if self.settled:
            return self.step(step)
        if self._made == 0:
            if self._medians and not self._chosen and time.perf_counter() < self._first_spawned:
                return self.step(step)
            self.message = self.step.hire(self._sizes[len(self._medians)])
        if len(self._sizes) == 1:
            self._sizes = []
            return self.step(step)
        began = time.perf_counter()
        outcome = self.step(step)
        self._take(time.perf_counter() - began)
        return outcome

    def _take(self, seconds: float) -> None:
        """Take in the time of a step; after enough of them, go on to the next number of workers, or choose."""
        self._made += 1
        short = seconds < ENOUGH_SECONDS
        if self._made > (WARM_UP if short else 1):
            self._times.append(seconds)
        if len(self._times) < (TIMED if short else 1):
            return
        self._medians.append(statistics.median(self._times))
        self._times, self._made = [], 0
        if len(self._medians) < len(self._sizes):
            return
        (alone, together), most = self._medians, self._sizes[-1]
        chosen = most if together < GAIN * alone else 1
        if chosen != self._chosen:
            times = f"a step takes {alone * 1e3:,.1f} ms on one, and {together * 1e3:,.1f} with {most} workers"
            self.message = f"using {chosen} of {most} cores: {times}"
        self._sizes, self._medians, self._chosen = [], [], chosen
        now = time.perf_counter()
        self._again = now + max(LEAST_SECONDS, (now - self._began) / COST)
        if chosen == 1:
            self.step.hire(1)
