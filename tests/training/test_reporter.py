import errno
import io
import os
import sys
import threading
from pathlib import Path

import pytest
from tqdm import tqdm

from cnnlite.errors import StorageError
from cnnlite.training.reporter import CountBar, Reporter
from cnnlite.utils.console import mute, only_ascii, say


class Terminal(io.TextIOWrapper):
    """A terminal of some encoding that keeps what is written to it."""

    def __init__(self, encoding: str = "utf-8"):
        self.raw_bytes = io.BytesIO()
        super().__init__(self.raw_bytes, encoding=encoding)

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        self.flush()
        return self.raw_bytes.getvalue().decode(self.encoding)


class Broken(io.StringIO):
    """A stream whose reader went away."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def isatty(self) -> bool:
        return True


def on_stderr(monkeypatch: pytest.MonkeyPatch, stream: io.TextIOBase | None) -> None:
    monkeypatch.setattr(sys, "stderr", stream)


def use(reporter: Reporter, log: Path | None = None) -> None:
    if log:
        reporter.open_log(log)
    reporter.start(0, 10, 5)
    reporter.update(4, 0.5, 0.25, 1234.0)
    reporter.activity("validate", 0)
    reporter.line("epoch 1")
    reporter.warn("warning: x")
    reporter.close()


def test_a_terminal_shows_a_bar_with_figures_and_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    on_stderr(monkeypatch, terminal)
    use(Reporter())
    text = terminal.text()
    for part in ("train", "40%", "epoch 0.8/2", "left, loss 0.500", "acc 25.0%", "1,234 images/s", "epoch 1\n"):
        assert part in text


def test_a_bar_needs_neither_shared_memory_nor_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    on_stderr(monkeypatch, Terminal())
    use(Reporter())
    assert isinstance(tqdm.get_lock(), type(threading.RLock()))  # type: ignore[no-untyped-call]


def test_no_bar_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    on_stderr(monkeypatch, stream)
    use(Reporter())
    assert stream.getvalue() == "epoch 1\nwarning: x\n"


def test_quiet_leaves_warnings_alone_but_logs_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    terminal = Terminal()
    monkeypatch.setenv("NO_COLOR", "1")
    on_stderr(monkeypatch, terminal)
    use(Reporter(quiet=True), tmp_path / "log.txt")
    assert terminal.text() == "warning: x\n"
    assert (tmp_path / "log.txt").read_text() == "epoch 1\nwarning: x\n"


def test_the_log_is_utf8_and_appended_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    on_stderr(monkeypatch, None)
    for _ in range(2):
        reporter = Reporter()
        reporter.open_log(tmp_path / "log.txt")
        reporter.line("größe \udc80")
        reporter.close()
    assert (tmp_path / "log.txt").read_bytes().decode() == "größe \\udc80\n" * 2


@pytest.mark.parametrize("stream", [None, Broken()])
def test_a_closed_terminal_is_no_reason_to_stop(
    stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on_stderr(monkeypatch, stream)
    use(Reporter(), tmp_path / "log.txt")
    assert (tmp_path / "log.txt").read_text() == "epoch 1\nwarning: x\n"


def test_a_log_that_cannot_be_written_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="cannot write"):
        Reporter().open_log(tmp_path / "missing" / "log.txt")
    if not os.path.exists("/dev/full"):
        return
    on_stderr(monkeypatch, io.StringIO())
    reporter = Reporter()
    with pytest.raises(StorageError, match="is not a regular file"):
        reporter.open_log(Path("/dev/full"))
    monkeypatch.setattr("cnnlite.training.reporter.open_to_append", lambda path, unshare: path.open("ab"))
    reporter.open_log(Path("/dev/full"))
    with pytest.raises(StorageError, match="No space left"):
        reporter.line("x")
    reporter.close()


@pytest.mark.parametrize(
    ("encoding", "variables", "ascii_only"),
    [
        ("utf-8", {"LANG": "en_US.UTF-8"}, False),
        ("utf-8", {"LANG": "C.UTF-8"}, False),
        ("utf-8", {"LC_ALL": "C.UTF-8", "LANG": "C"}, False),
        ("utf-8", {"LANG": "C", "LC_CTYPE": "C.UTF-8"}, True),  # what Python makes of LANG=C
        ("utf-8", {"LC_ALL": "C"}, True),
        ("utf-8", {}, True),
        ("ascii", {"LANG": "en_US.UTF-8"}, True),
        ("cp1252", {"LANG": "en_US.UTF-8"}, True),
    ],
)
def test_the_bar_is_ascii_where_the_terminal_knows_no_more(
    encoding: str, variables: dict[str, str], ascii_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal(encoding)
    assert only_ascii(terminal) is ascii_only
    on_stderr(monkeypatch, terminal)
    use(Reporter())
    assert terminal.text().isascii() is ascii_only


def test_text_beyond_the_encoding_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal("ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    say("größe")
    assert terminal.text() == "gr\\xf6\\xdfe\n"


def test_a_muted_stream_takes_everything(tmp_path: Path) -> None:
    with open(tmp_path / "file", "w", encoding="utf-8") as stream:
        stream.write("lost")
        mute(stream)
        stream.write("lost too")
        stream.flush()
    assert (tmp_path / "file").read_text() == ""
    mute(io.StringIO())


def test_bytes_are_shown_at_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, plain = Terminal(), io.StringIO()
    for stream in (plain, Broken(), None, terminal):
        on_stderr(monkeypatch, stream)
        bar = CountBar()
        for done in (0, 50_000, 100_000, 0, 10):
            bar(done, 100_000)
        bar.close()
    assert plain.getvalue() == ""
    assert "100k" in terminal.text()


def test_other_units_are_counted_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    on_stderr(monkeypatch, terminal := Terminal())
    bar = CountBar(" pictures")
    bar(640, 10_000)
    bar.close()
    assert "640/10000 [00:00<" in terminal.text()
    assert " pictures/s" in terminal.text()
