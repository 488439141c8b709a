"""A checkpoint on one's own pictures gives what it gives on the same images of the dataset."""

import csv
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from cnnlite.cli import cli
from cnnlite.config.load import config_from_data
from cnnlite.data import Dataset, images
from cnnlite.data.frames import Frame
from cnnlite.errors import DataError, DivergedError
from cnnlite.nn.losses import softmax
from cnnlite.runs.checkpoint import load_checkpoint, save_checkpoint
from cnnlite.runs.restore import load_data, load_network
from cnnlite.tools.predict import Model, Prediction, find_pictures, predict_files
from cnnlite.tools.predict_formats import as_csv
from cnnlite.training.evaluation import evaluate_checkpoint
from cnnlite.utils.types import Array
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
    for index, prediction in enumerate(predict_files(model, find_pictures([pictures]))):
        assert dict(prediction.best(10)) == pytest.approx(
            dict(zip(model.classes, map(float, expected[index]), strict=True)), abs=1e-6
        )


def test_views_are_averaged_as_config_or_command_says(checkpoint: Path, dataset: Dataset, tmp_path: Path) -> None:
    config = load_checkpoint(checkpoint).meta["config"]
    config["train"] |= {"tta": "mirror", "tta_below": 0.999}
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
    assert one.predict(images).max() > 1e-3
    content.meta["config"]["train"]["tta_below"] = 1e-3  # sure of every image
    save_checkpoint(tmp_path / "sure.npz", content)
    np.testing.assert_array_equal(Model.load(tmp_path / "sure.npz").predict(images), one.predict(images))
    found = json.loads(run(tmp_path / "sure.npz", tmp_path / "a.png", "--tta", "mirror", "--json").stdout)
    assert found["predictions"][0]["top"][0]["probability"] == pytest.approx(averaged.max(), abs=1e-6)


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
    first, second = (line for line in result.stderr.splitlines() if line.startswith("error"))
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
    model.network.in_shape = (32, 32, 4)
    with pytest.raises(DataError, match="takes 4"):
        next(predict_files(model, find_pictures([pictures])))


def test_folders_are_searched_to_the_bottom_once_and_what_is_left_out_is_said(
    checkpoint: Path, pictures: Path, tmp_path: Path
) -> None:
    deep = tmp_path / "top" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    for place, name in ((deep, "3.png"), (deep.parent, "2.png"), (tmp_path / "top", "z.png")):
        shutil.copy(pictures / "0.png", place / name)
    (deep / "notes.txt").write_text("not a picture")
    (deep / ".trash").mkdir()
    shutil.copy(pictures / "0.png", deep / ".trash" / "4.png")
    (deep / "up").symlink_to(tmp_path / "top")
    (tmp_path / "top" / "again").symlink_to(deep)
    (tmp_path / "top" / "gone.txt").symlink_to(tmp_path / "nowhere")
    result = run(checkpoint, tmp_path / "top", "--json")
    assert result.exit_code == 0
    found = [Path(entry["image"]) for entry in json.loads(result.stdout)["predictions"]]
    assert [path.relative_to(tmp_path / "top").as_posix() for path in found] == ["z.png", "again/3.png", "b/c/2.png"]
    told = f"{tmp_path / 'top'}: left out: "
    assert [line.removeprefix(told) for line in result.stderr.splitlines()] == [
        "1 file not named like pictures: 1 .txt",
        "1 link to nothing: gone.txt",
        f"1 link to a folder around it: {Path('again', 'up')}",
        f"1 name with a dot in front: {Path('again', '.trash')}",
    ]


