"""Augmentation: random transforms of training images, drawn first and then applied to a whole batch at once."""

from cnnlite.data.augment import affine as _affine  # registers the transforms
from cnnlite.data.augment import colour as _colour
from cnnlite.data.augment import crops as _crops
from cnnlite.data.augment import erasing as _erasing
from cnnlite.data.augment import trivial as _trivial
from cnnlite.data.augment.base import Pick, Transform, check_shapes, transforms

__all__ = ["Pick", "Transform", "check_shapes", "transforms"]

del _affine, _colour, _crops, _erasing, _trivial
