"""Predictions as text, as one JSON object, and as a table; all piece by piece, however many there are."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cnnlite.tools.predict import Prediction
from cnnlite.utils.printable import one_line, readable
from cnnlite.utils.text import quoted

COLUMNS = ("path", "class", "probability")
"""The first columns of a table; one for each class follows."""
_FORMULAS = ("=", "+", "-", "@")


def as_text(predictions: Iterable[Prediction], top: int) -> Iterator[str]:
    """Format the ``top`` classes of each picture that could be read, as lines without the last line break."""
    for prediction in predictions:
        if not prediction.fault:
            best = prediction.best(top)
            width = max(len(name) for name, _ in best)
            lines = (f"  {name:{width}}  {value:7.2%}" for name, value in best)
            yield "\n".join([one_line(prediction.image), *lines])


def as_json(predictions: Iterable[Prediction], top: int, checkpoint: str) -> Iterator[str]:
    """Write the ``top`` classes of each picture, or its fault, into one object of JSON (RFC 8259), in pieces."""
    before = f'{{"checkpoint": {json.dumps(checkpoint)}, "predictions": ['
    for prediction in predictions:
        yield before + json.dumps(_facts(prediction, top), allow_nan=False)
        before = ", "
    yield (before if before != ", " else "") + "]}\n"


def _facts(prediction: Prediction, top: int) -> dict[str, Any]:
    if prediction.fault:
        return {"image": prediction.image, "error": prediction.fault}
    best = [{"class": name, "probability": value} for name, value in prediction.best(top)]
    return {"image": prediction.image, "top": best}


def as_csv(predictions: Iterable[Prediction], classes: Sequence[str]) -> Iterator[str]:
    """Write a table with a row for each picture, in pieces: CSV (RFC 4180), but with LF at the ends of lines.

    After the path, the most probable class and its probability come the probabilities of all classes; these cells are
    empty for a picture that could not be read. Bytes of names that are not UTF-8 are escaped.
    """
    yield _line([*COLUMNS, *(f"class {name}" if name in COLUMNS else name for name in classes)])
    for prediction in predictions:
        path = readable(prediction.image)
        if path.startswith(_FORMULAS):
            path = f"./{path}"  # the same file, and no spreadsheet takes it for a formula
        if prediction.fault:
            yield _line([path], [""] * (2 + len(classes)))
        else:
            ((best, probability),) = prediction.best(1)
            numbers = (probability, *prediction.probabilities)
            yield _line([path, best], [f"{number:.9g}" for number in numbers])


def _line(texts: Sequence[str], numbers: Sequence[str] = ()) -> str:
    """Join the cells of a row."""
    return ",".join([*map(quoted, texts), *numbers]) + "\n"
