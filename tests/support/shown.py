"""Networks with numbers of every kind in them, pages that show them, and NumPy's own arrays to compare with."""

import dataclasses
import functools
from pathlib import Path

import numpy as np

from cnnlite.config.load import Config, load_config
from cnnlite.data import Normalizer
from cnnlite.data.datasets.base import center
from cnnlite.nn.hooks import Call, watched
from cnnlite.nn.layers.base import Layer
from cnnlite.nn.layers.containers import Sequential
from cnnlite.nn.layers.linear import Linear
from cnnlite.nn.layers.shape import Flatten
from cnnlite.nn.network import Network
from cnnlite.runs.restore import load_data
from cnnlite.tools.predict import Model
from cnnlite.tools.show.build import show_page
from cnnlite.tools.show.collect import Subject
from cnnlite.utils.types import Array, Shape
from tests.support.layer_cases import Case
from tests.support.small_runs import tiny

NETWORKS = ("seed-simple", "seed-advanced", "small", "resnet20", "inception")
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@functools.cache
def subject(size: int = 32) -> Subject:
    """A test image of coloured shapes."""
    test = load_data(tiny()).test
    return Subject(np.ascontiguousarray(center(test.images, size)[3]), int(test.labels[3]), "test image 3 of shapes")


def model_of(config: Config, in_shape: Shape, classes: tuple[str, ...] = CLASSES, *, seed: int = 5) -> Model:
    """A network that looks trained: nothing in it is exactly 0 or 1, statistics of batch norm included."""
    network = Network(config.model, in_shape, seed=seed, classes=len(classes))
    rng = np.random.default_rng(seed)
    for parameter in network.parameters.values():
        if parameter.value.ndim == 1:
            parameter.value[...] = 0.2 * rng.standard_normal(parameter.shape) + (parameter.key == "gamma")
    for name, buffer in network.buffers.items():
        if "running" in name:
            buffer[...] = np.exp(rng.standard_normal(buffer.shape) / 2) if name.endswith("var") else buffer
            buffer[...] += 0.1 * rng.standard_normal(buffer.shape) * name.endswith("mean")
    images = rng.integers(0, 256, (8, *in_shape), np.uint8)
    return Model(config, network, Normalizer.fit(images, config.data.normalize), classes)


@functools.cache
def bundled(name: str) -> tuple[Model, Subject]:
    """The network of a bundled config, and an image for it."""
    config = load_config(name)
    size = config.data.center_crop or 32
    return model_of(config, (size, size, 3)), subject(size)


def around(layer: Layer, in_shape: Shape) -> tuple[Model, Subject]:
    """A network of a layer, with what it takes to have images before and three classes after it."""
    flat = len(in_shape) == 1
    model = Sequential([Flatten(), layer, Linear(3)] if flat else [layer, Flatten(), Linear(3)])
    out = layer.infer(in_shape)
    if not flat and len(out) == 1:
        model = Sequential([layer, Linear(3)])
    config = dataclasses.replace(tiny(), model=model)
    shape = (1, 1, *in_shape) if flat else in_shape
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    return model_of(config, shape, ("a", "b", "c")), Subject(image, 1, "noise")


def around_case(case: Case) -> tuple[Model, Subject]:
    """A network around a layer of the tests of all layers."""
    return around(case.layer(), case.in_shape)


def page(folder: Path, name: str, model: Model, subject: Subject) -> Path:
    """Write the page of a network to ``folder``."""
    file = folder / f"{name}.html"
    content = show_page(model, model.config.train.loss, subject, title=name, step=100)
    file.write_text(content, encoding="utf-8")
    return file


def arrays_of(model: Model, subject: Subject) -> dict[str, Array]:
    """Outputs of all layers, by name: NumPy's, by the algorithms that training chooses, each layer by itself."""
    network = Network(model.config.model, model.network.in_shape, seed=0, fused=False)
    network.load_state(model.network.state())
    found: dict[str, Array] = {}

    def see(call: Call) -> None:
        if call.returned is not None:
            found[call.name] = call.returned[0].copy()

    with watched(network.model, see):
        network.forward(model.normalizer(subject.image[None]), training=False)
    return found


def loss_in_float64(model: Model, subject: Subject) -> tuple[Network, float]:
    """The network in float64, and the loss of the image outside of training; change its arrays, and ask again."""
    network = Network(model.config.model, model.network.in_shape, seed=0, dtype=np.float64)
    for name, array in network.state().items():
        array[...] = model.network.state()[name]
    return network, loss_of(network, model, subject)


def loss_of(network: Network, model: Model, subject: Subject, change: Array | None = None) -> float:
    """The loss of the image, with a ``change`` of what the network sees."""
    x = model.normalizer(subject.image[None]).astype(np.float64)
    logits = network.forward(x if change is None else x + change, training=False)
    return model.config.train.loss.loss_and_gradient(logits, np.array([subject.label]))[0]
