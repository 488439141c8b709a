"""Protocol of a transform, the registry in which configs find it, and checks of options that several have."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import numpy as np

from cnnlite.errors import ConfigError, OptionError, Problem
from cnnlite.utils.registry import Registry
from cnnlite.utils.types import Array, Shape

Interpolation: TypeAlias = Literal["nearest", "bilinear"]
Range: TypeAlias = Annotated[tuple[float, float], "a list of 2: [least, most]"]
Spread: TypeAlias = float | Range
"""An interval, or the distance of both its ends from the value that changes nothing; see `spread`."""


@dataclass(frozen=True)
class Pick:
    """The training images of a batch, for which a transform draws."""

    indices: Array
    """Indices of the batch's images, int64 ``(N,)``, among ``total`` training images."""
    total: int
    shape: Shape
    """(H, W, C) of an image."""
    epoch: int
    seed: int
    """Seed of the run, for choices that belong to an image rather than to a step."""

    def __len__(self) -> int:
        return len(self.indices)


class Transform(ABC):
    """A transform of uint8 images ``(N, H, W, C)``.

    Random options are drawn for a whole batch, one entry per image, before any is applied: a slice of the batch with
    the same slice of the options gives the same images. So `draw` does what may round differently in arrays of another
    length, such as a sine, and `apply` only arithmetic that is exactly rounded, and sums over one image.
    """

    @abstractmethod
    def draw(self, rng: np.random.Generator, pick: Pick) -> Array:
        """Draw options for the images of ``pick``, with the ``rng`` of the step; the first axis counts images."""

    @abstractmethod
    def apply(self, images: Array, options: Array) -> Array:
        """Transform ``images`` by their ``options`` from `draw`, in a new array."""

    def out_shape(self, shape: Shape) -> Shape:
        """Shape of a transformed image; ValueError if images of ``shape`` cannot be transformed."""
        return shape


transforms: Registry[Transform] = Registry("augmentation", Transform)  # type: ignore[type-abstract]


def check_shapes(chosen: Sequence[Transform], shape: Shape) -> None:
    """Check that transforms fit images of ``shape`` and keep it; ConfigError with the place in the config if not."""
    for index, transform in enumerate(chosen):
        place = f"data.augment[{index}]"
        try:
            changed = transform.out_shape(shape)
        except OptionError as error:
            option = ".".join(map(str, (transforms.name_of(type(transform)), *error.option)))
            raise ConfigError([Problem(f"{place}.{option}", error.message)]) from None
        except ValueError as error:
            raise ConfigError([Problem(place, str(error))]) from None
        if changed != shape:
            why = "but validation and test images stay as they are; to crop all images use data.center_crop"
            raise ConfigError([Problem(place, f"makes {changed} of {shape}, {why}")])


def check_probability(probability: float) -> None:
    """Check that an option of this name is one; OptionError if not."""
    if not 0 <= probability <= 1:
        raise OptionError(f"probability {probability} is not in [0, 1]", "probability")


def check_fill(fill: int) -> None:
    """Check that an option of this name is a grey; OptionError if not."""
    if not 0 <= fill <= 255:
        raise OptionError(f"fill {fill} is not in [0, 255]", "fill")


def check_interpolation(interpolation: Interpolation) -> None:
    """Check that an option of this name is one of the two; OptionError if not."""
    if interpolation not in ("nearest", "bilinear"):
        raise OptionError(f"interpolation {interpolation!r} is not nearest or bilinear", "interpolation")


def interval(value: Range, option: str, least: float = 0.0, most: float = math.inf) -> Range:
    """Return the interval that an option gives, above ``least`` and up to ``most``; OptionError if it is none."""
    low, high = value
    if not least < low <= high <= most:
        raise OptionError(f"{option} [{low}, {high}] is not an interval within ({_ends(least, most)}", option)
    return low, high


def spread(value: Spread, option: str, neutral: float, least: float, most: float = math.inf) -> Range:
    """Return the interval that an option gives: itself, or ``neutral`` plus and minus a number, from ``least`` on.

    Raises:
        OptionError: if it is not an interval in [least, most], or the number is negative or too large.
    """
    if isinstance(value, int | float):
        if not 0 <= value <= most - neutral:
            raise OptionError(f"{option} {value} is not in [{_ends(0, most - neutral)}", option)
        return max(least, neutral - value), neutral + value
    low, high = value
    if not least <= low <= high <= most:
        raise OptionError(f"{option} [{low}, {high}] is not an interval within [{_ends(least, most)}", option)
    return low, high


def _ends(least: float, most: float) -> str:
    return f"{least:g}, {most:g}" + ("]" if most < math.inf else ")")
