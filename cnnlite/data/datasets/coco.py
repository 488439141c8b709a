"""Objects of images, cut out by the boxes of MS-COCO's annotations (Lin et al. 2014, arXiv:1405.0312)."""

import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnlite.data.datasets.annotations import Annotations, read_annotations
from cnnlite.data.datasets.base import sources
from cnnlite.data.datasets.listing import PART_OF, TRAIN, Listing, counted, spelled, stamp
from cnnlite.data.datasets.pictures import Pictures, PictureSource
from cnnlite.data.splits import divide
from cnnlite.errors import DataError, OptionError
from cnnlite.utils.printable import one_line
from cnnlite.utils.types import Array

_NAMES = (
    "its name, or that of its folder, tells the part: instances_train.json, instances_val.json, instances_test.json"
)
_ANNOTATIONS = re.compile(r"instances_.+\.json|_?annotations(\.coco)?\.json", re.IGNORECASE)


@sources.register("coco")
@dataclass(eq=False)
class Coco(PictureSource):
    """Objects of images: each that is annotated as in MS-COCO is cut out, and is a picture of its category.

    ``data.root`` is a folder with annotation files (``instances_train2017.json``, ``instances_val2017.json``) in it, in
    ``annotations``, or in folders called like parts (``train/_annotations.coco.json``); or one such file. Images are
    beside the file, or in a folder ``images`` or ``train2017``, say, there or one above. Files for train, val and test
    say which objects are for what, as folders of `folder` do; with a single file, the name of each image does, and
    ``seed``. All objects of an image are in one part. Crowds are left out.

    The box is grown by the margin, and then to a square, as far as the image goes; ``stretch`` leaves it oblong. Then
    it becomes an image as the pictures of `folder` do.

    Args:
        margin: share of the longer side of its box that is added around an object.
        min_size: pixels that the shorter side of a box has at least; smaller objects are left out.
    """

    margin: float = 0.1
    min_size: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.margin <= 1:
            raise OptionError(f"margin must be in [0, 1], not {self.margin}", "margin")
        if self.min_size < 1:
            raise OptionError(f"min_size must be at least 1, not {self.min_size}", "min_size")

    def listing(self, root: Path) -> Listing[Pictures]:
        base = root.parent if root.is_file() else root
        left_out: Counter[str] = Counter()
        objects = {part: self._useful(read_annotations(path), left_out) for part, path in _files_of(root).items()}
        of_classes = objects.values() if self.lenient else [objects[TRAIN]]
        named = {found.names[category] for found in of_classes for category in set(found.category.tolist())}
        classes = tuple(sorted(named))
        if len(classes) < (1 if self.lenient else 2):
            raise DataError(
                f"{objects[TRAIN].path}: holds objects of {len(classes)} categories to train on; it takes two"
            )
        digest = hashlib.sha256()
        parts: dict[str, Pictures] = {}
        for part, found in objects.items():
            label = np.array([classes.index(name) if name in classes else -1 for name in found.names])[found.category]
            left_out["of categories without any to train on"] += int(np.count_nonzero(label < 0))
            parts[part] = self._pictures(base, found.take(label >= 0), label[label >= 0], digest)
        _refuse_shared(root, parts)
        divided = divide(parts, self.test_fraction, self.seed, root, lenient=self.lenient)
        told = [f"{counted(count, 'object')} {what}" for what, count in left_out.items() if count]
        return Listing(base, self.frame.shape, classes, *divided, digest.hexdigest(), told)

    def _useful(self, found: Annotations, left_out: Counter[str]) -> Annotations:
        """Select the objects that can be cut out; ``left_out`` counts the others."""
        low, high = found.box[:, :2], found.box[:, :2] + found.box[:, 2:]
        inside = np.minimum(high, found.size) - np.maximum(low, 0)
        crowd, small = found.is_crowd, found.box[:, 2:].min(axis=1) < self.min_size
        outside = inside.min(axis=1) < 1
        left_out["that are crowds"] += int(np.count_nonzero(crowd))
        left_out[f"smaller than {self.min_size} pixels"] += int(np.count_nonzero(small & ~crowd))
        left_out["outside of their images"] += int(np.count_nonzero(outside & ~small & ~crowd))
        return found.take(~(crowd | small | outside))

    def _pictures(self, base: Path, found: Annotations, labels: Array, digest: "hashlib._Hash") -> Pictures:
        if not len(labels):
            raise DataError(f"{found.path}: holds no objects that can be used; lower min_size, or leave it out")
        folder = os.path.relpath(_folder_of(found), base)
        files = [os.path.normpath(os.path.join(folder, name)) for name in found.files]
        names = [spelled(name) for name in found.files]
        boxes = np.concatenate([self._grown(found), found.size], axis=1)
        used = np.unique(found.image).tolist()
        digest.update(repr([(files[image], stamp(base / files[image])) for image in used]).encode())
        digest.update(repr(found.names).encode() + labels.tobytes() + found.image.tobytes() + boxes.tobytes())
        image = found.image.tolist()
        return Pictures([files[k] for k in image], labels.tolist(), [names[k] for k in image], boxes)

    def _grown(self, found: Annotations) -> Array:
        """Grow the boxes of objects: left, top, right and bottom of each, inside of its image."""
        size = found.box[:, 2:]
        longer = size.max(axis=1, keepdims=True)
        wanted = (size if self.stretch else longer) + 2 * self.margin * longer
        wanted = np.minimum(wanted, found.size)
        low = np.clip(found.box[:, :2] + (size - wanted) / 2, 0, found.size - wanted)
        return np.concatenate([low, low + wanted], axis=1)


