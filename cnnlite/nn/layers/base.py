"""The layer protocol: what every layer is, and the registry that configs find them in."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cnnlite.errors import ConfigError, Problem
from cnnlite.runtime.distributed import Communicator
from cnnlite.utils.registry import Registry
from cnnlite.utils.types import Array, DType, Shape


def dotted(prefix: str, name: str) -> str:
    """The full name of what is called ``name`` in the layer ``prefix``, which is empty for the whole model."""
    return f"{prefix}.{name}" if prefix else name


_ALONE = Communicator()


@dataclass(frozen=True)
class Context:
    """One pass of a batch through the network, as its layers see it."""

    training: bool = False
    """Whether a ``backward`` is to come, and layers such as dropout and batch norm do what is for training only."""
    step: int = 0
    """Number of the training step: whatever a layer draws at random is a function of it."""
    ranks: Communicator = _ALONE
    """Adds up what is of the whole batch, of which this process may compute a part."""


Init = Callable[[np.random.Generator, Shape], Array]
"""Draws an array of a shape."""


class Spec(NamedTuple):
    """An array that a layer needs: its shape, and its first numbers or number."""

    shape: Shape
    init: Init | float
    trained: bool


class Layer(ABC):
    """One step of a network, with its trained arrays and the gradients of the loss for them.

    The constructor only takes options. ``infer`` receives the shape of a sample, checks that it fits, declares the
    arrays of the layer, and says what shape comes out; ``allocate`` makes them: ``params``, ``grads`` and ``buffers``.
    ``forward`` and ``backward`` then alternate:

    - Nobody changes ``x``, ``dy`` or what a layer returns: branches of a network share them, and what is returned may
      be ``x`` itself, or kept for ``backward``.
    - ``backward`` writes ``grads``, it does not add to them.
    - What ``forward`` keeps for ``backward`` is in ``_kept``, only in training; ``kept`` hands it out once.

    Activations are channels last, ``(N, H, W, C)`` or ``(N, features)``.
    """

    path: str = ""
    """Place in the config, such as ``model[4].conv2d``; part of error messages."""
    needs_dx: bool = True
    """False where nobody uses the gradient for the input, as in a network's first layers."""
    is_frozen: bool = False
    """True once its parameters are trained no more; see `Network.freeze`."""
    multiply_adds: int = 0
    """Multiplications and additions, counted as one, of the forward pass for one sample; set by ``infer``."""
    out_shape: Shape = ()
    """Shape of an output sample; noted for each layer of a network when it is inferred."""
    least_batch: int = 1
    """How many images a batch must have to train on; set by ``infer``."""
    fit_images: int = 0
    """How many training images the layer wants to see before training begins; see `fit`."""
    layer_count: int = 1
    """How many layers this is, with those inside it."""

    def __init__(self) -> None:
        self.specs: dict[str, Spec] = {}
        self.params: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}
        self.buffers: dict[str, Array] = {}
        self.children: dict[str, Layer] = {}
        self._kept: Any = None

    def infer(self, in_shape: Shape) -> Shape:
        """Infer the shape of an output sample, and declare arrays; ValueError if ``in_shape`` does not fit.

        Takes no memory, and may be called again. Layers without arrays that keep the shape have no need of their own.
        """
        return in_shape

    def add_param(self, name: str, shape: Shape, init: Init | float = 0.0) -> None:
        """Declare an array that is trained, for ``infer``."""
        self.specs[name] = Spec(shape, init, trained=True)

    def add_buffer(self, name: str, shape: Shape, init: Init | float = 0.0) -> None:
        """Declare an array that belongs to the layer's state and is not trained, for ``infer``."""
        self.specs[name] = Spec(shape, init, trained=False)

    def allocate(self, rng: np.random.Generator, dtype: DType) -> None:
        """Make all declared arrays, of this layer and then of those inside it, with numbers drawn in this order."""
        for name, (shape, init, trained) in self.specs.items():
            value = np.empty(shape, dtype)
            value[...] = init(rng, shape) if callable(init) else init
            (self.params if trained else self.buffers)[name] = value
            if trained:
                self.grads[name] = np.zeros_like(value)
        for child in self.children.values():
            child.allocate(rng, dtype)

    def build(self, in_shape: Shape, rng: np.random.Generator, dtype: DType) -> Shape:
        """Infer shapes and allocate arrays; returns the shape of an output sample."""
        out_shape = self.infer(in_shape)
        self.allocate(rng, dtype)
        return out_shape

    @abstractmethod
    def forward(self, x: Array, context: Context) -> Array:
        """The output for a batch ``x`` of shape ``(N, *in_shape)``."""

    @abstractmethod
    def backward(self, dy: Array) -> Array | None:
        """From the gradient for the output, write ``grads`` and return the gradient for the input.

        Uses up what the last training ``forward`` kept: where it kept something, a second call raises. May return None
        if not ``needs_dx``.
        """

    def kept(self) -> Any:
        """Take what the last training ``forward`` put into ``_kept``, once; RuntimeError if there is nothing."""
        if self._kept is None:
            raise RuntimeError("backward needs a forward with training=True before it, each time")
        kept, self._kept = self._kept, None
        return kept

    def forget(self) -> None:
        """Let go of what this layer and those below it keep, where no ``backward`` is to come."""
        for _, layer in self.walk():
            layer._kept = None

    def skip_dx(self) -> None:
        """Tell the layer that nobody uses the gradient for its input."""
        self.needs_dx = False

    def fit(self, x: Array) -> None:  # noqa: B027 (most layers need nothing)
        """Work out buffers from ``x``, the layer's inputs for the first training images; called once, before training.

        A resumed run and an evaluation have the buffers from their checkpoint.
        """

    @property
    def most_fit_images(self) -> int:
        """The most that this layer, or one below it, wants to see in `fit`; 0 if none does."""
        return max(layer.fit_images for _, layer in self.walk())

    def infer_child(self, name: str, child: "Layer", in_shape: Shape) -> Shape:
        """Infer ``child`` as part of this layer; its parameters are called ``name.*``. Errors say whose they are."""
        self.children[name] = child
        try:
            child.out_shape = child.infer(in_shape)
        except ValueError as error:
            raise ConfigError([Problem(child.path, str(error))]) from None
        return child.out_shape

    def walk(self, prefix: str = "") -> Iterator[tuple[str, "Layer"]]:
        """This layer and all below it, depth first, each with its dotted name (``3.body.0``)."""
        yield prefix, self
        for name, child in self.children.items():
            yield from child.walk(dotted(prefix, name))


layers: Registry[Layer] = Registry("layer", Layer)  # type: ignore[type-abstract]
