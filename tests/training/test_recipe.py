"""The recipe `speedrun-94`: a twin of its training step in PyTorch, and runs that stop and go on."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnlite.config.load import Config, config_from_data, load_config
from cnnlite.data import Dataset
from cnnlite.nn.network import Network
from cnnlite.optim.muon import QUINTIC
from cnnlite.runs.restore import load_data
from cnnlite.utils.signals import Stopped
from cnnlite.utils.types import Array
from tests.support.small_runs import assert_same_run, state
from tests.support.training_parts import StopAt, resume, start

WIDTHS = {64: 8, 256: 12}
STEPS, TOTAL, PER_EPOCH, WHITENING = 6, 8, 15, 3
"""As if a training were eight steps, half an epoch: the bias of the whitening rests after the third, 0.19 epochs."""
BATCH_SIZE = 1536


def narrow(**changes: Any) -> Config:
    """The bundled config with fewer channels, so that a step takes milliseconds."""
    resolved = copy.deepcopy(load_config("speedrun-94").resolved)
    for entry in resolved["model"]:
        if isinstance(entry, dict) and "conv2d" in entry:
            entry["conv2d"]["out_channels"] = WIDTHS[entry["conv2d"]["out_channels"]]
    resolved["train"].update(changes)
    return config_from_data(resolved, "narrow")


def batches(dtype: Any) -> list[tuple[Array, Array]]:
    rng = np.random.default_rng(0)
    colours = rng.standard_normal((10, 1, 1, 3))
    drawn = []
    for _ in range(STEPS):
        labels = rng.integers(10, size=24)
        drawn.append(((colours[labels] + rng.standard_normal((24, 32, 32, 3))).astype(dtype), labels))
    return drawn


def ours(config: Config, dtype: Any) -> tuple[list[float], dict[str, Array], dict[str, Array]]:
    """The losses of some steps, and the network's arrays before and after them."""
    network = Network(config.model, (32, 32, 3), seed=0, dtype=dtype, classes=10)
    data = batches(dtype)
    network.fit(data[0][0], lambda images: images)
    before = {name: array.copy() for name, array in network.state().items()}
    optimizer, loss = config.train.optimizer, config.train.loss
    optimizer.bind(list(network.parameters.values()))
    optimizer.plan(TOTAL, PER_EPOCH)
    losses = []
    for step, (x, labels) in enumerate(data):
        value, dlogits = loss.loss_and_gradient(network.forward(x, training=True, step=step), labels)
        losses.append(value)
        network.backward(dlogits)
        optimizer.step(step, config.train.schedule.factor(step, TOTAL, PER_EPOCH))
    return losses, before, network.state()


class Twin:
    """The source's network and update, written with PyTorch from its description: sums of losses, its own lr and decay.

    A batch here has fewer images than the source's; its sum of losses is scaled to 1,536.
    """

    CONVOLUTIONS = (2, 6, 9, 13, 16, 20)
    NORMS = (4, 7, 11, 14, 18, 21)

    def __init__(self, torch: Any, arrays: dict[str, Array]):
        self.torch, self.F = torch, torch.nn.functional
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        self.whiten = tensors["buffer/0.weight"].permute(3, 2, 0, 1).contiguous()
        self.whiten_bias = tensors["param/0.bias"].requires_grad_()
        self.filters = [
            tensors[f"param/{i}.weight"].permute(3, 2, 0, 1).contiguous().requires_grad_() for i in self.CONVOLUTIONS
        ]
        self.norms = [torch.nn.BatchNorm2d(len(f), eps=1e-12, momentum=1 - 0.5566, dtype=f.dtype) for f in self.filters]
        for norm in self.norms:
            norm.weight.requires_grad = False
        self.head = tensors["param/25.weight"].T.contiguous().requires_grad_()
        # 0.0573 and 0.5415 there, but for roundings of the config
        biases = {"lr": 88 / BATCH_SIZE, "weight_decay": 1.81815e-5 * BATCH_SIZE}
        head = {"lr": 832 / BATCH_SIZE, "weight_decay": 1.923915e-6 * BATCH_SIZE}
        self.sgd = torch.optim.SGD(
            [
                {"params": [self.whiten_bias], **biases},
                {"params": [norm.bias for norm in self.norms], **biases},
                {"params": [self.head], **head},
            ],
            momentum=0.825,
            nesterov=True,
        )
        self.full = [group["lr"] for group in self.sgd.param_groups]
        self.moments = [torch.zeros_like(f) for f in self.filters]

    def logits(self, x: Any, train_whitening: bool) -> Any:
        F = self.F
        z = F.conv2d(x, self.whiten, self.whiten_bias if train_whitening else self.whiten_bias.detach())
        z = F.gelu(z, approximate="tanh")
        for group in range(3):
            for half in range(2):
                z = F.conv2d(z, self.filters[2 * group + half], padding="same")
                if half == 0:
                    z = F.max_pool2d(z, 2)
                z = F.gelu(self.norms[2 * group + half](z), approximate="tanh")
        z = F.max_pool2d(z, 3).flatten(1)
        return z @ self.head.T / 256

    def step(self, step: int, x: Array, labels: Array) -> float:
        torch, total, whitening = self.torch, TOTAL, WHITENING
        logits = self.logits(torch.tensor(x).permute(0, 3, 1, 2), step < whitening)
        loss = self.F.cross_entropy(logits, torch.tensor(labels), label_smoothing=0.09, reduction="sum")
        (loss * (BATCH_SIZE / len(x))).backward()
        factors = (1 - step / whitening, 1 - step / total, 1 - step / total)
        for group, lr, factor in zip(self.sgd.param_groups, self.full, factors, strict=True):
            group["lr"] = lr * factor
        self.sgd.step()
        with torch.no_grad():
            for weight, moment in zip(self.filters, self.moments, strict=True):
                self.muon(weight, moment, 0.205 * (1 - step / total))
        self.sgd.zero_grad(set_to_none=True)
        return float(loss.detach()) / len(x)

    def muon(self, weight: Any, moment: Any, lr: float) -> None:
        a, b, c = QUINTIC
        moment.mul_(0.655).add_(weight.grad)
        direction = weight.grad.add(moment, alpha=0.655).reshape(len(weight), -1)
        weight.grad = None
        weight.mul_(len(weight) ** 0.5 / weight.norm())
        direction = direction / (direction.norm() + 1e-7)
        if tall := direction.size(0) > direction.size(1):
            direction = direction.T
        for _ in range(3):
            gram = direction @ direction.T
            direction = a * direction + (b * gram + c * gram @ gram) @ direction
        weight.add_((direction.T if tall else direction).reshape(weight.shape), alpha=-lr)

    def arrays(self) -> dict[str, Array]:
        """The network's arrays under our names, in our layout."""
        found = {"buffer/0.weight": self.whiten.permute(2, 3, 1, 0), "param/0.bias": self.whiten_bias}
        found["param/25.weight"] = self.head.T
        for place, weight in zip(self.CONVOLUTIONS, self.filters, strict=True):
            found[f"param/{place}.weight"] = weight.permute(2, 3, 1, 0)
        for place, norm in zip(self.NORMS, self.norms, strict=True):
            found[f"param/{place}.beta"] = norm.bias
            found[f"buffer/{place}.running_mean"] = norm.running_mean
            found[f"buffer/{place}.running_var"] = norm.running_var
        return {name: tensor.detach().numpy() for name, tensor in found.items()}


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-6), (np.float32, 2e-2)])
def test_the_recipe_s_training_steps_equal_those_of_a_twin_in_torch(dtype: Any, tolerance: float, torch: Any) -> None:
    losses, before, after = ours(narrow(), dtype)
    twin = Twin(torch, before)
    their_losses = [twin.step(step, x, labels) for step, (x, labels) in enumerate(batches(dtype))]
    theirs = twin.arrays()
    np.testing.assert_allclose(losses, their_losses, rtol=tolerance)
    assert theirs.keys() == after.keys()
    for name, array in after.items():
        moved = np.abs(theirs[name] - before[name]).max()
        difference = np.abs(array - theirs[name]).max()
        assert difference <= tolerance * moved, f"{name}: moved {moved}, differs by {difference}"
        if name != "buffer/0.weight":
            assert moved > 1e-3, name


