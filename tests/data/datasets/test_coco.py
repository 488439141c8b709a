"""Objects are cut out of their images as their boxes say; annotations that are wrong are refused with a line."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnlite.data import Dataset, load_dataset
from cnnlite.data.datasets import json_items as room
from cnnlite.data.datasets.coco import Coco
from cnnlite.data.datasets.json_items import json_items
from cnnlite.errors import DataError, OptionError
from tests.support.doors import coco, write_json
from tests.support.folders import Image, noise

NAMES = ["zebra", "ant"]
COLOURS = np.array([[200, 40, 0], [0, 60, 220]], np.uint8)


def scene(path: Path, seed: int, width: int = 64, height: int = 48) -> list[tuple[int, list[float]]]:
    """A grey image with two coloured rectangles, of either category; returns category and box of each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 90 + seed % 50, np.uint8)
    objects: list[tuple[int, list[float]]] = []
    for category in rng.permutation(2).tolist():
        left, top = int(rng.integers(0, 10)) + 30 * len(objects), int(rng.integers(0, 20))
        pixels[top : top + 20, left : left + 20] = COLOURS[category]
        objects.append((category, [float(left), float(top), 20.0, 20.0]))
    Image.fromarray(pixels).save(path)
    return objects


def write(annotations: Path, images: Path, count: int = 20, seed: int = 0) -> Any:
    """Annotations of so many images of two objects, listed in any order."""
    listed, objects = [], []
    for index in range(count):
        name = f"{seed + index:012}.png"
        objects += [(index, *found) for found in scene(images / name, seed + index)]
        listed.append((name, 64, 48))
    rng = np.random.default_rng(seed)
    data = coco(listed, [objects[k] for k in rng.permutation(len(objects))], NAMES)
    write_json(annotations, data)
    return data


def assert_are_what_they_are_called(dataset: Dataset) -> None:
    parts = [part for part in (dataset.train, dataset.validation, dataset.test) if part is not None]
    for part in parts:
        expected = COLOURS[::-1][part.labels][:, None, None]
        np.testing.assert_array_equal(part.images, np.broadcast_to(expected, part.images.shape))


def test_objects_are_cut_out_and_called_by_their_category(tmp_path: Path) -> None:
    write(tmp_path / "annotations" / "instances_train2017.json", tmp_path / "train2017")
    write(tmp_path / "annotations" / "instances_val2017.json", tmp_path / "val2017", 6, 100)
    dataset = load_dataset(Coco(20, margin=0), tmp_path)
    assert dataset.classes == ("ant", "zebra")
    assert dataset.name == tmp_path.name
    assert len(dataset.train) + len(dataset.validation or ()) == 40
    assert len(dataset.test) == 12
    assert_are_what_they_are_called(dataset)
    one = load_dataset(Coco(20, margin=0), tmp_path / "annotations" / "instances_val2017.json", validation="none")
    assert len(one.train) + len(one.test) == 12
    assert_are_what_they_are_called(one)


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("instances_all.json", "."),
        ("instances_all.json", "images"),
        ("annotations/instances_all.json", "images"),
        ("annotations/instances_all.json", "all"),
        ("annotations/instances_all.json", "images/all"),
        ("_annotations.coco.json", "."),
        ("annotations.json", "images"),
    ],
)
def test_files_and_images_are_found_where_they_usually_are(file: str, images: str, tmp_path: Path) -> None:
    write(tmp_path / file, tmp_path / images)
    (tmp_path / file).with_name("captions_all.json").write_text("{}")
    dataset = load_dataset(Coco(8, margin=0, channels=1), tmp_path, validation="none")
    assert len(dataset.train) + len(dataset.test) == 40
    assert dataset.train.images.shape[1:] == (8, 8, 1)


def test_parts_are_told_by_folders_too(tmp_path: Path) -> None:
    for seed, part in enumerate(("train", "valid", "test")):
        write(tmp_path / part / "_annotations.coco.json", tmp_path / part, 4, 10 * seed)
    dataset = load_dataset(Coco(20, margin=0), tmp_path)
    assert [len(part or ()) for part in (dataset.train, dataset.validation, dataset.test)] == [8, 8, 8]
    assert_are_what_they_are_called(dataset)


