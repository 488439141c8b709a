"""What the page shows is what the network computes: maps, gradients, and what hidden channels add."""

import base64
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnlite.errors import DivergedError
from cnnlite.nn.layers import layers
from cnnlite.nn.layers.activations import ReLU
from cnnlite.nn.layers.base import Context, Layer
from cnnlite.nn.layers.containers import Parallel, Sequential
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.nn.layers.dropout import Dropout
from cnnlite.nn.layers.linear import Linear
from cnnlite.nn.layers.normalization import BatchNorm
from cnnlite.nn.losses import CrossEntropy, Focal, Loss
from cnnlite.tools.predict import Model
from cnnlite.tools.show import collect as collecting
from cnnlite.tools.show.build import show_page
from cnnlite.tools.show.collect import Subject, collect
from cnnlite.tools.show.evaluated import evaluated
from cnnlite.tools.show.numbers import Numbers
from cnnlite.utils.types import Array, Shape
from tests.support.layer_cases import cases_of
from tests.support.shown import NETWORKS, around, around_case, arrays_of, bundled, loss_in_float64, loss_of


class Shown:
    """What a page holds, decoded again."""

    def __init__(self, model: Model, subject: Subject, loss: Loss | None = None):
        self.numbers = Numbers()
        self.facts = json.loads(
            json.dumps(collect(model, loss or model.config.train.loss, subject, 100, self.numbers), allow_nan=False)
        )
        values = np.frombuffer(base64.b64decode(self.numbers.text()), "<f4")
        ends = np.cumsum([0, *(int(np.prod(shape)) for shape in self.numbers.shapes)])
        self.arrays: list[Array] = [
            values[start:stop].reshape(shape)
            for start, stop, shape in zip(ends[:-1], ends[1:], self.numbers.shapes, strict=True)
        ]
        self.nodes: list[dict[str, Any]] = self.facts["nodes"]

    def array(self, node: dict[str, Any], name: str) -> Array:
        found: Array = self.arrays[node[name]]
        return found

    def channels(self, node: dict[str, Any]) -> Array:
        return np.asarray(range(node["shape"][-1]) if node["channels"] is None else node["channels"])


def page_of(model: Model, subject: Subject) -> str:
    return show_page(model, model.config.train.loss, subject)


def planar(y: Array, channels: Array) -> Array:
    return y[channels] if y.ndim == 1 else y[..., channels].transpose(2, 0, 1)


@pytest.mark.parametrize("name", [*NETWORKS, "speedrun-94", "vgg11"])
def test_maps_are_those_of_the_layers_one_by_one(name: str) -> None:
    model, subject = bundled(name)
    shown, expected = Shown(model, subject), arrays_of(model, subject)
    assert [node["name"] for node in shown.nodes[1:] if node["name"] not in expected] == []
    for node in shown.nodes[1:]:
        y = planar(expected[node["name"]], shown.channels(node))
        scale = np.abs(expected[node["name"]]).max()
        np.testing.assert_allclose(shown.array(node, "y"), y, rtol=1e-4, atol=1e-4 * scale, err_msg=node["name"])
    parts = model.network.model.walk()
    working = [name for name, layer in parts if not isinstance(layer, Sequential | Parallel)]
    assert {node["name"] for node in shown.nodes[1:] if node["kind"] not in ("sum", "concat")} == set(working)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_slopes_of_the_loss_outside_of_training(name: str) -> None:
    model, subject = bundled(name)
    network, before = loss_in_float64(model, subject)
    shown = Shown(model, subject)
    assert shown.facts["loss"] == pytest.approx(before, rel=1e-4)
    found, slopes = [], []
    for node in shown.nodes:
        if "dweight" not in node:
            continue
        gradient = shown.array(node, "dweight")
        place = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
        given = shown.channels(shown.nodes[node["inputs"][0]])
        key = (given[place[1]], shown.channels(node)[place[0]])
        array, index = network.parameters[f"{node['name']}.weight"].value, (*place[2:], *key)
        weight, losses = array[index], []
        for step in (1e-6, -1e-6):
            array[index] = weight + step
            losses.append(loss_of(network, model, subject))
        array[index] = weight
        found.append(gradient[place])
        slopes.append((losses[0] - losses[1]) / 2e-6)
    assert len(found) > 2
    np.testing.assert_allclose(found, slopes, rtol=2e-3, atol=1e-5)


def test_the_gradient_of_the_image_is_a_slope_too() -> None:
    model, subject = bundled("small")
    network, _ = loss_in_float64(model, subject)
    shown = Shown(model, subject)
    gradient = shown.array(shown.nodes[0], "dy").transpose(1, 2, 0)
    place = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
    change = np.zeros((1, 32, 32, 3))
    change[0][place] = 1e-6
    slope = (loss_of(network, model, subject, change) - loss_of(network, model, subject, -change)) / 2e-6
    assert gradient[place] == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("name", list(layers))
