"""A small archive that stands for CIFAR-10's in tests of downloads and of archives."""

from pathlib import Path

from tests.support import cifar_files
from tests.support.cifar_files import members

FILES = cifar_files.python_files()

PACKED = cifar_files.pack(members(FILES))

FOLDER = "cifar-10-batches-py"


def content(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir()) if root.exists() else []
