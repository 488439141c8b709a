"""Real signals to real processes, in each part of what they do."""

import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnnlite.runs.checkpoint import load_checkpoint
from cnnlite.utils.signals import StopFlag, Stopped

ROOT = Path(__file__).parents[2]

SLOW = """
import sys, time
from pathlib import Path
from cnnlite.cli import main

def stuck(*_, **__):
    Path("there").touch()
    while not Path("go-on").exists():
        time.sleep(0.005)
{patch}
main()
"""
"""A program that stands still at a place of one's choice, and goes on there when told to."""

VALIDATING = """
from cnnlite.nn.network import Network
forward = Network.forward
def slow(self, x, *, training, step=0):
    if not training:
        stuck()
    return forward(self, x, training=training, step=step)
Network.forward = slow
"""
TESTING = VALIDATING.replace("if not training:", "if len(x) == 40:")
LOADING = """
from cnnlite.data.datasets.shapes import Shapes
Shapes.load = stuck
"""
MAKING_THE_DIRECTORY = """
from cnnlite.runs.directory import RunDirectory
prepare = RunDirectory._prepare
def slow(self):
    prepare(self)
    stuck()
RunDirectory._prepare = slow
"""
SAVING = """
from cnnlite.utils import files
sync = files._sync_folder
def slow(folder):
    if folder.name == "checkpoints":
        stuck()
    sync(folder)
files._sync_folder = slow
"""
ENDING = """
import atexit
def wait():
    Path("ending").touch()
    while not Path("end").exists():
        time.sleep(0.005)
atexit.register(wait)
"""
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
WARNINGS = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU]
"""By which schedulers tell that the time of a job is over."""


pytestmark = pytest.mark.usefixtures("here")


def until(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.005)


def signalled(patch: str, number: signal.Signals, *arguments: str) -> tuple[int, str]:
    """Exit code and stderr of the command, which gets the signal where the patch makes it stand still."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW.format(patch=patch), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    until(Path("there"))
    process.send_signal(number)
    time.sleep(0.1)  # for Python to take note
    Path("go-on").touch()
    _, err = process.communicate(timeout=60)
    for file in ("there", "go-on"):
        os.unlink(file)
    assert "Traceback" not in err
    return process.returncode, err


@pytest.mark.parametrize(
    ("number", "patch", "step"),
    [
        *((number, VALIDATING, 5) for number in SIGNALS),
        (signal.SIGTERM, TESTING, 21),
        (signal.SIGINT, SAVING, 4),
    ],
)
def test_a_signal_while_validating_testing_or_saving_saves_the_run(
    number: signal.Signals, patch: str, step: int
) -> None:
    code, err = signalled(patch, number, "train", "-c", "tiny.yaml")
    assert code == 128 + number
    assert err.splitlines()[-1].endswith("continue with: cnnlite train --resume runs/tiny")
    assert load_checkpoint(Path("runs/tiny/checkpoints/last.npz")).meta["step"] == step
    log = Path("runs/tiny/log.txt").read_text(encoding="utf-8")
    assert log.endswith(f"\nstopped by {number.name} at step {step}, and saved\n")


@pytest.mark.parametrize("number", WARNINGS)
def test_a_scheduler_s_warning_saves_the_run_as_a_request_to_end_does(number: signal.Signals) -> None:
    code, err = signalled(VALIDATING, number, "train", "-c", "tiny.yaml", "--quiet")
    assert (code, err) == (
        128 + number,
        f"stopped by {number.name}; continue with: cnnlite train --resume runs/tiny\n",
    )
    assert load_checkpoint(Path("runs/tiny/checkpoints/last.npz")).meta["step"] == 5


def test_a_limit_of_processor_time_that_is_used_up_saves_the_run() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "cnnlite", "train", "-c", "tiny.yaml", "--epochs", "100000", "--quiet"],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (3, 30)),
    )
    assert process.returncode == 128 + signal.SIGXCPU
    assert process.stderr == "stopped by SIGXCPU; continue with: cnnlite train --resume runs/tiny\n"
    assert load_checkpoint(Path("runs/tiny/checkpoints/last.npz")).meta["step"] > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGXCPU])
def test_a_signal_that_comes_again_does_not_interrupt_the_cleaning_up(number: signal.Signals) -> None:
    cleaned = []

    def clean_up() -> None:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)
            cleaned.append(True)

    with StopFlag().installed(), pytest.raises(Stopped) as caught:
        clean_up()
    assert caught.value.number == number
    assert cleaned


def test_ctrl_c_at_a_terminal_is_answered_at_once() -> None:
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW.format(patch=VALIDATING), "train", "-c", "tiny.yaml"],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    until(Path("there"))
    process.send_signal(signal.SIGINT)
    shown = b""
    while b"Ctrl-C again stops at once" not in shown:
        assert select.select([ours], [], [], 60)[0], shown
        shown += os.read(ours, 4096)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 128 + signal.SIGINT
    os.close(theirs)
    os.close(ours)


def test_ctrl_c_again_once_the_run_is_saved_is_nothing_more() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW.format(patch=SAVING + ENDING), "train", "-c", "tiny.yaml", "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    until(Path("there"))
    process.send_signal(signal.SIGINT)
    Path("go-on").touch()
    until(Path("ending"))
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)  # for Python to take note
    Path("end").touch()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert err == "stopped by SIGINT; continue with: cnnlite train --resume runs/tiny\n"


@pytest.mark.parametrize(
    ("number", "patch"), [*((number, LOADING) for number in SIGNALS), (signal.SIGTERM, MAKING_THE_DIRECTORY)]
)
def test_a_signal_before_the_first_step_ends_at_once_and_leaves_nothing(
    number: signal.Signals, patch: str, here: Path
) -> None:
    code, err = signalled(patch, number, "train", "-c", "tiny.yaml", "--quiet")
    assert (code, err) == (128 + number, f"stopped by {number.name}\n")
    left = [path for path in here.rglob("*") if path.name not in ("tiny.yaml", "there", "go-on")]
    assert left == []


@pytest.fixture
def slow_server() -> Iterator[str]:
    """The address of an archive of which 1,000 bytes come, and then nothing."""
    listening = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 1000)
            ended.wait(60)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/cifar-10-python.tar.gz"
    ended.set()
    thread.join()
    listening.close()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_downloading_keeps_what_has_come(number: signal.Signals, slow_server: str, here: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "cnnlite", "download-cifar", "--data", "d", "--url", slow_server],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    part = Path("d/cifar-10-batches-py.tar.gz.cnnlite.part")
    until(part)
    time.sleep(0.2)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert f"stopped by {number.name}" in err
    assert "Traceback" not in err
    assert part.stat().st_size == 1000
