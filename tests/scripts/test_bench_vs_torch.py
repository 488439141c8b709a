"""The comparison with PyTorch compares the same networks and the same steps; skipped where PyTorch is missing."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cnnlite.config.load import load_config
from cnnlite.tools.bench import Step, prepare

SCRIPTS = Path(__file__).parents[2] / "scripts"
NETWORK = """\
data: {dataset: cifar10, center_crop: 9}
model:
  - conv2d: {out_channels: 6, kernel_size: [3, 2], stride: 2, padding: same}
  - leaky_relu
  - layer_norm
  - hard_swish
  - parallel: {merge: multiply, branches: [[], [global_avg_pool2d, {linear: {out_features: 6}}, hard_sigmoid]]}
  - repeat: {times: 2, body: [{residual: {body: [relu, {conv2d: {out_channels: 6, kernel_size: 1}}]}}, batch_norm]}
  - parallel:
      branches:
        - [{conv2d: {out_channels: 3, kernel_size: 4, padding: same}}, elu]
        - max_pool2d: {kernel_size: 2, stride: 1, padding: same}
        - avg_pool2d: {kernel_size: 3, stride: 1, padding: 1}
        - []
  - avg_pool2d: {kernel_size: 2, stride: 1, padding: same}
  - conv2d: {out_channels: 18, kernel_size: 3, padding: 2, dilation: 2, groups: 3, padding_mode: reflect}
  - conv2d: {out_channels: 18, kernel_size: 2, padding: same, groups: 18, padding_mode: reflect}
  - avg_pool2d: {kernel_size: 2, stride: 1, padding: 1, ceil_mode: true}
  - max_pool2d: {kernel_size: 3, stride: 2, padding: 1, ceil_mode: true}
  - adaptive_avg_pool2d: {output_size: [3, 2]}
  - silu
  - flatten
  - batch_norm: {affine: true}
  - tanh
  - linear: {out_features: 12}
  - sigmoid
  - layer_norm: {affine: false}
  - softplus
  - batch_norm: {affine: false}
  - gelu
  - linear: {out_features: 10}
