"""Names that hold codes for terminals, new lines, bytes that are no text, or thousands of characters."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from cnnlite.cli import cli
from cnnlite.runs.checkpoint import load_checkpoint, save_checkpoint
from cnnlite.utils.printable import escaped, has_codes, one_line, readable
from tests.support.locales import PYTHON, with_locale
from tests.support.small_runs import TINY, tiny, trained

NO_TEXT = os.fsdecode(b"b\xffd")
BAD = {"lines": "a\nerror: b", "codes": "a\x1b[31mb\x9b2J", "reversed": "a\u202eb", "long": "x" * 5000}
FOLDER = "data.dataset={folder: {size: 8, cache: %s}}"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(trained(tmp_path_factory.mktemp("trained"), tiny(epochs=1)))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CNNLITE_DATA", raising=False)
    return tmp_path


def test_control_characters_become_escapes_and_other_text_stays() -> None:
    assert escaped("a\x1b[31m\x9b\x7f\u202eb\r\n\tc") == "a\\x1b[31m\\x9b\\x7f\\u202eb\\r\n\tc"
    assert escaped("größe 😀 \u200d 日本") == "größe 😀 \u200d 日本"
    assert one_line("a\nb\x85c") == "a\\nb\\x85c"
    line = one_line("a" + "x" * 5000 + "z")
    assert (len(line) <= 1000, line[0], line[-1]) == (True, "a", "z")
    assert not has_codes("größe 😀\t日本")
    assert has_codes("\n")
    assert has_codes("\0")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_bytes_of_names_are_read_as_utf_8_whatever_the_locale(encoding: str) -> None:
    for name, expected in ((b"b\xffd", "b\\xffd"), ("größe\n猫".encode(), "größe\n猫"), (b"\xc3a", "\\xc3a")):
        assert readable(name.decode(encoding, "surrogateescape")) == expected
    assert readable("a\ud800\udfffb") == "a\\ud800\\udfffb"


@pytest.mark.parametrize("kind", BAD)
def test_no_name_spoils_a_message(kind: str, here: Path, checkpoint: str) -> None:
    bad = BAD[kind]
    train = ["train", "-c", "tiny.yaml", "-q"]
    cifar, quoted = [*train, "-o", "data.dataset=cifar10"], json.dumps(bad)
    for arguments in (
        [*train, "--run-dir", bad],
        ["train", "--resume", bad],
        ["train", "-c", bad],
        [*cifar, "--data", bad],
        [*cifar, "-o", f"data.root={quoted}"],
        [*train, "-o", FOLDER % "null", "-o", f"data.root={quoted}"],
        [*train, "-o", FOLDER % quoted],
        ["validate", bad],
        ["validate", "tiny.yaml", "-o", bad],
        ["validate", "tiny.yaml", "-o", f"train.{bad}=1"],
        ["validate", "tiny.yaml", "-o", f"model.0={quoted}"],
        ["validate", "tiny.yaml", "-o", f"model={json.dumps(bad + '.yaml')}"],
        ["eval", bad],
        ["predict", checkpoint, bad],
        ["export", checkpoint, bad],
        ["explain", bad],
        ["compare", bad, bad],
        ["configs", "show", bad],
        ["configs", "copy", "small", bad],
        ["download-cifar", "--data", "d", "--from-file", bad],
        ["download-cifar", "--data", "d", "--url", bad],
    ):
        done = CliRunner().invoke(cli, arguments)
        if arguments[0] == "export" and done.exit_code == 0:
            continue  # there are systems that have such names
        assert done.exit_code in (2, 3, 5), (arguments, done.output)
        lines = done.output.splitlines()
        assert not any(character in done.output for character in "\x1b\x9b\u202e"), arguments
        assert sum(line.startswith("error: ") for line in lines) == 1, (arguments, done.output)
        assert max(map(len, lines)) < 1100, arguments
    assert os.listdir(here) == ["tiny.yaml"]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of files are text there")
def test_names_that_are_no_text_are_names_too_and_can_be_printed_in_ascii() -> None:
    plain = with_locale(PYTHONIOENCODING="ascii", LC_ALL="C")

    def run(*arguments: str) -> tuple[int, str]:
        command = [*PYTHON, "-m", "cnnlite", *arguments]
        done = subprocess.run(command, env=plain, capture_output=True, text=True, encoding="ascii", timeout=60)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    Path("tiny.yaml").rename(f"{NO_TEXT}.yaml")
    code, told = run("train", "-c", f"{NO_TEXT}.yaml", "--epochs", "1", "--run-dir", NO_TEXT)
    assert (code, "run directory: b\\udcffd" in told) == (0, True), told
    code, told = run("train", "-q", "--resume", NO_TEXT, "--epochs", "2")
    assert code == 0, told
    assert json.loads(Path(NO_TEXT, "environment.json").read_text(encoding="utf-8"))["command"][-1] == NO_TEXT
    code, told = run("eval", f"{NO_TEXT}.npz")
    assert (code, told) == (3, "error: b\\udcffd.npz: cannot read: No such file or directory\n")
    code, told = run("validate", f"{NO_TEXT}.yaml", "-o", f"data.root={NO_TEXT}")
    assert (code, "b\\udcffd" in told) == (2, True), told


ENCODINGS = {
    "strict": {"PYTHONIOENCODING": "utf-8:strict", "PYTHONUTF8": "1"},
    "c-locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.fixture(params=ENCODINGS)
def run(request: pytest.FixtureRequest) -> Callable[..., str]:
    """Run cnnlite where Python takes names for UTF-8, or for ASCII; returns what it printed."""
    environment = with_locale(**ENCODINGS[request.param])

    def run(*arguments: str, **variables: str) -> str:
        command = [*PYTHON, "-m", "cnnlite", *arguments]
        done = subprocess.run(command, env=environment | variables, capture_output=True, timeout=60)
        assert done.returncode == 0, (arguments, done.stderr)
        assert b"Traceback" not in done.stderr, done.stderr
        return os.fsdecode(done.stdout)

    return run


@pytest.mark.long
@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of files are text there")
def test_every_command_takes_such_names_and_what_it_writes_is_text(
    run: Callable[..., str], request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("matplotlib")
    Path("runs").mkdir()
    runs = [f"runs/{NO_TEXT}", "runs/größe"]
    for folder in runs:
        Path("tiny.yaml").rename(f"{folder}.yaml")
        run("train", "-q", "-c", f"{folder}.yaml", "--epochs", "1", "--run-dir", folder)
        Path(f"{folder}.yaml").rename("tiny.yaml")
    for typed in ("runs/", runs[0]):
        assert NO_TEXT not in run(
            _CNNLITE_COMPLETE="bash_complete", COMP_WORDS=f"cnnlite report {typed}", COMP_CWORD="2"
        )
    assert json.loads(run("eval", runs[0], "--json"))["images"] == 40
    assert run("export", runs[0], f"{NO_TEXT}.onnx") if importlib.util.find_spec("onnx") else True
    compared = run("compare", *runs, "--out", f"{NO_TEXT}.html", "--json")
    assert [entry["steps"] for entry in json.loads(compared)["entries"]] == [7, 7]
    run("compare", *runs, "--out", f"{NO_TEXT}.svg")
    for kind in ("html", "svg"):
        text = Path(f"{NO_TEXT}.{kind}").read_text(encoding="utf-8")
        assert all(name in text for name in ("b\\xffd", "größe"))
    # To Python, the first is text in no locale, and the second is none in that of C.
    folder, name = (runs[0], "b\\xffd") if request.node.callspec.params["run"] == "strict" else (runs[1], "größe")
    run("report", folder)
    page = Path(folder, "report", "index.html").read_text(encoding="utf-8")
    assert f"<h1>{name}</h1>" in page
    assert f"A report on the run runs/{name}, trained from the config {name}</p>" in page


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of files are text there")
def test_classes_are_the_same_in_every_locale_and_damaged_pictures_may_have_any_name(
    run: Callable[..., str], tmp_path: Path
) -> None:
    image = pytest.importorskip("PIL.Image")
    for name in ("Hündin", "猫"):
        (tmp_path / "p" / name).mkdir(parents=True)
        for number in range(30):
            image.new("RGB", (8, 8)).save(tmp_path / "p" / name / f"{number}.png")
    (tmp_path / "p" / "猫" / f"{NO_TEXT}.png").write_bytes(b"no picture")
    options = ["-o", "data.dataset={folder: {size: 16, corrupt: skip}}", "-o", "model.6.linear.out_features=2"]
    run("train", "-q", "-c", "tiny.yaml", *options, "--epochs", "1", "--run-dir", "run", "--data", "p")
    assert load_checkpoint(tmp_path / "run/checkpoints/best.npz").meta["classes"] == ["Hündin", "猫"]
    run("eval", "run")  # the images are in the cache by now


@pytest.mark.parametrize("bad", ["\x1b]0;title\x07", "\udcff"])
def test_class_names_with_codes_are_refused(bad: str, checkpoint: str, here: Path) -> None:
    found = load_checkpoint(Path(checkpoint))
    found.meta["classes"][0] = bad
    save_checkpoint(here / "a.npz", found)
    for command in ("eval", "predict"):
        done = CliRunner().invoke(cli, [command, "a.npz", *["a.png"] * (command == "predict")])
        assert (done.exit_code, "classes are not names" in done.stderr, "\x1b" in done.stderr) == (3, True, False)
    for name in ("cat", "dog\x1b[2J"):
        (here / "pictures" / name).mkdir(parents=True)
        (here / "pictures" / name / "a.png").touch()
    done = CliRunner().invoke(cli, ["train", "-c", "tiny.yaml", "-o", FOLDER % "null", "--data", "pictures"])
    assert (done.exit_code, "dog\\x1b[2J: the name holds control characters" in done.stderr) == (3, True)


def test_pictures_with_codes_in_their_names_are_named_safely(checkpoint: str, here: Path) -> None:
    pytest.importorskip("PIL")
    (here / "p").mkdir()
    (here / "p" / "a\nb\x1b[2J.png").write_bytes(b"no picture")
    done = CliRunner().invoke(cli, ["predict", checkpoint, "p"])
    told = "error: p/a\\nb\\x1b[2J.png: is not a picture in a format that can be read\n"
    assert (done.exit_code, done.stderr) == (3, told)
