"""Reading what may not be a file at all."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnlite.checkpoint import load_checkpoint
from cnnlite.errors import CheckpointError
from cnnlite.files import read_small


def next_descriptor() -> int:
    """The number that the next file gets: the lowest that is free."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor


@pytest.mark.parametrize("read", [load_checkpoint, lambda path: read_small(path, 9)], ids=["checkpoint", "small"])
def test_a_folder_in_the_place_of_a_file_is_not_left_open(read: Callable[[Path], object], tmp_path: Path) -> None:
    before = next_descriptor()
    with contextlib.suppress(CheckpointError, OSError):
        read(tmp_path)
    assert next_descriptor() == before
