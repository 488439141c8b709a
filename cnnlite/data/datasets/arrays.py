"""Images that are arrays already: in an .npz file, or in .npy files."""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from cnnlite.data.datasets.base import sources
from cnnlite.data.datasets.cached import CachedSource
from cnnlite.data.datasets.labels import classes_of, labels_of, numbered
from cnnlite.data.datasets.listing import PART_OF, TRAIN, Examples, Listing, counted, stamp
from cnnlite.data.datasets.npy_files import Stored, read_arrays
from cnnlite.data.fingerprints import hashed
from cnnlite.data.splits import divide
from cnnlite.errors import DataError, OptionError
from cnnlite.runtime import engine
from cnnlite.utils.printable import one_line
from cnnlite.utils.types import Array, Shape

ROLES = {
    "images": ("x", "image", "images", "img", "imgs", "data", "input", "inputs"),
    "labels": ("y", "label", "labels", "target", "targets"),
    "classes": ("class_names", "classes", "label_names", "names", "target_names"),
}
"""Names of arrays, in any case and beside the name of a part, by what they hold."""
_ROLE_OF = {name: role for role, names in ROLES.items() for name in names}
_UNNAMED = {"arr_0": "x", "arr_1": "y"}
"""Names of arrays that numpy.savez(file, x, y) gives, with better ones."""
_MOST_CHANNELS = 4
_AT_ONCE = 2**20


class Pixels(NamedTuple):
    """Images of an array of any numbers, as bytes."""

    place: str
    array: Array
    """(N, H, W) or (N, H, W, C); or (N, C, H, W) with ``channels_first``."""
    value_range: tuple[float, float] | None
    channels_first: bool

    @property
    def shape(self) -> Shape:
        """Shape of an image: (H, W, C)."""
        return self._last(self.array[:0]).shape[1:]

    def read(self, rows: Array) -> tuple[Array, dict[int, str]]:
        """Read some images, uint8 (N, H, W, C), and the faults of those with numbers that are none of the range."""
        out = np.zeros((len(rows), *self.shape), np.uint8)
        faults: dict[int, str] = {}

        def convert(start: int, stop: int) -> None:
            found = self._last(self.array[rows[start:stop]])
            if self.value_range is None:
                out[start:stop] = found
                return
            low, high = self.value_range
            values = found.astype(np.float64)
            fine = ((values >= low) & (values <= high)).all(axis=(1, 2, 3))
            out[start:stop][fine] = np.rint((values[fine] - low) * (255 / (high - low)))
            for index in np.flatnonzero(~fine).tolist():
                least, most = values[index].min(), values[index].max()
                faults[start + index] = f"holds {least:.6g} to {most:.6g}, beyond the range {low:.6g} to {high:.6g}"

        engine.for_blocks(convert, len(rows), 8 * max(out[:1].size, 1))
        return out, faults

    def _last(self, images: Array) -> Array:
        """View images with channels last."""
        if images.ndim == 3:
            return images[..., None]
        return np.moveaxis(images, 1, 3) if self.channels_first else images


