"""The same images give the same training through every door, and every door is trained through by the command."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from cnnlite.cli import cli
from cnnlite.config.load import config_from_data
from cnnlite.config.options import options_of
from cnnlite.data import Dataset, Images, as_seen, fingerprints, load_dataset, repeated, sources
from cnnlite.data.datasets.arrays import Arrays
from cnnlite.data.datasets.cifar import Cifar10
from cnnlite.data.datasets.csv_list import PictureList
from cnnlite.data.datasets.folder import Folder
from cnnlite.runs.checkpoint import load_checkpoint
from cnnlite.runs.directory import RunDirectory
from cnnlite.training.loop import train
from cnnlite.training.reporter import Reporter
from cnnlite.training.resume import MAY_CHANGE
from cnnlite.utils.signals import StopFlag
from tests.data.datasets import test_coco
from tests.support.doors import MNIST, shapes, write_csv, write_idx
from tests.support.folders import fill, list_folder, write
from tests.support.small_runs import TINY, assert_same_run

PART = {"train": "train", "validation": "val", "test": "test"}


def write_all(root: Path, train_images: Images, test: Images, classes: tuple[str, ...]) -> dict[str, Path]:
    """Write images as folders, as a list of their files, and as arrays in the order of both."""
    held_out = len(train_images) // 5
    parts = {
        "train": train_images.take(slice(held_out, None)),
        "validation": train_images.take(slice(held_out)),
        "test": test,
    }
    for part, images in parts.items():
        write(root / "folder" / PART[part], images, classes)
    listing = list_folder(root / "folder", 0.1)
    rows: list[tuple[Any, ...]] = [("path", "label", "split")]
    for part in PART.values():
        files = sorted(p.relative_to(root / "folder").as_posix() for p in (root / "folder" / part).rglob("*.png"))
        rows += [(f"./{file}", Path(file).parent.name, part) for file in files]
    write_csv(root / "folder" / "list.csv", rows, ";")
    arrays: dict[str, Any] = {}
    names = [(place, name) for name in PART.values() for place in (listing.train, listing.test)]
    for place, part in names:
        which = [k for k, file in enumerate(place.files) if Path(file).parts[0] == part]
        if which:
            images = {"train": parts["train"], "val": parts["validation"], "test": test}[part]
            order = [int(Path(place.files[k]).stem) for k in which]
            arrays |= {f"x_{part}": images.images[order], f"y_{part}": np.array([place.labels[k] for k in which])}
    np.savez(root / "arrays.npz", class_names=np.array(classes), **arrays)
    return {"folder": root / "folder", "list": root / "folder" / "list.csv", "arrays": root / "arrays.npz"}


def assert_same(one: Dataset, other: Dataset) -> None:
    assert one.digest == other.digest
    assert one.classes == other.classes
    for part in PART:
        mine, others = getattr(one, part), getattr(other, part)
        np.testing.assert_array_equal(mine.images, others.images)
        np.testing.assert_array_equal(mine.labels, others.labels)


def test_training_is_the_same_bit_for_bit_through_folder_list_and_arrays(tmp_path: Path) -> None:
    places = write_all(tmp_path, *shapes())
    options: dict[str, Any] = {"folder": {"folder": {"size": 32}}, "list": {"list": {"size": 32}}, "arrays": "arrays"}
    for name, root in places.items():
        data = yaml.safe_load(TINY)
        data["data"] |= {"dataset": options[name], "root": str(root), "validation": "default"}
        config = config_from_data(data, "same")
        run = RunDirectory.create_at(tmp_path / f"run-{name}")
        same = replace(load_dataset(config.data.dataset, root), name="same")
        train(
            config_from_data(yaml.safe_load(TINY), "same"),
            run,
            dataset=same,
            reporter=Reporter(quiet=True),
            stop=StopFlag(),
        )
        run.close()
    assert_same_run(tmp_path / "run-folder", tmp_path / "run-list")
    assert_same_run(tmp_path / "run-folder", tmp_path / "run-arrays")


def test_cifar_10_is_the_same_through_folder_list_and_arrays(cifar10: Path, tmp_path: Path) -> None:
    whole = Cifar10().load(cifar10)
    places = write_all(tmp_path, whole.train.take(slice(2000)), whole.test.take(slice(500)), whole.classes)
    folder = load_dataset(Folder(32), places["folder"])
    assert folder.classes == whole.classes
    assert_same(folder, load_dataset(PictureList(32), places["list"]))
    assert_same(folder, load_dataset(Arrays(), places["arrays"]))
    found = {image.tobytes() for part in PART for image in getattr(folder, part).images}
    assert found == {image.tobytes() for image in (*whole.train.images[:2000], *whole.test.images[:500])}


def grey(images: Images) -> Images:
    return Images(np.ascontiguousarray(images.images[..., :1]), images.labels)


def make_arrays(root: Path) -> tuple[Any, Path]:
    train_images, _, _ = shapes()
    np.savez_compressed(root / "a.npz", data=train_images.images[..., :2] / 255, target=train_images.labels)
    return {"arrays": {"value_range": [0, 1]}}, root / "a.npz"


def make_list(root: Path) -> tuple[Any, Path]:
    fill(root, 20, classes=("ant", "bee", "cow"), size=32)
    files = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.png"))
    rows = [("path", "label", "herd"), *((file, file[:3], int(file[4:9]) // 3) for file in files)]
    return {"list": {"size": 32, "channels": 1, "columns": {"group": "herd"}}}, write_csv(root / "a.csv", rows)


def make_idx(root: Path) -> tuple[Any, Path]:
    train_images, test, _ = shapes()
    return "idx", write_idx(root, grey(train_images), grey(test), {key: f"{name}.gz" for key, name in MNIST.items()})


def make_coco(root: Path) -> tuple[Any, Path]:
    test_coco.write(root / "annotations" / "instances_train2017.json", root / "train2017", 30)
    return {"coco": {"size": 32, "margin": 0.2}}, root


def make_folder(root: Path) -> tuple[Any, Path]:
    fill(root / "a" / "deep", 12, classes=("2020", "2021"), size=32)
    fill(root / "b", 12, classes=("2020", "2021"), size=32)
    return {"folder": {"size": 32, "channels": 1}}, root


@pytest.mark.long
@pytest.mark.parametrize("make", [make_arrays, make_list, make_idx, make_coco, make_folder])
def test_the_commands_go_through_every_door(make: Callable[[Path], tuple[Any, Path]], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    dataset, root = make(tmp_path / "data")
    config = yaml.safe_load(TINY)
    config["data"] |= {"dataset": dataset, "validation": 0.2 if dataset != "idx" else 20}
    classes = len(load_dataset(config_from_data(config).data.dataset, root).classes)
    config["model"][-1]["linear"]["out_features"] = classes
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    run, best = str(tmp_path / "run"), str(tmp_path / "run" / "checkpoints" / "best.npz")
    commands = [
        ["summary", str(tmp_path / "mine.yaml"), "-o", f"data.root={root}"],
        ["train", "-c", str(tmp_path / "mine.yaml"), "--data", str(root), "--run-dir", run, "-q"],
        ["eval", best],
        ["verify-resume", str(tmp_path / "mine.yaml"), "--data", str(root), "--steps", "4"],
    ]
    for command in commands:
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 0, (command, result.output, result.exception)
        if command[0] == "summary":
            channels = 2 if make is make_arrays else 3 if make is make_coco else 1
            assert f"from 32 x 32 x {channels} to {classes}" in result.output.replace("\u00d7", "x")
    meta = load_checkpoint(Path(best)).meta
    assert len(meta["classes"]) == classes
    (picture,) = make_folder(tmp_path / "pictures")[1].rglob("b/2020/00000.png")
    result = CliRunner().invoke(cli, ["predict", best, str(picture)])
    if make is make_arrays:
        assert result.exit_code == 3
        assert "pictures have 3 channels, or 1 if grey, but this network takes 2" in result.output
    else:
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("make", [make_arrays, make_list, make_coco])
def test_a_checkpoint_writes_nothing_and_refuses_other_classes(
    make: Callable[[Path], tuple[Any, Path]], tmp_path: Path
) -> None:
    dataset, root = make(tmp_path)
    config = config_from_data({**yaml.safe_load(TINY), "data": {"dataset": dataset, "root": str(root)}})
    source = config.data.dataset
    expected = load_dataset(source, root)
    for file in (tmp_path / ".cnnlite").iterdir():
        file.unlink()
    (tmp_path / ".cnnlite").rmdir()
    assert load_dataset(source.reading_only(expected.classes), root).digest == expected.digest
    assert not (tmp_path / ".cnnlite").exists()
    with pytest.raises(Exception, match="has other classes than the network was trained on"):
        load_dataset(source.reading_only((*expected.classes, "more")), root)


def test_equal_images_in_two_parts_are_told_through_every_door_of_ones_own(tmp_path: Path) -> None:
    train_images, test, classes = shapes()
    both = Images(
        np.concatenate([test.images, train_images.images[30:33]]),
        np.concatenate([test.labels, train_images.labels[30:33]]),
    )
    places = write_all(tmp_path, train_images, both, classes)
    for name, root in places.items():
        dataset = load_dataset(sources[name](*([32] if name != "arrays" else [])), root)
        known = fingerprints(dataset)
        assert [*repeated(known)] == ["warning: 3 of the images to test with are trained on too, pixel for pixel"]
        assert as_seen(dataset, known, "test")[1].startswith("0 new, 0 missing")


def test_the_place_of_every_cache_may_change_on_resume() -> None:
    cached = {name for name in sources if "cache" in options_of(sources[name])}
    assert cached == {"arrays", "coco", "folder", "list"}
    assert {f"data.dataset.{name}.cache" for name in cached} <= set(MAY_CHANGE)
