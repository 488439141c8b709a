"""Pictures of any size and number in folders named after their classes, as in ImageNet."""

from pathlib import Path

from cnnlite.data.datasets.base import sources
from cnnlite.data.datasets.class_folders import list_pictures
from cnnlite.data.datasets.listing import Listing
from cnnlite.data.datasets.pictures import Pictures, PictureSource


@sources.register("folder")
class Folder(PictureSource):
    """Folders of pictures, one for each class, in ``data.root``; or such folders in ``train``, ``val`` and ``test``.

    The pictures in the folder of a class and all below it are decoded once, scaled and cut to one size, into a cache
    file that is then mapped into memory; it is made again when names, sizes or times of the files change. Without
    ``test``, what to test with is ``val``; without both, ``test_fraction`` of all. Validation images are those in
    ``val`` if there is ``test`` too, else a tenth of those to train on. Where no folder says which, the path of each
    picture does, and ``seed``: see `splits.turns`.
    """

    def listing(self, root: Path) -> Listing[Pictures]:
        return list_pictures(root, self.frame.shape, self.test_fraction, self.seed, lenient=self.lenient)