def test_all_objects_of_an_image_are_in_one_part(tmp_path: Path) -> None:
    write(tmp_path / "instances_all.json", tmp_path, 60)
    source = Coco(8, margin=1, min_size=1)
    listing = source.listing(tmp_path)
    assert len(listing.train) + len(listing.test) == 120
    assert not {*listing.train.files} & {*listing.test.files}
    assert 2 <= len({*listing.test.files}) == len(listing.test) // 2
    for fraction in (0.1, 0.3):
        held_out = listing.above < fraction
        files = np.array(listing.train.files)
        assert not {*files[held_out]} & {*files[~held_out]}
    assert len(load_dataset(source, tmp_path, validation=15).validation or ()) == 14


def boxes_of(tmp_path: Path, box: list[float], **options: Any) -> list[float]:
    """The part of an image of 100 x 60 pixels that is cut out for a box."""
    scene(tmp_path / "a.png", 0, 100, 60)
    scene(tmp_path / "b.png", 1, 100, 60)
    objects = [(0, 0, box), (0, 1, box), (1, 0, box), (1, 1, box)]
    write_json(tmp_path / "instances_a.json", coco([("a.png", 100, 60), ("b.png", 100, 60)], objects, NAMES))
    boxes = Coco(8, **options).listing(tmp_path).train.boxes
    assert boxes is not None
    found: list[float] = np.round(boxes[0], 6).tolist()
    assert found[4:] == [100, 60]
    return found[:4]


@pytest.mark.parametrize(
    ("box", "options", "expected"),
    [
        ([40, 20, 20, 20], {"margin": 0}, [40, 20, 60, 40]),
        ([40, 20, 20, 20], {"margin": 0.1}, [38, 18, 62, 42]),
        ([40, 20, 20, 10], {"margin": 0.1, "min_size": 1}, [38, 13, 62, 37]),
        ([40, 20, 20, 10], {"margin": 0.1, "min_size": 1, "stretch": True}, [38, 18, 62, 32]),
        ([0, 0, 20, 20], {"margin": 0.5}, [0, 0, 40, 40]),
        ([80, 40, 20, 20], {"margin": 0.5}, [60, 20, 100, 60]),
        ([0, 20, 100, 20], {"margin": 0.1}, [0, 0, 100, 60]),
        ([0, 20, 100, 20], {"margin": 0.1, "stretch": True}, [0, 10, 100, 50]),
        ([-5, 10.5, 40, 40.25], {"margin": 0}, [0, 10.5, 40.25, 50.75]),
    ],
)
def test_boxes_grow_by_the_margin_to_squares_inside_of_the_image(
    box: list[float], options: dict[str, Any], expected: list[float], tmp_path: Path
) -> None:
    assert boxes_of(tmp_path, box, **options) == expected


def test_boxes_are_of_the_upright_image_at_any_size_of_decoding(tmp_path: Path) -> None:
    pixels = np.full((1200, 1600, 3), 30, np.uint8)
    pixels[600:1000, 200:600] = 220
    for index, turn in enumerate((1, 6)):
        exif: Any = Image.Exif()
        exif[0x0112] = turn
        stored = pixels if turn == 1 else np.rot90(pixels)
        Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"{index}.jpg", exif=exif, quality=95)
    objects = [
        (image, category, box)
        for image in (0, 1)
        for category, box in enumerate(([200.0, 600, 400, 400], [700.0, 100, 800, 800]))
    ]
    write_json(tmp_path / "instances_a.json", coco([("0.jpg", 1600, 1200), ("1.jpg", 1600, 1200)], objects, NAMES))
    dataset = load_dataset(Coco(8, margin=0), tmp_path, validation="none")
    for part in (dataset.train, dataset.test):
        for image, label in zip(part.images.astype(int), part.labels, strict=True):
            assert np.abs(image[2:-2, 2:-2] - (220 if dataset.classes[label] == "zebra" else 30)).max() < 12


def test_an_image_of_another_size_than_annotated_is_refused_by_name(tmp_path: Path) -> None:
    data = write(tmp_path / "instances_all.json", tmp_path)
    Image.fromarray(noise(64, 48, 3)).save(tmp_path / data["images"][3]["file_name"])
    with pytest.raises(DataError, match=r"000000000003\.png: has 48x64 pixels, upright, where its boxes are for 64x48"):
        Coco(8).load(tmp_path)
    (tmp_path / data["images"][3]["file_name"]).unlink()
    with pytest.raises(DataError, match=r"000000000003\.png: No such file"):
        Coco(8).load(tmp_path)
    dataset = Coco(8, corrupt="skip").load(tmp_path)
    assert len(dataset.train) + len(dataset.test) == 38


