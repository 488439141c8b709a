"""The network: a model with its shapes checked, its parameters named, and its state in one place."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from cnnlite.errors import CheckpointError, ConfigError, Problem
from cnnlite.nn.freezing import freeze
from cnnlite.nn.fusion import fuse
from cnnlite.nn.layers.base import Context, Layer, dotted
from cnnlite.nn.memory import count_parameters, images_at_once, refuse_if_too_large
from cnnlite.nn.shape_errors import misfits, wrong_output
from cnnlite.runtime import distributed, engine, shards
from cnnlite.utils.rng import stream
from cnnlite.utils.types import Array, DType, Shape

SHARD_WORK = 10_000_000
"""Multiply-adds of a forward pass that are worth a shard: with its gradients, about a millisecond of a core."""


@dataclass(frozen=True)
class Parameter:
    """A trained array of a layer, under its full name."""

    name: str
    """Dotted and stable, such as ``3.body.0.weight``."""
    layer: Layer
    key: str

    @property
    def shape(self) -> Shape:
        """Shape, known before the array is allocated."""
        return self.layer.specs[self.key].shape

    @property
    def is_large(self) -> bool:
        """True if its gradient is one of the whole batch, which workers compute together."""
        return self.key == "weight" and self.layer.is_large

    @property
    def value(self) -> Array:
        """The parameter's array."""
        return self.layer.params[self.key]

    @property
    def grad(self) -> Array:
        """Gradient of the loss with respect to it, from the last backward pass."""
        return self.layer.grads[self.key]


def inferred(model: Layer, in_shape: Shape, classes: int | None = None) -> Layer:
    """Copy a model and infer all its shapes, without arrays.

    Raises:
        ConfigError: naming all layers that cannot take their input shape, and an output that is not ``(classes,)``.
    """
    model = copy.deepcopy(model)
    try:
        model.out_shape = model.infer(in_shape)
    except (ConfigError, ValueError) as error:
        raise ConfigError(misfits(model, in_shape, classes) or [Problem("model", str(error))]) from None
    if classes is not None and model.out_shape != (classes,):
        raise ConfigError([wrong_output(model, model.out_shape, classes)])
    return model


