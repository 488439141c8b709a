"""Datasets, augmentation and batches: all between the files on disk and the first layer."""

from cnnlite.data.augment import Transform, transforms
from cnnlite.data.batches import Batches
from cnnlite.data.class_table import class_counts, class_table
from cnnlite.data.datasets import (  # noqa: F401 - registers the sources
    arrays,
    cifar,
    coco,
    csv_list,
    folder,
    idx,
    long_tail,
    shapes,
)
from cnnlite.data.datasets.base import (
    Dataset,
    DatasetMissing,
    Images,
    Sliced,
    Source,
    default_root,
    sources,
)
from cnnlite.data.fingerprints import as_seen, fingerprints, repeated, seen
from cnnlite.data.matching import Split, match
from cnnlite.data.mix import Mixing, mixings
from cnnlite.data.normalize import Normalizer
from cnnlite.data.splits import load_dataset, prepare
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
