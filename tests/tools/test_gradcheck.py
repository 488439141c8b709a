import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cnnlite.cli import cli
from cnnlite.nn.layers import layers
from cnnlite.nn.layers.activations import Activation, Tanh
from cnnlite.nn.layers.base import Context, Layer
from cnnlite.nn.layers.linear import Linear
from cnnlite.utils.types import Array, DType, Shape
from tests.support.gradcheck import LEAST_GAP, assert_gradients, assert_layer_gradients, slope_along, spread


def test_a_right_gradient_passes_and_a_slightly_wrong_one_does_not() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 5))
    gradient = np.cos(x)
    assert_gradients(lambda: float(np.sin(x).sum()), {"x": x}, {"x": gradient}, rng)
    gradient[2, 3] += 1e-5
    with pytest.raises(AssertionError, match=r"x: .* should be"):
        assert_gradients(lambda: float(np.sin(x).sum()), {"x": x}, {"x": gradient}, rng)


def test_the_slope_is_exact_for_polynomials_and_leaves_the_array_as_it_was() -> None:
    x = np.array([1.0, 2.0])
    assert slope_along(lambda: float((x**4).sum()), x, np.array([1.0, -1.0])) == pytest.approx(4 - 32, rel=1e-9)
    np.testing.assert_array_equal(x, [1, 2])


class ForgetsTheFactor(Linear):
    def backward(self, dy: Array) -> Array | None:
        dx = super().backward(dy)
        self.grads["bias"] *= 1.001
        return dx


class SlightlyOff(Activation):
    def apply(self, x: Array, out: Array) -> None:
        np.sin(x, out=out)

    def gradient(self, dy: Array, x: Array, y: Array, out: Array) -> None:
        np.multiply(dy, np.cos(y), out=out)


def test_layers_with_wrong_gradients_are_found() -> None:
    rng = np.random.default_rng(0)
    for layer, name in ((ForgetsTheFactor(3), "bias"), (SlightlyOff(), "x")):
        layer.build((4,), rng, np.dtype(np.float64))
        with pytest.raises(AssertionError, match=f"{name}: "):
            assert_layer_gradients(layer, spread(rng, (5, 4)), rng)
    right = Tanh()
    right.build((4,), rng, np.dtype(np.float64))
    assert_layer_gradients(right, spread(rng, (5, 4)), rng)


@pytest.mark.parametrize("shape", [(1,), (3, 4), (4, 9, 9, 8)])
def test_spread_numbers_are_apart_from_each_other_and_from_zero(shape: tuple[int, ...]) -> None:
    values = np.sort(spread(np.random.default_rng(0), shape).ravel())
    assert values.size == np.prod(shape)
    assert np.abs(values).min() >= LEAST_GAP / 2
    assert values.size == 1 or np.diff(values).min() >= LEAST_GAP * (1 - 1e-9)


CONFIG = """\
data: {dataset: cifar10, center_crop: 8}
model:
  - conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
  - batch_norm
  - relu
  - max_pool2d: {kernel_size: 2}
  - residual: {body: [dropout, doubtful], drop_probability: 0.5}
  - parallel: {branches: [[tanh], [doubtful]]}
  - flatten
  - linear: {out_features: 10}
train: {epochs: 1, batch_size: 6, loss: {cross_entropy: {label_smoothing: 0.1}}, optimizer: {sgd: {lr: 0.1}}}
"""


class Doubtful(Layer):
    """A scale for each channel, whose gradients a test may spoil."""

    def infer(self, in_shape: Shape) -> Shape:
        self.add_param("scale", in_shape[-1:], lambda rng, shape: 1 + rng.random(shape))
        return in_shape

    def forward(self, x: Array, context: Context) -> Array:
        self._kept = x if context.training else None
        return x * self.params["scale"]

    def backward(self, dy: Array) -> Array | None:
        x = self.kept()
        (dy * x).reshape(-1, x.shape[-1]).sum(axis=0, out=self.grads["scale"])
        return dy * self.params["scale"]