train: {epochs: 1, batch_size: 8, optimizer: {sgd: {lr: 100, momentum: 0.9}}}
"""


@pytest.fixture
def script(torch: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the script."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("bench_vs_torch")


@pytest.fixture
def twins(script: Any) -> Any:
    """The module that makes twins."""
    return importlib.import_module("parts.torch_twin")


@pytest.fixture
def step(tmp_path: Path) -> Step:
    """A step of a network with many kinds of layers."""
    (tmp_path / "net.yaml").write_text(NETWORK, encoding="utf-8")
    return prepare(load_config(tmp_path / "net.yaml"))


@pytest.mark.parametrize("name", ["seed-advanced", "small", "resnet20", "vgg11", "resnet18", "speedrun"])
def test_the_outputs_of_reference_networks_and_their_twins_agree(name: str, script: Any, twins: Any) -> None:
    assert name in script.REFERENCE
    assert twins.parity(prepare(script.config_of(name), 4)) < script.TOLERANCE / 2


def test_the_twin_of_a_network_with_many_kinds_of_layers_agrees(step: Step, twins: Any) -> None:
    assert twins.parity(step) < 1e-4


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("_channels_first", lambda self, array: array),
        ("_batch_norm", lambda self, layer: importlib.import_module("torch").nn.Identity()),
    ],
)
def test_a_wrong_twin_is_noticed(
    name: str, broken: Any, step: Step, script: Any, twins: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twins._Translator, name, broken)
    assert twins.parity(step) > 10 * script.TOLERANCE


@pytest.mark.parametrize("variant", ["default", "channels_last"])
def test_both_sides_make_the_same_steps(variant: str, step: Step, twins: Any) -> None:
    their_step = twins.training_step(step, variant)
    losses = [(step(), their_step()) for _ in range(4)]
    for ours, theirs in losses:
        assert ours == pytest.approx(theirs, rel=1e-3)
    assert losses[3][0] < 0.98 * losses[0][0]  # so the updates matter


def test_what_has_no_twin_is_refused_by_name(tmp_path: Path, twins: Any, step: Step) -> None:
    overrides = ["model=[flatten, {dropout: {p: 0.5}}, {linear: {out_features: 10}}]"]
    with pytest.raises(TypeError, match="dropout"):
        twins.twin(prepare(load_config(tmp_path / "net.yaml", overrides)).network)
    with pytest.raises(TypeError, match="sgd"):
        twins.training_step(prepare(load_config(tmp_path / "net.yaml", ["train.optimizer=adam"])), "default")


def test_the_script_writes_a_row_and_the_machine_between_the_marks(torch: Any, tmp_path: Path) -> None:
    out = tmp_path / "figures.md"
    out.write_text("before\n<!-- figures -->\nold\n<!-- end of figures -->\nafter\n", encoding="utf-8")
    options = ["--configs=seed-advanced", "--variants=default", "--rounds=2", "--steps=2", "--threads=1"]
    command = [sys.executable, str(SCRIPTS / "bench_vs_torch.py"), *options, "--batch-size=4", f"--out={out}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = out.read_text(encoding="utf-8").splitlines()
    assert (lines[0], lines[-1], "old" in lines) == ("before", "after", False)
    heading, _, row = (line.split("|")[1:-1] for line in lines[2:5])
    cells = {name.strip(): cell.strip() for name, cell in zip(heading, row, strict=True)}
    assert (cells["network"], cells["batch"], cells["its variant"]) == ("seed-advanced", "4", "default")
    ratio = float(cells["ratio"].strip("*"))
    assert ratio == pytest.approx(float(cells["PyTorch ms"]) / float(cells["cnnlite ms"]), rel=0.02)
    assert 20 < int(cells["MB"]) < int(cells["PyTorch MB"])
    assert any(f"PyTorch {torch.__version__}" in line for line in lines)


def test_a_side_that_fails_says_why_and_ends(script: Any, tmp_path: Path, step: Step) -> None:
    config = NETWORK.replace("- silu", "- dropout")
    (tmp_path / "dropout.yaml").write_text(config, encoding="utf-8")
    with pytest.raises(script.SideError, match="dropout"):
        script.Side(script.__file__, ["default", str(tmp_path / "dropout.yaml"), 4, 1], 1)


def test_a_variant_that_does_not_run_is_skipped_with_its_reason_and_the_fastest_is_chosen(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[str] = []

    class Fake:
        facts: ClassVar[dict[str, Any]] = {"difference": 1e-6, "kernel": "K", "version": "V"}
        peak_memory_bytes = 5

        def __init__(self, _: str, arguments: list[Any], threads: int):
            self.side = arguments[0]
            if self.side == "compiled":
                raise script.SideError("no compiler")

        def seconds(self, steps: int) -> list[float]:
            turns.append(self.side)
            return [{"cnnlite": 1.0, "default": 3.0, "channels_last": 2.0}[self.side]] * steps

        def close(self) -> None:
            turns.append(f"end of {self.side}")

        def __enter__(self) -> "Fake":
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(script, "Side", Fake)
    variants = ["default", "channels_last", "compiled"]
    result = script.compare("small", 8, threads=1, rounds=2, steps=3, variants=variants)
    assert result.match.variant == "channels_last"
    assert result.match.trials == {
        "default": "3000.00 ms",
        "channels_last": "2000.00 ms",
        "compiled": "skipped (no compiler)",
    }
    assert "**2.00**" in result.row()
    assert turns[-4:] == ["cnnlite", "channels_last"] * 2
    assert "end of default" in turns
    Fake.facts = {**Fake.facts, "difference": float("nan")}
    with pytest.raises(script.SideError, match="differ"):
        script.compare("small", 8, threads=1, rounds=2, steps=3, variants=variants)
