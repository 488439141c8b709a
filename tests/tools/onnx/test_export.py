"""An exported file alone answers as the checkpoint does, for raw images; nothing is written that was found wrong."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from cnnlite.cli import cli
from cnnlite.config.load import config_from_data
from cnnlite.data import Dataset, Images
from cnnlite.data.datasets.cifar import Cifar10
from cnnlite.errors import DataError, StorageError, missing_extra
from cnnlite.nn.layers.activations import ReLU
from cnnlite.nn.layers.base import Layer
from cnnlite.tools.onnx import export as onnx
from cnnlite.tools.onnx.export import compare, to_onnx
from cnnlite.tools.onnx.graph import Graph, exporters
from cnnlite.tools.predict import Model
from tests.support.small_runs import TINY, trained

pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
onnxruntime: Any = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["export", *map(str, arguments)])


def test_the_checkpoint_itself_is_not_replaced(checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mine.npz"
    copy.write_bytes(checkpoint.read_bytes())
    for out in (copy, tmp_path / "." / "mine.npz"):
        refused = run(copy, out, "--force")
        assert (refused.exit_code, "is the checkpoint itself" in refused.stderr) == (2, True)
    assert copy.read_bytes() == checkpoint.read_bytes()


@pytest.mark.parametrize("count", [1, 7])
def test_raw_images_go_in_and_probabilities_come_out(
    count: int, checkpoint: Path, dataset: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "a.onnx"
    result = run(checkpoint, out)
    assert result.exit_code == 0, result.output
    assert "checked with onnxruntime on 40 test images of shapes: largest difference" in result.stdout
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    assert (entry.name, entry.type, entry.shape) == ("image", "tensor(uint8)", ["N", 32, 32, 3])
    images = dataset.test.images[:count]
    logits, probabilities = session.run(["logits", "probabilities"], {"image": images})
    model = Model.load(checkpoint)
    np.testing.assert_allclose(logits, model.logits(images, "none"), atol=1e-4)
    np.testing.assert_allclose(probabilities, model.predict(images), atol=1e-5)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(dataset.classes)


@pytest.mark.parametrize("data", [{"center_crop": 25}, {"normalize": "per_pixel"}, {"normalize": "none"}])
def test_cropping_and_normalization_are_part_of_the_file(data: dict[str, Any], tmp_path: Path) -> None:
    settings = yaml.safe_load(TINY)
    settings["data"] |= data
    model = Model.load(trained(tmp_path / "run", config_from_data(settings, "tiny")))
    difference = compare(model, to_onnx(model).SerializeToString())
    assert difference is not None
    assert difference.images == "40 test images of shapes"
    assert difference.probabilities < 1e-5
    assert difference.other_classes == 0


def test_parameters_keep_their_names(checkpoint: Path) -> None:
    model = Model.load(checkpoint)
    names = {constant.name for constant in to_onnx(model).graph.initializer}
    assert model.network.parameters.keys() <= names


def test_without_the_dataset_noise_must_do(checkpoint: Path) -> None:
    model = Model.load(checkpoint)
    content = to_onnx(model).SerializeToString()
    object.__setattr__(model.config.data, "dataset", Cifar10())
    difference = compare(model, content, "nowhere")
    assert difference is not None
    assert difference.images == "256 images of noise, as the dataset cannot be read here"
    assert difference.logits < 1e-3


@pytest.mark.parametrize(
    "fault", [DataError("damaged"), missing_extra("folder", "images"), StorageError("no cache"), OSError(5, "no disk")]
)
def test_whatever_keeps_the_dataset_from_being_read_the_network_is_exported(
    fault: Exception, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(onnx, "load_dataset", fail)
    result = run(checkpoint, tmp_path / "a.onnx")
    assert (result.exit_code, "on 256 images of noise, as the dataset cannot be read here:" in result.stdout) == (
        0,
        True,
    )


def test_images_of_another_size_are_not_called_missing(
    checkpoint: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model.load(checkpoint)
    smaller = Images(dataset.test.images[:, :8], dataset.test.labels)
    monkeypatch.setattr(onnx, "load_dataset", lambda *_, **__: dataclasses.replace(dataset, test=smaller))
    difference = compare(model, to_onnx(model).SerializeToString())
    assert difference is not None
    assert difference.images == "256 images of noise, as those of shapes here have another size"


def test_a_file_that_exists_is_replaced_only_when_told_to(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.onnx"
    out.write_text("mine")
    refused = run(checkpoint, out)
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert out.read_text() == "mine"
    assert run(checkpoint, out, "--force").exit_code == 0
    assert out.stat().st_size > 1000
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.onnx"]


def test_a_model_that_differs_is_not_written(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(graph: Graph, layer: Layer, x: str, name: str) -> str:
        return graph.add("Sigmoid", x, name=name)

    monkeypatch.setitem(cast(dict[Any, Any], exporters), ReLU, wrong)
    result = run(checkpoint, tmp_path / "a.onnx")
    assert result.exit_code == 1
    assert "differs from the network" in result.stderr
    assert not list(tmp_path.iterdir())


def test_without_onnxruntime_the_file_is_written_and_called_unchecked(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = run(checkpoint, tmp_path / "a.onnx")
    assert result.exit_code == 0
    assert "not checked, as onnxruntime is not installed" in result.stdout


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda patch: patch.setitem(sys.modules, "onnx", None), 2, 'pip install "cnnlite[onnx]"'),
        (lambda patch: patch.setattr(onnx, "LARGEST", 1000), 2, "cannot hold more"),
        (lambda patch: patch.delitem(exporters, ReLU), 2, "model[2].relu: ReLU cannot be exported"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    change: Any, code: int, words: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch)
    result = run(checkpoint, tmp_path / "a.onnx")
    assert result.exit_code == code
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_an_error_of_storage(checkpoint: Path, tmp_path: Path) -> None:
    result = run(checkpoint, tmp_path / "missing" / "a.onnx")
    assert result.exit_code == 5
    assert "a.onnx: cannot write" in result.stderr
