"""Normalization of images: bytes to float32 with zero mean and unit variance."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from cnnlite.errors import ConfigError, OptionError, Problem
from cnnlite.runtime import engine
from cnnlite.utils.types import Array


@dataclass(frozen=True)
class Statistics:
    """Mean and deviation of each channel, given instead of computed, as those that a pretrained network was fed with.

    Args:
        mean: of each channel, where black is 0 and white is 1.
        std: deviation of each channel, in the same unit.
    """

    mean: list[float]
    std: list[float]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise OptionError(f"has {len(self.std)} numbers, mean has {len(self.mean)}", "std")
        if not all(deviation > 0 for deviation in self.std):
            raise OptionError("must be above 0", "std")


Mode: TypeAlias = Literal["per_channel", "per_pixel", "none"] | Statistics

# Sums of this many squares of bytes stay below 2^24, so float32 holds them exactly: 256 * 255^2 < 2^24.
_EXACT = 256
_PIECE_BYTES = 64 * 2**20
_LEAST = 64
"""Minimum images of a block: each has sums of its own, which take as much memory as 16 images."""
_FULL_RANGE = 255.0


class Normalizer:
    """``(image - mean) / std`` in float32, with statistics in units of the bytes (0 to 255).

    ``mean`` and ``std`` are float32, of shape ``(C,)`` or ``(H, W, C)``.
    """

    def __init__(self, mean: Array, std: Array):
        if mean.shape != std.shape or mean.ndim not in (1, 3):
            raise ValueError(f"mean {mean.shape} and std {std.shape} must both be (C,) or (H, W, C)")
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            raise ValueError("mean and std must be finite, and std positive")
        self.mean = mean.astype(np.float32)
        self.std = std.astype(np.float32)
        self._rows: dict[tuple[int, ...], tuple[Array, Array]] = {}

    @classmethod
    def fit(cls, images: Array, mode: Mode = "per_channel") -> "Normalizer":
        """Compute the statistics of uint8 images ``(N, H, W, C)`` from exact sums; ``none`` only scales to 0..1.

        A channel or pixel with a standard deviation below one grey level, such as a constant one, is divided by 255.

        Raises:
            ConfigError: If given statistics are of another number of channels.
        """
        shape = images.shape[1:]
        if isinstance(mode, Statistics):
            if len(mode.mean) != shape[-1]:
                message = f"has {len(mode.mean)} channels, the images have {shape[-1]}"
                raise ConfigError([Problem("data.normalize", message)])
            return cls(*(np.array(numbers) * _FULL_RANGE for numbers in (mode.mean, mode.std)))
        if mode == "none":
            return cls(np.zeros(shape[-1:]), np.full(shape[-1:], _FULL_RANGE))
        if not len(images):
            raise ValueError("cannot take statistics of no images")
        total, squares = (sums.reshape(shape) for sums in _sums(images))
        count = len(images)
        if mode == "per_channel":
            total, squares = total.sum(axis=(0, 1)), squares.sum(axis=(0, 1))
            count *= shape[0] * shape[1]
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean * mean, 0))
        return cls(mean, np.where(std < 1, _FULL_RANGE, std))

    def __call__(self, images: Array) -> Array:
        """Normalize uint8 images ``(N, H, W, C)`` into a new float32 array."""
        out = np.empty(images.shape, np.float32)
        if len(images):
            engine.for_blocks(
                lambda start, stop: self.write(images[start:stop], out[start:stop]), len(images), 5 * out[0].size
            )
        return out

    def write(self, images: Array, out: Array) -> None:
        """Normalize uint8 images ``(N, H, W, C)`` into ``out``, contiguous float32, on this thread alone."""
        scale, shift = self._row(images.shape[1:])
        rows = out.reshape(len(out), -1)
        np.copyto(rows, images.reshape(len(images), -1))
        np.multiply(rows, scale, out=rows)
        np.add(rows, shift, out=rows)

    def undo(self, x: Array) -> Array:
        """Turn normalized images ``(N, H, W, C)`` back into uint8, each value rounded to the nearest byte."""
        values = x * self.std.astype(np.float64) + self.mean
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)

    def _row(self, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Scale and shift of every byte of one image, flat: long inner loops, however few the channels."""
        if shape not in self._rows:
            if shape[-1:] != self.mean.shape[-1:] or (self.mean.ndim == 3 and shape != self.mean.shape):
                raise ValueError(f"images {shape} do not fit the normalization statistics {self.mean.shape}")
            mean, std = self.mean.astype(np.float64), self.std.astype(np.float64)
            flat = [np.broadcast_to(v, shape).astype(np.float32).reshape(-1) for v in (1 / std, -mean / std)]
            self._rows[shape] = (flat[0], flat[1])
        return self._rows[shape]

    def state(self) -> dict[str, Array]:
        """Arrays for a checkpoint: ``normalize/mean`` and ``normalize/std``."""
        return {"normalize/mean": self.mean, "normalize/std": self.std}

    @classmethod
    def from_state(cls, arrays: Mapping[str, Array]) -> "Normalizer":
        """Restore from `state`; KeyError or ValueError if the arrays are missing or do not fit."""
        return cls(arrays["normalize/mean"], arrays["normalize/std"])


def _sums(images: Array) -> tuple[Array, Array]:
    """Sums and sums of squares of the values of uint8 images ``(N, H, W, C)``, exact, as float64 (H * W * C,).

    Exact, so the order of adding does not matter; piece by piece, so memory does not grow with the number of images.
    """
    size = math.prod(images.shape[1:])
    total, squares = np.zeros(size), np.zeros(size)
    step = max(1, _PIECE_BYTES // size)
    for start in range(0, len(images), step):
        for partial in _sums_of_blocks(images[start : start + step].reshape(-1, size)):
            total += partial[0]
            squares += partial[1]
    return total, squares


def _sums_of_blocks(rows: Array) -> list[tuple[Array, Array]]:
    at_once = min(_EXACT, max(1, _PIECE_BYTES // 64 // rows.shape[1]))

    def add_up(start: int, stop: int) -> tuple[Array, Array]:
        total = np.zeros(rows.shape[1])
        squares = np.zeros(rows.shape[1])
        for first in range(start, stop, at_once):
            values = rows[first : min(first + at_once, stop)].astype(np.float32)
            ones = np.ones(len(values), np.float32)
            total += ones @ values
            np.multiply(values, values, out=values)
            squares += ones @ values
        return total, squares

    return engine.for_blocks(add_up, len(rows), 5 * rows.shape[1], least=_LEAST)
