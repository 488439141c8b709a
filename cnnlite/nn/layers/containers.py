"""Containers: layers made of layers."""

import copy
import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from cnnlite.errors import OptionError
from cnnlite.nn.kernels import products
from cnnlite.nn.kernels.channelwise import for_rows, times
from cnnlite.nn.layers.activations import Activation
from cnnlite.nn.layers.base import Context, Layer, layers
from cnnlite.runtime import engine
from cnnlite.utils.rng import stream
from cnnlite.utils.types import Array, DType, Shape

MOST_LAYERS = 10_000
"""Maximum number of layers; more are a mistake in a config, and would take minutes to build."""


@layers.register("sequential")
class Sequential(Layer):
    """Layers one after the other; in a config, a plain list is the same.

    Args:
        layers: the layers. Their parameters are called ``0.*``, ``1.*``, ...
    """

    by_shards = True

    def __init__(self, layers: list[Layer]):
        super().__init__()
        self.layers = layers
        self.layer_count = 1 + sum(layer.layer_count for layer in layers)
        self.steps = list(layers)
        """Layers that are called, in order; the others are fused into the one before them, see `fusion`."""
        self._first = 0  # of the steps, the one where the backward pass ends

    def infer(self, in_shape: Shape) -> Shape:
        shape = in_shape
        for index, layer in enumerate(self.layers):
            shape = self.infer_child(str(index), layer, shape)
        return shape

    def fit(self, x: Array) -> None:
        last = max((index for index, layer in enumerate(self.steps) if layer.most_fit_images), default=-1)
        for index, layer in enumerate(self.steps[: last + 1]):
            layer.fit(x)
            if index < last:
                x = layer.forward(x, Context())

    def skip_dx(self) -> None:
        for index, layer in enumerate(self.steps):
            self._first = index
            layer.skip_dx()
            if any(part.params and not part.is_frozen for _, part in layer.walk()):
                break  # the layers after it need the gradient for their input, which it needs for its parameters

    def forward(self, x: Array, context: Context) -> Array:
        for index, layer in enumerate(self.steps):
            x = layer.forward(x, context)
            if index < self._first:
                layer.forget()
        return x

    def backward(self, dy: Array) -> Array | None:
        gradient: Array | None = dy
        for layer in reversed(self.steps[self._first :]):
            if gradient is None:
                break
            gradient = layer.backward(gradient)
        return gradient


@layers.register("parallel")
class Parallel(Layer):
    """Branches applied to the same input, whose outputs are joined (Szegedy et al. 2014, arXiv:1409.4842).

    Args:
        branches: the branches; an empty list passes its input on. Their parameters are called ``0.*``, ``1.*``, ...
        merge: ``concat`` joins channels in the order of the branches; ``sum`` adds outputs of equal shape; ``multiply``
            multiplies them, where outputs ``(C,)`` and ``(1, 1, C)`` count for all pixels of ``(H, W, C)``.
    """

    by_shards = True

    def __init__(self, branches: list[Layer], merge: Literal["concat", "sum", "multiply"] = "concat"):
        super().__init__()
        if not branches:
            raise ValueError("needs at least one branch")
        self.branches = branches
        self.names = [str(index) for index in range(len(branches))]
        self.layer_count = 1 + sum(branch.layer_count for branch in branches)
        self.merge = merge
        self.activation: Activation | None = None
        """Activation fused into the sum, before it leaves the cache; see `fusion`."""

    def infer(self, in_shape: Shape) -> Shape:
        named = zip(self.names, self.branches, strict=True)
        return self.joined([self.infer_child(name, branch, in_shape) for name, branch in named])

    def joined(self, shapes: Sequence[Shape]) -> Shape:
        """Shape of the joined outputs; ValueError if the branches' ``shapes`` do not go together."""
        largest = max(shapes, key=lambda shape: (math.prod(shape), len(shape)))
        comparable = list(shapes)
        if self.merge == "concat":
            comparable = [shape[:-1] for shape in shapes]
        elif self.merge == "multiply":
            gates = (largest[-1:], (1, 1, *largest[-1:]))
            comparable = [largest if shape in gates else shape for shape in shapes]
        if len(set(comparable)) > 1:
            raise ValueError(f"cannot {self.merge} branches with outputs of shapes {', '.join(map(str, shapes))}")
        self.edges = list(itertools.accumulate((shape[-1] for shape in shapes), initial=0))
        return (*largest[:-1], self.edges[-1]) if self.merge == "concat" else largest

    def fit(self, x: Array) -> None:
        for branch in self.branches:
            branch.fit(x)

    def skip_dx(self) -> None:
        super().skip_dx()
        for branch in self.branches:
            branch.skip_dx()

    def factors(self, context: Context) -> Sequence[float]:
        """Factors of the branches' outputs in this pass; 0 leaves a branch out."""
        return [1.0] * len(self.branches)

    def forward(self, x: Array, context: Context) -> Array:
        factors = self.factors(context)
        pairs = zip(self.branches, factors, strict=True)
        outputs = [times(branch.forward(x, context), factor) for branch, factor in pairs if factor]
        if self.merge == "sum":
            y = _sum(outputs, self.activation)
        elif self.merge == "multiply":
            y = products.multiply(outputs)
        else:
            y = engine.empty((*outputs[0].shape[:-1], self.edges[-1]), x.dtype)
            np.concatenate(outputs, axis=-1, out=y)
        self._kept = None
        if context.training:
            multiplied = outputs if self.merge == "multiply" else None
            self._kept = (factors, multiplied, None if self.activation is None else y)
        return y

    def backward(self, dy: Array) -> Array | None:
        factors, multiplied, y = self.kept()
        if self.activation is not None:
            dy = self.activation.backward_from(dy, y, y)
        gradients = []
        for index, (branch, factor) in enumerate(zip(self.branches, factors, strict=True)):
            if not factor:
                _clear_gradients(branch)
                continue
            if multiplied is not None:
                part = products.gradient(dy, multiplied, index)
            elif self.merge == "sum" or len(self.branches) == 1:
                part = times(dy, factor)
            else:
                view = dy[..., self.edges[index] : self.edges[index + 1]]
                part = engine.empty(view.shape, view.dtype)
                np.copyto(part, view)
            gradients.append(branch.backward(part))
        needed = [gradient for gradient in gradients if gradient is not None]
        return _sum(needed) if self.needs_dx else None