def test_every_layer_has_its_maps_and_gradients_in_the_page(name: str) -> None:
    for case in cases_of(name)[:6]:
        model, subject = around_case(case)
        shown = Shown(model, subject)
        expected = arrays_of(model, subject)
        for node in shown.nodes[1:]:
            y = planar(expected[node["name"]], shown.channels(node))
            np.testing.assert_allclose(shown.array(node, "y"), y, rtol=1e-4, atol=1e-5, err_msg=str(case))
            assert shown.array(node, "dy").shape == y.shape


def test_a_large_network_shows_channels_that_fit_together_within_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    model, subject = bundled("resnet20")
    everything = Shown(model, subject)
    monkeypatch.setattr(collecting, "MOST_NUMBERS", 200_000)
    shown = Shown(model, subject)
    assert not shown.facts["whole"]
    assert sum(array.size for array in shown.arrays) < 1.1 * 200_000 < sum(array.size for array in everything.arrays)
    assert shown.nodes[0]["channels"] is None
    assert shown.nodes[shown.facts["last"]]["channels"] is None
    for node in shown.nodes:
        if node["kind"] in ("sum", "relu", "batch_norm"):
            assert all(shown.nodes[index]["channels"] == node["channels"] for index in node["inputs"]), node["name"]
        assert 1 <= len(shown.channels(node)) <= node["shape"][-1]


