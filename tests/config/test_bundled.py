"""The bundled configs: their networks have the sizes of their sources, and can be trained."""

import math

import numpy as np
import pytest

from cnnlite.config.bundled import bundled_configs
from cnnlite.config.load import load_config
from cnnlite.tools.bench import prepare, training_multiply_adds

PUBLISHED = {
    "inception": 1_649_402,  # Zhang et al. 2016, arXiv:1611.03530, table 1
    "resnet20": 0.27e6,  # He et al. 2015, arXiv:1512.03385, table 6
    "resnet56": 0.85e6,
    "resnet110": 1.7e6,
    "resnet18": 11_689_512 - 513_000 + 5_130,  # torchvision's, with 10 classes for 1,000
    "resnet152": 60_192_808 - 2_049_000 + 20_490,
    "speedrun": 1.97e6,  # Jordan 2024, arXiv:2404.00498
    "speedrun-94": 1.97e6,
    "vgg11": 9_220_480 + 5_130 + 5_504,  # torchvision's vgg11_bn: convolutions and norms, then one linear layer
    "vgg19": 20_024_384 + 5_130 + 11_008,
}
"""How many parameters a network has by its source; stems, shortcuts and biases make a difference below 2 %."""


LAYERS = {"resnet20": 20, "resnet56": 56, "resnet110": 110, "resnet152": 152, "vgg11": 9, "vgg19": 17}
"""How many layers with weights, shortcuts apart; the linear layers of VGG have become one here."""


@pytest.mark.parametrize("name", [config.removesuffix(".yaml") for config in bundled_configs()])
def test_a_bundled_network_has_the_size_of_its_source_and_makes_a_training_step(name: str) -> None:
    step = prepare(load_config(name), 2)
    parameters = step.network.parameters
    if name in PUBLISHED:
        assert sum(parameter.value.size for parameter in parameters.values()) == pytest.approx(
            PUBLISHED[name], rel=0.02
        )
    if name in LAYERS:
        weights = [key for key in parameters if key.endswith(".weight") and ".shortcut." not in key]
        assert len(weights) == LAYERS[name]
    before = {key: parameter.value.copy() for key, parameter in parameters.items()}
    with np.errstate(all="ignore"):  # as in training
        loss = step()
    assert math.isfinite(loss)
    changed = [key for key, value in before.items() if not np.array_equal(value, parameters[key].value)]
    assert len(changed) > len(before) / 2
    assert all(np.isfinite(parameter.value).all() for parameter in parameters.values())


def test_all_that_is_published_is_bundled() -> None:
    assert {f"{name}.yaml" for name in PUBLISHED.keys() | LAYERS.keys()} <= set(bundled_configs())


def test_ten_minutes_take_three_fifths_of_the_arithmetic_of_the_speedrun() -> None:
    configs = {name: load_config(name) for name in ("10-minutes", "speedrun-94")}
    work = {
        name: (config.train.epochs or 0) * training_multiply_adds(prepare(config, 1).network)
        for name, config in configs.items()
    }
    assert work["10-minutes"] / work["speedrun-94"] == pytest.approx(0.58, abs=0.01)


@pytest.mark.parametrize("name", ["resnet20", "resnet56", "resnet110"])
def test_the_learning_rate_drops_at_the_iterations_of_the_paper(name: str) -> None:
    train = load_config(name).train
    steps_per_epoch = math.ceil(45_000 / train.batch_size)
    factors = [train.schedule.factor(step, 64_000, steps_per_epoch) for step in (31_999, 32_000, 47_999, 48_000)]
    assert train.iterations == 64_000
    assert factors == pytest.approx([1, 0.1, 0.1, 0.01])
