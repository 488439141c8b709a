"""Table of the classes of a dataset, with the number of images in each part."""

from collections.abc import Sequence

import numpy as np

from cnnlite.data.datasets.base import Dataset
from cnnlite.utils.printable import one_line
from cnnlite.utils.text import aligned
from cnnlite.utils.types import Array

MOST_ROWS = 20
_NAMED = 5
_PURPOSE = {"train": "train on", "validation": "validate with", "test": "test with"}


def class_table(dataset: Dataset) -> list[str]:
    """Format lines with the number of images of each class in each part, and a warning for empty ones.

    All classes are listed where the images are the user's own and the classes few.
    """
    counts = {part: class_counts(dataset, part) for part in _PURPOSE if getattr(dataset, part) is not None}
    lines = []
    if dataset.above is not None:
        few = len(dataset.classes) <= MOST_ROWS
        lines += _rows(dataset.classes, counts) if few else [_extremes(dataset.classes, counts)]
    total = np.sum(list(counts.values()), axis=0)
    for part, found in counts.items():
        if lacking := np.flatnonzero(found == 0).tolist():
            named = [f"{one_line(dataset.classes[k], 40)} ({total[k]:,} in all)" for k in lacking[:_NAMED]]
            more = f" and {len(lacking) - _NAMED:,} more classes" * (len(lacking) > _NAMED)
            lines.append(f"warning: no image to {_PURPOSE[part]} of {', '.join(named)}{more}")
    return lines


def class_counts(dataset: Dataset, part: str = "train") -> Array:
    """Count the images of each class in a part of the dataset, int64 ``(K,)``."""
    return np.bincount(getattr(dataset, part).labels, minlength=len(dataset.classes))


def _rows(classes: Sequence[str], counts: dict[str, Array]) -> list[str]:
    names = ["class", *(one_line(name, 40) for name in classes), "total"]
    columns = [[part, *(f"{count:,}" for count in (*found, found.sum()))] for part, found in counts.items()]
    return aligned(list(zip(names, *columns, strict=True)), left=[0]).split("\n")


def _extremes(classes: Sequence[str], counts: dict[str, Array]) -> str:
    parts = []
    for part, found in counts.items():
        ends = (int(found.argmin()), int(found.argmax()))
        least, most = (f"{found[k]:,} ({one_line(classes[k], 40)})" for k in ends)
        parts.append(f"{least} to {most} to {_PURPOSE[part]}")
    return f"{len(classes):,} classes, of each {', '.join(parts)}"