def test_a_folder_that_cannot_be_opened_does_not_lose_the_others(
    checkpoint: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pictures / "a").mkdir()
    scandir = os.scandir

    def refuse(path: Path) -> Any:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    result = run(checkpoint, pictures, "--csv", "-")
    assert (result.exit_code, len(table(result.stdout))) == (3, 5)
    assert f"error: {pictures / 'a'}: Permission denied\n" in result.stderr


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_a_table_has_a_row_for_each_picture_whatever_its_name(
    checkpoint: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["0.png", '1,"a".png', "2.png", "=3.png", "4\r\nb;\t.png"] if os.name == "posix" else ["0.png", "=3.png"]
    for name in names:
        shutil.copy(pictures / f"{''.join(filter(str.isdigit, name))}.png", tmp_path / name)
    (tmp_path / "2.png").write_bytes(b"not a picture")
    monkeypatch.chdir(tmp_path)
    model = Model.load(checkpoint)
    expected = {answer.image: answer for answer in predict_files(model, find_pictures([Path(name) for name in names]))}
    result = run(checkpoint, ".", "--csv", "out.csv")
    assert result.exit_code == 3
    assert "error: 2.png: is not a picture" in result.stderr
    written = (tmp_path / "out.csv").read_bytes()
    rows = {row["path"]: row for row in table(written.decode())}
    assert b"\r" not in written.replace(b"\r\nb;", b"")
    assert list(next(iter(rows.values()))) == ["path", "class", "probability", *model.classes]
    for name in names:
        row, answer = rows[f"./{name}" if name[0] == "=" else name], expected[name]
        if name == "2.png":
            assert {*row.values()} == {name, ""}
        else:
            assert (row["class"], float(row["probability"])) == pytest.approx(answer.best(1)[0])
            found = np.array([row[name] for name in model.classes]).astype(np.float32)
            np.testing.assert_allclose(found, answer.probabilities, atol=1e-6)
    assert written == run(checkpoint, ".", "--csv", "-").stdout_bytes


def test_digits_of_a_table_are_those_of_the_probabilities(checkpoint: Path, pictures: Path) -> None:
    model = Model.load(checkpoint)
    (answer, *_) = predict_files(model, find_pictures([pictures]))
    (row, *_) = table(run(checkpoint, pictures, "--csv", "-").stdout)
    found = np.array([row[name] for name in model.classes]).astype(np.float32)
    np.testing.assert_array_equal(found, np.array(answer.probabilities, np.float32))


def test_columns_of_classes_that_are_called_like_the_others_can_be_told_apart() -> None:
    answers = [Prediction("a.png", ("class", "dog"), (0.25, 0.75))]
    assert list(as_csv(answers, ("class", "dog"))) == [
        '"path","class","probability","class class","dog"\n',
        '"a.png","dog",0.75,0.25,0.75\n',
    ]


def test_a_table_replaces_nothing_unless_told_to(checkpoint: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("mine")
    refused = run(checkpoint, pictures, "--csv", out)
    assert (refused.exit_code, out.read_text()) == (2, "mine")
    assert "exists already; name another place, or replace it with --force" in refused.stderr
    assert run(checkpoint, pictures, "--csv", out, "--force").stdout == f"{out}: 5 pictures\n"
    assert len(table(out.read_text())) == 5


@pytest.mark.parametrize("way", ["diverges", "another file appears"])
def test_a_table_is_written_whole_or_not_at_all(
    way: str, checkpoint: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnnlite.tools.predict._FILES_AT_ONCE", 2)
    out, before, predict = tmp_path / "out.csv", sorted(tmp_path.iterdir()), Model.predict
    answered = []

    def interrupted(self: Model, images: Array) -> Array:
        answered.append(len(images))
        assert not out.exists()
        if len(answered) == 3:
            if way == "diverges":
                raise DivergedError("too large")
            out.write_text("another's")
        return predict(self, images)

    monkeypatch.setattr(Model, "predict", interrupted)
    result = run(checkpoint, pictures, "--csv", out)
    assert answered == [2, 2, 1]
    assert result.exit_code == (4 if way == "diverges" else 2)
    assert sorted(tmp_path.iterdir()) == sorted([*before, *[out] * (way != "diverges")])
    assert way == "diverges" or out.read_text() == "another's"


def test_few_pictures_are_in_memory_at_a_time_and_answers_come_as_they_are_found(
    checkpoint: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, read, sizes, progress = Model.load(checkpoint), images.read_pictures, [], []

    def counted(paths: list[Path], frame: Frame) -> tuple[Array, dict[int, str]]:
        sizes.append(len(paths))
        return read(paths, frame)

    monkeypatch.setattr("cnnlite.tools.predict.read_pictures", counted)
    found = find_pictures([pictures] * 30)
    answers = predict_files(model, found, lambda done, total: progress.append((done, total)))
    next(answers)
    assert sizes == [64]
    assert sum(1 for _ in answers) == 149
    assert sizes == [64, 64, 22]
    assert progress == [(0, 150), (64, 150), (128, 150)]


def test_of_many_faults_the_first_are_named_and_all_are_counted(checkpoint: Path, tmp_path: Path) -> None:
    for index in range(25):
        (tmp_path / f"{index:02}.png").write_bytes(b"not a picture")
    result = run(checkpoint, tmp_path)
    errors = result.stderr.splitlines()
    assert (result.exit_code, len(errors)) == (3, 11)
    assert errors[9].startswith(f"error: {tmp_path / '09.png'}: is not a picture")
    assert errors[10] == "error: and 15 more: 25 in all cannot be read"


@pytest.mark.parametrize("other", [["--json"], ["--top", "2"]])
def test_a_table_goes_without_other_formats(other: list[str], checkpoint: Path, pictures: Path) -> None:
    result = run(checkpoint, pictures, "--csv", "-", *other)
    assert result.exit_code == 2
    assert f"leave out {other[0]}" in result.stderr