def gradcheck(folder: Path, monkeypatch: pytest.MonkeyPatch, layer: type[Layer], *options: str) -> Result:
    (folder / "net.yaml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(layers, "_classes", {**layers._classes, "doubtful": layer})
    return CliRunner().invoke(cli, ["gradcheck", "net.yaml", *options])


def test_a_right_network_has_a_line_for_each_layer_that_works_and_a_good_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = gradcheck(tmp_path, monkeypatch, Doubtful)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    shown = [re.sub(r"  +[\d.e-]+  \w+$", "", line).split(maxsplit=1) for line in lines[1:-2]]
    assert shown == [
        ["0", "conv2d"],
        ["1", "batch_norm + relu + max_pool2d"],
        ["4", "residual"],
        ["4.body.0", "dropout"],
        ["4.body.1", "doubtful"],
        ["5", "parallel"],
        ["5.0.0", "tanh"],
        ["5.1.0", "doubtful"],
        ["6", "flatten"],
        ["7", "linear"],
    ]
    assert lines[-1].startswith("all gradients are right")


class WrongWeight(Doubtful):
    def backward(self, dy: Array) -> Array | None:
        dx = super().backward(dy)
        self.grads["scale"] *= 1.01
        return dx


class WrongInput(Doubtful):
    def backward(self, dy: Array) -> Array | None:
        super().backward(dy)
        return dy * 1.0


class NoGradient(Doubtful):
    def allocate(self, rng: np.random.Generator, dtype: DType) -> None:
        super().allocate(rng, dtype)
        self.grads.clear()

    def backward(self, dy: Array) -> Array | None:
        return dy * self.params["scale"]


class NotANumber(Doubtful):
    def backward(self, dy: Array) -> Array | None:
        dx = super().backward(dy)
        self.grads["scale"][0] = np.nan
        return dx


@pytest.mark.parametrize(
    ("layer", "error", "what"),
    [
        (WrongWeight, r"\d.\de-0[23]", "scale"),
        (WrongInput, r"\d.\de[-+]0[01]", "input"),
        (NoGradient, "inf", "scale"),
        (NotANumber, "nan", "scale"),
    ],
)
def test_a_wrong_gradient_is_told_with_its_layer_and_fails(
    layer: type[Layer], error: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = gradcheck(tmp_path, monkeypatch, layer, "-o", "seed=3")
    assert result.exit_code == 1, result.output
    wrong = re.findall(rf"^([\d.body]+) +doubtful +{error}  {what}  WRONG$", result.stdout, re.MULTILINE)
    assert wrong == ["4.body.1", "5.1.0"]
    assert result.stdout.count("WRONG") in (2, 3, 5)  # the whole network, and what holds a layer with a wrong dx
    assert "\nwrong: " in result.stdout
    assert "4.body.1 (doubtful)" in result.stdout.splitlines()[-1]


@pytest.mark.parametrize(("name", "side"), [("seed-advanced", 32), ("resnet20", 8)])
def test_bundled_networks_are_right_too(name: str, side: int) -> None:
    result = CliRunner().invoke(cli, ["gradcheck", name, "-o", f"data.center_crop={side}"])
    assert result.exit_code == 0, result.output


def test_a_branch_at_the_start_is_right_though_its_first_layers_train_nothing(tmp_path: Path) -> None:
    first = "- parallel: {branches: [[tanh, {conv2d: {out_channels: 4, kernel_size: 1}}]]}"
    text = CONFIG.replace("doubtful", "tanh").replace("model:\n", f"model:\n  {first}\n")
    (tmp_path / "net.yaml").write_text(text, encoding="utf-8")
    result = CliRunner().invoke(cli, ["gradcheck", str(tmp_path / "net.yaml")])
    assert result.exit_code == 0, result.output
