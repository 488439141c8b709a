"""The program for ONNX files of docs/onnx.md, as it stands there, gives the answers of `predict` and `eval`."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cnnlite.config.load import config_from_data
from cnnlite.data.images import read_pictures
from cnnlite.tools.onnx.export import export
from cnnlite.tools.predict import Model, find_pictures, predict_files
from cnnlite.training.evaluation import evaluate_checkpoint
from cnnlite.utils.types import Array
from tests.support.folders import fill, noise
from tests.support.pages import blocks
from tests.support.small_runs import TINY, trained

pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
Image: Any = pytest.importorskip("PIL.Image", reason="the extra `images` is not installed")

(PROGRAM,) = blocks("docs/onnx.md", "python")

NETWORKS: dict[str, dict[str, Any]] = {
    "32": {},
    "cropped": {"center_crop": 25},
    "own pictures": {"dataset": {"folder": {"size": 20}}},
    "resized": {"dataset": {"folder": {"size": 20, "resize": 25}}},
    "stretched": {"dataset": {"folder": {"size": 20, "stretch": True}}},
    "grey": {"dataset": {"folder": {"size": 20, "channels": 1}}},
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A folder with `small.onnx`, in which the program can be run, and the checkpoint."""
    folder = tmp_path_factory.mktemp("program")
    settings = yaml.safe_load(TINY)
    settings["data"] |= NETWORKS[request.param]
    settings["train"] |= {"epochs": 1, "batch_size": 8}
    if "dataset" in NETWORKS[request.param]:
        for part in ("train", "test"):
            fill(folder / "pictures" / part, 15, tuple("abcdefghij"), size=31)
        settings["data"]["root"] = str(folder / "pictures")
    checkpoint = trained(folder / "run", config_from_data(settings, "program"))
    export(checkpoint, folder / "small.onnx")
    with contextlib.chdir(folder):
        yield folder, checkpoint


def run(picture: Path) -> tuple[str, Array, Array]:
    """What the program prints about a picture, its probabilities, and the image that it gave to the network."""
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(PROGRAM.replace("cat.jpg", picture.name), names)
    return printed.getvalue().strip(), names["probabilities"][0], names["image"]


def photograph(width: int, height: int, mode: str = "RGB") -> Any:
    """Something with large shapes and fine detail that looks different from each side."""
    y, x = np.mgrid[:height, :width]
    pixels = noise(height, width, 4) // 4
    pixels[..., 0] += (150 * x // width).astype(np.uint8)
    pixels[..., 1] += (150 * y // height).astype(np.uint8)
    pixels[..., 3] = np.where(x > width // 2, 255, 255 * y // height)
    return Image.fromarray(pixels).convert("RGBA").convert(mode)


def with_orientation(turn: int) -> Any:
    exif = Image.Exif()
    exif[0x0112] = turn
    return exif


PICTURES: dict[str, Any] = {
    **{f"turned {turn}.jpg": (photograph(60, 45), {"exif": with_orientation(turn)}) for turn in range(1, 9)},
    "turned.png": (photograph(45, 60), {"exif": with_orientation(6)}),
    "transparent.png": (photograph(50, 40, "RGBA"), {}),
    "transparent.webp": (photograph(50, 40, "RGBA"), {"lossless": True}),
    "palette.png": (photograph(50, 40, "P"), {"transparency": 3}),
    "palette.gif": (photograph(50, 40, "P"), {}),
    "wide.png": (photograph(200, 30), {}),
    "high.png": (photograph(31, 170), {}),
    "large.png": (photograph(700, 500), {}),
    "tiny.png": (photograph(5, 7), {}),
    "grey.png": (photograph(64, 50, "L"), {}),
    "grey and transparent.png": (photograph(64, 50, "LA"), {}),
    "bilevel.png": (photograph(64, 50, "1"), {}),
    "inks.jpg": (photograph(64, 50, "CMYK"), {}),
    "of the size.png": (photograph(32, 32), {}),
    "of the shorter side.png": (photograph(25, 36), {}),
}


@pytest.mark.parametrize("name", PICTURES)
def test_the_program_sees_what_predict_sees(name: str, network: tuple[Path, Path]) -> None:
    folder, checkpoint = network
    picture, options = PICTURES[name]
    picture.save(folder / name, **options)
    said, probabilities, image = run(folder / name)
    model = Model.load(checkpoint)
    images, faults = read_pictures([folder / name], model.frame)
    assert not faults
    np.testing.assert_array_equal(image, images[0])
    (prediction,) = predict_files(model, find_pictures([folder / name]))
    assert said == prediction.best(1)[0][0]
    expected = dict(prediction.best(10))
    np.testing.assert_allclose(probabilities, [expected[name] for name in model.classes], atol=1e-4)


def test_a_large_jpeg_which_predict_decodes_small_looks_the_same(network: tuple[Path, Path]) -> None:
    folder, checkpoint = network
    y, x = np.mgrid[:1200, :1600] / 40
    waves = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=-1) * 100 + 128
    Image.fromarray(waves.astype(np.uint8)).save(folder / "large.jpg", quality=95)
    said, probabilities, image = run(folder / "large.jpg")
    model = Model.load(checkpoint)
    images, _ = read_pictures([folder / "large.jpg"], model.frame)
    assert np.abs(image.astype(int) - images[0]).mean() < 1
    (prediction,) = predict_files(model, find_pictures([folder / "large.jpg"]))
    assert said == prediction.best(1)[0][0]
    expected = dict(prediction.best(10))
    np.testing.assert_allclose(probabilities, [expected[name] for name in model.classes], atol=0.02)


@pytest.mark.long
def test_eval_predict_and_the_program_agree_on_the_test_pictures(network: tuple[Path, Path]) -> None:
    folder, checkpoint = network
    if not (folder / "pictures").exists():
        pytest.skip("of pictures in files")
    model = Model.load(checkpoint)
    found, _, _ = evaluate_checkpoint(checkpoint, "test")
    counts = np.zeros((2, 10, 10), int)
    for label, name in enumerate(model.classes):
        for path in sorted((folder / "pictures" / "test" / name).iterdir()):
            (prediction,) = predict_files(model, find_pictures([path]))
            path.replace(folder / "cat.png")
            said, _, _ = run(folder / "cat.png")
            (folder / "cat.png").replace(path)
            for way, guess in enumerate((prediction.best(1)[0][0], said)):
                counts[way, label, model.classes.index(guess)] += 1
    np.testing.assert_array_equal(counts[0], found.confusion)
    np.testing.assert_array_equal(counts[1], found.confusion)
