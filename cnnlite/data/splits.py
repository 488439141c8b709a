"""Splits that hold out each picture by its name and a seed, whatever other pictures there are."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cnnlite.utils.types import Array

FIRST = 2.0**-50
NEVER = 1.0


class Turns(NamedTuple):
    """Order in which pictures are held out."""

    order: Array
    """Indices of the pictures, the first one to hold out first."""
    above: Array
    """For each in that order, the fraction above which it is held out: at most `FIRST` for any, `NEVER` for none.

    It is the same for pictures of one key, and another one for every other key that may be held out.
    """


def turns(keys: Sequence[str], labels: Sequence[int], purpose: str, seed: int = 0) -> Turns:
    """Draw for each picture, from its key alone, the fraction above which it is held out.

    So the size of a part varies by chance, and no picture moves when others are added or removed. But of each class the
    first picture is held out whatever the fraction, and the last one never is, so that a class of two or more has
    pictures on both sides. A picture can only move where that made an exception for it, which is likely in classes of
    few pictures. Pictures of one key go together; where they are of several classes, the last of one may be the first
    of another, and is not held out.

    Args:
        keys: names of the pictures, or of groups of pictures, the same on all machines.
        labels: their classes.
        purpose: ``test`` or ``validation``, which are drawn independently.
        seed: another one draws other pictures.
    """
    if not keys:
        return Turns(np.empty(0, np.int64), np.empty(0))
    groups: dict[str, int] = {}
    group = np.array([groups.setdefault(key, len(groups)) for key in keys])
    drawn, classes = np.array([_drawn(f"{purpose}/{seed}/{key}") for key in groups]), np.asarray(labels)
    above = drawn.copy()
    by_class = np.lexsort((drawn[group], classes))
    last = by_class[np.diff(classes[by_class], append=-1) != 0]
    above[group[last]] = NEVER  # a class of one is for training
    others = by_class[above[group[by_class]] < NEVER]
    first = others[np.diff(classes[others], prepend=-1) != 0]
    above[group[first]] = FIRST * drawn[group[first]]
    order = np.lexsort((drawn[group], above[group]))
    return Turns(order, above[group[order]])


def _drawn(text: str) -> float:
    """Hash a text to a number in (0, 1)."""
    # Names that are no text have lone surrogates in Python.
    head = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:6], "big")
    return (head + 0.5) / 2**48
