"""Sources whose images are made once, into a cache file that is then mapped into memory."""

import contextlib
import copy
import dataclasses
import hashlib
import itertools
import math
import tempfile
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np

from cnnlite.data.datasets.base import Dataset, Images, OtherClasses, Source, sources
from cnnlite.data.datasets.cache_file import Cached, passing_cache, read_cache, refuse_without_room, write_cache
from cnnlite.data.datasets.listing import Examples, Listing, counted
from cnnlite.data.datasets.tree import CACHE
from cnnlite.errors import DataError, OptionError, StorageError
from cnnlite.runtime import distributed
from cnnlite.utils.console import say
from cnnlite.utils.files import lock, open_to_append, place, remove_temporary, unwritable
from cnnlite.utils.hints import Override
from cnnlite.utils.printable import one_line
from cnnlite.utils.types import Array, Shape

_CHUNK_BYTES = 16 * 2**20
_ENOUGH_FAULTS = 100
_NAMED = 10
_VALIDATION = 0.1
"""Fraction of the training images that is for validation unless a config says otherwise."""
_TELL_SECONDS = 10.0
_WAIT_SECONDS = 0.2


@dataclass(eq=False, kw_only=True)
class CachedSource(Source):
    """Source that lists its examples, and reads them into a cache file: memory does not grow with their number.

    The cache is made again when the listing says that files have changed. A checkpoint, which may be anybody's, has
    them read into a file without a name instead.

    Args:
        corrupt: ``refuse`` pictures that cannot be read, naming them, or ``skip`` them.
        test_fraction: share of the pictures to test with where nothing says which.
        cache: folder for the cache file; ``.cnnlite`` in the folder of the pictures if left out.
        seed: of the split where nothing says it; that of the run does not change it.
    """

    corrupt: Literal["refuse", "skip"] = "refuse"
    test_fraction: float = 0.1
    cache: Annotated[str, place] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.test_fraction < 1:
            raise OptionError(f"test_fraction must be in (0, 1), not {self.test_fraction}", "test_fraction")
        self._trained_on: tuple[str, ...] | None = None
        self._some = False
        self._check: Callable[[Shape, int], object] = lambda shape, classes: None

    @property
    def lenient(self) -> bool:
        """True if this reads for a checkpoint: what could not be trained on will do."""
        return self._trained_on is not None

    @abstractmethod
    def listing(self, root: Path) -> Listing[Any]:
        """List the examples of ``root``, a file or a folder; DataError if it is not what the source takes."""

    @abstractmethod
    def read(self, listing: Listing[Any], examples: Any) -> tuple[Array, dict[int, str]]:
        """Read some examples: images, uint8 (N, H, W, C), and the faults of those that cannot be used, by index."""

    def reading_only(self, classes: tuple[str, ...], *, some: bool = False) -> Self:
        reader = copy.copy(self)
        reader._trained_on, reader._some = classes, some
        return reader

    def checked_by(self, check: Callable[[Shape, int], object]) -> Self:
        checked = copy.copy(self)
        checked._check = check
        return checked

    def names(self, root: Path, indices: Sequence[int]) -> list[str]:
        listing = self.listing(root)
        _, _, facts = self._cached(self.cache_path(root), listing)
        kept = np.delete(np.arange(len(listing.train)), facts["gone"])
        return [one_line(_as_text(listing.train.name(int(kept[index])))) for index in indices]

    def load(self, root: Path) -> Dataset:
        listing, own = self.listing(root), self._trained_on
        if own is not None and own != listing.classes and not (self._some and {*own} & {*listing.classes}):
            raise OtherClasses(root, listing.classes, own)
        self._check(listing.shape, len(listing.classes))
        path = self.cache_path(root)
        found: list[Cached] = []
        # The first rank decodes, the others wait for messages, not for a lock; they may be on hosts with other disks.
        distributed.current().broadcast(lambda: found.append(self._cached(path, listing)))
        train, test, facts = found[0] if found else self._cached(path, listing)
        if distributed.current().first:
            for text in listing.left_out:
                say(f"{root}: left out: {text}", error=True)
            if facts["skipped"]:
                say(f"warning: {root}: skipped {_told(facts['skipped'], facts['skipped_count'])}", error=True)
        above = np.delete(listing.above, facts["gone"])
        held_out = int(np.count_nonzero(above < _VALIDATION))
        if listing.has_validation and not held_out:
            raise DataError(f"{root}: none of the pictures to validate with can be read")
        return Dataset(
            root.resolve().name,
            train,
            None,
            test,
            listing.classes,
            facts["digest"],
            held_out,
            above=above,
            has_validation=listing.has_validation,
            has_test=listing.has_test,
        )

    def cache_path(self, root: Path) -> Path:
        """Path of the cache file for these options; different options, and files, have different ones."""
        folder = root.parent if root.is_file() else root
        where = root.resolve() if self.cache else root.name if root.is_file() else ""
        options = [(f.name, getattr(self, f.name)) for f in dataclasses.fields(self) if f.name != "cache"]
        name = f"{self._name}-{hashlib.sha256(repr((str(where), options)).encode()).hexdigest()[:12]}.images"
        return (folder / CACHE if self.cache is None else Path(self.cache)) / name

    @property
    def _name(self) -> str:
        return sources.name_of(type(self))

    def option(self, assignment: str) -> Override:
        """Hint to set an option of this source."""
        return Override(f"data.dataset.{self._name}.{assignment}")

    def _cached(self, path: Path, listing: Listing[Any]) -> Cached:
        """Read the cache, which one of several processes makes if need be."""
        found = _fitting_cache(path, listing, say_why=True)
        reading = _Reading(self, listing)
        if found is None and self.lenient:
            where = Path(tempfile.gettempdir())
            refuse_without_room(where, listing.count, listing.shape, hint="; the variable TMPDIR names another folder")
            say(f"{listing.root}: reading {counted(listing.count, 'picture')}, for this time only", error=True)
            return passing_cache(reading.parts(), listing.shape, reading.facts)
        if found is None:
            try:
                if self.cache is None and path.parent.is_symlink():
                    raise StorageError(f"{path.parent}: is a link")
                path.parent.mkdir(parents=True, exist_ok=True)
                with _turn(path):
                    found = _fitting_cache(path, listing)
                    if found is None:
                        remove_temporary(path.parent)
                        refuse_without_room(path.parent, listing.count, listing.shape)
                        say(f"{listing.root}: reading {listing.count:,} pictures, once, into {path}", error=True)
                        write_cache(path, reading.parts(), listing.shape, reading.facts)
                        found = read_cache(path)
            except (OSError, StorageError) as caught:
                error = unwritable(path.parent, caught) if isinstance(caught, OSError) else caught
                raise StorageError(f"{error}; {self.option('cache=DIR')} puts the cache elsewhere") from None
        return found


