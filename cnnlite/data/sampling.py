"""Sampling: which training images an epoch shows, and in which order."""

from typing import Literal, TypeAlias

import numpy as np

from cnnlite.utils.types import Array

Sampling: TypeAlias = Literal["shuffled", "balanced"]


def epoch_order(sampling: Sampling, labels: Array, rng: np.random.Generator) -> Array:
    """Draw the order of an epoch: indices of as many images as there are ``labels``, int64 ``(N,)``.

    ``shuffled`` has every image once. ``balanced`` has every class equally often: in rounds of one image of each, in a
    new order each time. The images of a class come in random order, none again before all had their turn. Of a large
    class an epoch shows a part, of a small one each image several times; a class without images is left out.
    Source: the class-balanced sampling of Kang et al. 2020, arXiv:1910.09217, where chance alone draws the classes.
    """
    count = len(labels)
    if sampling == "shuffled":
        return rng.permutation(count)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    rounds = -(-count // len(groups))
    by_class = np.stack([_turns(group, rounds, rng) for group in groups], axis=1)  # (rounds, classes)
    order: Array = rng.permuted(by_class, axis=1).reshape(-1)[:count]
    return order


def _turns(group: Array, rounds: int, rng: np.random.Generator) -> Array:
    """Draw ``rounds`` images of a class: all of them in random order, again and again."""
    repeats = -(-rounds // len(group))
    turns: Array = rng.permuted(np.tile(group, (repeats, 1)), axis=1).reshape(-1)[:rounds]
    return turns


def shown_counts(sampling: Sampling, class_counts: Array) -> Array:
    """Return how many images of each class an epoch shows, or numbers in that proportion, ``(K,)``."""
    return np.sign(class_counts) if sampling == "balanced" else class_counts