def _files_of(root: Path) -> dict[str, Path]:
    """Find the annotation file of each part; a single one is for all."""
    found: list[tuple[str, Path]] = []
    for folder in ("", "annotations", *PART_OF):
        try:
            names = sorted(os.listdir(root / folder))
        except NotADirectoryError:
            return {TRAIN: root}
        except OSError as error:
            if not folder:
                raise DataError(f"{root}: cannot be opened: {error.strerror or error}") from None
            continue
        found += [(folder, root / folder / name) for name in names if _ANNOTATIONS.fullmatch(name)]
    if len(found) == 1:
        return {TRAIN: found[0][1]}
    parts: dict[str, Path] = {}
    for folder, path in found:
        words = re.findall("[a-z]+", f"{folder} {path.stem}".casefold())
        of = [*{PART_OF[word] for word in words if word in PART_OF}]
        if len(of) != 1 or parts.setdefault(of[0], path) != path:
            raise DataError(f"{path}: {_NAMES}; move other annotation files away, or name one")
    if TRAIN not in parts:
        raise DataError(f"{root}: holds no annotations to train on; {_NAMES}")
    return parts


def _folder_of(found: Annotations) -> Path:
    """Find the folder of the images, by the first that has an object."""
    here, first = found.path.parent, found.files[found.image[0]]
    own = found.path.stem.partition("_")[2]
    folders = [up / name for up in (here, here.parent) for name in ("", "images", own, os.path.join("images", own))]
    for folder in folders:
        if os.path.lexists(folder / first):
            return folder
    looked = ", ".join(dict.fromkeys(map(str, folders)))
    raise DataError(one_line(f"{found.path}: there is no {first}, its first image, in any of {looked}"))


def _refuse_shared(root: Path, parts: dict[str, Pictures]) -> None:
    """Raise DataError if an image is in several parts."""
    seen: dict[str, str] = {}
    for part, pictures in parts.items():
        for file in dict.fromkeys(pictures.files):
            if seen.setdefault(file, part) != part:
                raise DataError(f"{root}: {one_line(file)} is in {seen[file]} and in {part}; leave it out of one")
