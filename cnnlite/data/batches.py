"""Batches: which images are seen when, as a pure function of the step."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from cnnlite import engine
from cnnlite.data.dataset import Images
from cnnlite.data.normalize import Normalizer
from cnnlite.data.transforms import Pick, Transform
from cnnlite.errors import ConfigError, Problem
from cnnlite.randomness import stream
from cnnlite.types import Array


class Batches:
    """The training images in random order, augmented and normalised.

    Each epoch shows every image once, in an order of its own; the last batch of an epoch is shorter if the images do
    not divide evenly, or left out with ``drop_last``. What ``batch(step)`` returns depends on the arguments of the
    constructor and on the step, and on nothing that happened before.

    Raises ConfigError if a batch is larger than the data, or if an augmentation does not fit the images.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        *,
        seed: int,
        transforms: Sequence[Transform],
        normalizer: Normalizer,
        drop_last: bool = False,
    ):
        count = len(images)
        if not 1 <= batch_size <= count:
            raise ConfigError([Problem("train.batch_size", f"{batch_size} is not in 1..{count}, the training images")])
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.transforms = tuple(transforms)
        self.normalizer = normalizer
        self.steps_per_epoch = count // batch_size if drop_last else -(-count // batch_size)
        self._check_shapes()
        self._order: tuple[int, Array] | None = None

    def _check_shapes(self) -> None:
        shape = self.images.images.shape[1:]
        for index, transform in enumerate(self.transforms):
            try:
                changed = transform.out_shape(shape)
                if changed != shape:
                    raise ValueError(
                        f"makes {changed} of {shape}, but validation and test images stay as they are; "
                        "to crop all images use data.center_crop"
                    )
            except ValueError as error:
                raise ConfigError([Problem(f"data.augment[{index}]", str(error))]) from None

    def batch(self, step: int) -> tuple[Array, Array]:
        """Inputs, float32 ``(n, H, W, C)``, and labels, int64 ``(n,)``, of training step ``step``, counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        chosen = self._permutation(epoch)[place * self.batch_size : (place + 1) * self.batch_size]
        source = self.images.images
        shape = source.shape[1:]
        out = np.empty((len(chosen), *shape), np.float32)
        rng = stream(self.seed, "augment", step)
        pick = Pick(chosen, len(source), shape, epoch, self.seed)
        options = [transform.draw(rng, pick) for transform in self.transforms]

        def prepare(_block: int, start: int, stop: int) -> None:
            images = source[chosen[start:stop]]
            for transform, option in zip(self.transforms, options, strict=True):
                images = transform.apply(images, option[start:stop])
            self.normalizer.write(images, out[start:stop])

        # Counted are the floats alone: blocks of fewer images would spend their time on calls, not on pixels.
        engine.for_blocks(prepare, len(chosen), 4 * math.prod(shape))
        return out, self.images.labels[chosen]

    def _permutation(self, epoch: int) -> Array:
        known = self._order
        if known is None or known[0] != epoch:
            known = self._order = (epoch, stream(self.seed, "order", epoch).permutation(len(self.images)))
        return known[1]


def sequential(images: Images, batch_size: int, normalizer: Normalizer) -> Iterator[tuple[Array, Array]]:
    """All images once, in their order, normalised and not augmented: the batches of an evaluation."""
    for start in range(0, len(images), batch_size):
        part = images.take(slice(start, start + batch_size))
        yield normalizer(part.images), part.labels
