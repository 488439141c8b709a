"""Export to safetensors and start from it: PyTorch's networks in their usual naming, both ways, with equal outputs."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from cnnlite.cli import cli
from cnnlite.config.load import config_from_data, load_config
from cnnlite.data import Dataset, Images
from cnnlite.nn.network import Network
from cnnlite.runs.checkpoint import load_checkpoint
from cnnlite.runs.pretrained import read_source
from cnnlite.runs.warm_start import read_start
from cnnlite.tools.predict import Model
from cnnlite.utils.types import Array

pytestmark = pytest.mark.usefixtures("here")
PAGE = Path(__file__).parents[2] / "docs" / "fine-tuning.md"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["export", *arguments])


def renames(name: str) -> list[list[str]]:
    """The list of renames that the documentation gives for a bundled config."""
    blocks = PAGE.read_text(encoding="utf-8").split("```yml")
    (found,) = [block.split("```")[0] for block in blocks if block.startswith(f"\n# {name}")]
    pairs: list[list[str]] = yaml.safe_load(found)["train"]["rename"]
    return pairs


def test_an_exported_network_is_read_back_to_the_bit_with_its_normalization(checkpoint: Path) -> None:
    pytest.importorskip("safetensors")
    done = run(str(checkpoint), "net.safetensors")
    assert done.exit_code == 0, done.output
    assert "in PyTorch's layout; read back, the same bits" in done.stdout
    source, ours = read_source(Path("net.safetensors")), read_source(checkpoint)
    assert (source.classes, source.mode) == (ours.classes, ours.mode)
    for name, array in ours.normalize.items():
        np.testing.assert_array_equal(source.normalize[name], array)
    started = CliRunner().invoke(
        cli, ["train", "-c", "tiny.yaml", "--from", "net.safetensors", "--epochs", "1", "--run-dir", "run"]
    )
    assert started.exit_code == 0, started.output
    assert "8 of 8 arrays are from" in started.stderr
    assert "images are normalized as they were there" in started.stderr
    kept = load_checkpoint(Path("run/start.npz")).arrays
    for name, array in load_checkpoint(checkpoint).arrays.items():
        if name.startswith(("param/", "buffer/", "normalize/")):
            np.testing.assert_array_equal(kept[name], array)


def test_pytorch_loads_an_exported_network_and_computes_the_same(
    checkpoint: Path, torch: Any, dataset: Dataset
) -> None:
    load_file = pytest.importorskip("safetensors.torch").load_file
    nn = torch.nn
    assert run(str(checkpoint), "net.safetensors").exit_code == 0
    theirs = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(3)),
        *(nn.Dropout(0.2), nn.Flatten(), nn.Linear(150, 10)),
    ).eval()
    theirs.load_state_dict(load_file("net.safetensors"))
    facts = json.loads(_metadata(Path("net.safetensors"))["cnnlite"])
    mean, std = (np.array(facts["normalize"][name], np.float32) for name in ("mean", "std"))
    images = dataset.test.images[:16]
    x = torch.from_numpy(((images - mean) / std).astype(np.float32)).permute(0, 3, 1, 2)
    ours = Model.load(checkpoint).logits(images, "none")
    np.testing.assert_allclose(ours, theirs(x).detach().numpy(), rtol=1e-4, atol=1e-4)
    assert facts["classes"] == list(dataset.classes)


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        found: dict[str, str] = file.metadata()
    return found


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["missing", "net.safetensors"], 2, "no such run"),
        (["CHECKPOINT", "mine.safetensors"], 2, "--force"),
        (["CHECKPOINT", "folder/net.safetensors"], 5, "cannot write"),
    ],
)
def test_what_cannot_be_exported_is_one_line(arguments: list[str], code: int, words: str, checkpoint: Path) -> None:
    pytest.importorskip("safetensors")
    Path("mine.safetensors").write_text("mine")
    done = run(*(str(checkpoint) if text == "CHECKPOINT" else text for text in arguments))
    assert (done.exit_code, words in done.stderr, done.stderr.count("\n")) == (code, True, 1), done.output
    assert Path("mine.safetensors").read_text() == "mine"


def test_without_the_library_the_extra_is_named(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    done = run(str(checkpoint), "net.safetensors")
    assert (done.exit_code, 'pip install "cnnlite[safetensors]"' in done.stderr) == (2, True)
    assert not Path("net.safetensors").exists()


def test_a_checkpoint_is_never_replaced_by_its_export(checkpoint: Path) -> None:
    copy = Path("copy.safetensors")
    copy.write_bytes(checkpoint.read_bytes())
    done = CliRunner().invoke(cli, ["export", str(copy), str(copy), "--force"])
    assert done.exit_code == 2
    assert copy.read_bytes() == checkpoint.read_bytes()


# PyTorch's networks, built and named as usual


def resnet(torch: Any, blocks: list[int], widths: list[int]) -> Any:
    """A residual network of basic blocks for small images, with the names that PyTorch's own models have."""
    nn = torch.nn

    class BasicBlock(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, width_in: int, width: int, stride: int):
            super().__init__()
            self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.relu = nn.ReLU()
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.downsample = None
            if stride > 1:
                self.downsample = nn.Sequential(
                    nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
                )

        def forward(self, x: Any) -> Any:
            shortcut = x if self.downsample is None else self.downsample(x)
            return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + shortcut)

    class ResNet(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(widths[0])
            self.relu = nn.ReLU()
            width_in = widths[0]
            for number, (count, width) in enumerate(zip(blocks, widths, strict=True), start=1):
                stage = []
                for index in range(count):
                    stage.append(BasicBlock(width_in, width, 2 if number > 1 and index == 0 else 1))
                    width_in = width
                setattr(self, f"layer{number}", nn.Sequential(*stage))
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.fc = nn.Linear(width_in, 10)

        def forward(self, x: Any) -> Any:
            x = self.relu(self.bn1(self.conv1(x)))
            for number in range(1, len(blocks) + 1):
                x = getattr(self, f"layer{number}")(x)
            return self.fc(torch.flatten(self.avgpool(x), 1))

    return ResNet()


def vgg(torch: Any) -> Any:
    """VGG-11 with batch norm for small images, with the names that PyTorch's own models have."""
    nn = torch.nn
    layers: list[Any] = []
    width_in = 3
    for width in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
        if isinstance(width, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(width_in, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            width_in = width

    class VGG(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(*layers)
            self.classifier = nn.Linear(512, 10)

        def forward(self, x: Any) -> Any:
            return self.classifier(torch.flatten(self.features(x), 1))

    return VGG()


def small(torch: Any) -> Any:
    """The network of small.yaml, whose linear layer is behind 4 x 4 pixels."""
    nn = torch.nn

    class Small(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            for number, (width_in, width) in enumerate([(3, 32), (32, 64), (64, 128)], start=1):
                setattr(self, f"conv{number}", nn.Conv2d(width_in, width, 3, padding=1, bias=False))
                setattr(self, f"bn{number}", nn.BatchNorm2d(width))
            self.fc = nn.Linear(2048, 10)

        def forward(self, x: Any) -> Any:
            for number in (1, 2, 3):
                x = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x))
                x = nn.functional.max_pool2d(nn.functional.relu(x), 2)
            return self.fc(x.flatten(1))

    return Small()


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "vgg11", "small"])
def test_a_network_saved_by_pytorch_gives_the_same_outputs(name: str, torch: Any) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    torch.manual_seed(0)
    theirs = {
        "resnet20": lambda: resnet(torch, [3, 3, 3], [16, 32, 64]),
        "resnet18": lambda: resnet(torch, [2, 2, 2, 2], [64, 128, 256, 512]),
        "vgg11": lambda: vgg(torch),
        "small": lambda: small(torch),
    }[name]()
    with torch.no_grad():  # statistics and scales that are not 0 and 1, as training leaves them
        theirs.train()(torch.randn(8, 3, 32, 32))
        for module in theirs.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.3, 0.3)
    theirs.eval()
    save_file(theirs.state_dict(), "theirs.safetensors")
    built, arrays = started(name)
    x = np.random.default_rng(3).standard_normal((4, 32, 32, 3)).astype(np.float32)
    expected = theirs(torch.from_numpy(x).permute(0, 3, 1, 2)).detach().numpy()
    built.load_state(arrays)
    found = built.forward(x, training=False)
    assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


def started(name: str) -> tuple[Network, dict[str, Array]]:
    """The network of a bundled config, and the arrays that it takes from the file, none of which may be missing."""
    data = json.loads(json.dumps(load_config(name).resolved))
    data["train"] |= {"from": "theirs.safetensors", "rename": renames(name)}
    config = config_from_data(data, name)
    images = Images(np.zeros((2, 32, 32, 3), np.uint8), np.zeros(2, np.int64))
    start = read_start(config, Dataset("none", images, None, images, tuple("abcdefghij"), ""))
    assert start is not None
    assert {row.origin for row in start.rows} == {"taken"}
    assert not start.unused
    return Network(config.model, (32, 32, 3), seed=0), dict(start.arrays)
