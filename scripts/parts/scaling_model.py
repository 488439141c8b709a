"""What a training step among ranks takes, computed from its parts; docs/distributed.md explains the formula."""

import math
from dataclasses import dataclass

Network = tuple[float, float]
"""Seconds that a small message takes, and bytes a second."""

NETWORKS: dict[str, Network] = {"10 Gbit/s": (25e-6, 0.9 * 10e9 / 8), "100 Gbit/s": (3e-6, 0.9 * 100e9 / 8)}
"""Assumed: latencies of TCP over Ethernet and of RDMA, nine tenths of the line."""


@dataclass(frozen=True)
class Costs:
    """What a training step of a network costs on one rank, and what it exchanges with others."""

    fixed: float
    """Seconds of a step, whatever the batch: the work on weights."""
    per_image: float
    """Seconds for each image of this rank."""
    gradient_bytes: float
    """Of the large arrays, which are added up piece by piece."""
    gradient_arrays: float
    """How many they are: one for each group of parameters in the optimizer."""
    adding: float
    """Seconds to add up a byte of them."""
    small_exchanges: float
    """Sums by pairs of ranks: batch_norm forward and backward, figures, groups of few parameters, signals."""
    small_bytes: float
    """Of all of these together."""

    def compute(self, ranks: int, batch: float) -> float:
        """Seconds of computing in a step with a batch of ``batch`` images altogether."""
        return self.fixed + self.per_image * max(1.0, batch / ranks)

    def gradients(self, ranks: int, network: Network) -> float:
        """Seconds of adding up gradients: pieces go to the rank that adds them, and their sum to all."""
        latency, bandwidth = network
        if ranks == 1:
            return 0.0
        sent = 2 * (ranks - 1) / ranks * self.gradient_bytes
        return 2 * (ranks - 1) * self.gradient_arrays * latency + sent / bandwidth + self.gradient_bytes * self.adding

    def small(self, ranks: int, network: Network) -> float:
        """Seconds of all small sums: each goes to a partner, ``log2(ranks)`` times."""
        latency, bandwidth = network
        return math.ceil(math.log2(ranks)) * (self.small_exchanges * latency + self.small_bytes / bandwidth)

    def step(self, ranks: int, batch: float, network: Network, *, hidden: bool = False) -> float:
        """Seconds of a step; with gradients ``hidden`` behind the computing, as if their exchange took no time."""
        gradients = 0.0 if hidden else self.gradients(ranks, network)
        return self.compute(ranks, batch) + gradients + self.small(ranks, network)

    def weak(self, ranks: int, batch: int, network: Network, *, hidden: bool = False) -> float:
        """Efficiency with ``batch`` images for each rank: time alone by time together."""
        return self.compute(1, batch) / self.step(ranks, batch * ranks, network, hidden=hidden)

    def strong(self, ranks: int, batch: int, network: Network) -> float:
        """Efficiency with ``batch`` images for all ranks together: speed-up by number of ranks."""
        return self.compute(1, batch) / (ranks * self.step(ranks, batch, network))
