"""A checkpoint on labelled images from elsewhere: matched by class name, with nothing passed over in silence."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from cnnlite.cli import cli
from cnnlite.cli.models import DATASETS
from cnnlite.config.load import config_from_data
from cnnlite.data import Dataset, Images, sources
from cnnlite.data.frames import Frame
from cnnlite.data.images import read_pictures
from cnnlite.data.matching import match
from cnnlite.errors import ConfigError, DataError
from cnnlite.tools.predict import Model, find_pictures, predict_files
from cnnlite.training.evaluation import evaluate_checkpoint
from tests.support.cifar_files import NAMES, python_files
from tests.support.folders import Image, fill, noise, write
from tests.support.small_runs import TINY, trained


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["eval", *map(str, arguments)])


def on_folder(root: Path, run: Path, **data: Any) -> Path:
    """Train on pictures of 8 x 8 pixels; returns the best checkpoint."""
    settings = yaml.safe_load(TINY)
    classes = len([path for path in root.iterdir() if path.name[0] != "."])
    settings["data"] = {"dataset": {"folder": {"size": 8}}, "root": str(root), "validation": 0.2, **data}
    settings["model"] = ["flatten", {"linear": {"out_features": classes}}]
    settings["train"] |= {"epochs": 1, "batch_size": 4}
    return trained(run, config_from_data(settings, "mine"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return fill(tmp_path / "pictures", 12, ("ant", "bee", "cat"))


def test_the_same_images_elsewhere_have_the_same_figures(checkpoint: Path, dataset: Dataset, tmp_path: Path) -> None:
    write(tmp_path / "other", dataset.test, dataset.classes)
    expected = evaluate_checkpoint(checkpoint, "test")[0]
    found, facts, warnings = evaluate_checkpoint(checkpoint, root=str(tmp_path / "other"))
    assert (found.accuracy, found.per_class, found.confusion) == (
        expected.accuracy,
        expected.per_class,
        expected.confusion,
    )
    assert found.loss == pytest.approx(expected.loss)
    assert warnings == []
    assert (facts["dataset"], facts["split"], facts["images"]) == ("other", "all", 40)
    assert (facts["unknown_classes"], facts["missing_classes"]) == ({}, [])
    assert facts["trained_on"] is None
    said = run(checkpoint, "--data", tmp_path / "other").stdout
    assert said.startswith("other: 40 images, accuracy ")


def test_unknown_and_missing_classes_are_said_and_figures_are_over_the_known(
    checkpoint: Path, dataset: Dataset, tmp_path: Path
) -> None:
    own = dataset.classes
    renamed = tuple({"ring": "Ring", "star": "aardvark"}.get(name, name) for name in own)
    of_five = dataset.test.take(np.isin(dataset.test.labels, [own.index(n) for n in ("disc", "ring", "star")]))
    write(tmp_path / "other", of_five, renamed)
    expected = np.array(evaluate_checkpoint(checkpoint, "test")[0].confusion)
    found, facts, warnings = evaluate_checkpoint(checkpoint, root=str(tmp_path / "other"))
    row = own.index("disc")
    count = expected[row].sum()
    assert (found.images, found.confusion[row]) == (count, expected[row].tolist())
    assert np.sum(found.confusion) == count
    unknown = {name: int(expected[own.index(old)].sum()) for name, old in (("Ring", "ring"), ("aardvark", "star"))}
    assert facts["unknown_classes"] == unknown
    assert facts["missing_classes"] == [name for name in own if name != "disc"]
    left, total = sum(unknown.values()), sum(unknown.values()) + count
    assert warnings[0].startswith(f"{left} of {total} images are in no figure, as the network does not know their cl")
    assert warnings[0].endswith(f": Ring ({unknown['Ring']}), aardvark ({unknown['aardvark']})")
    assert warnings[1] == "there are no images of these classes of the network: ring, square, frame, ..."
    assert len(warnings) == 2


def test_images_of_no_known_class_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    fill(tmp_path / "other")
    result = run(checkpoint, "--data", tmp_path / "other")
    told = "has other classes than the network was trained on: ant, bee, not disc, ring, square, ..."
    assert (result.exit_code, result.stderr) == (3, f"error: {tmp_path / 'other'}: {told}\n")


def test_what_the_data_says_is_for_the_test_is_taken_unless_told_otherwise(
    checkpoint: Path, dataset: Dataset, tmp_path: Path
) -> None:
    for part, images in (("train", 30), ("val", 20), ("test", 40)):
        write(tmp_path / "other" / part, dataset.test.take(slice(images)), dataset.classes)
    (tmp_path / "flat").symlink_to(tmp_path / "other" / "test")

    def counted(place: str, *split: str) -> tuple[str, int]:
        facts = json.loads(run(checkpoint, "--data", tmp_path / place, "--json", *split).stdout)
        return facts["split"], facts["images"]

    assert counted("other") == ("test", 40)
    for split, images in (("train", 30), ("validation", 20), ("all", 90)):
        assert counted("other", "--split", split) == (split, images)
    assert counted("flat") == counted("flat", "--split", "all") == ("all", 40)
    refused = run(checkpoint, "--data", tmp_path / "flat", "--split", "test")
    told = "error: test does not say which images are for test; it has: all"
    assert (refused.exit_code, refused.stderr.splitlines()[-1]) == (2, told)


def test_pictures_of_any_size_become_what_predict_makes_of_them(tmp_path: Path, pictures: Path) -> None:
    for name, data in (
        ("plain", {}),
        ("cropped", {"center_crop": 6, "dataset": {"folder": {"size": 9, "resize": 11}}}),
    ):
        checkpoint = on_folder(pictures, tmp_path / name, **data)
        other = tmp_path / f"other-{name}"
        for index, shape in enumerate([(30, 20, 3), (7, 9, 3), (8, 8, 3), (300, 40, 3)]):
            (other / "bee").mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise(*shape, seed=index)).save(other / "bee" / f"{index}.png")
        answers = [*predict_files(Model.load(checkpoint), find_pictures([other]))]
        found, facts, _ = evaluate_checkpoint(checkpoint, root=str(other))
        assert found.images == 4
        assert found.loss == pytest.approx(-np.mean([np.log(answer.probabilities[1]) for answer in answers]), rel=1e-5)
        assert facts["missing_classes"] == ["ant", "cat"]


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_other_sizes_are_fitted_as_files_of_them_are(channels: int, tmp_path: Path) -> None:
    images = noise(5, 13, 21, channels)
    for index, image in enumerate(images):
        Image.fromarray(image if channels == 3 else image[..., 0]).save(tmp_path / f"{index}.png")
    frame = Frame(9, 9, 11)
    expected, _ = read_pictures([tmp_path / f"{index}.png" for index in range(5)], frame)
    nothing = Images(images[:0], np.zeros(0, np.int64))
    dataset = Dataset("arrays", Images(images, np.arange(5) % 2), None, nothing, ("b", "a"), "", has_test=False)
    found = match(dataset, None, ("a", "b"), frame, (9, 9, 3)).images.take(slice(None))
    np.testing.assert_array_equal(found.images, expected)
    assert found.labels.tolist() == [1, 0, 1, 0, 1]
    grey = match(dataset, None, ("a", "b"), replace(frame, channels=1), (9, 9, 1)).images.take(slice(1, 3)).images
    read_grey, _ = read_pictures([tmp_path / "1.png"], replace(frame, channels=1))
    np.testing.assert_array_equal(grey[:1], read_grey)
    with pytest.raises(DataError, match="cannot become images of 4"):
        match(dataset, None, ("a", "b"), replace(frame, channels=4), (9, 9, 4)).images.take(slice(None))


def test_of_its_own_kind_it_is_another_dataset_if_the_run_has_seen_none_of_it(tmp_path: Path, pictures: Path) -> None:
    checkpoint = on_folder(pictures, tmp_path / "run")
    shutil.copytree(pictures, tmp_path / "moved")
    _, own, _ = evaluate_checkpoint(checkpoint)
    _, moved, warnings = evaluate_checkpoint(checkpoint, root=str(tmp_path / "moved"))
    assert moved == own | {"dataset": "moved"}
    assert warnings == []
    other = fill(tmp_path / "other pictures", 5, ("ant", "bee", "cat"))
    _, facts, warnings = evaluate_checkpoint(checkpoint, root=str(other))
    assert (facts["split"], facts["images"], facts["trained_on"], warnings) == ("all", 15, 0, [])
    named = evaluate_checkpoint(checkpoint, root=str(tmp_path / "moved"), kind="folder")
    assert (named[1]["split"], named[1]["images"], len(named[2])) == ("all", 36, 1)
    assert named[1]["trained_on"] > 20
    with pytest.raises(ConfigError, match="trained on some of these images; name one split"):
        evaluate_checkpoint(checkpoint, "all", str(tmp_path / "moved"))


@pytest.mark.parametrize(("classes", "count"), [(("bee",), 3), (("ant", "bee", "cat"), 1), (("cat", "dog"), 4)])
def test_what_could_not_be_trained_on_can_be_evaluated(
    classes: tuple[str, ...], count: int, tmp_path: Path, pictures: Path
) -> None:
    checkpoint = on_folder(pictures, tmp_path / "run")
    _, facts, _ = evaluate_checkpoint(checkpoint, root=str(fill(tmp_path / "other", count, classes)))
    assert facts["images"] == count * len({*classes} & {"ant", "bee", "cat"})


def test_a_class_that_is_in_one_part_only_is_one_too(tmp_path: Path, pictures: Path) -> None:
    checkpoint = on_folder(pictures, tmp_path / "run")
    fill(tmp_path / "other" / "train", 3, ("ant",))
    fill(tmp_path / "other" / "test", 4, ("bee", "dog"))
    _, facts, _ = evaluate_checkpoint(checkpoint, root=str(tmp_path / "other"))
    assert (facts["split"], facts["images"], facts["unknown_classes"]) == ("test", 4, {"dog": 4})
    assert evaluate_checkpoint(checkpoint, "train", str(tmp_path / "other"))[1]["per_class"]["bee"] is None


def test_images_among_the_others_that_it_has_trained_on_are_counted(tmp_path: Path, pictures: Path) -> None:
    checkpoint = on_folder(pictures, tmp_path / "run", validation="none")
    other = fill(tmp_path / "other", 5, ("ant", "dog"))
    for index in range(12):
        shutil.copy(pictures / "ant" / f"{index:05}.png", other / "ant" / f"copy {index}.png")
    _, facts, warnings = evaluate_checkpoint(checkpoint, root=str(other))
    seen = int(warnings[-1].split()[0])
    assert warnings[-1] == f"{seen} of the 17 images are those that it has trained on, pixel for pixel"
    assert 9 <= seen < 12
    assert facts["trained_on"] == seen


def test_pictures_that_cannot_be_read_are_skipped_and_said(tmp_path: Path, pictures: Path) -> None:
    checkpoint = on_folder(pictures, tmp_path / "run")
    other = fill(tmp_path / "other", 5, ("ant", "bee", "cat"))
    (other / "ant" / "00002.png").write_bytes(b"not a picture")
    result = run(checkpoint, "--data", other, "--json")
    assert (result.exit_code, json.loads(result.stdout)["images"]) == (0, 14)
    assert f"warning: {other}: skipped 1 picture: ant/00002.png (is not a picture" in result.stderr


def test_another_dataset_is_known_by_its_files_or_named(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    for name, content in python_files().items():
        (tmp_path / "cifar-10-batches-py" / name).write_bytes(content)
    result = run(checkpoint, "--data", tmp_path)
    told = "error: cifar10 test: has other classes than the network was trained on: "
    assert (result.exit_code, result.stderr[: len(told)]) == (3, told)
    assert ": class0, class1, class6, ..., not disc, ring, square, ...\n" in result.stderr
    pictures = fill(tmp_path / "pictures", 12, NAMES[:3], size=32)
    trained_here = on_folder(pictures, tmp_path / "run", dataset={"folder": {"size": 16}})
    _, facts, warnings = evaluate_checkpoint(trained_here, root=str(tmp_path))
    assert (facts["dataset"], facts["split"], facts["images"]) == ("cifar10", "test", 2)
    assert sum(facts["unknown_classes"].values()) == 4
    assert "no images of these classes" in warnings[1]
    assert run(trained_here, "--data", tmp_path, "--dataset", "folder").exit_code == 3
    assert run(checkpoint, "--dataset", "shapes").stdout.startswith("shapes test: 40 images, accuracy ")


def test_a_folder_for_images_that_are_made_by_code_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    for more in ([], ["--dataset", "shapes"]):
        refused = run(checkpoint, "--data", tmp_path / "nothing", *more)
        assert refused.exit_code == 2
        assert refused.stderr.endswith("shapes makes its images by code and reads no files; leave it out\n")


def test_the_command_offers_all_datasets_that_there_are() -> None:
    assert list(DATASETS) == [name for name in sources if name != "long_tail"]  # which is made of another
    frame = Frame(32, 32)
    assert [sources.name_of(type(sources[name].framed(frame))) for name in DATASETS] == list(DATASETS)


def test_of_a_run_on_a_part_of_a_dataset_the_whole_one_is_no_other(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    for name, content in python_files(20).items():
        (tmp_path / "cifar-10-batches-py" / name).write_bytes(content)
    settings = yaml.safe_load(TINY)
    settings["data"] = {"dataset": {"long_tail": {"of": "cifar10", "factor": 2}}, "root": str(tmp_path)}
    settings["train"] |= {"epochs": 1, "batch_size": 16}
    checkpoint = trained(tmp_path / "run", config_from_data(settings, "tail"))
    for split in ("test", "validation", "train"):
        own, there = (evaluate_checkpoint(checkpoint, split, root)[1] for root in (None, str(tmp_path)))
        assert own == there
    assert evaluate_checkpoint(checkpoint, "train", str(tmp_path), kind="cifar10")[0].images == 100


def test_what_is_like_no_dataset_is_taken_for_that_of_the_run(tmp_path: Path, pictures: Path) -> None:
    checkpoint = on_folder(pictures, tmp_path / "run")
    (tmp_path / "nothing").mkdir()
    for place in ("nothing", "missing"):
        result = run(checkpoint, "--data", tmp_path / place)
        assert (result.exit_code, len(result.stderr.splitlines())) == (3, 1)
        assert str(tmp_path / place) in result.stderr


def test_a_network_that_takes_no_squares_gets_no_pictures(pictures: Path, tmp_path: Path) -> None:
    frame = Frame(8, 9)
    with pytest.raises(DataError, match="squares, but the network takes 8x9"):
        sources["folder"].framed(frame)


def test_matching_takes_the_labels_of_each_part_by_name() -> None:
    def part(*numbers: int) -> Images:
        return Images(np.array(numbers, np.uint8).reshape(-1, 1, 1, 1), np.array(numbers, np.int64) % 3)

    dataset = Dataset("d", part(0, 1, 2, 3), None, part(4, 5), ("x", "y", "z"), "", held_out=1, has_validation=True)
    for split, numbers, labels in (
        (None, [4], [0]),
        ("test", [4], [0]),
        ("train", [0, 1], [1, 0]),
        ("validation", [3], [1]),
        ("all", [0, 1, 3, 4], [1, 0, 1, 0]),
    ):
        found: Any = match(dataset, split, ("y", "x"), Frame(1, 1, channels=1), (1, 1, 1))  # type: ignore[arg-type]
        taken = found.images.take(slice(None))
        assert (taken.images.ravel().tolist(), taken.labels.tolist()) == (numbers, labels)
        assert found.unknown == ({} if split == "validation" else {"z": 2 if split == "all" else 1})
    one_part = replace(dataset, has_validation=False, has_test=False)
    assert len(match(one_part, None, ("y", "x"), Frame(1, 1, channels=1), (1, 1, 1)).images) == 4


def written(kind: str, root: Path, images: Images, classes: tuple[str, ...]) -> Path:
    """Write labelled images in the format of a dataset; returns what --data names."""
    labels = [classes[label] for label in images.labels]
    root.mkdir()
    if kind == "arrays":
        np.savez(root / "lab.npz", x=images.images, y=images.labels, class_names=np.array(classes))
        return root / "lab.npz"
    for index, image in enumerate(images.images):
        Image.fromarray(image).save(root / f"{index:03}.png")
    if kind == "list":
        rows = [f"{index:03}.png,{label}" for index, label in enumerate(labels)]
        (root / "names.csv").write_text("\n".join(["path,label", *rows]))
        return root / "names.csv"
    height, width = images.images.shape[1:3]
    pictures = [
        {"id": index, "file_name": f"{index:03}.png", "width": width, "height": height} for index in range(len(images))
    ]
    objects = [
        {"id": index, "image_id": index, "category_id": label, "bbox": [0, 0, width, height], "iscrowd": 0}
        for index, label in enumerate(images.labels.tolist())
    ]
    categories = [{"id": index, "name": name} for index, name in enumerate(classes)]
    facts = {"images": pictures, "annotations": objects, "categories": categories}
    (root / "instances_all.json").write_text(json.dumps(facts))
    return root / "instances_all.json"


@pytest.mark.parametrize("kind", ["arrays", "list", "coco"])
def test_the_same_images_through_every_door_have_the_same_figures(
    kind: str, checkpoint: Path, dataset: Dataset, tmp_path: Path
) -> None:
    expected = evaluate_checkpoint(checkpoint, "test")[0]
    place = written(kind, tmp_path / kind, dataset.test, dataset.classes)
    found, facts, warnings = evaluate_checkpoint(checkpoint, root=str(place))
    assert found.confusion == expected.confusion
    assert found.loss == pytest.approx(expected.loss)
    assert (facts["split"], facts["images"], warnings) == ("all", 40, [])


def test_what_a_list_could_not_train_can_be_evaluated(tmp_path: Path, pictures: Path) -> None:
    checkpoint = on_folder(pictures, tmp_path / "run")
    other = fill(tmp_path / "other", 5, ("ant", "dog"))
    for rows, expected in (
        (["path,label,split", "ant/00000.png,ant,test", "ant/00001.png,ant,test"], ("test", 2, {})),
        (["path,label,split", "ant/00000.png,ant,train", "dog/00005.png,dog,test"], None),
        (["path,label,split", "ant/00000.png,ant,train", "ant/00001.png,ant,test"], ("test", 1, {})),
        (["path,label", "ant/00000.png,ant"], ("all", 1, {})),
        (["path,label", "ant/00000.png,ant", "dog/00005.png,dog"], ("all", 1, {"dog": 1})),
    ):
        (other / "names.csv").write_text("\n".join(rows))
        if expected is None:
            with pytest.raises(
                DataError, match="csv test: has other classes than the network was trained on: dog, not ant, bee"
            ):
                evaluate_checkpoint(checkpoint, root=str(other / "names.csv"))
        else:
            _, facts, _ = evaluate_checkpoint(checkpoint, root=str(other / "names.csv"))
            assert (facts["split"], facts["images"], facts["unknown_classes"]) == expected
    assert run(checkpoint, "--data", other, "--dataset", "list").exit_code == 0
    assert run(checkpoint, "--data", other, "--dataset", "folder").stdout.startswith("other: 5 images")


def test_arrays_of_one_class_and_grey_ones_can_be_evaluated(tmp_path: Path, pictures: Path) -> None:
    checkpoint = on_folder(pictures, tmp_path / "run")
    names = np.array(["cat", "ant"])
    np.savez(tmp_path / "lab.npz", x=noise(6, 20, 12), y=np.ones(6, np.int64), class_names=names)
    _, facts, _ = evaluate_checkpoint(checkpoint, root=str(tmp_path / "lab.npz"))
    assert (facts["split"], facts["images"], facts["missing_classes"]) == ("all", 6, ["bee", "cat"])
    np.savez(tmp_path / "text.npz", x=noise(2, 8, 8, 3), y=np.array(["bee", "bee"]))
    assert evaluate_checkpoint(checkpoint, root=str(tmp_path / "text.npz"))[0].images == 2
    np.savez(tmp_path / "numbers.npz", x=noise(2, 8, 8, 3), y=np.array([0, 1]))
    refused = run(checkpoint, "--data", tmp_path / "numbers.npz")
    assert (refused.exit_code, "other classes than the network was trained on: 0, 1, not ant" in refused.stderr) == (
        3,
        True,
    )
