"""Pictures of any size and number in folders named after their classes, as in ImageNet."""

import contextlib
import copy
import hashlib
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from cnnlite.data.datasets.base import Dataset, Images, OtherClasses, Source, sources
from cnnlite.data.datasets.cache import Cached, passing_cache, read_cache, refuse_without_room, write_cache
from cnnlite.data.datasets.listing import Listing, Pictures, list_pictures
from cnnlite.data.datasets.tree import CACHE
from cnnlite.data.images import Frame, read_pictures
from cnnlite.errors import DataError, OptionError, StorageError
from cnnlite.runtime import distributed
from cnnlite.utils.console import say
from cnnlite.utils.files import lock, open_to_append, place, remove_temporary, unwritable
from cnnlite.utils.hints import Override
from cnnlite.utils.printable import one_line

_CHUNK_BYTES = 16 * 2**20
_ENOUGH_FAULTS = 100
_NAMED = 10
_VALIDATION = 0.1
"""Fraction of the training images that is for validation unless a config says otherwise."""
_TELL_SECONDS = 10.0
_WAIT_SECONDS = 0.2


@sources.register("folder")
class Folder(Source):
    """Folders of pictures, one for each class, in ``data.root``; or such folders in ``train``, ``val`` and ``test``.

    The pictures are decoded once, scaled and cut to one size, into a cache file that is then mapped into memory; it is
    made again when names, sizes or times of the files change. Without ``test``, what to test with is ``val``; without
    both, ``test_fraction`` of all. Validation images are those in ``val`` if there is ``test`` too, else a tenth of
    those to train on. Where no folder says which, the name of each picture does, and ``seed``: see `splits.turns`.

    Args:
        size: side of the square images, in pixels.
        resize: the shorter side is scaled to this before the centre is cut out; to ``size`` if left out.
        stretch: scale to the square whatever the proportions, and cut nothing off.
        corrupt: ``refuse`` pictures that cannot be read, naming them, or ``skip`` them.
        test_fraction: share of the pictures to test with where no folder says which.
        cache: folder for the cache file; ``.cnnlite`` in the folder of the pictures if left out.
        seed: of the split where no folder says it; that of the run does not change it.
    """

    def __init__(
        self,
        size: int,
        resize: int | None = None,
        stretch: bool = False,
        corrupt: Literal["refuse", "skip"] = "refuse",
        test_fraction: float = 0.1,
        cache: Annotated[str, place] | None = None,
        seed: int = 0,
    ):
        if size < 1:
            raise OptionError(f"size must be at least 1, not {size}", "size")
        if resize is not None and (stretch or resize < size):
            raise OptionError(f"must be at least size, {size}, and goes without stretch; not {resize}", "resize")
        if not 0 < test_fraction < 1:
            raise OptionError(f"test_fraction must be in (0, 1), not {test_fraction}", "test_fraction")
        self.size = size
        self.resize = resize
        self.stretch = stretch
        self.corrupt = corrupt
        self.test_fraction = test_fraction
        self.cache = cache
        self.seed = seed
        self.in_shape = (size, size, 3)
        self._trained_on: tuple[str, ...] | None = None
        self._some = False

    @classmethod
    def framed(cls, frame: Frame) -> "Folder":
        if frame.height != frame.width:
            raise DataError(f"pictures become squares, but the network takes {frame.height}x{frame.width} pixels")
        return cls(frame.height, frame.shorter, frame.stretch)

    def reading_only(self, classes: tuple[str, ...], *, some: bool = False) -> "Folder":
        reader = copy.copy(self)
        reader._trained_on, reader._some = classes, some
        return reader

    @property
    def frame(self) -> Frame:
        return Frame(self.size, self.size, self.resize, self.stretch)

    def load(self, root: Path) -> Dataset:
        own = self._trained_on
        listing = list_pictures(root, self.test_fraction, self.seed, lenient=own is not None)
        if own is not None and (own != listing.classes and not (self._some and {*own} & {*listing.classes})):
            raise OtherClasses(root, listing.classes, own)
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
            tuple(facts["classes"]),
            facts["digest"],
            held_out,
            above=above,
            has_validation=listing.has_validation,
            has_test=listing.has_test,
        )

    def cache_path(self, root: Path) -> Path:
        """Path of the cache file for these options; different options have different files."""
        options = (str(root.resolve()) if self.cache else "", self.frame, self.corrupt, self.test_fraction, self.seed)
        name = f"{self.size}-{hashlib.sha256(repr(options).encode()).hexdigest()[:12]}.images"
        return (root / CACHE if self.cache is None else Path(self.cache)) / name

    def _cached(self, path: Path, listing: Listing) -> Cached:
        """Read the cache, which one of several processes makes if need be."""
        found = _fitting_cache(path, listing, say_why=True)
        room = len(listing.train) + len(listing.test), (self.size, self.size, 3)
        if found is None and self._trained_on is not None:
            refuse_without_room(Path(tempfile.gettempdir()), *room, hint="; the variable TMPDIR names another folder")
            say(
                f"{listing.root}: reading {_pictures(len(listing.train) + len(listing.test))}, for this time only",
                error=True,
            )
            reading = _Reading(listing, self.frame, refuse=False)  # what is damaged now need not have been
            return passing_cache(reading.parts(), (self.size, self.size, 3), reading.facts)
        if found is None:
            try:
                if self.cache is None and path.parent.is_symlink():
                    raise StorageError(f"{path.parent}: is a link")
                path.parent.mkdir(parents=True, exist_ok=True)
                with _turn(path):
                    found = _fitting_cache(path, listing)
                    if found is None:
                        remove_temporary(path.parent)
                        refuse_without_room(path.parent, *room)
                        self._build(path, listing)
                        found = read_cache(path)
            except (OSError, StorageError) as caught:
                error = unwritable(path.parent, caught) if isinstance(caught, OSError) else caught
                hint = f"{Override('data.dataset.folder.cache=DIR')} puts the cache elsewhere"
                raise StorageError(f"{error}; {hint}") from None
        return found

    def _build(self, path: Path, listing: Listing) -> None:
        root = listing.root
        say(f"{root}: reading {len(listing.train) + len(listing.test):,} pictures, once, into {path}", error=True)
        reading = _Reading(listing, self.frame, refuse=self.corrupt == "refuse")
        write_cache(path, reading.parts(), (self.size, self.size, 3), reading.facts)


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


