"""Splits: which images of a dataset are to train, to validate and to test with.

Pictures that have names are held out by these and a seed, whatever other pictures there are: `turns`. `divide` does so
for sources whose files do not say what is for what; `prepare` then takes the validation images that a config wants.
"""

import hashlib
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np

from cnnlite.data.datasets.base import Dataset, Images, Source, center
from cnnlite.data.datasets.listing import TEST, TRAIN, VALIDATION, Examples
from cnnlite.errors import ConfigError, DataError, Problem
from cnnlite.utils.rng import stream
from cnnlite.utils.types import Array

E = TypeVar("E", bound=Examples)
Validation: TypeAlias = (
    Literal["default", "none"] | Annotated[int, "a number of images"] | Annotated[float, "a fraction"]
)
"""Choice of validation images among the training images; see `load_dataset`."""

FIRST = 2.0**-50
NEVER = 1.0


class Turns(NamedTuple):
    """Order in which pictures are held out."""

    order: Array
    """Indices of the pictures, the first one to hold out first."""
    above: Array
    """For each in that order, the fraction above which it is held out: at most `FIRST` for any, `NEVER` for none.

    It is the same for pictures of one key, and another one for every other key that may be held out.
    """


def turns(keys: Sequence[str], labels: Sequence[int], purpose: str, seed: int = 0) -> Turns:
    """Draw for each picture, from its key alone, the fraction above which it is held out.

    So the size of a part varies by chance, and no picture moves when others are added or removed. But of each class the
    first picture is held out whatever the fraction, and the last one never is, so that a class of two or more has
    pictures on both sides. A picture can only move where that made an exception for it, which is likely in classes of
    few pictures. Pictures of one key go together; where they are of several classes, the last of one may be the first
    of another, and is not held out.

    Args:
        keys: names of the pictures, or of groups of pictures, the same on all machines.
        labels: their classes.
        purpose: ``test`` or ``validation``, which are drawn independently.
        seed: another one draws other pictures.
    """
    if not keys:
        return Turns(np.empty(0, np.int64), np.empty(0))
    groups: dict[str, int] = {}
    group = np.array([groups.setdefault(key, len(groups)) for key in keys])
    drawn, classes = np.array([_drawn(f"{purpose}/{seed}/{key}") for key in groups]), np.asarray(labels)
    above = drawn.copy()
    by_class = np.lexsort((drawn[group], classes))
    last = by_class[np.diff(classes[by_class], append=-1) != 0]
    above[group[last]] = NEVER  # a class of one is for training
    others = by_class[above[group[by_class]] < NEVER]
    first = others[np.diff(classes[others], prepend=-1) != 0]
    above[group[first]] = FIRST * drawn[group[first]]
    order = np.lexsort((drawn[group], above[group]))
    return Turns(order, above[group[order]])


def _drawn(text: str) -> float:
    """Hash a text to a number in (0, 1)."""
    # Names that are no text have lone surrogates in Python.
    head = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:6], "big")
    return (head + 0.5) / 2**48


def divide(
    parts: Mapping[str, E],
    test_fraction: float,
    seed: int,
    place: Path,
    *,
    reorder: bool = True,
    lenient: bool = False,
) -> tuple[E, Array, bool, E, bool]:
    """Divide examples into those to train and validate with, and those to test with, where ``parts`` does not say.

    Test examples are those of `TEST`, else of `VALIDATION`, else about ``test_fraction`` of all; validation examples
    those of `VALIDATION` if there is `TEST` too. What is not given is drawn by the key of each example and ``seed``.

    Returns:
        ``train``, ``above``, ``has_validation``, ``test`` and ``has_test`` of a `Listing`.
        Training examples are in the order drawn;
        without ``reorder`` as they came, if all parts are given.

    Raises:
        DataError: if no class has two examples that may be on different sides; ``place`` is where they are. What is
            ``lenient`` is not for training, and may be all on one side.
    """
    train = parts[TRAIN] if TRAIN in parts else next(iter(parts.values())).take(np.arange(0))
    given = {part: parts[part] for part in (TEST, VALIDATION) if part in parts}
    has_test = bool(given)
    if has_test:
        test = given.pop(next(iter(given)))
    else:
        order, above = turns(train.keys(), train.labels, TEST, seed)
        held_out, kept = np.split(order, [np.searchsorted(above, test_fraction)])
        train, test = train.take(kept), train.take(held_out)
        if not len(test) and not lenient:
            raise DataError(
                f"{place}: no class has more than one picture, or group of them, so none is left to test with; a class "
                "needs 2, and 3 to validate with too"
            )
    validation = given.get(VALIDATION)
    if validation is None or reorder:
        order, above = turns(train.keys(), train.labels, VALIDATION, seed)
        train, above = train.take(order[::-1]), above[::-1]
    if validation is None:
        return train, above, False, test, has_test
    return train + validation, np.repeat([NEVER, FIRST], [len(train), len(validation)]), True, test, has_test