@contextlib.contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Lock the making of the file inside the block, after waiting for other processes."""
    with open_to_append(path.with_suffix(".lock")) as file:
        for waited in itertools.count():
            if lock(file):
                break
            if not waited:
                say(f"{path}: waiting for another process that is making it", error=True)
            time.sleep(_WAIT_SECONDS)
        yield


def _fitting_cache(path: Path, listing: Listing[Any], *, say_why: bool = False) -> Cached | None:
    """Read the cache; None if it is not of these pictures: nothing is mapped then, so it can be replaced."""
    try:
        found = read_cache(path)
    except FileNotFoundError:
        return None
    except DataError as error:
        reason = str(error)
    else:
        if _are_of(found[2], listing):
            return found
        reason = f"{listing.root}: pictures were added, removed or changed"
    if say_why:
        say(f"{reason}; reading all pictures again", error=True)
    return None


def _are_of(facts: dict[str, Any], listing: Listing[Any]) -> bool:
    """True if facts are of these pictures; they are untrusted, as whoever made the folder may have put any there."""
    skipped, gone = facts.get("skipped"), facts.get("gone")
    return (
        (facts.get("listing"), facts["classes"]) == (listing.digest, list(listing.classes))
        and isinstance(skipped, list)
        and all(isinstance(entry, list) and list(map(type, entry)) == [str, str] for entry in skipped)
        and isinstance(facts.get("skipped_count"), int)
        and isinstance(gone, list)
        and all(type(place) is int and 0 <= place < len(listing.train) for place in gone)
        and len(listing.train) - len({*gone}) == facts["train"]
    )


class _Reading:
    """Reads the examples of a listing for a cache."""

    def __init__(self, source: CachedSource, listing: Listing[Any]):
        self.source = source
        self.listing = listing
        self.facts: dict[str, Any] = {
            "classes": listing.classes,
            "listing": listing.digest,
            "skipped": [],
            "skipped_count": 0,
            "gone": [],
        }
        """Facts that the cache keeps beside the images.

        ``skipped`` has the first names with reasons, ``gone`` the indices that are missing among the training images.
        """
        # For a checkpoint all others are read: what is damaged now need not have been.
        self._refuses = source.corrupt == "refuse" and not source.lenient
        self._done = 0
        self._told = time.monotonic()

    def parts(self) -> tuple[Iterator[Images], Iterator[Images]]:
        """Read training and test images, chunk by chunk; DataError after the last if pictures are to be refused."""
        return self._images(self.listing.train), itertools.chain(self._images(self.listing.test), self._verdict())

    def _images(self, examples: Examples) -> Iterator[Images]:
        step = max(1, _CHUNK_BYTES // math.prod(self.listing.shape))
        for start in range(0, len(examples), step):
            some = examples.take(np.arange(start, min(start + step, len(examples))))
            pixels, faults = self.source.read(self.listing, some)
            images = Images(pixels, np.array(some.labels, np.int64))
            if faults:
                self._note(examples, {start + index: fault for index, fault in faults.items()})
            yield images.take(np.delete(np.arange(len(some)), list(faults))) if faults else images
            self._tell(len(some))

    def _note(self, examples: Examples, faults: dict[int, str]) -> None:
        facts = self.facts
        facts["skipped"] += [[_as_text(examples.name(index)), fault] for index, fault in faults.items()]
        del facts["skipped"][_NAMED:]
        facts["skipped_count"] += len(faults)
        if examples is self.listing.train:
            facts["gone"] += list(faults)
        if self._refuses and facts["skipped_count"] >= _ENOUGH_FAULTS:
            raise self._refusal("at least ")

    def _verdict(self) -> Iterator[Images]:
        if self._refuses and self.facts["skipped_count"]:
            raise self._refusal()
        yield from ()

    def _refusal(self, at_least: str = "") -> DataError:
        lines = [f"{self.listing.root / name}: {fault}" for name, fault in self.facts["skipped"]]
        count = self.facts["skipped_count"]
        them = "it" if count == 1 else "them"
        hint = f"mend or remove {them}, or train a new run without {them}: {self.source.option('corrupt=skip')}"
        lines.append(f"{at_least}{counted(count, 'picture')} cannot be read; {hint}")
        return DataError("\n".join(lines))

    def _tell(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._told > _TELL_SECONDS:
            self._told = time.monotonic()
            say(f"{self.listing.root}: {self._done:,} of {self.listing.count:,} pictures", error=True)


def _as_text(name: str) -> str:
    """Escape a name to one line of text, also bytes that are not UTF-8, for the cache."""
    return one_line(name.encode(errors="backslashreplace").decode())


def _told(skipped: list[list[str]], count: int) -> str:
    named = one_line(", ".join(f"{file} ({fault})" for file, fault in skipped[:3]))
    return f"{counted(count, 'picture')}: {named}" + ", ..." * (count > 3)
