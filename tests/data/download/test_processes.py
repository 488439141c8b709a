"""Downloads in processes of their own: two at once, and signals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnnlite.utils.files import locked_folder
from tests.support import server as servers
from tests.support.archives import PACKED
from tests.support.server import Server

ROOT = Path(__file__).parents[3]
PART = "cifar-10-batches-py.tar.gz.cnnlite.part"
SCRIPT = """
import sys
from cnnlite.cli import main
from cnnlite.data.download.cifar import ARCHIVES
from tests.support.archives import FILES, PACKED
from tests.support.cifar_files import described
ARCHIVES["cifar10"] = described(FILES, PACKED)
main()
"""


@pytest.fixture
def stalling() -> Iterator[Server]:
    """Sends a hundred bytes at first and then nothing; everything to those who come back."""
    server = Server(PACKED, servers.stalls, servers.good)
    yield server
    server.close()


def start(root: Path, server: Server) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SCRIPT, "download-cifar", "--data", str(root), "--url", server.url],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "no_proxy": "*"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for_part(root: Path) -> None:
    deadline = time.monotonic() + 30
    while not (root / PART).exists() or not (root / PART).stat().st_size:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_keeps_the_part_and_the_same_command_goes_on(
    number: signal.Signals, stalling: Server, tmp_path: Path
) -> None:
    process = start(tmp_path, stalling)
    wait_for_part(tmp_path)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    kept = "100 bytes are kept, run the same command again to go on"
    assert err.splitlines()[-1] == f"stopped by {number.name}; {kept}"
    assert "Traceback" not in err
    again = start(tmp_path, stalling)
    _, err = again.communicate(timeout=30)
    assert again.returncode == 0, err
    assert stalling.ranges()[:2] == [None, "bytes=100-"]
    assert os.listdir(tmp_path) == ["cifar-10-batches-py"]


def test_a_second_download_into_the_same_folder_is_refused(stalling: Server, tmp_path: Path) -> None:
    first = start(tmp_path, stalling)
    wait_for_part(tmp_path)
    second = start(tmp_path, stalling)
    _, err = second.communicate(timeout=30)
    assert second.returncode == 3
    assert err.splitlines() == [
        f"error: {tmp_path}: another process is downloading into this folder; wait until it is done"
    ]
    assert len(stalling.requests) == 1
    first.kill()
    first.communicate()
    with locked_folder(tmp_path) as alone:
        assert alone  # the lock ends with its process, however that ends
