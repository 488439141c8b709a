"""Datasets, augmentation and batches: everything between the files on disk and the first layer."""

from cnnlite.data import cifar as _cifar  # registers the sources
from cnnlite.data import folder as _folder
from cnnlite.data import shapes as _shapes
from cnnlite.data.batches import Batches
from cnnlite.data.dataset import Dataset, DatasetMissing, Images, Source, default_root, load_dataset, sources
from cnnlite.data.mixing import Mixing, mixings
from cnnlite.data.normalize import Normalizer
from cnnlite.data.seen import as_seen, fingerprints, repeated
from cnnlite.data.table import class_table
from cnnlite.data.transforms import Transform, transforms
from cnnlite.data.views import Views, views_of

__all__ = [
    "Batches",
    "Dataset",
    "DatasetMissing",
    "Images",
    "Mixing",
    "Normalizer",
    "Source",
    "Transform",
    "Views",
    "as_seen",
    "class_table",
    "default_root",
    "fingerprints",
    "load_dataset",
    "mixings",
    "repeated",
    "sources",
    "transforms",
    "views_of",
]

del _cifar, _folder, _shapes