def load_dataset(
    source: Source, root: Path, *, validation: Validation = "default", center_crop: int | None = None, seed: int = 0
) -> Dataset:
    """Load a dataset, take the validation images from its training images, and crop all three parts.

    Args:
        source: source of the images.
        root: folder of the downloaded datasets.
        validation: ``default`` for the source's own choice, ``none``, a count of images taken from the end, or a
            fraction in (0, 1), drawn at random or, where the dataset says so, by the name of each image.
        center_crop: side in pixels of the centre square to keep.
        seed: chooses the images of a validation fraction.

    Raises:
        ConfigError: if the images cannot be split or cropped so.
        DataError: if they cannot be read.
    """
    return prepare(source.load(root), validation=validation, center_crop=center_crop, seed=seed)


def prepare(dataset: Dataset, *, validation: Validation, center_crop: int | None = None, seed: int = 0) -> Dataset:
    """Split and crop a dataset as it was loaded; arguments and errors are those of `load_dataset`."""
    train, held_out = _split(dataset, validation, seed)
    above = None if dataset.above is None else dataset.above[: len(train)]
    dataset = replace(dataset, train=train, validation=held_out, above=above)
    if center_crop is None:
        return dataset
    held_out = held_out and _crop(held_out, center_crop)
    train, test = _crop(train, center_crop), _crop(dataset.test, center_crop)
    return replace(dataset, train=train, validation=held_out, test=test)


def _split(dataset: Dataset, validation: Validation, seed: int) -> tuple[Images, Images | None]:
    images, total, above = dataset.train, len(dataset.train), dataset.above
    if validation == "none" or (validation == "default" and not dataset.held_out):
        return images, None
    if validation == "default":
        count = dataset.held_out
    elif dataset.has_validation:
        raise _refused(f"{validation}, but {dataset.name} itself says which are for validation; write default or none")
    elif isinstance(validation, bool | str):
        raise _refused(f"{validation!r} is not default, none, a count or a fraction")
    elif isinstance(validation, int):
        count = validation
    else:
        if not 0 < validation < 1:
            raise _refused(f"fraction {validation} is not in (0, 1)")
        count = round(validation * total) if above is None else int(np.count_nonzero(above < validation))
    most = total - 1 if above is None else int(np.count_nonzero(above < NEVER))
    if above is not None and 0 < count <= most < total:  # pictures that go together stay so
        count = int(np.count_nonzero(above < above[total - count - 1]))
    if not 0 < count <= most:
        whose = "" if above is None else ", or a class without any to train on"
        raise _refused(f"{count} of {total} training images leaves none on one side{whose}")
    if above is not None or not isinstance(validation, float):
        return images.take(slice(total - count)), images.take(slice(total - count, total))
    order = stream(seed, "split").permutation(total)
    return images.take(np.sort(order[count:])), images.take(np.sort(order[:count]))


def _refused(message: str) -> ConfigError:
    return ConfigError([Problem("data.validation", message)])


def _crop(images: Images, size: int) -> Images:
    try:
        cropped = center(images.images, size)
    except ValueError as error:
        raise ConfigError([Problem("data.center_crop", str(error))]) from None
    # A mapped array stays in its file, however large it is.
    return Images(cropped if _is_mapped(images.images) else np.ascontiguousarray(cropped), images.labels)


def _is_mapped(array: Array) -> bool:
    """True if an array is a view of a file that is mapped into memory."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)
