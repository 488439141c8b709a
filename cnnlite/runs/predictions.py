"""Predictions of a run's test, image by image: predictions.csv, from which runs are compared."""

import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

from cnnlite.data import Images
from cnnlite.errors import DataError
from cnnlite.utils.files import read_small
from cnnlite.utils.text import quoted
from cnnlite.utils.types import Array

PREDICTIONS = "predictions.csv"
COLUMNS = ["image", "label", "predicted"]
_LARGEST = 100_000_000
"""Bytes: several millions of test images."""
_AT_ONCE = 250
"""Images that are copied at once, so that those mapped from a file stay there."""


def predictions_text(classes: Sequence[str], labels: Array, predictions: Array) -> str:
    """Write the true and the predicted class of each test image, by name, as CSV (RFC 4180, but for the line ends)."""
    names = [quoted(name) for name in classes]
    pairs = zip(labels.tolist(), predictions.tolist(), strict=True)
    rows = (f"{image},{names[label]},{names[found]}\n" for image, (label, found) in enumerate(pairs))
    return ",".join(COLUMNS) + "\n" + "".join(rows)


def read_predictions(path: Path) -> list[tuple[str, str]]:
    """Read the true and the predicted class of each test image; none where there is no such file, or another table.

    Raises:
        DataError: If it cannot be read: not a regular file, no permission, or larger than any that a run writes.
    """
    try:
        text = read_small(path, _LARGEST).decode()
        header, *rows = csv.reader(io.StringIO(text, newline=""))
        if header != COLUMNS or any(len(row) != 3 or row[0] != str(image) for image, row in enumerate(rows)):
            return []
    except (FileNotFoundError, NotADirectoryError, ValueError, csv.Error):
        return []
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    return [(row[1], row[2]) for row in rows]


def images_digest(images: Images) -> str:
    """Compute the SHA-256 of images and labels, the same for the same images in the same order."""
    total = hashlib.sha256(repr(images.images.shape).encode())
    for start in range(0, len(images), _AT_ONCE):
        part = images.take(slice(start, start + _AT_ONCE))
        total.update(part.images.tobytes())
        total.update(part.labels.astype("<i8").tobytes())
    return total.hexdigest()
