import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cnnlite.cli import cli

pytestmark = pytest.mark.usefixtures("here")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["train", "--threads", "1", "--quiet", *arguments])


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """Chart, step and value of all that event files hold, in order; a resumed run hides what it does again."""
    from tensorboardX.proto.event_pb2 import Event

    found: list[tuple[str, int, float]] = []
    for path in sorted(folder.iterdir()):
        data, position = path.read_bytes(), 0
        while position < len(data):
            length = int.from_bytes(data[position : position + 8], "little")
            event = Event.FromString(data[position + 12 : position + 12 + length])
            position += 12 + length + 4
            if event.HasField("session_log"):
                found = [entry for entry in found if entry[1] < event.step]
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
    return found


def test_the_charts_hold_the_figures_of_each_validation_once_also_after_resuming(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # which tensorboardX would load, if it is there, for seconds
    pytest.importorskip("tensorboardX", reason='needs tensorboardX: pip install "cnnlite[tensorboard]"')
    assert run("-c", "tiny.yaml", "--tensorboard", "--epochs", "1").exit_code == 0
    resumed = run("--resume", "runs/tiny", "--epochs", "2")
    assert resumed.exit_code == 0, resumed.output
    found = scalars(Path("runs/tiny/tensorboard"))
    steps = [5, 7, 10, 14]
    charts = ["loss/train", "loss/validation", "accuracy/train", "accuracy/validation", "lr", "images_per_second"]
    for chart in [*charts, "accuracy/validation_balanced", "macro_f1/validation"]:
        assert [step for name, step, _ in found if name == chart] == steps, chart
    with open("runs/tiny/metrics.csv", encoding="utf-8") as file:
        header, *rows = (line.rstrip("\n").split(",") for line in file)
    column = header.index("validation_loss")
    written = [value for name, _, value in found if name == "loss/validation"]
    assert written == pytest.approx([float(row[column]) for row in rows], rel=1e-6)


def test_a_run_without_it_writes_no_events() -> None:
    assert run("-c", "tiny.yaml", "--epochs", "1").exit_code == 0
    assert not Path("runs/tiny/tensorboard").exists()


def test_without_tensorboardx_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    result = run("-c", "tiny.yaml", "--tensorboard")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        'error: --tensorboard needs more than is installed: pip install "cnnlite[tensorboard]"'
    )
    assert not Path("runs").exists()
