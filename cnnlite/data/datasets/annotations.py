"""Annotations of objects in images, in the format of MS-COCO (https://cocodataset.org/#format-data)."""

import re
from array import array
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cnnlite.data.datasets.json_items import json_items
from cnnlite.data.datasets.listing import spelled
from cnnlite.errors import DataError
from cnnlite.utils.files import opened
from cnnlite.utils.printable import has_codes, is_text, one_line
from cnnlite.utils.types import Array

_LARGEST_SIDE = 2**20
_STEPS = re.compile(r"[/\\]")


@dataclass
class Annotations:
    """Objects of one annotation file, and their images and categories; ``path`` is the file."""

    path: Path
    files: list[str] = field(default_factory=list)
    """Names of the images, from their folder on."""
    names: list[str] = field(default_factory=list)
    """Names of the categories."""
    image: Array = field(default_factory=lambda: np.empty(0, np.int64))
    """Index of the image of each object, ascending."""
    category: Array = field(default_factory=lambda: np.empty(0, np.int64))
    """Index of the category of each object."""
    box: Array = field(default_factory=lambda: np.empty((0, 4)))
    """Left, top, width and height of each object, in pixels."""
    size: Array = field(default_factory=lambda: np.empty((0, 2)))
    """Width and height of the image of each object."""
    is_crowd: Array = field(default_factory=lambda: np.empty(0, np.bool_))

    def take(self, which: Array) -> "Annotations":
        """Select objects by a boolean array."""
        arrays = {name: getattr(self, name)[which] for name in ("image", "category", "box", "size", "is_crowd")}
        return replace(self, **arrays)


def read_annotations(path: Path) -> Annotations:
    """Read the objects of an annotation file, item by item; DataError if it is damaged or holds anything else."""
    found = Annotations(path)
    images: dict[int | str, int] = {}
    categories: dict[int | str, int] = {}
    of_image: list[int | str] = []
    of_category: list[int | str] = []
    sizes, boxes, crowds = array("d"), array("d"), array("b")
    try:
        with opened(path) as file:
            for key, item in json_items(file):
                if key == "images":
                    _add(images, item, "image")
                    found.files.append(_file_name(item))
                    sizes.extend((_side(item, "width"), _side(item, "height")))
                elif key == "categories":
                    _add(categories, item, "category")
                    found.names.append(_category_name(item))
                elif key == "annotations":
                    of_image.append(_key(item, "image_id", "annotation"))
                    of_category.append(_key(item, "category_id", "annotation"))
                    boxes.extend(_box(item))
                    crowds.append(bool(item.get("iscrowd", 0)))
    except RecursionError:
        raise DataError(f"{path}: is nested too deep") from None
    except ValueError as error:
        raise DataError(one_line(f"{path}: {error}")) from None
    if not (images and categories and of_image):
        raise DataError(f"{path}: holds no images, categories and annotations, as instances_train2017.json does")
    if len(set(found.names)) < len(found.names):
        raise DataError(f"{path}: two categories have the same name")
    places = _places(path, of_image, images, "image"), _places(path, of_category, categories, "category")
    order = np.argsort(places[0], kind="stable")
    found.image, found.category = (place[order] for place in places)
    found.size = np.frombuffer(sizes, np.float64).reshape(-1, 2)[found.image]
    found.box = np.frombuffer(boxes, np.float64).reshape(-1, 4)[order]
    found.is_crowd = np.frombuffer(crowds, np.int8)[order] != 0
    return found


def _key(item: Any, key: str, what: str) -> int | str:
    if not isinstance(item, dict) or type(item.get(key)) not in (int, str):
        raise ValueError(f"has an entry for {what}s without {key}: {item!r:.80}")
    found: int | str = item[key]
    return found


def _add(known: dict[int | str, int], item: Any, what: str) -> None:
    key = _key(item, "id", what)
    if key in known:
        raise ValueError(f"has two entries for the {what} {key}")
    known[key] = len(known)


def _file_name(item: dict[str, Any]) -> str:
    name = item.get("file_name")
    if not isinstance(name, str) or not name or has_codes(name) or not is_text(name):
        raise ValueError(f"the image {item['id']} has no name of a file: {name!r:.80}")
    if name[0] in "/\\" or name[1:2] == ":" or ".." in _STEPS.split(name):
        raise ValueError(f"the image {item['id']} is in no folder here: {name}")
    return name


def _side(item: dict[str, Any], key: str) -> int:
    side = item.get(key)
    if type(side) is not int or not 0 < side < _LARGEST_SIDE:
        raise ValueError(f"the image {item['id']} has the {key} {side!r:.40}")
    return side


def _category_name(item: dict[str, Any]) -> str:
    name = item.get("name")
    if not isinstance(name, str) or not name or has_codes(name) or not is_text(name):
        raise ValueError(f"the category {item['id']} is called {name!r:.80}")
    return spelled(name)


def _box(item: dict[str, Any]) -> list[float]:
    box = item.get("bbox")
    if (
        not isinstance(box, list)
        or len(box) != len(("left", "top", "width", "height"))
        or not all(type(number) in (int, float) and abs(number) < _LARGEST_SIDE for number in box)
    ):
        raise ValueError(f"the annotation {item.get('id')!r:.40} has the bbox {box!r:.80}, not [x, y, width, height]")
    return box


def _places(path: Path, keys: list[int | str], known: dict[int | str, int], what: str) -> Array:
    try:
        return np.array([known[key] for key in keys], np.int64)
    except KeyError as error:
        raise DataError(
            one_line(f"{path}: an annotation is of the {what} {error.args[0]!r}, which is not there")
        ) from None
