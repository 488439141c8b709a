"""Datasets, augmentation and batches: all between the files on disk and the first layer."""

from cnnlite.data.augment import Transform, transforms
from cnnlite.data.batches import Batches
from cnnlite.data.class_table import class_counts, class_table
from cnnlite.data.datasets import arrays as _arrays  # registers the sources
from cnnlite.data.datasets import cifar as _cifar
from cnnlite.data.datasets import coco as _coco
from cnnlite.data.datasets import csv_list as _csv_list
from cnnlite.data.datasets import folder as _folder
from cnnlite.data.datasets import idx as _idx
from cnnlite.data.datasets import long_tail as _long_tail
from cnnlite.data.datasets import shapes as _shapes
from cnnlite.data.datasets.base import (
    Dataset,
    DatasetMissing,
    Images,
    Sliced,
    Source,
    default_root,
    load_dataset,
    prepare,
    sources,
)
from cnnlite.data.fingerprints import as_seen, fingerprints, repeated, seen
from cnnlite.data.matching import Split, match
from cnnlite.data.mix import Mixing, mixings
from cnnlite.data.normalize import Normalizer
from cnnlite.data.views import Views, views_of

__all__ = [
    "Batches",
    "Dataset",
    "DatasetMissing",
    "Images",
    "Mixing",
    "Normalizer",
    "Sliced",
    "Source",
    "Split",
    "Transform",
    "Views",
    "as_seen",
    "class_counts",
    "class_table",
    "default_root",
    "fingerprints",
    "load_dataset",
    "match",
    "mixings",
    "prepare",
    "repeated",
    "seen",
    "sources",
    "transforms",
    "views_of",
]

del _arrays, _cifar, _coco, _csv_list, _folder, _idx, _long_tail, _shapes