def test_what_is_left_out_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "annotations" / "instances_train.json", tmp_path)
    other = write(tmp_path / "annotations" / "instances_val.json", tmp_path / "val", 4, 50)
    for place, change in enumerate(
        ({"iscrowd": 1}, {"bbox": [0, 0, 15.5, 30]}, {"bbox": [64, 0, 20, 20]}, {"iscrowd": 1})
    ):
        data["annotations"][place] |= change
    other["categories"].append({"id": 99, "name": "yak"})
    other["annotations"][0]["category_id"] = 99
    write_json(tmp_path / "annotations" / "instances_train.json", data)
    write_json(tmp_path / "annotations" / "instances_val.json", other)
    dataset = Coco(8).load(tmp_path)
    assert [line.partition("left out: ")[2] for line in capsys.readouterr().err.splitlines() if "left out" in line] == [
        "2 objects that are crowds",
        "1 object smaller than 16 pixels",
        "1 object outside of their images",
        "1 object of categories without any to train on",
    ]
    assert (len(dataset.train), len(dataset.test)) == (36, 7)


@pytest.mark.parametrize("change", ["box", "category", "picture", "order"])
def test_changed_annotations_and_images_are_read_again(change: str, tmp_path: Path) -> None:
    data = write(tmp_path / "instances_all.json", tmp_path)
    first = Coco(8).load(tmp_path).digest
    if change == "box":
        data["annotations"][0]["bbox"][2] += 9
    elif change == "category":
        data["annotations"][0]["category_id"] ^= 1
    elif change == "picture":
        Image.fromarray(noise(48, 64, 3)).save(tmp_path / data["images"][0]["file_name"])
    else:
        data["images"].reverse()
    write_json(tmp_path / "instances_all.json", data)
    assert (Coco(8).load(tmp_path).digest == first) == (change == "order")


def changed(**entries: Any) -> Any:
    """Annotations with other entries in the first image, annotation or category."""

    def change(data: Any) -> Any:
        for place, value in entries.items():
            key, _, name = place.partition("__")
            if not name:
                data[key] = value
            elif value is None:
                del data[key][0][name]
            else:
                data[key][0][name] = value
        return data

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed(images=[]), "holds no images, categories and annotations"),
        (changed(annotations=[]), "holds no images, categories and annotations"),
        (changed(categories={}), "has an entry for categorys without id"),
        (changed(images=[1]), "has an entry for images without id: 1"),
        (changed(images__id=None), "has an entry for images without id"),
        (changed(images__id=2), "has two entries for the image 2"),
        (changed(images__file_name=7), "the image 1 has no name of a file: 7"),
        (changed(images__file_name="../a.png"), r"the image 1 is in no folder here: \.\./a\.png"),
        (changed(images__file_name="/etc/a.png"), "the image 1 is in no folder here"),
        (changed(images__file_name="C:\\a.png"), "the image 1 is in no folder here"),
        (changed(images__file_name="a\x1b.png"), "the image 1 has no name of a file"),
        (changed(images__width=None), "the image 1 has the width None"),
        (changed(images__height=-4), "the image 1 has the height -4"),
        (changed(images__height=4.5), "the image 1 has the height 4.5"),
        (changed(categories__name=None), "the category 10 is called None"),
        (changed(categories__name="a\nb"), "the category 10 is called"),
        (changed(categories__name="ant"), "two categories have the same name"),
        (changed(annotations__image_id=99), "an annotation is of the image 99, which is not there"),
        (changed(annotations__category_id=99), "an annotation is of the category 99, which is not there"),
        (changed(annotations__category_id=None), "has an entry for annotations without category_id"),
        (changed(annotations__bbox=[1, 2, 3]), r"the annotation \d+ has the bbox \[1, 2, 3\], not \[x, y, width"),
        (changed(annotations__bbox=[1, 2, "3", 4]), "has the bbox"),
        (changed(annotations__bbox=[1, 2, True, 4]), "has the bbox"),
        (changed(annotations__bbox=[1, 2, 3, 1e300]), "has the bbox"),
        (changed(annotations__bbox=None), "has the bbox None"),
    ],
)
def test_annotations_that_are_wrong_are_refused_in_a_line(change: Any, words: str, tmp_path: Path) -> None:
    data = write(tmp_path / "instances_all.json", tmp_path)
    write_json(tmp_path / "instances_all.json", change(data))
    with pytest.raises(DataError, match=words) as caught:
        Coco(8).load(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "instances_all.json"))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is cut short"),
        (b"[1, 2]", r"is no JSON: has '\[' where '\{' should be"),
        (b'{"images": [{"id": 1, "file', "is no JSON, or cut short"),
        (b'{"images": [', "is no JSON, or cut short"),
        (b'{"images": [] "annotations"', "has '\"' where ',' should be"),
        (b'{"images"', "is no JSON, or cut short: is cut short"),
        (b'{"images": [], 7: 1}', "holds 7 where a key should be"),
        (b'{"images": [' + b"[" * 100_000, "is nested too deep"),
        (b'{"a": NaN, "b": 1}', "holds NaN, which JSON has not"),
        (b'{"a": ' + b"9" * 5000 + b"}", "4300"),
        ('{"ü": 1}'.encode("latin-1"), "is no JSON: it is not in UTF-8"),
        (b"<html>", "has '<' where"),
    ],
)
def test_files_that_are_no_annotations_are_refused_in_a_line(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "annotations.json").write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        Coco(8).load(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "annotations.json"))
    assert len(str(caught.value).splitlines()) == 1


