"""Choice of channels to show where a page with all of them would be too large."""

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from cnnlite.nn.layers.base import Layer
from cnnlite.nn.layers.containers import Parallel
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.shape import Flatten
from cnnlite.tools.show.graph import Graph
from cnnlite.utils.types import Array

COUNTS = (64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2, 1)
"""Numbers of channels of a layer to try, if not all can be shown."""


def chosen_channels(graph: Graph, maps: Sequence[Array], most_numbers: int) -> list[Array]:
    """Choose channels for each node: all, or as many as leave at most ``most_numbers`` numbers to show.

    A channel is followed through layers that keep it and through joins, and shown in all of them or in none, so that
    each of these layers can be recomputed. Those whose maps vary most are chosen; of the image and the logits, all.

    Args:
        graph: nodes of the network.
        maps: output of each node for the image, (H, W, C) or (C,).
        most_numbers: number of floats, in all maps, parameters and their gradients, that should not be exceeded.

    Returns:
        Ascending indices of the channels of each node.
    """
    threads = _threads(graph, maps)
    everything = [np.arange(len(ids)) for ids in threads]
    if _numbers(graph, maps, everything) <= most_numbers:
        return everything
    order = _liveliest(threads, maps)
    places = _places(threads)
    always = np.union1d(threads[0], threads[graph.last])
    chosen = everything
    for count in COUNTS:
        shown = _choose(places, order, set(always.tolist()), count)
        chosen = [np.flatnonzero(shown[ids]) for ids in threads]
        if _numbers(graph, maps, chosen) <= most_numbers:
            break
    return chosen


def _threads(graph: Graph, maps: Sequence[Array]) -> list[Array]:
    """Number the channels of each node so that the same number is the same channel, further down the network."""
    threads: list[Array] = []
    parents: list[int] = []  # a forest: sums and products make one channel of several
    for node, y in zip(graph.nodes, maps, strict=True):
        given = [threads[index] for index in node.inputs]
        count = y.shape[-1]
        if node.kind == "concat":
            ids = np.concatenate(given)
        elif node.kind in ("sum", "multiply"):
            ids = given[0]
            for other in given[1:]:
                for one, same in zip(ids.tolist(), other.tolist(), strict=True):
                    parents[_root(parents, same)] = _root(parents, one)
        elif isinstance(node.layer, Flatten):
            ids = np.tile(given[0], count // len(given[0]))
        elif given and len(given[0]) == count and not _mixes(node.layer):
            ids = given[0]
        else:
            ids = np.arange(len(parents), len(parents) + count)
            parents += ids.tolist()
        threads.append(ids)
    roots = np.array([_root(parents, thread) for thread in range(len(parents))])
    return [roots[ids] for ids in threads]


def _root(parents: list[int], thread: int) -> int:
    while parents[thread] != thread:
        parents[thread] = parents[parents[thread]]  # shortens the way for the next one
        thread = parents[thread]
    return thread


def _mixes(layer: Layer | None) -> bool:
    """Return whether a channel of the output may depend on several of the input: whether there is a matrix."""
    if isinstance(layer, Conv2d) and layer.groups == layer.windows.channels == layer.out_channels:
        return False
    arrays: Iterable[Array] = () if layer is None else (*layer.params.values(), *layer.buffers.values())
    return not isinstance(layer, Parallel) and any(array.ndim > 1 for array in arrays)


def _liveliest(threads: Sequence[Array], maps: Sequence[Array]) -> list[int]:
    """Return the numbers of all channels, those first whose maps vary most, relative to the others of their layer."""
    total = np.zeros(max(int(ids.max()) for ids in threads) + 1)
    for ids, y in zip(threads, maps, strict=True):
        lively = np.abs(y) if y.ndim == 1 else y.std(axis=(0, 1), dtype=np.float64)
        np.add.at(total, ids, lively / (lively.mean() + 1e-30))
    return [int(thread) for thread in np.argsort(-total, kind="stable")]


def _places(threads: Sequence[Array]) -> dict[int, list[int]]:
    """Find the nodes that each channel is in."""
    places: dict[int, list[int]] = {}
    for number, ids in enumerate(threads):
        for thread in set(ids.tolist()):
            places.setdefault(thread, []).append(number)
    return places


def _choose(places: dict[int, list[int]], order: Sequence[int], always: set[int], count: int) -> Array:
    """Take channels in ``order``, after those that are ``always`` shown, while some layer has fewer than ``count``.

    Returns:
        True for each channel that is taken.
    """
    taken = dict.fromkeys(itertools.chain.from_iterable(places.values()), 0)
    shown = np.zeros(len(order), np.bool_)
    for thread in sorted(order, key=lambda thread: thread not in always):
        if thread in places and (thread in always or min(taken[number] for number in places[thread]) < count):
            shown[thread] = True
            for number in places[thread]:
                taken[number] += 1
    return shown


def _numbers(graph: Graph, maps: Sequence[Array], chosen: Sequence[Array]) -> int:
    """Count the floats of a page with the ``chosen`` channels, and their gradients."""
    total = 0
    for number, (node, y) in enumerate(zip(graph.nodes, maps, strict=True)):
        pixels, channels = math.prod(y.shape[:-1]), len(chosen[number])
        hidden = any(len(chosen[index]) < maps[index].shape[-1] for index in node.inputs)
        total += (2 + hidden) * pixels * channels
        if node.layer is not None and _mixes(node.layer):
            arrays = (*node.layer.params.values(), *node.layer.buffers.values())
            window = max(math.prod(array.shape[:-2]) for array in arrays if array.ndim > 1)
            total += 2 * window * len(chosen[node.inputs[0]]) * channels
    return total
