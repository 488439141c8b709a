"""Inspection of a network: feature maps, occlusion, and dead units."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cnnlite.config.load import Config
from cnnlite.data import Images, Normalizer
from cnnlite.nn.hooks import Call, watched
from cnnlite.nn.layers.activations import Activation, ReLU
from cnnlite.nn.layers.base import Layer, layers
from cnnlite.nn.layers.containers import Parallel
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.losses import softmax
from cnnlite.nn.network import Network
from cnnlite.training.evaluation import BATCH_SIZE
from cnnlite.utils.types import Array

DEAD_BATCHES = 4
"""Number of batches on which a dead unit is always 0."""


def one_by_one(network: Network, config: Config) -> Network:
    """Build the network again without fused layers, so that each layer can be watched."""
    plain = Network(config.model, network.in_shape, seed=config.seed, fused=False)
    plain.load_state(network.state())
    return plain


@dataclass(frozen=True)
class Stage:
    """Outputs of a layer for a few images."""

    place: str
    kind: str
    shape: tuple[int, ...]
    """(height, width, channels)."""
    channels: Array
    """Indices of the chosen channels."""
    maps: Array
    """(images, chosen channels, height, width)."""


def feature_stages(network: Network, x: Array, most: int = 6, channels: int = 8) -> list[Stage]:
    """Run a batch ``x`` (N, H, W, C) through the network, and return the maps of at most ``most`` stages.

    Stages are activations and sums, or convolutions if there are none of these. The chosen channels vary most over the
    batch. The network must be built `one_by_one`.
    """
    found: dict[str, tuple[Layer, Array]] = {}

    def see(call: Call) -> None:
        y, is_stage = call.returned, isinstance(call.layer, (Activation, Conv2d, Parallel))
        if is_stage and y is not None and y.ndim == 4 and min(y.shape[1:3]) > 1:
            found[call.name] = call.layer, y.copy()

    with watched(network.model, see):
        network.forward(x, training=False)
    after = {name: item for name, item in found.items() if not isinstance(item[0], Conv2d)}
    stages = list((after or found).values())
    if len(stages) > most:
        stages = [stages[round(index)] for index in np.linspace(0, len(stages) - 1, most)]
    return [_stage(layer, y, channels) for layer, y in stages]


def _stage(layer: Layer, y: Array, count: int) -> Stage:
    lively = np.argsort(-y.std(axis=(0, 1, 2), dtype=np.float64), kind="stable")[:count]
    chosen = np.sort(lively)
    return Stage(layer.path, layers.name_of(type(layer)), y.shape[1:], chosen, y[..., chosen].transpose(0, 3, 1, 2))


@dataclass(frozen=True)
class Occlusion:
    """Sensitivity of a prediction to occlusion of each part of an image."""

    prediction: int
    probability: float
    drop: Array
    """(H, W): fall of the probability of the prediction when the surroundings of a pixel are covered."""
    patch: tuple[int, int]


def occlude(network: Network, x: Array) -> Occlusion:
    """Cover a normalized image ``x`` (H, W, C) with a grey patch at each of many places (Zeiler & Fergus 2013).

    The patch has a quarter of the image's sides and moves by half its own; the drop at a pixel is the mean over the
    patches that cover it. Source: arXiv:1311.2901, section 4.2.
    """
    height, width, _ = x.shape
    patch = (max(1, height // 4), max(1, width // 4))
    grey = x.mean(axis=(0, 1))
    corners = [(top, left) for top in _starts(height, patch[0]) for left in _starts(width, patch[1])]
    size = network.at_once(BATCH_SIZE)

    def covered(places: list[tuple[int, int]]) -> Array:
        images = np.repeat(x[None], len(places), axis=0)  # (places, H, W, C)
        for image, (top, left) in zip(images, places, strict=True):
            image[top : top + patch[0], left : left + patch[1]] = grey
        return images

    before = softmax(network.forward(x[None], training=False))[0]
    prediction = int(before.argmax())
    total, count = np.zeros((height, width)), np.zeros((height, width))
    after = np.concatenate(
        [
            softmax(network.forward(covered(corners[start : start + size]), training=False))[:, prediction]
            for start in range(0, len(corners), size)
        ]
    )
    for probability, (top, left) in zip(after, corners, strict=True):
        place = np.s_[top : top + patch[0], left : left + patch[1]]
        total[place] += before[prediction] - probability
        count[place] += 1
    return Occlusion(prediction, float(before[prediction]), total / count, patch)


def _starts(length: int, patch: int) -> list[int]:
    """Return the starts of patches: half a patch apart, the last one at the edge."""
    return sorted({*range(0, length - patch + 1, max(1, patch // 2)), length - patch})


@dataclass(frozen=True)
class DeadUnits:
    """Number of units of a ReLU layer that are 0 for all of many images."""

    place: str
    dead: int
    units: int
    """Number of channels of maps, or of flat features."""

    @property
    def fraction(self) -> float:
        """Fraction of the units that are dead."""
        return self.dead / self.units


def dead_units(network: Network, images: Images, normalizer: Normalizer) -> list[DeadUnits]:
    """Count the channels of each ReLU layer that are 0 everywhere on a few batches; needs a network `one_by_one`."""
    alive: dict[str, list[Array]] = {}
    places: dict[str, str] = {}

    def see(call: Call) -> None:
        if isinstance(call.layer, ReLU) and (y := call.returned) is not None:
            places[call.name] = call.layer.path
            alive.setdefault(call.name, []).append(y.reshape(-1, y.shape[-1]).max(axis=0) > 0)

    with watched(network.model, see):
        for x in _few_batches(images, normalizer, network.at_once(BATCH_SIZE)):
            network.forward(x, training=False)
    answering = {name: np.any(batches, axis=0) for name, batches in alive.items()}
    return [DeadUnits(places[name], int((~units).sum()), len(units)) for name, units in answering.items()]


def _few_batches(images: Images, normalizer: Normalizer, size: int) -> Iterator[Array]:
    """Yield normalized batches spread over all images."""
    count = min(len(images), DEAD_BATCHES * size)
    chosen = np.linspace(0, len(images) - 1, count).astype(int)
    for part in np.array_split(chosen, math.ceil(count / size)):
        yield normalizer(images.images[part])