def test_what_hidden_channels_add_is_in_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    model, subject = bundled("resnet20")
    monkeypatch.setattr(collecting, "MOST_NUMBERS", 200_000)
    shown, expected = Shown(model, subject), arrays_of(model, subject)
    node = next(node for node in shown.nodes if node["kind"] == "conv2d" and node["shape"] == [8, 8, 64])
    source = shown.nodes[node["inputs"][0]]
    weight = model.network.parameters[f"{node['name']}.weight"].value.astype(np.float64)
    inside, outside = shown.channels(source), shown.channels(node)
    hidden = np.setdiff1d(np.arange(source["shape"][2]), inside)
    assert len(hidden)
    x = np.pad(expected[source["name"]].astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    i, j, k = 3, 5, 1
    stride = source["shape"][0] // node["shape"][0]
    window = x[i * stride : i * stride + 3, j * stride : j * stride + 3][..., hidden]
    rest = (window * weight[:, :, hidden, outside[k]]).sum()
    assert shown.arrays[node["rest"]["sum"]][k, i, j] == pytest.approx(rest, rel=1e-4)
    assert node["rest"]["size"][k] >= np.abs(window * weight[:, :, hidden, outside[k]]).sum() * (1 - 1e-4)


def test_without_a_label_the_loss_is_of_the_most_probable_class() -> None:
    model, subject = bundled("small")
    best = int(model.predict(subject.image[None])[0].argmax())
    shown = Shown(model, dataclasses.replace(subject, label=None))
    assert (shown.facts["label"], shown.facts["target"]) == (None, best)
    assert Shown(model, dataclasses.replace(subject, label=7)).facts["target"] == 7


def test_losses_are_those_of_training_with_their_weights() -> None:
    model, subject = bundled("seed-simple")
    counts = np.arange(1, 11)
    plain, weighted = (
        Shown(model, subject, loss.fit(counts)) for loss in (CrossEntropy(), CrossEntropy(0.0, "balanced"))
    )
    weight = weighted.facts["weight"]
    assert (plain.facts["weight"], plain.facts["smoothing"], weighted.facts["smoothing"]) == (1, 0, 0)
    assert weight == pytest.approx(5.5 / ((subject.label or 0) + 1), rel=1e-6)
    assert weighted.facts["loss"] == pytest.approx(weight * plain.facts["loss"], rel=1e-5)
    assert Shown(model, subject, CrossEntropy(0.25)).facts["smoothing"] == 0.25
    assert Shown(model, subject, Focal()).facts["smoothing"] is None


def test_nothing_of_the_trained_network_changes() -> None:
    model, subject = bundled("seed-advanced")
    before = {name: array.copy() for name, array in model.network.state().items()}
    collect(model, model.config.train.loss, subject, 3, Numbers())
    for name, array in model.network.state().items():
        np.testing.assert_array_equal(array, before[name])
    assert all(not np.any(parameter.grad) for parameter in model.network.parameters.values())


def test_evaluated_models_keep_the_function_of_the_network_with_every_kind_of_random_layer() -> None:
    body = Sequential([Conv2d(3, 3, padding="same"), BatchNorm(), ReLU(), Dropout(0.5)])
    model, subject = around(layers["residual"](body=body, drop_probability=0.5), (5, 6, 3))  # type: ignore[call-arg]
    x = model.normalizer(subject.image[None])
    again = evaluated(model.network, model.config)
    for step in range(4):
        y = again.forward(x, Context(training=True, step=step))
        np.testing.assert_allclose(y, model.network.forward(x, training=False), rtol=1e-5)


def test_dropout_shows_what_training_would_drop_in_the_step_after_the_checkpoint() -> None:
    model, subject = around(Dropout(0.4), (5, 6, 3))
    shown = Shown(model, subject)
    (node,) = (node for node in shown.nodes if node["kind"] == "dropout")
    x = np.ones((1, 5, 6, 3), np.float32)
    expected = model.network.model.children["0"].forward(x, Context(training=True, step=100))[0]
    np.testing.assert_array_equal(shown.array(node, "factors"), expected.transpose(2, 0, 1))


def test_a_network_that_is_not_finite_is_refused() -> None:
    model, subject = around(Conv2d(2, 3), (6, 6, 3))
    next(iter(model.network.parameters.values())).value[...] = np.inf
    with pytest.raises(DivergedError, match="not finite"):
        collect(model, model.config.train.loss, subject, 0, Numbers())


@pytest.fixture
def own_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers as users write them: one that acts differently in training, and a container."""
    monkeypatch.setattr(layers, "_classes", dict(layers._classes))

    @layers.register("shaky")
    class Shaky(Layer):
        def infer(self, in_shape: Shape) -> Shape:
            self.add_param("amount", in_shape[-1:], 0.5)
            return in_shape

        def forward(self, x: Array, context: Context) -> Array:
            return x + self.params["amount"] if context.training else x

        def backward(self, dy: Array) -> Array | None:
            self.grads["amount"][...] = dy.reshape(-1, dy.shape[-1]).sum(axis=0)
            return dy

    @layers.register("twice")
    class Twice(Layer):
        def __init__(self, body: Layer):
            super().__init__()
            self.body = body

        def infer(self, in_shape: Shape) -> Shape:
            return self.infer_child("body", self.body, in_shape)

        def forward(self, x: Array, context: Context) -> Array:
            return 2 * self.body.forward(x, context)

        def backward(self, dy: Array) -> Array | None:
            return self.body.backward(2 * dy)


@pytest.mark.usefixtures("own_layers")
def test_layers_of_users_are_shown_in_general_and_strange_ones_are_named() -> None:
    own = Sequential([layers["shaky"](), layers["twice"](body=Sequential([ReLU()]))])  # type: ignore[call-arg]
    model, subject = around(own, (4, 5, 3))
    shown = Shown(model, subject)
    by_kind = {node["kind"]: node for node in shown.nodes}
    assert by_kind["shaky"]["view"] == by_kind["twice"]["view"] == "generic"
    assert [node["kind"] for node in shown.nodes if node["strange"]] == ["shaky"]
    (listed,) = by_kind["shaky"]["listed"]
    assert (listed["name"], listed["shape"], listed["trained"]) == ("amount", [3], True)
    assert "relu" not in by_kind


def test_names_cannot_break_out_of_the_page() -> None:
    model, subject = bundled("seed-simple")
    evil = ("</script><script>alert(1)</script>", "{{numbers}}", "<!-- <script>", "\u2028", *model.classes[4:])
    page = show_page(
        Model(model.config, model.network, model.normalizer, evil),
        model.config.train.loss,
        dataclasses.replace(subject, source="<b>&{{facts}}.png"),
        title="<i>&{{style}}",
    )
    assert page.count("<script") == page.count("</script>") == 3
    (facts,) = re.findall(r'<script type="application/json" id="facts">(.*?)</script>', page, re.DOTALL)
    assert json.loads(facts)["classes"][:4] == list(evil[:4])
    assert json.loads(facts)["source"] == "<b>&{{facts}}.png"
    assert "<title>&lt;i&gt;&amp;{{style}} at work</title>" in page


def test_pages_of_the_size_promised() -> None:
    for name in NETWORKS:
        assert len(page_of(*bundled(name))) < 10_000_000, name


def test_the_page_asks_for_nothing_and_says_so_to_the_browser() -> None:
    page = page_of(*bundled("seed-simple"))
    assert "default-src 'none'" in page
    text = re.sub(r'<script type="text/plain".*?</script>', "", page, flags=re.DOTALL)
    assert set(re.findall(r"https?://[\w./]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\bimport\s|\bfetch\(|XMLHttpRequest", text)


def test_linear_networks_without_maps_are_shown() -> None:
    model, subject = around(Sequential([Linear(4), ReLU()]), (7,))
    assert [node["view"] for node in Shown(model, subject).nodes] == [
        "input",
        "flatten",
        "linear",
        "activation",
        "linear",
    ]


def test_modules_of_the_page_are_all_listed() -> None:
    from cnnlite.tools.show.page import SCRIPTS

    folder = Path(collecting.__file__).with_name("page")
    assert sorted(SCRIPTS) == sorted(path.stem for path in folder.glob("*.js"))
