"""Batches of training images, as a pure function of the step."""

import math
from collections.abc import Sequence

import numpy as np

from cnnlite.data.augment import Pick, Transform, check_shapes
from cnnlite.data.datasets.base import Images
from cnnlite.data.mix import Mixing, soft_targets
from cnnlite.data.normalize import Normalizer
from cnnlite.data.sampling import Sampling, epoch_order
from cnnlite.errors import ConfigError, Problem
from cnnlite.runtime import engine
from cnnlite.utils.rng import stream
from cnnlite.utils.types import Array


class Batches:
    """The training images in random order, augmented and normalized.

    Each epoch shows every image once, in an order of its own, or every class equally often if ``sampling`` is
    balanced. The last batch of an epoch is shorter if the images do not divide evenly, or left out with ``drop_last``.
    With ``mix`` each image is mixed with another of its batch, and labels become probabilities for that many
    ``classes``. What ``batch(step)`` returns depends on the arguments of the constructor and on the step, and on
    nothing that happened before.

    Raises:
        ConfigError: if a batch is larger than the data, or if an augmentation does not fit the images.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        *,
        seed: int,
        transforms: Sequence[Transform],
        normalizer: Normalizer,
        sampling: Sampling = "shuffled",
        drop_last: bool = False,
        mix: Mixing | None = None,
        classes: int = 0,
    ):
        count = len(images)
        if not 1 <= batch_size <= count:
            raise ConfigError([Problem("train.batch_size", f"{batch_size} is not in 1..{count}, the training images")])
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.transforms = tuple(transforms)
        self.normalizer = normalizer
        self.sampling = sampling
        self.mix = mix
        self.classes = classes
        self.steps_per_epoch = count // batch_size if drop_last else -(-count // batch_size)
        check_shapes(self.transforms, images.images.shape[1:])
        self._order: tuple[int, Array] | None = None

    def size(self, step: int) -> int:
        """Number of images in the batch of training step ``step``."""
        return min(self.batch_size, len(self.images) - step % self.steps_per_epoch * self.batch_size)

    def batch(self, step: int, part: slice = slice(None)) -> tuple[Array, Array]:
        """Make the batch of training step ``step``, counted from 0, or of a part of its images.

        Returns:
            Inputs, float32 ``(n, H, W, C)``, and targets: labels, int64 ``(n,)``, or probabilities, float32 ``(n, K)``.
        """
        chosen = self._chosen(step)
        source = self.images.images
        shape = source.shape[1:]
        wanted = np.arange(len(chosen))[part]
        out = np.empty((len(wanted), *shape), np.float32)
        rng = stream(self.seed, "augment", step)
        pick = Pick(chosen, len(source), shape, step // self.steps_per_epoch, self.seed)
        options = [transform.draw(rng, pick) for transform in self.transforms]

        def write(which: Array, x: Array) -> None:
            images = source[chosen[which]]
            for transform, option in zip(self.transforms, options, strict=True):
                images = transform.apply(images, option[which])
            self.normalizer.write(images, x)

        labels = self.images.labels[chosen]
        # Only the floats count: blocks of fewer images would spend their time on calls, not on pixels.
        size = 4 * math.prod(shape)
        if self.mix is None:
            engine.for_blocks(lambda start, stop: write(wanted[start:stop], out[start:stop]), len(wanted), size)
            return out, labels[part]
        mix, (partner, rng) = self.mix, self._partners(step)
        mixed = mix.draw(rng, len(chosen), shape)

        def write_mixed(start: int, stop: int) -> None:
            x, which = out[start:stop], wanted[start:stop]
            other = engine.scratch("batches.other", x.shape, np.float32)
            write(which, x)
            write(partner[which], other)  # once more: a block, or a part of a batch, needs no other one
            mix.apply(x, other, mixed[which])

        engine.for_blocks(write_mixed, len(wanted), size)
        return out, soft_targets(labels, partner, mix.shares(mixed, shape), self.classes)[part]

    def sources(self, step: int) -> Array:
        """Indices of the images that each of a step is made of, int64 ``(N, 1)``, or ``(N, 2)`` with ``mix``."""
        chosen = self._chosen(step)
        return np.stack([chosen] if self.mix is None else [chosen, chosen[self._partners(step)[0]]], axis=1)

    def _chosen(self, step: int) -> Array:
        """Indices of the images of a step, int64 ``(N,)``."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self._order_of(epoch)[place * self.batch_size : (place + 1) * self.batch_size]

    def _partners(self, step: int) -> tuple[Array, np.random.Generator]:
        """Places in the batch of the images that are mixed into each, int64 ``(N,)``, and the stream behind them."""
        rng = stream(self.seed, "mix", step)
        return rng.permutation(self.size(step)), rng

    def _order_of(self, epoch: int) -> Array:
        known = self._order
        if known is None or known[0] != epoch:
            order = epoch_order(self.sampling, self.images.labels, stream(self.seed, "order", epoch))
            known = self._order = epoch, order
        return known[1]
