"""Data-parallel training over MPI behind one communicator; the only package that knows ranks.

Training is synchronous and data-parallel: every rank holds the whole network and computes a slice of each batch.
Statistics, losses and gradients of the whole batch are reduced in an order that follows from the number of ranks alone:
the same number of ranks gives the same bits, whichever algorithms an MPI chooses.

When a rank fails it tells the others, which find its notice while they wait for messages, and all end together.
"""

from cnnlite.runtime.distributed.communicator import Communicator, current
from cnnlite.runtime.distributed.joining import joined

__all__ = ["Communicator", "current", "joined"]
