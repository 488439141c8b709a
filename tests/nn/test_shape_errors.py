import pytest

from cnnlite.errors import ConfigError
from cnnlite.nn.layers.activations import ReLU
from cnnlite.nn.layers.base import Layer
from cnnlite.nn.layers.containers import Parallel, Repeat, Residual, Sequential
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.linear import Linear
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.nn.layers.pooling import GlobalAvgPool2d
from cnnlite.nn.layers.shape import Flatten
from cnnlite.nn.network import Network
from cnnlite.nn.shape_errors import misfits, refuse_small_batches

SHAPE = (8, 8, 3)


def named(*layers: Layer) -> Sequential:
    """Layers one after the other, called by their indices."""
    for index, layer in enumerate(layers):
        layer.path = str(index)
    return Sequential(list(layers))


def places(model: Layer, classes: int | None = None) -> list[str]:
    return [problem.path for problem in misfits(model, SHAPE, classes)]


def test_what_fits_has_none() -> None:
    block = Residual(Sequential([Conv2d(3, 3, padding="same"), ReLU()]))
    assert places(named(block, Parallel([Conv2d(2, 1), Conv2d(4, 1)]), GlobalAvgPool2d(), Linear(10)), 10) == []


def test_shapes_are_known_again_from_the_next_linear_layer_on() -> None:
    assert places(named(Conv2d(4, 9), Conv2d(4, 99), Flatten(), Linear(5), ReLU(), Conv2d(4, 3), Linear(7)), 10) == [
        "0",
        "5",
        "6.out_features",
    ]


def test_a_layer_that_gives_what_it_gives_lets_the_next_be_checked() -> None:
    assert places(named(Linear(5), Linear(10)), 10) == ["0"]
    assert places(named(Linear(5), Linear(9)), 10) == ["0", "1.out_features"]
    assert places(named(Flatten(), Linear(9), ReLU()), 10) == ["model"]
    assert places(named(Conv2d(4, 9)), 10) == ["0"]


def test_each_branch_is_looked_at_and_their_sum_if_all_fit() -> None:
    one, two = Conv2d(4, 9), Linear(5)
    one.path, two.path = "one", "two"
    assert places(named(Parallel([one, two]), Conv2d(4, 99))) == ["one", "two"]
    assert places(named(Residual(Conv2d(4, 3)))) == ["0"]
    assert "keep height and width" in misfits(named(Residual(Conv2d(4, 3))), SHAPE)[0].message


def test_what_is_repeated_is_told_once() -> None:
    assert places(Repeat(4, named(Linear(5), Conv2d(1, 1)))) == ["0", "1"]


def test_layers_too_large_for_this_machine_are_refused_without_trying() -> None:
    first, second = misfits(named(Linear(10**7), Linear(10**8)), SHAPE)
    assert "flatten" in first.message
    assert "of memory" in second.message


def normed(*shape_first: Layer) -> Layer:
    """A batch norm three containers deep, built."""
    inner = Residual(Repeat(2, Sequential([Parallel([BatchNorm()])])))
    model = named(*shape_first, inner)
    return Network(model, SHAPE, seed=0).model


@pytest.mark.parametrize("before", [[Flatten(), Linear(5)], [GlobalAvgPool2d()], [Conv2d(4, 8)]])
def test_a_batch_of_one_is_refused_where_batch_norm_gets_a_single_value_of_each_channel(before: list[Layer]) -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_size: .* a batch of 1 for a variance; take 2 or more"):
        refuse_small_batches(normed(*before), 1)
    with pytest.raises(ConfigError, match=r"data\.drop_last: .*data\.drop_last=true, or change train\.batch_size"):
        refuse_small_batches(normed(*before), 16, 1)
    refuse_small_batches(normed(*before), 16, 2)
    refuse_small_batches(normed(*before), 2)


@pytest.mark.parametrize("before", [[], [Conv2d(4, (8, 7))]])
def test_where_there_are_several_pixels_one_image_is_enough(before: list[Layer]) -> None:
    refuse_small_batches(normed(*before), 1)
    refuse_small_batches(named(Flatten(), Linear(3)), 1)
