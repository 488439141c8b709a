"""Labels in arrays: whole numbers, text, or rows of zeros with a one."""

from typing import NamedTuple

import numpy as np

from cnnlite.data.datasets.listing import spelled
from cnnlite.data.datasets.npy_files import Stored
from cnnlite.errors import DataError
from cnnlite.utils.printable import has_codes, is_text
from cnnlite.utils.types import Array


class Labels(NamedTuple):
    """Labels of a part: ``values`` (N,), int64 or text; ``place`` names them in messages."""

    place: str
    values: Array
    columns: int | None
    """Number of classes, where labels were rows with a one for each class."""


def labels_of(stored: Stored, count: int) -> Labels:
    """Check and convert the labels of ``count`` images; DataError if they are none."""
    place, values = f"{stored.file}: {stored.place}", np.asarray(stored.array)
    if len(values.shape) == 0 or len(values) != count:
        raise DataError(f"{place} has shape {values.shape}, for {count:,} images")
    values = values[:, 0] if values.shape[1:] == (1,) else values
    columns = None
    if values.ndim == 2 and values.dtype.kind not in "SU":
        if not (((values == 0) | (values == 1)).all() and (values.sum(axis=1) == 1).all()):
            raise DataError(f"{place} has shape {values.shape}, but not a single one and else zeros in each row")
        columns, values = values.shape[1], values.argmax(axis=1)
    if values.ndim != 1:
        raise DataError(f"{place} has shape {values.shape}; labels are ({count},)")
    if values.dtype.kind in "SU":
        return Labels(place, np.array([_text(place, value) for value in values.tolist()]), None)
    whole = values.astype(np.int64) if np.isfinite(values).all() else None
    if whole is None or (whole != values).any():
        raise DataError(f"{place} holds numbers that are not whole, which are no classes")
    return Labels(place, whole, columns)


def _text(place: str, value: str | bytes) -> str:
    try:
        text = spelled(value if isinstance(value, str) else value.decode())
    except UnicodeDecodeError:
        raise DataError(f"{place} holds text that is not UTF-8") from None
    if not text or has_codes(text) or not is_text(text):
        raise DataError(f"{place} holds names that are empty, or hold control characters")
    return text


def classes_of(train: Labels, names: Stored | None, *, least: int = 2) -> tuple[tuple[str, ...], Array]:
    """Find the names of the classes, and the label of each, in ascending order.

    Numbers are named by ``names``, if there are any, else after themselves. Classes are those of the training images,
    where neither names nor columns say how many there are.
    """
    if names is not None and train.values.dtype.kind == "i":
        place, array = f"{names.file}: {names.place}", np.asarray(names.array)
        if array.ndim != 1 or array.dtype.kind not in "SU":
            raise DataError(f"{place} is {array.dtype} of shape {array.shape}, not a row of names")
        classes = tuple(_text(place, value) for value in array.tolist())
        if len(set(classes)) < len(classes) or train.columns not in (None, len(classes)):
            raise DataError(f"{place} names two classes alike, or not as many as there are")
        values = np.arange(len(classes))
    else:
        values = np.unique(train.values) if train.columns is None else np.arange(train.columns)
        classes = tuple(map(str, values.tolist()))
    if len(classes) < least:
        raise DataError(f"{train.place} holds labels of a single class; two are the least")
    return classes, values


def numbered(labels: Labels, values: Array) -> list[int]:
    """Number labels by their places among ``values``, those of the classes; DataError if one is not among them."""
    if labels.values.dtype.kind != values.dtype.kind:
        raise DataError(f"{labels.place} holds {labels.values.dtype}, but labels to train on are {values.dtype}")
    places = np.searchsorted(values, labels.values)
    strange = values[np.minimum(places, len(values) - 1)] != labels.values
    if strange.any():
        label = labels.values[strange][0]
        raise DataError(f"{labels.place} holds the label {label}, of which there are no images to train on")
    found: list[int] = places.tolist()
    return found
