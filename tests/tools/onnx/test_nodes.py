"""What onnxruntime computes for each registered layer is what the layer computes; one without a form is noticed."""

from typing import Any

import numpy as np
import pytest

from cnnlite.errors import ConfigError
from cnnlite.nn.layers import layers
from cnnlite.nn.layers.activations import ReLU
from cnnlite.nn.layers.base import Context, Layer
from cnnlite.tools.onnx.export import IR_VERSION, OPSET
from cnnlite.tools.onnx.graph import Graph, exporters
from cnnlite.utils.types import Array
from tests.support.layer_cases import Case, cases_of, generator

onnx: Any = pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
onnxruntime: Any = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

CASES = [case for name in layers for case in cases_of(name)]


def channels_first(x: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


def run_onnx(layer: Layer, x: Array, out_rank: int) -> Array:
    """The layer, alone in a graph, on a batch ``x``."""
    graph = Graph()
    y = graph.layer(layer, "x", "0")
    graph.nodes.append(onnx.helper.make_node("Identity", [y], ["y"]))
    first = channels_first(x)
    kind = onnx.TensorProto.FLOAT
    ends = [onnx.helper.make_tensor_value_info("x", kind, ["N", *first.shape[1:]])]
    ends.append(onnx.helper.make_tensor_value_info("y", kind, [None] * out_rank))
    made = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "layer", ends[:1], ends[1:], graph.constants),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(made, full_check=True)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": first})
    return np.moveaxis(found, 1, -1)


def test_every_registered_layer_has_an_onnx_form() -> None:
    missing = {name for name in layers if layers[name] not in exporters}
    assert not missing, "write them in cnnlite/tools/onnx/nodes.py"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_onnxruntime_computes_what_the_layer_does(case: Case) -> None:
    rng = generator(case, 3)
    layer = case.layer(np.float32)
    for _, part in layer.walk():
        for buffer in part.buffers.values():
            buffer[...] = rng.uniform(0.5, 2.0, buffer.shape)
    x = rng.standard_normal((3, *case.in_shape)).astype(np.float32)
    expected = layer.forward(x, Context())
    found = run_onnx(layer, x, expected.ndim)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5 * (1 + np.abs(expected).max()))


def test_what_is_depthwise_dilated_or_mirrored_is_written_so() -> None:
    graph = Graph()
    graph.layer(
        Case("conv2d", (9, 8, 4), {"out_channels": 4, "kernel_size": 3, "dilation": 2, "groups": 4}).layer(), "x", "0"
    )
    (node,) = graph.nodes
    found = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert (found["group"], found["dilations"]) == (4, [2, 2])
    graph = Graph()
    options = {"out_channels": 4, "kernel_size": 3, "padding": 1, "padding_mode": "reflect"}
    graph.layer(Case("conv2d", (9, 8, 4), options).layer(), "x", "0")
    assert [node.op_type for node in graph.nodes] == ["Pad", "Conv"]


def test_a_subclass_is_not_taken_for_its_base() -> None:
    class Halved(ReLU):
        def apply(self, x: Array, out: Array) -> None:
            super().apply(x, out)
            out /= 2

    with pytest.raises(ConfigError, match="Halved cannot be exported"):
        Graph().layer(Halved(), "x", "0")
