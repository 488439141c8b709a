"""Film of a training: at a few of its steps, the first filters and some maps of one image."""

from collections.abc import Sequence

import numpy as np

from cnnlite.data import Normalizer
from cnnlite.errors import CheckpointError
from cnnlite.nn.filters import first_filters
from cnnlite.nn.hooks import Call, watched, working_layers
from cnnlite.nn.layers.activations import Activation
from cnnlite.nn.layers.base import Layer
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.fused import FusedBatchNorm
from cnnlite.nn.network import Network
from cnnlite.runs.checkpoint import Checkpoint
from cnnlite.utils.types import Array

MOST_FILTERS, MOST_MAPS = 32, 8
LARGEST = 64
"""Greatest side of filters and maps, in pixels; of larger ones every second pixel is kept, or every third, ..."""


def moments(count: int, total_steps: int) -> list[int]:
    """Return ``count`` steps, or fewer, from 0 to the last: denser at the start, where a network changes most."""
    if count == 1:
        return [total_steps]
    return sorted({round(total_steps * (index / (count - 1)) ** 2) for index in range(count)})


class Film:
    """Snapshots of a network, taken at fixed steps.

    They are a function of the parameters, so that a resumed run takes the same ones.

    Args:
        count: number of snapshots; 0 for none.
        total_steps: number of steps of the training.
        network: the network that is trained.
        image: image (H, W, C), uint8, whose maps are kept.
        normalizer: what the network's images are normalized by.
        source: where the image comes from.
    """

    def __init__(
        self, count: int, total_steps: int, network: Network, image: Array, normalizer: Normalizer, source: str
    ):
        self._moments = moments(count, total_steps) if count else []
        self._network, self._image, self._source = network, image, source
        self._x = normalizer(image[None])
        self._place, self._kind, self._stage = _first_stage(network) if count else ("", "", None)
        self._frames: dict[int, dict[str, Array]] = {}

    def after(self, step: int) -> Sequence[int]:
        """Return the steps after ``step`` at which snapshots are to be taken."""
        return [moment for moment in self._moments if moment > step]

    def take(self, step: int) -> None:
        """Take a snapshot if this is the step for one."""
        if step in self._moments and step not in self._frames:
            self._frames[step] = self._snapshot()

    def _snapshot(self) -> dict[str, Array]:
        frame: dict[str, Array] = {}
        if not isinstance(found := first_filters(self._network), str):
            frame["filters"] = _thinned(found.weights[:MOST_FILTERS])
        if self._stage is not None:
            maps: list[Array] = []

            def see(call: Call) -> None:
                if call.layer is self._stage and call.returned is not None:
                    maps.append(call.returned[0])

            with watched(self._network.model, see):
                self._network.forward(self._x, training=False)
            frame["maps"] = _thinned(maps[0].transpose(2, 0, 1)[:MOST_MAPS])
        return frame

    def checkpoint(self) -> Checkpoint | None:
        """Return all snapshots so far, stacked, to be saved; None if there are none."""
        steps = sorted(self._frames)
        if not any(self._frames.values()):
            return None
        names = self._frames[steps[0]]
        stacked = {name: np.stack([self._frames[step][name] for step in steps]) for name in names}
        arrays = {"steps": np.array(steps, np.int64), "image": _thinned(self._image[None])[0], **stacked}
        return Checkpoint(arrays, {"of": self._source, "layer": self._place, "kind": self._kind})

    def resume(self, saved: Checkpoint, step: int) -> None:
        """Take over the snapshots ``saved`` up to ``step``; CheckpointError if they are not of this network."""
        if not self._moments:
            return
        arrays = dict(saved.arrays)
        steps = arrays.pop("steps", np.array(0))
        arrays.pop("image", None)
        expected = {name: (steps.size, *array.shape) for name, array in self._snapshot().items()}
        if steps.ndim != 1 or {name: array.shape for name, array in arrays.items()} != expected:
            raise CheckpointError("the snapshots are not of this network")
        self._frames = {
            int(moment): {name: array[index] for name, array in arrays.items()}
            for index, moment in enumerate(steps)
            if moment <= step
        }


def _first_stage(network: Network) -> tuple[str, str, Layer | None]:
    """Return the first layer that gives maps to look at, with its name and kind; without maps, no names and None.

    It is an activation, or else a convolution.
    """
    parts = [part for part in working_layers(network.model) if len(part[2].out_shape) == 3]
    activated = (part for part in parts if isinstance(part[2], Activation | FusedBatchNorm))
    return next(activated, next((part for part in parts if isinstance(part[2], Conv2d)), ("", "", None)))


def _thinned(pictures: Array) -> Array:
    """Copy of pictures (count, height, width, ...) with sides of at most `LARGEST`."""
    step = -(-max(pictures.shape[1:3]) // LARGEST)
    return np.array(pictures[:, ::step, ::step])
