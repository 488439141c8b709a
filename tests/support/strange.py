"""What may be in the place of a file: links, FIFOs, folders, devices."""

import os
from pathlib import Path

KINDS = ("link", "dangling link", "link to a folder", "link to a device", "FIFO", "folder")
LINKS = tuple(kind for kind in KINDS if "link" in kind)


def place(path: Path, kind: str) -> Path:
    """Put something of this kind at ``path``; returns what it leads to: a file that holds "precious", or nothing."""
    if os.path.lexists(path):
        path.unlink()
    victim = path.parent / "victim"
    if kind == "link":
        victim.write_text("precious")
        path.symlink_to(victim.absolute())
    elif kind == "dangling link":
        path.symlink_to(victim.absolute())
    elif kind == "link to a folder":
        victim.mkdir()
        path.symlink_to(victim.absolute())
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        path.mkdir()
    return victim
