"""Model of the time of a training step among ranks; docs/distributed.md explains the formula."""

import math
from dataclasses import dataclass

Network = tuple[float, float]
"""Latency of a small message in seconds, and bandwidth in bytes per second."""

NETWORKS: dict[str, Network] = {"10 Gbit/s": (25e-6, 0.9 * 10e9 / 8), "100 Gbit/s": (3e-6, 0.9 * 100e9 / 8)}
"""Assumed: latencies of TCP over Ethernet and of RDMA, and nine tenths of the line's bandwidth."""


@dataclass(frozen=True)
class Costs:
    """Cost of a training step on one rank, and its communication with other ranks."""

    fixed: float
    """Seconds of a step, whatever the batch size: the work on weights."""
    per_image: float
    """Seconds per image of this rank."""
    gradient_bytes: float
    """Size of the large arrays, which are reduced piece by piece."""
    gradient_arrays: float
    """Number of large arrays: one for each group of parameters in the optimizer."""
    adding: float
    """Seconds to add a byte of them."""
    small_exchanges: float
    """Number of sums by pairs of ranks: batch_norm forward and backward, metrics, groups of few parameters, signals."""
    small_bytes: float
    """Size of all these sums together."""

    def compute(self, ranks: int, batch: float) -> float:
        """Return the seconds of computing in a step with ``batch`` images over all ranks."""
        return self.fixed + self.per_image * max(1.0, batch / ranks)

    def gradients(self, ranks: int, network: Network) -> float:
        """Return the seconds of reducing gradients: pieces go to the rank that adds them, and their sum to all."""
        latency, bandwidth = network
        if ranks == 1:
            return 0.0
        sent = 2 * (ranks - 1) / ranks * self.gradient_bytes
        return 2 * (ranks - 1) * self.gradient_arrays * latency + sent / bandwidth + self.gradient_bytes * self.adding

    def small(self, ranks: int, network: Network) -> float:
        """Return the seconds of all small sums: each goes to a partner, ``log2(ranks)`` times."""
        latency, bandwidth = network
        return math.ceil(math.log2(ranks)) * (self.small_exchanges * latency + self.small_bytes / bandwidth)

    def step(self, ranks: int, batch: float, network: Network, *, hidden: bool = False) -> float:
        """Return the seconds of a step; ``hidden`` assumes that reducing gradients takes no extra time."""
        gradients = 0.0 if hidden else self.gradients(ranks, network)
        return self.compute(ranks, batch) + gradients + self.small(ranks, network)

    def weak(self, ranks: int, batch: int, network: Network, *, hidden: bool = False) -> float:
        """Return the efficiency with ``batch`` images for each rank: time of one rank by time of all."""
        return self.compute(1, batch) / self.step(ranks, batch * ranks, network, hidden=hidden)

    def strong(self, ranks: int, batch: int, network: Network) -> float:
        """Return the efficiency with ``batch`` images for all ranks together: speed-up by number of ranks."""
        return self.compute(1, batch) / (ranks * self.step(ranks, batch, network))