@dataclass
class Rows(Examples):
    """Images of one or several arrays, by array and row, with their labels."""

    arrays: tuple[Pixels, ...]
    which: Array
    rows: Array
    labels: Sequence[int]

    @classmethod
    def all(cls, array: Pixels, labels: list[int]) -> Self:
        """Make the rows of all images of an array."""
        return cls((array,), np.zeros(len(labels), np.int64), np.arange(len(labels)), labels)

    def __add__(self, other: Self) -> Self:
        which = np.concatenate([self.which, other.which + len(self.arrays)])
        rows = np.concatenate([self.rows, other.rows])
        return type(self)(self.arrays + other.arrays, which, rows, [*self.labels, *other.labels])

    def take(self, which: Array) -> Self:
        return type(self)(self.arrays, self.which[which], self.rows[which], [self.labels[index] for index in which])

    def keys(self) -> list[str]:
        found: list[str] = []
        step = max(1, _AT_ONCE // math.prod(self.arrays[0].shape))
        for start in range(0, len(self), step):
            pixels, _ = self.take(np.arange(start, min(start + step, len(self)))).read()
            found += [f"{number:016x}" for number in hashed(pixels).tolist()]
        return found

    def name(self, index: int) -> str:
        return f"{self.arrays[self.which[index]].place}[{self.rows[index]}]"

    def read(self) -> tuple[Array, dict[int, str]]:
        """Read all images, uint8 (N, H, W, C), and the faults of those that cannot be used, by index."""
        out = np.empty((len(self), *self.arrays[0].shape), np.uint8)
        faults: dict[int, str] = {}
        for number, array in enumerate(self.arrays):
            here = np.flatnonzero(self.which == number)
            out[here], found = array.read(self.rows[here])
            faults |= {int(here[index]): fault for index, fault in found.items()}
        return out, dict(sorted(faults.items()))


@sources.register("arrays")
@dataclass(eq=False, kw_only=True)
class Arrays(CachedSource):
    """Arrays of images and labels: ``data.root`` is an .npz file, or a folder of .npy files, or with one .npz file.

    They are called ``x_train``, ``y_train``, and perhaps ``x_val``, ``y_val``, ``x_test`` and ``y_test``, or only ``x``
    and ``y``, or otherwise as is usual: ``train_images`` and ``train_labels``, ``data`` and ``target``. Images are (N,
    H, W) or (N, H, W, C); bytes, or any numbers of which ``value_range`` says what is black and what white: these are
    rounded to 256 levels. Labels are whole numbers, text, or rows of zeros with a one. ``class_names`` may name the
    classes 0, 1 and so on.

    Without test images, about ``test_fraction`` of all are; without any to validate with, a tenth of those to train on.
    The pixels of each image decide which, and ``seed``: so images that come or go move no other one, and equal images
    are never in different parts. The images are then in the order drawn, else as in the file. They are copied once into
    a cache file, which is mapped into memory, and made again when size or times of a file change.

    Args:
        value_range: numbers of black and of white; needed unless the images are bytes.
        channels_first: true for images (N, C, H, W), false for (N, H, W, C); needed where they look like the former.
    """

    value_range: tuple[float, float] | None = None
    channels_first: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise OptionError(f"the first number must be below the second, not {[*self.value_range]}", "value_range")

    def listing(self, root: Path) -> Listing[Rows]:
        stored = read_arrays(root)
        found = _by_part(root, stored)
        pixels = {part: self._pixels(arrays["images"]) for part, arrays in found.parts.items()}
        shapes = {array.place: array.shape for array in pixels.values()}
        if len({*shapes.values()}) > 1:
            different = ", ".join(f"{place} {shape}" for place, shape in shapes.items())
            raise DataError(f"{root}: images are of different shapes: {different}")
        labels = {p: labels_of(arrays["labels"], len(arrays["images"].array)) for p, arrays in found.parts.items()}
        classes, values = classes_of(labels[TRAIN], found.classes, least=1 if self.lenient else 2)
        parts = {part: Rows.all(array, numbered(labels[part], values)) for part, array in pixels.items()}
        divided = divide(parts, self.test_fraction, self.seed, root, reorder=False, lenient=self.lenient)
        digest = hashlib.sha256()
        for file in sorted({each.file for each in stored.values()}):
            digest.update(b"%s\0%s\n" % (file.name.encode(errors="surrogateescape"), stamp(file)))
        return Listing(root, pixels[TRAIN].shape, classes, *divided, digest.hexdigest(), found.left_out)

    def read(self, listing: Listing[Rows], examples: Rows) -> tuple[Array, dict[int, str]]:
        return examples.read()

    def _pixels(self, stored: Stored) -> Pixels:
        """Check that an array holds images, and how."""
        place, array = stored.place, stored.array
        where, shape = f"{stored.file}: {place}", array.shape
        if array.ndim not in (3, 4):
            raise DataError(f"{where} has shape {shape}; images are (N, H, W) or (N, H, W, C): reshape them")
        if array.dtype.kind in "SU":
            raise DataError(f"{where} holds text, not images")
        if array.ndim == 4 and self.channels_first is None and shape[1] <= _MOST_CHANNELS < min(shape[2:]):
            hint = f"{self.option('channels_first=true')} reads it as (N, C, H, W), =false as (N, H, W, C)"
            raise DataError(f"{where} has shape {shape}, with the channels first, it seems; {hint}")
        if self.value_range is None and array.dtype != np.uint8:
            some = array[:: max(1, len(array) // 100)]
            hint = f"say what is black and what is white: {self.option('value_range=[0, 1]')}, say"
            raise DataError(
                f"{where} holds {array.dtype} from {float(some.min()):.6g} to {float(some.max()):.6g}; {hint}"
            )
        return Pixels(place, array, self.value_range, bool(self.channels_first))


class _Found(NamedTuple):
    parts: dict[str, dict[str, Stored]]
    """Images and labels of each part."""
    classes: Stored | None
    left_out: list[str]


def _by_part(root: Path, stored: dict[str, Stored]) -> _Found:
    """Find the arrays of each part by their names."""
    found: dict[tuple[str, str], list[Stored]] = {}
    unused: list[str] = []
    for name, array in stored.items():
        words = re.split(r"[^0-9a-z]+", (_UNNAMED.get(name, name) if len(stored) == 2 else name).casefold())
        of = [PART_OF[word] for word in words if word in PART_OF] or [TRAIN]
        role = _ROLE_OF.get("_".join(word for word in words if word not in PART_OF))
        if role is None or len(of) > 1:
            unused.append(array.place)
        else:
            found.setdefault((role, of[0]), []).append(array)
    chosen: dict[tuple[str, str], Stored] = {}
    for key, arrays in found.items():
        likely = [each for each in arrays if key[0] != "images" or each.array.ndim > 2] or arrays
        if len(likely) > 1:
            places = " and ".join(each.place for each in likely)
            raise DataError(f"{root}: {places} may all be the {key[0]} of {key[1]}; rename or remove all but one")
        unused += [each.place for each in arrays if each is not likely[0]]
        chosen[key] = likely[0]
    for role in ("images", "labels"):
        if (role, TRAIN) not in chosen:
            known = one_line(", ".join(stored) or "nothing", 200)
            raise DataError(f"{root}: holds no array called like {role}_train or {ROLES[role][0]}_train, but {known}")
    parts: dict[str, dict[str, Stored]] = {}
    for (role, part), array in chosen.items():
        if role != "classes":
            parts.setdefault(part, {})[role] = array
    for lonely in [part for part, arrays in parts.items() if len(arrays) == 1]:
        unused += [f"{array.place} (without its labels or images)" for array in parts.pop(lonely).values()]
    left_out = [one_line(f"{counted(len(unused), 'array')}: {', '.join(unused)}")] if unused else []
    return _Found(parts, chosen.get(("classes", TRAIN)), left_out)
