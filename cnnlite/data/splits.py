"""Splits that hold out each picture by its name and a seed, whatever other pictures there are."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cnnlite.utils.types import Array

FIRST = 0.0
NEVER = 1.0


class Turns(NamedTuple):
    """Order in which pictures are held out."""

    order: Array
    """Indices of the pictures, the first one to hold out first."""
    above: Array
    """For each in that order, the fraction above which it is held out: `FIRST` for any, `NEVER` for none."""


def turns(keys: Sequence[str], labels: Sequence[int], purpose: str, seed: int = 0) -> Turns:
    """Draw for each picture, from its key alone, the fraction above which it is held out.

    So the size of a part varies by chance, and no picture moves when others are added or removed. But of each class the
    first picture is held out whatever the fraction, and the last one never is, so that a class of two or more has
    pictures on both sides. A picture can only move where that made an exception for it, which is likely in classes of
    few pictures.

    Args:
        keys: names of the pictures, the same on all machines.
        labels: their classes.
        purpose: ``test`` or ``validation``, which are drawn independently.
        seed: another one draws other pictures.
    """
    if not keys:
        return Turns(np.empty(0, np.int64), np.empty(0))
    drawn, classes = np.array([_drawn(f"{purpose}/{seed}/{key}") for key in keys]), np.asarray(labels)
    by_class = np.lexsort((drawn, classes))
    changes = np.flatnonzero(np.diff(classes[by_class])) + 1
    above = drawn.copy()
    above[by_class[[0, *changes]]] = FIRST
    above[by_class[[*(changes - 1), -1]]] = NEVER  # a class of one is for training
    order = np.lexsort((drawn, above))
    return Turns(order, above[order])


def _drawn(text: str) -> float:
    """Hash a text to a number in (0, 1)."""
    # Names that are no text have lone surrogates in Python.
    head = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:6], "big")
    return (head + 0.5) / 2**48
