"""Picture files with labels, decoded into images of one size: what the sources of pictures have in common."""

import os
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np

from cnnlite.data.datasets.cached import CachedSource
from cnnlite.data.datasets.listing import Examples, Listing, spelled
from cnnlite.data.frames import Frame
from cnnlite.data.images import Part, read_pictures
from cnnlite.errors import DataError, OptionError
from cnnlite.utils.types import Array


@dataclass
class Pictures(Examples):
    """Files of pictures with their labels."""

    files: list[str] = field(default_factory=list)
    """Relative to the folder of the dataset."""
    labels: list[int] = field(default_factory=list)
    groups: list[str] | None = None
    """Names of what stays together, one for each picture; each is by itself if there are none."""
    boxes: Array | None = None
    """Left, top, right and bottom of the part of each file that is the picture, and width and height of the file.

    Float (N, 6), in pixels; the files are whole pictures if there are none.
    """

    def __add__(self, other: Self) -> Self:
        groups = None if self.groups is None else self.groups + (other.groups or [])
        boxes = None if self.boxes is None or other.boxes is None else np.concatenate([self.boxes, other.boxes])
        return type(self)(self.files + other.files, self.labels + other.labels, groups, boxes)

    def take(self, which: Array) -> Self:
        groups = None if self.groups is None else [self.groups[index] for index in which]
        boxes = None if self.boxes is None else self.boxes[which]
        return type(self)(
            [self.files[index] for index in which], [self.labels[index] for index in which], groups, boxes
        )

    def keys(self) -> list[str]:
        return self.groups or [spelled(file.replace(os.sep, "/")) for file in self.files]

    def name(self, index: int) -> str:
        return self.files[index]


@dataclass(eq=False)
class PictureSource(CachedSource):
    """Source of pictures of any size, format and colours, which are decoded, scaled and cut to squares.

    Args:
        size: side of the square images, in pixels.
        resize: the shorter side is scaled to this before the centre is cut out; to ``size`` if left out.
        stretch: scale to the square whatever the proportions, and cut nothing off.
        channels: 3 for colours, 1 for grey.
    """

    size: int
    resize: int | None = None
    stretch: bool = False
    channels: Literal[1, 3] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        size, resize = self.size, self.resize
        if size < 1:
            raise OptionError(f"size must be at least 1, not {size}", "size")
        if resize is not None and (self.stretch or resize < size):
            raise OptionError(f"must be at least size, {size}, and goes without stretch; not {resize}", "resize")
        self.in_shape = self.frame.shape

    @classmethod
    def framed(cls, frame: Frame) -> Self:
        if frame.height != frame.width:
            raise DataError(f"pictures become squares, but the network takes {frame.height}x{frame.width} pixels")
        if frame.channels not in (1, 3):
            raise DataError(f"pictures have 3 channels, or 1 if grey, but this network takes {frame.channels}")
        return cls(frame.height, frame.shorter, frame.stretch, 3 if frame.channels == 3 else 1)

    @property
    def frame(self) -> Frame:
        return Frame(self.size, self.size, self.resize, self.stretch, self.channels)

    def read(self, listing: Listing[Pictures], examples: Pictures) -> tuple[Array, dict[int, str]]:
        boxes = [] if examples.boxes is None else examples.boxes.tolist()
        parts = [Part((left, top, right, bottom), (int(w), int(h))) for left, top, right, bottom, w, h in boxes]
        return read_pictures([listing.root / file for file in examples.files], self.frame, parts)
