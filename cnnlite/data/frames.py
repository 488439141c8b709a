"""Frames: how pictures of any size become images of one size."""

from dataclasses import dataclass
from typing import TypeAlias

from cnnlite.utils.types import Shape

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of a picture, in pixels."""


@dataclass(frozen=True)
class Frame:
    """Scaling and cropping of pictures of any size to ``height`` x ``width`` pixels of ``channels``: 3, or 1 for grey.

    The shorter side is scaled to ``shorter`` pixels, or as far as the picture still covers the frame, and the centre is
    cut out; with ``stretch`` all of the picture is scaled to the frame, whatever its proportions.
    """

    height: int
    width: int
    shorter: int | None = None
    stretch: bool = False
    channels: int = 3

    @property
    def shape(self) -> Shape:
        """Shape of an image: (height, width, channels)."""
        return (self.height, self.width, self.channels)

    def scale(self, width: float, height: float) -> tuple[float, float]:
        """Scale factors from a picture, or a part of one, to the frame, across and down."""
        if self.stretch:
            return self.width / width, self.height / height
        cover = max(self.width / width, self.height / height)
        if self.shorter is not None:
            cover = max(cover, self.shorter / min(width, height))
        return cover, cover
