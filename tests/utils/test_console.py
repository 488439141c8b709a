import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cnnlite.errors import StorageError
from cnnlite.utils.console import coloured, emit, say, shell_word, shows_colours
from tests.support.small_runs import TINY

ROOT = Path(__file__).parents[2]
CODE = re.compile(r"\x1b\[[\d;]*m")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def at_terminal(*arguments: str, **environment: str) -> str:
    """What the command shows at a real terminal, stdout and stderr together."""
    controller, terminal = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    process = subprocess.Popen(
        [sys.executable, "-m", "cnnlite", *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            piece = os.read(controller, 4096)
        except OSError:  # Linux reports the end of a terminal so
            break
        if not piece:
            break
        shown += piece
    os.close(controller)
    process.wait(timeout=30)
    return shown.decode().replace("\r\n", "\n")


def test_a_terminal_shows_the_best_validation_and_the_test_accuracy_in_colour_and_the_log_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY, encoding="utf-8")
    shown = at_terminal("train", "-c", "tiny.yaml", "--epochs", "1", TERM="xterm")
    assert re.search(r"\x1b\[32maccuracy [\d.]+% \(best\)\x1b\[0m", shown)
    assert re.search(r"\x1b\[1;32mtest accuracy [\d.]+%\x1b\[0m", shown)
    log = Path("runs/tiny/log.txt").read_text(encoding="utf-8")
    assert "(best)" in log
    assert "\x1b" not in log


@pytest.mark.parametrize(
    ("environment", "colours"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),  # as its page says: when present and not empty
        ({"TERM": "xterm", "NO_COLOR": "0"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_errors_are_in_colour_where_colours_are_wanted(environment: dict[str, str], colours: bool) -> None:
    shown = at_terminal("validate", "smal.yaml", **environment)
    assert shown.startswith("\x1b[1;31merror:\x1b[0m smal.yaml: " if colours else "error: smal.yaml: ")
    assert bool(CODE.search(shown)) is colours
    if environment == {"TERM": "xterm"}:
        assert CODE.sub("", shown) == at_terminal("validate", "smal.yaml")  # without TERM


def test_wrong_usage_is_an_error_like_others() -> None:
    for arguments in (["--bogus"], ["trian"], ["train", "--bogus"]):
        shown = at_terminal(*arguments, TERM="xterm")
        assert re.search(r"^\x1b\[1;31merror:\x1b\[0m No such ", shown, re.MULTILINE), shown


def test_without_a_terminal_there_are_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for stream, colours in ((io.StringIO(), False), (Terminal(), True)):
        monkeypatch.setattr(sys, "stdout", stream)
        say("warning: x")
        assert (stream.getvalue() == "warning: x\n") is not colours
        assert CODE.sub("", stream.getvalue()) == "warning: x\n"


def test_only_what_matters_is_coloured() -> None:
    assert coloured("error: a\nerror: b") == "\x1b[1;31merror:\x1b[0m a\n\x1b[1;31merror:\x1b[0m b"
    assert coloured("warning: error: a") == "\x1b[33mwarning:\x1b[0m error: a"
    assert coloured("cifar10 test: 9 images, accuracy 71.00%, loss 1") == (
        "cifar10 test: 9 images, \x1b[1;32maccuracy 71.00%\x1b[0m, loss 1"
    )
    for plain in ("epoch 1  train loss 1.0, accuracy 20.00%  validation loss 1.0, accuracy 10.00%", "an error: a"):
        assert coloured(plain) == plain


@pytest.mark.parametrize(("variable", "colours"), [("WT_SESSION", True), ("TERM_PROGRAM", True), ("LANG", False)])
def test_consoles_of_windows_get_colours_where_they_are_known_to_show_them(
    variable: str, colours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        for name in ("NO_COLOR", "TERM", "TERM_PROGRAM", "WT_SESSION", "ANSICON"):
            patch.delenv(name, raising=False)
        patch.setattr(os, "name", "nt")
        patch.setenv(variable, "x")
        assert shows_colours(Terminal()) is colours


def test_words_of_commands_are_quoted_for_the_shell_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shell_word("runs/my run") == "'runs/my run'"
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        assert shell_word(r"runs\small") == r"runs\small"
        assert shell_word(r"runs\my run") == r'"runs\my run"'


def test_data_are_bytes_in_a_pipe_and_printable_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, pipe = Terminal(), io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="\r\n")
    monkeypatch.setattr(sys, "stdout", terminal)
    emit("größe\x1b[2J\n")
    assert terminal.getvalue() == "größe\\x1b[2J\n"
    monkeypatch.setattr(sys, "stdout", pipe)
    emit("größe\x1b[2J\r\n")
    emit("\udcff\n")
    assert isinstance(pipe.buffer, io.BytesIO)
    assert pipe.buffer.getvalue() == "größe\x1b[2J\r\n\\udcff\n".encode()
    monkeypatch.setattr(sys, "stdout", None)
    emit("lost")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full disk to write to")
def test_data_that_do_not_fit_on_a_disk_are_an_error_and_a_closed_pipe_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(StorageError, match="stdout: cannot write: No space left"):
            emit("data")
        emit("more data")  # the stream is muted
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        emit("data")
        emit("more data")
