from pathlib import Path

from click.testing import CliRunner

from cnnlite.cli import cli
from cnnlite.runs.checkpoint import load_checkpoint
from tests.support import cifar_files


def test_the_bundled_config_trains_on_cifar100(tmp_path: Path) -> None:
    cifar_files.write(tmp_path / "data" / "cifar-100-python", cifar_files.cifar100_files())
    few = ("train.epochs=null", "train.iterations=1", "train.batch_size=20", "train.tta=none", "data.validation=20")
    options = [part for text in few for part in ("-o", text)]
    run = tmp_path / "run"
    command = ["train", "-c", "cifar100", "--data", str(tmp_path / "data"), "--run-dir", str(run), *options, "-q"]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0, done.output
    checkpoint = load_checkpoint(run / "checkpoints" / "best.npz")
    assert checkpoint.meta["step"] == 1
    assert checkpoint.meta["classes"] == [f"fine{n}" for n in range(100)]
