"""Datasets written out in the formats that the sources of one's own images read."""

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from cnnlite.data import Images
from cnnlite.data.datasets.shapes import Shapes
from cnnlite.utils.types import Array


def shapes(train: int = 126, test: int = 40) -> tuple[Images, Images, tuple[str, ...]]:
    """Images to train and to test with, and the names of the classes, sorted, as of folders."""
    dataset = Shapes(train_images=train, test_images=test).load(Path())
    order = np.argsort(np.argsort(dataset.classes))
    parts = [Images(part.images, order[part.labels]) for part in (dataset.train, dataset.test)]
    return parts[0], parts[1], tuple(sorted(dataset.classes))


def write_arrays(path: Path, train: Images, test: Images, **more: Array) -> Path:
    """One .npz file with Keras' names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"x_train": train.images, "y_train": train.labels, "x_test": test.images, "y_test": test.labels}
    np.savez(path, **arrays, **more)  # type: ignore[arg-type]
    return path


def write_csv(path: Path, rows: list[tuple[Any, ...]], separator: str = ",", start: str = "") -> Path:
    """A line a row, the first with the names of the columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(start + "".join(f"{separator.join(map(str, row))}\n" for row in rows), encoding="utf-8")
    return path


def idx(values: Array) -> bytes:
    """An array of bytes in the IDX format."""
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


MNIST = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}


def write_idx(
    folder: Path, train: Images, test: Images, names: dict[tuple[str, str], str] = MNIST, first: int = 0
) -> Path:
    """Four files of grey images; those whose names end in .gz are compressed; labels count from ``first``."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, images in (("train", train), ("test", test)):
        for what, values in (("images", images.images[..., 0]), ("labels", images.labels + first)):
            content = idx(values)
            name = names[part, what]
            (folder / name).write_bytes(gzip.compress(content, 1, mtime=0) if name.endswith(".gz") else content)
    return folder


def coco(images: list[tuple[str, int, int]], objects: list[tuple[int, int, list[float]]], names: list[str]) -> Any:
    """Annotations of MS-COCO: of (name, width, height), and (image, category, box); ids count from 1 and 10."""
    return {
        "info": {"year": 2017, "note": "a ] and a } in text"},
        "licenses": [{"id": 1, "name": "none"}],
        "images": [
            {"id": index + 1, "file_name": name, "width": width, "height": height, "license": 1}
            for index, (name, width, height) in enumerate(images)
        ],
        "annotations": [
            {
                "id": index + 1,
                "image_id": image + 1,
                "category_id": category + 10,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
                "segmentation": [[box[0], box[1], box[0] + box[2], box[1] + box[3]]],
            }
            for index, (image, category, box) in enumerate(objects)
        ],
        "categories": [{"id": index + 10, "name": name, "supercategory": "thing"} for index, name in enumerate(names)],
    }


def write_json(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path