def test_the_recipe_begins_with_identities_whitening_and_logits_of_moderate_size() -> None:
    network = Network(load_config("speedrun-94").model, (32, 32, 3), seed=0, classes=10)
    network.fit(np.random.default_rng(0).standard_normal((100, 32, 32, 3), np.float32), lambda images: images)
    np.testing.assert_array_equal(network.parameters["13.weight"].value, network.parameters["20.weight"].value)
    assert network.parameters["13.weight"].value.sum() == 256
    whitening = network.buffers["0.weight"]
    np.testing.assert_array_equal(whitening[..., 12:], -whitening[..., :12])
    assert network.parameters["25.weight"].value.std(ddof=1) == pytest.approx(1, rel=1e-5)
    logits = network.forward(np.random.default_rng(1).standard_normal((50, 32, 32, 3), np.float32), training=True)
    assert 0.02 < logits.std() < 1


@pytest.fixture(scope="module")
def shapes() -> tuple[Config, Dataset]:
    """The recipe on drawn shapes, 4 steps an epoch: the whitening's bias rests from step 12 on."""
    resolved = narrow(batch_size=10, epochs=4, checkpoint_every=100).resolved
    resolved["data"] |= {"dataset": {"shapes": {"train_images": 40, "test_images": 10}}}
    resolved["model"][0]["whitening_conv2d"]["images"] = 20
    resolved["train"]["optimizer"]["composite"]["members"][0]["epochs"] = 3
    config = config_from_data(resolved, "narrow")
    return config, load_data(config)


def test_a_stopped_run_goes_on_with_the_same_bits_before_and_after_the_bias_rests(
    shapes: tuple[Config, Dataset], tmp_path: Path
) -> None:
    config, dataset = shapes
    start(config, tmp_path / "whole", dataset)
    biases = []
    for moment in (11, 13, 15):  # after 10, 12 and 14 steps
        path = tmp_path / f"{moment}"
        with pytest.raises(Stopped):
            start(config, path, dataset, StopAt(moment))
        biases.append(state(path, "last")[0]["param/0.bias"])
        resume(config, path, dataset)
        assert_same_run(path, tmp_path / "whole")
    assert not np.array_equal(biases[0], biases[1])
    np.testing.assert_array_equal(biases[1], biases[2])


def test_whitening_is_fitted_on_the_training_images_once_and_kept_in_the_checkpoint(
    shapes: tuple[Config, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, dataset = shapes
    fitted = []
    fit = Network.fit

    def watched(self: Network, images: Array, normalize: Any) -> None:
        fit(self, images, normalize)
        fitted.append((images, self.buffers["0.weight"].copy()))

    monkeypatch.setattr(Network, "fit", watched)
    with pytest.raises(Stopped):
        start(config, tmp_path, dataset, StopAt(4))
    resume(config, tmp_path, dataset)
    assert len(fitted) == 1
    assert fitted[0][0] is dataset.train.images
    np.testing.assert_array_equal(state(tmp_path, "last")[0]["buffer/0.weight"], fitted[0][1])