def _fitting_cache(path: Path, listing: Listing, *, say_why: bool = False) -> Cached | None:
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


def _are_of(facts: dict[str, Any], listing: Listing) -> bool:
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
    """Reads the pictures of a listing for a cache."""

    def __init__(self, listing: Listing, frame: Frame, *, refuse: bool):
        self.listing = listing
        self.frame = frame
        self.refuse = refuse
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
        self._done = 0
        self._told = time.monotonic()

    def parts(self) -> tuple[Iterator[Images], Iterator[Images]]:
        """Read training and test images, chunk by chunk; DataError after the last if pictures are to be refused."""
        return self._images(self.listing.train), itertools.chain(self._images(self.listing.test), self._verdict())

    def _images(self, pictures: Pictures) -> Iterator[Images]:
        step = max(1, _CHUNK_BYTES // (3 * self.frame.height * self.frame.width))
        for start in range(0, len(pictures), step):
            files = pictures.files[start : start + step]
            images, faults = read_pictures([self.listing.root / file for file in files], self.frame)
            if faults:
                self._note(pictures, {start + index: fault for index, fault in faults.items()})
            labels = np.array(pictures.labels[start : start + step], np.int64)
            kept = np.array([index not in faults for index in range(len(files))])
            yield Images(images, labels).take(kept) if faults else Images(images, labels)
            self._tell(len(files))

    def _note(self, pictures: Pictures, faults: dict[int, str]) -> None:
        facts = self.facts
        facts["skipped"] += [[_as_text(pictures.files[index]), fault] for index, fault in faults.items()]
        del facts["skipped"][_NAMED:]
        facts["skipped_count"] += len(faults)
        if pictures is self.listing.train:
            facts["gone"] += list(faults)
        if self.refuse and facts["skipped_count"] >= _ENOUGH_FAULTS:
            raise self._refusal("at least ")

    def _verdict(self) -> Iterator[Images]:
        if self.refuse and self.facts["skipped_count"]:
            raise self._refusal()
        yield from ()

    def _refusal(self, at_least: str = "") -> DataError:
        lines = [f"{self.listing.root / file}: {fault}" for file, fault in self.facts["skipped"]]
        count = self.facts["skipped_count"]
        them = "it" if count == 1 else "them"
        skip = Override("data.dataset.folder.corrupt=skip")
        hint = f"mend or remove {them}, or train a new run without {them}: {skip}"
        lines.append(f"{at_least}{_pictures(count)} cannot be read; {hint}")
        return DataError("\n".join(lines))

    def _tell(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._told > _TELL_SECONDS:
            self._told = time.monotonic()
            total = len(self.listing.train) + len(self.listing.test)
            say(f"{self.listing.root}: {self._done:,} of {total:,} pictures", error=True)


def _as_text(name: str) -> str:
    """Escape a name to one line of text, also bytes that are not UTF-8, for the cache."""
    return one_line(name.encode(errors="backslashreplace").decode())


def _told(skipped: list[list[str]], count: int) -> str:
    named = one_line(", ".join(f"{file} ({fault})" for file, fault in skipped[:3]))
    return f"{_pictures(count)}: {named}" + ", ..." * (count > 3)


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"
