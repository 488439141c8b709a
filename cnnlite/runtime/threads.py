"""Pool of threads that share the tasks of a job; the only module that starts threads to compute.

NumPy and BLAS release the interpreter lock while they compute, so threads use several cores, though less well than
processes do: each call takes the lock for a moment, and a thread that has to wait for it sleeps.
"""

import itertools
import threading
from collections.abc import Callable
from queue import SimpleQueue

import numpy as np


class _Job:
    """One call of `Pool.run`: the indices still to be done, and how many are finished."""

    def __init__(self, task: Callable[[int], None], count: int):
        self.task = task
        self.count = count
        self.next_index = itertools.count().__next__  # one bytecode, so atomic
        self.finished = itertools.count(1).__next__
        self.all_done = threading.Lock()
        self.all_done.acquire()
        self.error: BaseException | None = None

    def work(self) -> None:
        """Do tasks until none is left to start."""
        while (index := self.next_index()) < self.count:
            if self.error is None:
                try:
                    self.task(index)
                except BaseException as error:
                    self.error = error
            if self.finished() == self.count:
                self.all_done.release()


class Pool:
    """Pool of threads that wait for jobs; the caller works too. Fewer than ``size`` if no more can be started."""

    def __init__(self, size: int):
        self._queues: list[SimpleQueue[_Job | None]] = []
        for number in range(size - 1):
            queue: SimpleQueue[_Job | None] = SimpleQueue()
            thread = threading.Thread(target=self._serve, args=(queue,), name=f"engine-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # as Python calls EAGAIN: a limit of processes, or no memory for a stack
                break
            self._queues.append(queue)
        self.size = len(self._queues) + 1

    @staticmethod
    def _serve(queue: "SimpleQueue[_Job | None]") -> None:
        np.seterr(all="ignore")  # the training loop finds values that are not finite
        while (job := queue.get()) is not None:
            job.work()
            del job  # the task holds arrays; let go of them while waiting

    def run(self, task: Callable[[int], None], count: int) -> None:
        """Call ``task(0) ... task(count - 1)``, started in this order; raises what a task raised."""
        job = _Job(task, count)
        for queue in self._queues[: count - 1]:
            queue.put(job)
        job.work()
        job.all_done.acquire()
        if job.error is not None:
            try:
                raise job.error
            finally:
                job.error = None  # its traceback refers to this frame: let go of what the task held

    def close(self) -> None:
        """Let the threads end."""
        for queue in self._queues:
            queue.put(None)