class Network:
    """A model built for inputs of one shape.

    Args:
        model: layers; they are copied.
        in_shape: shape of a sample, (H, W, C).
        seed: determines the initial weights; None for a network of shapes without arrays.
        dtype: of all arrays; float64 is for checking gradients.
        classes: required number of outputs; not checked if None.
        fused: let layers share passes over memory, see `fuse`; False lets hooks see each layer by itself.
        frozen: regular expression for the names of parameters that are not trained, see `freezing`.

    Raises:
        ConfigError: if layers cannot take their input shape, the output is not ``(classes,)``, or ``frozen`` matches
            no parameter, or all.
    """

    def __init__(
        self,
        model: Layer,
        in_shape: Shape,
        *,
        seed: int | None,
        dtype: Any = np.float32,
        classes: int | None = None,
        fused: bool = True,
        frozen: str | None = None,
    ):
        self.model = inferred(model, in_shape, classes)
        self.in_shape = in_shape
        self.out_shape = self.model.out_shape
        self.dtype = np.dtype(dtype)
        if fused:
            fuse(self.model)
        if seed is not None:
            refuse_if_too_large(self.model, image=in_shape)
            try:
                self.model.allocate(stream(seed, "weights"), self.dtype)
            except MemoryError as error:
                raise ConfigError([Problem("model", f"the parameters do not fit in memory: {error}")]) from None
        self.frozen: frozenset[str] = frozenset() if frozen is None else freeze(self.model, frozen)
        """Names of arrays that training leaves as they are: frozen parameters, and buffers of fixed layers."""
        self.model.skip_dx()
        self._frozen = 0
        parts = list(self.model.walk())
        self.parameters = {
            parameter.name: parameter
            for prefix, layer in parts
            for parameter in (
                Parameter(dotted(prefix, key), layer, key) for key in layer.specs if layer.specs[key].trained
            )
        }
        self.buffers = {dotted(prefix, key): buffer for prefix, layer in parts for key, buffer in layer.buffers.items()}

    @property
    def trainable(self) -> list[Parameter]:
        """Parameters that are not frozen."""
        return [parameter for name, parameter in self.parameters.items() if name not in self.frozen]

    def describe_frozen(self) -> list[str]:
        """Say in a line how much is frozen; no line if nothing is."""
        if not self.frozen:
            return []
        frozen = [parameter for name, parameter in self.parameters.items() if name in self.frozen]
        numbers = sum(math.prod(parameter.shape) for parameter in frozen)
        fixed = [layer for _, layer in self.model.walk() if layer.is_fixed]
        still = sum(any(not spec.trained for spec in layer.specs.values()) for layer in fixed)
        words = "layer keeps its" if still == 1 else "layers keep their"
        statistics = f"; {still} {words} statistics" * bool(still)
        share = f"{len(frozen)} of {len(self.parameters)} parameters, {numbers:,} of {self.size:,} numbers"
        return [f"frozen: {share}{statistics}"]

    def shards(self, count: int) -> int:
        """Number of shards that a batch of ``count`` samples is divided into, a power of two; see `engine`."""
        parts = [layer for _, layer in self.model.walk()]
        if not all(layer.by_shards for layer in parts):
            return 1
        work = count * sum(layer.multiply_adds for layer in parts)
        return shards.power_of_two(min(count, work // SHARD_WORK))

    @property
    def size(self) -> int:
        """Number of trained scalars."""
        return count_parameters(self.model)

    def forward(self, x: Array, *, training: bool, step: int = 0) -> Array:
        """Compute the outputs for a batch ``x`` (N, *in_shape); ``step`` decides what layers such as dropout draw."""
        return self.model.forward(x, Context(training, step, distributed.current()))

    def backward(self, dy: Array) -> None:
        """Write the gradients of all parameters, given the gradient ``dy`` of the outputs."""
        self.model.backward(dy)

    def freeze(self, parameters: Sequence[Parameter]) -> None:
        """Stop training ``parameters``; the backward pass ends before layers that have no others.

        Gradients that it no longer reaches are 0.
        """
        if len(parameters) == self._frozen:
            return
        self._frozen = len(parameters)
        for parameter in parameters:
            if not parameter.is_large or engine.team().index == 0:  # workers share it
                parameter.grad[...] = 0
        for layer in {parameter.layer for parameter in parameters}:
            layer.is_frozen = len(layer.params) == sum(parameter.layer is layer for parameter in parameters)
        self.model.skip_dx()

    def fit(self, images: Array, normalize: Callable[[Array], Array]) -> None:
        """Fit layers that are computed from data, not trained, to the first training ``images``."""
        if count := self.model.most_fit_images:
            self.model.fit(normalize(images[:count]))

    def fix(self) -> None:
        """Keep parameters and buffers as they are from now on, so that layers need not prepare them in each pass.

        They become copies that cannot be written to: whatever would change them, such as training or `load_state`,
        raises ValueError, and nothing that is prepared can be out of date.
        """
        for prefix, layer in self.model.walk():
            for arrays in (layer.params, layer.buffers):
                for key, array in arrays.items():
                    arrays[key] = array.copy()
                    arrays[key].flags.writeable = False
            self.buffers |= {dotted(prefix, key): buffer for key, buffer in layer.buffers.items()}
            layer.fix()

    def at_once(self, most: int) -> int:
        """Count the images, at most ``most``, to show it at once outside of training; see `memory.images_at_once`."""
        return images_at_once(most, self.in_shape, self.model)

    def state(self) -> dict[str, Array]:
        """All parameters and buffers, not copied, as ``param/NAME`` and ``buffer/NAME``."""
        params = {f"param/{name}": parameter.value for name, parameter in self.parameters.items()}
        return params | {f"buffer/{name}": buffer for name, buffer in self.buffers.items()}

    def changing_state(self) -> dict[str, Array]:
        """Those arrays of `state` that training changes."""
        return {name: array for name, array in self.state().items() if name.partition("/")[2] not in self.frozen}

    def load_state(self, arrays: Mapping[str, Array]) -> None:
        """Copy ``arrays``, named as in `state`, into the network.

        Raises:
            CheckpointError: naming all arrays missing, left over or of another shape or dtype; nothing is changed then.
        """
        load_arrays(self.state(), arrays, "network")


class Described(Protocol):
    """Anything with a shape and a dtype: an array, or an entry in a file's list of arrays."""

    @property
    def shape(self) -> Shape:
        """Shape."""

    @property
    def dtype(self) -> DType:
        """Type of the numbers."""


def check_arrays(own: Mapping[str, Array], given: Mapping[str, Described], owner: str) -> None:
    """Raise CheckpointError naming every name, shape or dtype of ``given`` that differs from ``own``."""
    faults = [f"{name} is missing" for name in own if name not in given]
    faults += [f"{name} is not in the {owner}" for name in given if name not in own]
    for name, array in own.items():
        if name in given and given[name].shape != array.shape:
            faults.append(f"{name} has shape {given[name].shape}, not {array.shape}")
        elif name in given and given[name].dtype != array.dtype:
            faults.append(f"{name} is {given[name].dtype}, not {array.dtype}")
    if faults:
        raise CheckpointError(f"does not fit the {owner}: {'; '.join(faults)}")


def load_arrays(own: Mapping[str, Array], given: Mapping[str, Array], owner: str) -> None:
    """Copy ``given`` into ``own``, name by name.

    Raises:
        CheckpointError: unless all of them fit; nothing is changed then.
    """
    check_arrays(own, given, owner)
    for name, array in own.items():
        np.copyto(array, given[name])


def pack(parameters: Sequence[Parameter]) -> tuple[Array, Array]:
    """Move parameters and their gradients into two flat arrays, of which the layers then hold views.

    That way an optimizer updates a whole group in one pass over memory, and a gradient norm is one dot product.

    Returns:
        values and gradients, both (total size,), in the order of ``parameters``.
    """
    count = sum(parameter.value.size for parameter in parameters)
    values, grads = (engine.shared((count,), parameters[0].value.dtype) for _ in range(2))
    np.concatenate([parameter.value.ravel() for parameter in parameters], out=values)
    np.concatenate([parameter.grad.ravel() for parameter in parameters], out=grads)
    for parameter, place in places(parameters):
        parameter.layer.params[parameter.key] = values[place].reshape(parameter.shape)
        parameter.layer.grads[parameter.key] = grads[place].reshape(parameter.shape)
    return values, grads


def places(parameters: Sequence[Parameter]) -> Iterator[tuple[Parameter, slice]]:
    """Iterate over ``parameters`` and their places in flat arrays that hold them side by side."""
    start = 0
    for parameter in parameters:
        stop = start + parameter.value.size
        yield parameter, slice(start, stop)
        start = stop
