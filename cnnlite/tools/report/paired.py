"""Runs compared image by image: whether two of them differ on the same test images by more than chance."""

from collections.abc import Sequence
from dataclasses import dataclass

from cnnlite.runs.predictions import PREDICTIONS, read_predictions
from cnnlite.runs.scores import mcnemar
from cnnlite.tools.report.record import Record

LEVEL = 0.05
"""Probability below which a difference is not put down to chance."""
_LEAST = 1e-6
_EVEN = 0.99
"""Probability above which hardly any outcome would tell less, as of 3 and 4 images; users need no figure for that."""


@dataclass(frozen=True)
class Paired:
    """Two runs on the same test images."""

    first: str
    second: str
    images: int
    only_first: int
    """Number of images that only the first run gets right; likewise `only_second`."""
    only_second: int
    p: float
    """Probability that equally good networks differ so much by chance; see `figures.mcnemar`."""

    def describe(self) -> str:
        """Say in a sentence whether the runs differ."""
        both = f"{self.first} and {self.second} on the same {self.images:,} test images"
        if not self.only_first + self.only_second:
            return f"{both}: the same ones are right with both"
        p = f"p = {self.p:.2g}" if self.p >= _LEAST else f"p < {_LEAST:g}"
        verdict = f"{'they differ' if self.p < LEVEL else 'that may be chance'} (McNemar's test, {p})"
        if self.p > _EVEN:
            verdict = "nothing tells them apart"
        return (
            f"{both}: {self.only_first:,} are right only with the first, {self.only_second:,} only with the second; "
            f"{verdict}"
        )


def pairs(names: Sequence[str], records: Sequence[Record]) -> list[Paired]:
    """Compare each run with the first that was tested on the same images; those without predictions are left out.

    Raises:
        DataError: If a file of predictions cannot be read.
    """
    found, firsts = [], dict[str, tuple[str, list[bool]]]()
    for name, record in zip(names, records, strict=True):
        digest, right = record.result.get("test_digest"), _right(record)
        if digest is None or not right:
            continue
        first, others = firsts.setdefault(digest, (name, right))
        if first != name and len(others) == len(right):
            only_first = sum(one and not other for one, other in zip(others, right, strict=True))
            only_second = sum(other and not one for one, other in zip(others, right, strict=True))
            p = mcnemar(only_first, only_second)
            found.append(Paired(first, name, len(right), only_first, only_second, p))
    return found


def _right(record: Record) -> list[bool]:
    """Return for each test image whether the run predicts it right; empty if its file is not of its result."""
    right = [label == predicted for label, predicted in read_predictions(record.path / PREDICTIONS)]
    return right if right and sum(right) / len(right) == record.result.get("test_accuracy") else []
