import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cnnlite.runs.checkpoint import load_checkpoint
from tests.support.small_runs import STUCK, TINY, assert_same_run, figures

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-W", "error", "-m", "cnnlite"]


pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(autouse=True)
def buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without buffers, what becomes of text that cannot be written would not show."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


LONGER = ["-o", "train.epochs=25", "-o", "train.checkpoint_every=40", "--data", "/nowhere"]
"""Options of runs that last until they are stopped, or killed."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run with these options, to compare with."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    command = [*COMMAND, "train", "-c", "tiny.yaml", "--quiet", *LONGER]
    subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=True)
    return folder / "runs/tiny"


def spawn(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
    """The command as a process that obeys SIGINT even if this one was started in the background and does not."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(
        [*COMMAND, *arguments],
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **pipes,
    )


def wait_for(path: Path, lines: int) -> None:
    deadline = time.monotonic() + 30
    while not path.exists() or len(path.read_text().splitlines()) < lines:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_help_answers_without_numpy() -> None:
    code = (
        "import sys; from cnnlite.cli import cli; cli(['--help'], standalone_mode=False); print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "train" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_the_run_and_resuming_it_gives_the_same_bits(number: signal.Signals, whole: Path) -> None:
    process = spawn("train", "-c", "tiny.yaml", "--run-dir", "stopped", *LONGER, "--threads", "2")
    wait_for(Path("stopped/metrics.csv"), lines=4)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "cnnlite train --resume stopped" in err.splitlines()[-1]
    assert "Traceback" not in err
    step = load_checkpoint(Path("stopped/checkpoints/last.npz")).meta["step"]
    assert 10 <= step < 175
    assert f"at step {step}, and saved" in Path("stopped/log.txt").read_text(encoding="utf-8")
    subprocess.run([*COMMAND, "train", "--resume", "stopped"], capture_output=True, timeout=60, check=True)
    assert_same_run(whole, Path("stopped"))


def test_a_second_interrupt_ends_at_once_and_leaves_the_old_checkpoint(here: Path) -> None:
    # The step that the first interrupt waits for never ends.
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, "train", "-c", "tiny.yaml"],
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 30
    while not (here / "stuck").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=5) == 130
    assert load_checkpoint(Path("runs/tiny/checkpoints/last.npz")).meta["step"] == 8


def test_a_killed_run_resumes_with_the_same_bits(whole: Path) -> None:
    process = spawn("train", "-c", "tiny.yaml", "--run-dir", "killed", *LONGER, "--threads", "1")
    wait_for(Path("killed/metrics.csv"), lines=11)
    process.kill()
    process.communicate()
    subprocess.run([*COMMAND, "train", "--resume", "killed"], capture_output=True, timeout=60, check=True)
    assert_same_run(whole, Path("killed"))


def test_a_signal_before_training_leaves_nothing(here: Path) -> None:
    script = (
        "import os, signal; from cnnlite.runs import restore as e; from cnnlite.cli import main;"
        "e.load_dataset = lambda *a, **k: os.kill(os.getpid(), signal.SIGTERM); main()"
    )
    done = subprocess.run([sys.executable, "-c", script, "train", "-c", "tiny.yaml"], capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr == "stopped by SIGTERM\n"
    assert os.listdir(here) == ["tiny.yaml"]


def test_ctrl_c_while_the_program_is_being_imported_is_no_traceback(here: Path) -> None:
    (here / "click.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    process = spawn("--help")
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (-signal.SIGINT, "")


def test_an_ignored_signal_stays_ignored() -> None:
    process = subprocess.Popen(
        [*COMMAND, "train", "-c", "tiny.yaml", "-q"],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    wait_for(Path("runs/tiny/metrics.csv"), lines=2)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_reader_that_goes_away_does_not_end_training() -> None:
    for closed in ("stdout", "stderr"):
        read_end, write_end = os.pipe()
        os.close(read_end)
        process = spawn("train", "-c", "tiny.yaml", "--run-dir", closed, **{closed: write_end})
        os.close(write_end)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "Traceback" not in (out or "") + (err or "")
        assert "rror" not in (err or "")
        assert figures(Path(closed))[1]["status"] == "complete"


def test_streams_closed_from_the_start_do_not_end_training() -> None:
    for closed in ("2>&-", "<&- >&- 2>&-"):
        done = subprocess.run(
            f"{shlex.join(COMMAND)} train -c tiny.yaml {closed}", shell=True, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    is_nowhere = "os.path.samestat(os.stat(2), os.stat(os.devnull))"
    script = (
        f"import os; from cnnlite.cli import group; group.cli = lambda **_: os._exit(not {is_nowhere}); group.main()"
    )
    assert subprocess.run(f"{shlex.join([sys.executable, '-c', script])} 2>&-", shell=True).returncode == 0


def test_a_terminal_gets_a_bar_and_the_offer_to_download(here: Path) -> None:
    def at_terminal(typed: bytes, *arguments: str) -> tuple[int, str]:
        controller, terminal = pty.openpty()
        process = spawn(*arguments, stdin=terminal, stdout=terminal, stderr=terminal)
        os.close(terminal)
        os.write(controller, typed)
        shown = b""
        while True:
            try:
                piece = os.read(controller, 4096)
            except OSError:  # Linux reports the end of a terminal so
                piece = b""
            if not piece:
                break
            shown += piece
        os.close(controller)
        return process.wait(timeout=30), shown.decode()

    code, shown = at_terminal(b"", "train", "-c", "tiny.yaml", "-o", "train.epochs=25")
    assert code == 0
    assert "images/s" in shown
    assert "% |" in shown
    assert "test accuracy" in shown
    code, shown = at_terminal(b"n\n", "train", "-c", "tiny.yaml", "-o", "data.dataset=cifar10")
    assert code == 3
    assert "Download it now" in shown
    assert "cnnlite download-cifar --data data" in shown
    assert sorted(os.listdir(here)) == ["runs", "tiny.yaml"]


def test_a_full_disk_is_exit_code_5() -> None:
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (15_000, -1)); "
    script = limit + "from cnnlite.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script, "train", "-c", "tiny.yaml"], capture_output=True, text=True)
    assert done.returncode == 5
    assert "cannot write: File too large" in done.stderr.splitlines()[-1]
    assert not list(Path().glob("runs/*/checkpoints/*"))