def test_other_arrangements_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        Coco(8).load(tmp_path / "none")
    with pytest.raises(DataError, match="holds no annotations to train on; its name"):
        Coco(8).load(tmp_path)
    data = write(tmp_path / "instances_train.json", tmp_path / "images")
    write_json(tmp_path / "instances_train2.json", data)
    with pytest.raises(DataError, match=r"instances_train2\.json: its name, or that of its folder, tells the part"):
        Coco(8).load(tmp_path)
    (tmp_path / "instances_train2.json").rename(tmp_path / "instances_val.json")
    with pytest.raises(DataError, match=r"000000000000\.png is in train and in validation; leave it out of one"):
        Coco(8).load(tmp_path)
    (tmp_path / "instances_train.json").rename(tmp_path / "instances_test.json")
    with pytest.raises(DataError, match="holds no annotations to train on"):
        Coco(8).load(tmp_path)
    (tmp_path / "instances_test.json").unlink()
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"there is no 000000000000\.png, its first image, in any of"):
        Coco(8).load(tmp_path)
    with pytest.raises(DataError, match="holds objects of 0 categories to train on"):
        Coco(8, min_size=30).load(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.json")
        with pytest.raises(DataError, match="is not a regular file"):
            Coco(8).load(tmp_path / "pipe.json")
    for options in ({"margin": -0.1}, {"margin": 1.5}, {"min_size": 0}):
        with pytest.raises(OptionError, match=next(iter(options))):
            Coco(8, **options)


@pytest.mark.parametrize("piece", [1, 2, 7, 64])
def test_json_is_read_the_same_in_pieces_of_any_size(
    piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_PIECE", piece)
    data = {
        "a": [1.5, -2, 1e-3, "x", "], }", [], {}, [1, {"b": None}], True],
        "none": [],
        "number": 12.25,
        "text": 'ü "quoted" \\ \u2028',
        "object": {"list": [1, 2]},
    }
    expected = [(key, item) for key, value in data.items() for item in (value if isinstance(value, list) else [value])]
    for text in (json.dumps(data), json.dumps(data, indent=3, ensure_ascii=False), "\ufeff" + json.dumps(data)):
        path = tmp_path / "a.json"
        path.write_text(text, encoding="utf-8")
        with open(path, "rb") as file:
            assert [*json_items(file)] == expected
    path.write_text("{ }")
    with open(path, "rb") as file:
        assert [*json_items(file)] == []


def test_an_item_that_never_ends_is_not_read_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_LARGEST", 5000)
    monkeypatch.setattr(room, "_PIECE", 1000)
    (tmp_path / "a.json").write_text('{"a": ["' + "x" * 100_000)
    with open(tmp_path / "a.json", "rb") as file:
        with pytest.raises(ValueError, match="holds an item of more than 5,000 characters, or none"):
            [*json_items(file)]
        assert file.tell() < 50_000
