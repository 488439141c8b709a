"""A checkpoint on one's own pictures gives what it gives on the same images of the dataset."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from cnnlite.cli import cli
from cnnlite.config.load import config_from_data
from cnnlite.data import Dataset
from cnnlite.errors import DataError, DivergedError
from cnnlite.nn.losses import softmax
from cnnlite.runs.checkpoint import load_checkpoint, save_checkpoint
from cnnlite.runs.restore import load_data, load_network
from cnnlite.tools.predict import Model, predict_files
from cnnlite.training.evaluation import evaluate_checkpoint
from tests.support.small_runs import TINY, tiny, trained

Image: Any = pytest.importorskip("PIL.Image", reason="the extra `images` is not installed")


@pytest.fixture
def pictures(dataset: Dataset, tmp_path: Path) -> Path:
    """A folder with the first five test images, and things that are none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, image in enumerate(dataset.test.images[:5]):
        Image.fromarray(image).save(folder / f"{index}.png")
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden.png").write_text("not a picture")
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["predict", *map(str, arguments)])


def test_probabilities_are_those_of_the_evaluated_network(checkpoint: Path, dataset: Dataset) -> None:
    _, _, network, normalizer, classes = load_network(checkpoint)
    model = Model.load(checkpoint)
    found = model.predict(dataset.test.images)
    expected = softmax(network.forward(normalizer(dataset.test.images), training=False))
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32
    assert model.classes == classes == dataset.classes
    accuracy = (found.argmax(axis=1) == dataset.test.labels).mean()
    assert accuracy == evaluate_checkpoint(checkpoint, "test")[0].accuracy
    assert model.predict(dataset.test.images[:0]).shape == (0, 10)


def test_more_images_than_a_batch_are_taken_in_parts(checkpoint: Path, dataset: Dataset) -> None:
    model = Model.load(checkpoint)
    many = np.concatenate([dataset.test.images] * 7)  # 280
    np.testing.assert_allclose(model.predict(many), np.tile(model.predict(dataset.test.images), (7, 1)), atol=1e-6)


def test_the_centre_is_cut_as_in_training(tmp_path: Path, pictures: Path) -> None:
    data = yaml.safe_load(TINY)
    data["data"]["center_crop"] = 24
    config = config_from_data(data, "cropped")
    path = trained(tmp_path / "run", config)
    dataset, whole = load_data(config), load_data(tiny())
    assert dataset.test.images.shape[1:] == (24, 24, 3)
    model = Model.load(path)
    _, _, network, normalizer, _ = load_network(path)
    expected = softmax(network.forward(normalizer(dataset.test.images), training=False))
    np.testing.assert_array_equal(model.predict(whole.test.images), expected)
    for index, prediction in enumerate(predict_files(model, [pictures], 10)):
        assert dict(prediction.best) == pytest.approx(
            dict(zip(model.classes, map(float, expected[index]), strict=True)), abs=1e-6
        )


def test_views_are_averaged_as_config_or_command_says(checkpoint: Path, dataset: Dataset, tmp_path: Path) -> None:
    config = load_checkpoint(checkpoint).meta["config"]
    config["train"]["tta"] = "mirror"
    content = load_checkpoint(checkpoint)
    content.meta["config"] = config
    save_checkpoint(tmp_path / "mirror.npz", content)
    images = dataset.test.images[:1]
    one = Model.load(checkpoint)
    averaged = softmax((one.logits(images, "none") + one.logits(images[:, :, ::-1], "none")) / 2)[0]
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    for path, options in ((tmp_path / "mirror.npz", []), (checkpoint, ["--tta", "mirror"])):
        found = json.loads(run(path, tmp_path / "a.png", *options, "--json").stdout)
        assert found["predictions"][0]["top"][0]["probability"] == pytest.approx(averaged.max(), abs=1e-6)
    assert abs(averaged.max() - one.predict(images).max()) > 1e-4


@pytest.mark.parametrize("shape", [(2, 31, 32, 3), (32, 32, 3), (2, 32, 32, 1), (2, 3, 32, 32)])
def test_images_of_other_shapes_are_refused(shape: tuple[int, ...], checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"uint8 of shape \(N, 32, 32, 3\)"):
        Model.load(checkpoint).predict(np.zeros(shape, np.uint8))


def test_images_of_other_types_are_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="not float32"):
        Model.load(checkpoint).predict(np.zeros((1, 32, 32, 3), np.float32))


def test_outputs_that_are_not_finite_are_never_probabilities(
    checkpoint: Path, dataset: Dataset, tmp_path: Path
) -> None:
    content = load_checkpoint(checkpoint)
    content.arrays["param/6.weight"][:] = 3e38
    save_checkpoint(tmp_path / "a.npz", content)
    with pytest.raises(DivergedError, match="not finite"):
        Model.load(tmp_path / "a.npz").predict(dataset.test.images)


def test_files_and_folders_are_named_with_their_best_classes(
    checkpoint: Path, pictures: Path, dataset: Dataset
) -> None:
    probabilities = Model.load(checkpoint).predict(dataset.test.images[:5])
    result = run(checkpoint, pictures, pictures / "2.png", "--top", "2")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[::3] == [str(pictures / f"{index}.png") for index in (0, 1, 2, 3, 4, 2)]
    first = probabilities[0].argsort()[::-1]
    for line, k in zip(lines[1:3], first, strict=False):
        name, share = line.split()
        assert name == dataset.classes[k]
        assert float(share.rstrip("%")) == pytest.approx(100 * probabilities[0][k], abs=0.006)


def test_json_is_one_object(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copy(checkpoint, tmp_path / "alone.npz"))
    found = json.loads(run(moved, pictures / "0.png", "--json", "--top", "99").stdout)
    assert found["checkpoint"] == str(moved)
    (prediction,) = found["predictions"]
    assert prediction["image"] == str(pictures / "0.png")
    values = [entry["probability"] for entry in prediction["top"]]
    assert len(values) == 10
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1, abs=1e-5)


def test_one_bad_picture_is_named_and_the_others_are_answered(checkpoint: Path, pictures: Path) -> None:
    (pictures / "1.png").write_bytes((pictures / "1.png").read_bytes()[:100])
    result = run(checkpoint, pictures, pictures / "missing.png")
    assert result.exit_code == 3
    assert result.stdout.count(".png") == 4
    first, second = result.stderr.splitlines()
    assert first.startswith(f"error: {pictures / '1.png'}: is damaged")
    assert second == f"error: {pictures / 'missing.png'}: No such file or directory"
    found = json.loads(run(checkpoint, pictures, "--json").stdout)["predictions"]
    assert ["error" in entry for entry in found] == [False, True, False, False, False]


def test_a_folder_without_pictures_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    result = run(checkpoint, tmp_path / "none")
    assert result.exit_code == 3
    assert "holds no pictures" in result.stderr


def test_a_network_that_takes_no_colours_is_told_apart(checkpoint: Path, pictures: Path) -> None:
    model = Model.load(checkpoint)
    model.network.in_shape = (32, 32, 2)
    with pytest.raises(DataError, match="takes 2"):
        next(predict_files(model, [pictures], 1))
