"""The layer protocol, and the registry in which configs find layers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cnnlite.errors import ConfigError, Problem
from cnnlite.runtime import engine
from cnnlite.runtime.distributed import Communicator
from cnnlite.utils.registry import Registry
from cnnlite.utils.types import Array, DType, Shape


def dotted(prefix: str, name: str) -> str:
    """Join ``prefix`` and ``name`` with a dot; the prefix of the whole model is empty."""
    return f"{prefix}.{name}" if prefix else name


_ALONE = Communicator()


@dataclass(frozen=True)
class Context:
    """One pass of a batch through the network, as its layers see it."""

    training: bool = False
    """True if a ``backward`` is to come, and layers such as dropout and batch norm act as in training."""
    step: int = 0
    """Number of the training step; random draws of layers are functions of it."""
    ranks: Communicator = _ALONE
    """Communicator that sums over the whole batch, of which this process may compute a part."""


Init = Callable[[np.random.Generator, Shape], Array]
"""Function that draws an array of a given shape."""


class Spec(NamedTuple):
    """Declaration of an array: its shape, its initializer or initial value, and whether it is trained."""

    shape: Shape
    init: Init | float
    trained: bool


class Layer(ABC):
    """One step of a network, with its trained arrays and the gradients of the loss for them.

    The constructor only takes options. ``infer`` checks the shape of an input sample, declares the layer's arrays and
    returns the output shape; ``allocate`` makes the arrays: ``params``, ``grads`` and ``buffers``. ``forward`` and
    ``backward`` then alternate in training:

    - Nobody changes ``x``, ``dy`` or returned arrays: branches of a network share them, and a returned array may
      be ``x`` itself, or kept for ``backward``.
    - ``backward`` writes ``grads``, it does not add to them.
    - ``forward`` saves what ``backward`` needs in ``_kept``, only in training; ``kept`` returns it once.

    Inputs and outputs are channels last, ``(N, H, W, C)`` or ``(N, features)``.
    """

    path: str = ""
    """Place in the config, such as ``model[4].conv2d``; part of error messages."""
    needs_dx: bool = True
    """False where the gradient of the input is not used, as in a network's first layers."""
    estimates_gradient: bool = False
    """True if ``backward`` deliberately gives another gradient than the layer's own, as a straight-through estimator
    does; that of a plugin is then not checked before training."""
    is_frozen: bool = False
    """True once its parameters are no longer trained; see `Network.freeze`."""
    is_fixed: bool = False
    """True if training changes none of its arrays, statistics neither; see `freezing`."""
    multiply_adds: int = 0
    """Multiply-adds of the forward pass for one sample; set by ``infer``."""
    out_shape: Shape = ()
    """Shape of an output sample; set for each layer of a network when it is inferred."""
    least_batch: int = 1
    """Minimum batch size to train on; set by ``infer``."""
    fit_images: int = 0
    """Number of training images that `fit` takes; 0 for none."""
    by_shards: bool = False
    """True if samples do not depend on one another but through ``context.ranks.gather``, and if gradients are summed
    with `shards.sum_over_shards`: then several workers may compute parts of a batch, without changing a bit."""
    is_large: bool = False
    """True if workers compute the gradient of its ``weight`` together, as no worker's own sum; set by ``infer``."""
    layer_count: int = 1
    """Number of layers, this one and those inside it."""

    def __init__(self) -> None:
        self.specs: dict[str, Spec] = {}
        self.params: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}
        self.buffers: dict[str, Array] = {}
        self.children: dict[str, Layer] = {}
        self._kept: Any = None

    def infer(self, in_shape: Shape) -> Shape:
        """Infer the shape of an output sample, and declare arrays with `add_param` and `add_buffer`.

        Allocates no arrays, and may be called again. A layer without arrays whose output has its input's shape
        need not override it.

        Raises:
            ValueError: if ``in_shape`` does not fit.
        """
        return in_shape

    def add_param(self, name: str, shape: Shape, init: Init | float = 0.0) -> None:
        """Declare a trained array, in ``infer``."""
        self.specs[name] = Spec(shape, init, trained=True)

    def add_buffer(self, name: str, shape: Shape, init: Init | float = 0.0) -> None:
        """Declare an array of the layer's state that is not trained, in ``infer``."""
        self.specs[name] = Spec(shape, init, trained=False)

    def allocate(self, rng: np.random.Generator, dtype: DType) -> None:
        """Make all declared arrays of this layer and then of those inside it, drawing in this order."""
        for name, (shape, init, trained) in self.specs.items():
            value = np.empty(shape, dtype) if trained else engine.shared(shape, dtype)
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
        """Compute the output for a batch ``x`` of shape ``(N, *in_shape)``."""

    @abstractmethod
    def backward(self, dy: Array) -> Array | None:
        """Write ``grads`` and return the gradient of the input, given the gradient ``dy`` of the output.

        Uses up what the last training ``forward`` kept: where it kept something, a second call raises. May return None
        if not ``needs_dx``.
        """

    def kept(self) -> Any:
        """Return what the last training ``forward`` kept, once; RuntimeError if there is nothing."""
        if self._kept is None:
            raise RuntimeError("backward needs a forward with training=True before it, each time")
        kept, self._kept = self._kept, None
        return kept

    def forget(self) -> None:
        """Drop what this layer and those below it keep, where no ``backward`` is to come."""
        for _, layer in self.walk():
            layer._kept = None

    def skip_dx(self) -> None:
        """Tell the layer that the gradient of its input is not used."""
        self.needs_dx = False

    def fit(self, x: Array) -> None:  # noqa: B027 (most layers need nothing)
        """Compute buffers from ``x``, the layer's inputs for the first training images; called once, before training.

        A resumed run and an evaluation load the buffers from their checkpoint.
        """

    @property
    def most_fit_images(self) -> int:
        """Maximum ``fit_images`` of this layer and those below it."""
        return max(layer.fit_images for _, layer in self.walk())

    def infer_child(self, name: str, child: "Layer", in_shape: Shape) -> Shape:
        """Infer ``child`` as part of this layer; its parameters are called ``name.*``, its errors name its place."""
        self.children[name] = child
        try:
            child.out_shape = child.infer(in_shape)
        except ValueError as error:
            raise ConfigError([Problem(child.path, str(error))]) from None
        return child.out_shape

    def walk(self, prefix: str = "") -> Iterator[tuple[str, "Layer"]]:
        """Iterate over this layer and all below it, depth first, with dotted names (``3.body.0``)."""
        yield prefix, self
        for name, child in self.children.items():
            yield from child.walk(dotted(prefix, name))


layers: Registry[Layer] = Registry("layer", Layer)  # type: ignore[type-abstract]
