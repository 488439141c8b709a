import tracemalloc

import numpy as np

from cnnlite.nn.layers.activations import ReLU
from cnnlite.nn.layers.base import Layer
from cnnlite.nn.layers.containers import Parallel, Residual, Sequential
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.dropout import Dropout
from cnnlite.nn.layers.linear import Linear
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.nn.layers.pooling import AvgPool2d, GlobalAvgPool2d, MaxPool2d
from cnnlite.nn.network import Network
from cnnlite.runtime import engine


def small_network() -> Network:
    model: list[Layer] = [
        Conv2d(8, 3, padding="same", bias=False),
        BatchNorm(),
        ReLU(),
        MaxPool2d(2),
        Residual(Sequential([Conv2d(8, 3, padding=1), BatchNorm(), ReLU()])),
        Parallel([Conv2d(8, 1), AvgPool2d(3, stride=1, padding=1), Sequential([])]),
        Dropout(0.1),
        Conv2d(16, 3, stride=2),
        GlobalAvgPool2d(),
        Linear(10),
    ]
    return Network(Sequential(model), (32, 32, 3), seed=0, classes=10)


def test_training_allocates_no_memory_once_it_runs() -> None:
    network = small_network()
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((64, 32, 32, 3), np.float32) for _ in range(5)]

    def step(number: int) -> None:
        logits = network.forward(batches[number], training=True, step=number)
        network.backward(logits)

    for number in range(3):
        step(number)
    tracemalloc.start()
    try:
        step(3)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        step(4)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 256 * 1024, "one activation of this network has 2 MiB"
    assert after - before < 16 * 1024, "memory is kept from step to step"


def test_a_training_step_has_the_same_bits_on_1_2_and_4_threads() -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((64, 32, 32, 3), np.float32), rng.standard_normal((64, 10), np.float32)
    results = []
    for threads in (1, 2, 4):
        engine.set_threads(threads)
        network = small_network()
        for number in range(2):
            network.forward(x, training=True, step=number)
            network.backward(dy)
            for parameter in network.parameters.values():
                parameter.value[...] -= np.float32(0.01) * parameter.grad
        results.append({name: array.copy() for name, array in network.state().items()})
    for other in results[1:]:
        for name, array in other.items():
            np.testing.assert_array_equal(array, results[0][name], err_msg=name)