def _clear_gradients(layer: Layer) -> None:
    for _, part in layer.walk():
        for key, gradient in part.grads.items():
            if not (part.is_large and key == "weight") or engine.team().index == 0:  # workers share it
                gradient[...] = 0


def _sum(arrays: Sequence[Array], activation: Activation | None = None) -> Array:
    """Sum arrays and apply the activation, in a new array: the summands may be shared."""
    if len(arrays) == 1 and activation is None:
        return arrays[0]

    def add(out: Array, first: Array, *others: Array) -> None:
        if others:
            np.add(first, others[0], out=out)
        else:
            np.copyto(out, first)
        for other in others[1:]:
            out += other
        if activation is not None:
            activation.apply(out, out)

    y = engine.empty(arrays[0].shape, arrays[0].dtype)
    for_rows(add, y, *arrays)
    return y


@layers.register("residual")
class Residual(Parallel):
    """y = body(x) + shortcut(x) (He et al. 2015, arXiv:1512.03385).

    Args:
        body: layers whose output is added to the shortcut's.
        shortcut: layers from the input to the sum; the input itself if left out.
        drop_probability: of leaving the body out of a training step, in which it then costs nothing (stochastic depth,
            Huang et al. 2016, arXiv:1603.09382). In the other steps body(x) counts 1 / (1 - drop_probability) times;
            the paper scales it in evaluation instead.

    Parameters are called ``body.*`` and ``shortcut.*``.
    """

    def __init__(self, body: Layer, shortcut: Layer | None = None, drop_probability: float = 0.0):
        super().__init__([body, shortcut or Sequential([])], merge="sum")
        if not 0 <= drop_probability < 1:
            raise OptionError(f"drop_probability must be in [0, 1), not {drop_probability}", "drop_probability")
        self.drop_probability = drop_probability
        self.names = ["body", "shortcut"]

    def allocate(self, rng: np.random.Generator, dtype: DType) -> None:
        if self.drop_probability:
            self._seed = int(rng.integers(2**63))  # differs from block to block, follows from the network's seed
        super().allocate(rng, dtype)

    def factors(self, context: Context) -> Sequence[float]:
        if not (context.training and self.drop_probability):
            return 1.0, 1.0
        dropped = stream(self._seed, "residual", context.step).random() < self.drop_probability
        return 0.0 if dropped else 1 / (1 - self.drop_probability), 1.0

    def joined(self, shapes: Sequence[Shape]) -> Shape:
        try:
            return super().joined(shapes)
        except ValueError as error:
            hint = (
                "keep height and width in the body with `padding: same`, or give `shortcut` layers that make the "
                "shapes equal, such as a 1x1 conv2d with the same stride"
            )
            raise ValueError(f"{error}; {hint}") from None


@layers.register("repeat")
class Repeat(Sequential):
    """Layers repeated one after the other, each time with parameters of their own.

    Args:
        times: number of repetitions.
        body: the layers. Their parameters are called ``0.*`` the first time, then ``1.*``, ...
    """

    def __init__(self, times: int, body: Layer):
        if times < 1:
            raise OptionError(f"times must be at least 1, not {times}", "times")
        if times * body.layer_count > MOST_LAYERS:
            raise OptionError(f"{times} * {body.layer_count} layers are more than {MOST_LAYERS}", "times")
        super().__init__([copy.deepcopy(body) for _ in range(times)])
