"""A small archive that stands for CIFAR-10's in tests of downloads and of archives."""

from pathlib import Path

from . import files
from .files import members

FILES = files.python_files()

PACKED = files.pack(members(FILES))

FOLDER = "cifar-10-batches-py"


def content(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir()) if root.exists() else []
