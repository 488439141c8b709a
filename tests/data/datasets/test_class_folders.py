"""Which pictures are found in a folder, whatever else lies in it and however they are named."""

import os
import shutil
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnlite.data import load_dataset
from cnnlite.data.datasets.folder import Folder
from cnnlite.data.splits import FIRST
from cnnlite.errors import DataError
from cnnlite.runtime import engine
from tests.support.folders import Image, fill, list_folder, noise
from tests.support.locales import PYTHON, with_locale


def test_each_layout_has_its_parts(tmp_path: Path) -> None:
    def parts(root: Path) -> tuple[set[str], set[str], set[str]]:
        listing = list_folder(root, 0.25)
        files = listing.train.files
        cut = int(np.count_nonzero(listing.above > FIRST)) if listing.has_validation else len(files)
        tops = [{Path(file).parts[0] for file in found} for found in (files[:cut], files[cut:], listing.test.files)]
        return tops[0], tops[1], tops[2]

    for part in ("train", "validation", "test"):
        fill(tmp_path / "all" / part)
    assert parts(tmp_path / "all") == ({"train"}, {"validation"}, {"test"})
    assert len(load_dataset(Folder(8), tmp_path / "all").validation or ()) == 8
    shutil.copytree(tmp_path / "all", tmp_path / "two", ignore=shutil.ignore_patterns("test", ".cnnlite"))
    assert parts(tmp_path / "two") == ({"train"}, set(), {"validation"})
    assert parts(tmp_path / "two" / "train")[0] == {"ant", "bee"}
    listing = list_folder(tmp_path / "two" / "train", 0.25)
    assert len(listing.train) + len(listing.test) == 8
    assert set(listing.train.labels) == set(listing.test.labels) == {0, 1}
    assert not set(listing.train.files) & set(listing.test.files)


def test_the_order_is_random_and_always_the_same(tmp_path: Path) -> None:
    fill(tmp_path / "a", 40)
    dataset = load_dataset(Folder(8), tmp_path / "a", validation=0.25, seed=1)
    assert dataset.validation is not None
    for part in (dataset.train, dataset.validation, dataset.test):
        assert 0.1 < part.labels.mean() < 0.9
    moved = shutil.copytree(tmp_path / "a", tmp_path / "elsewhere", ignore=shutil.ignore_patterns(".cnnlite"))
    engine.set_threads(3)
    assert Folder(8).load(moved).digest == dataset.digest


def test_pictures_of_all_kinds_and_sizes_come_out_alike(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    pixels = noise(8, 8, 3)
    kinds = {
        "wide.png": Image.fromarray(pixels).resize((24, 8)),
        "tall.jpg": Image.fromarray(pixels).resize((8, 30)),
        "small.bmp": Image.fromarray(pixels[:2, :3]),
        "grey.png": Image.fromarray(pixels[..., 0]),
        "alpha.png": Image.fromarray(np.dstack([pixels, pixels[..., :1]])),
        "palette.gif": Image.fromarray(pixels).quantize(16),
        "DEEP.PNG": Image.fromarray(pixels[..., 0].astype(np.uint16) * 257),
    }
    for name, picture in kinds.items():
        picture.save(tmp_path / "ant" / name)
    (tmp_path / "ant" / "wide.png").rename(tmp_path / "ant" / "wide.jpeg")  # a PNG that says it is a JPEG
    (tmp_path / "bee" / "link.png").symlink_to(tmp_path / "ant" / "grey.png")
    (tmp_path / "cat").symlink_to(tmp_path / "bee", target_is_directory=True)
    dataset = Folder(8).load(tmp_path)
    listing = list_folder(tmp_path, 0.1)
    assert dataset.classes == ("ant", "bee", "cat")
    files = listing.train.files + listing.test.files
    assert len(files) == 4 + len(kinds) + 1 + 3
    images = dict(zip(files, np.concatenate([dataset.train.images, dataset.test.images]), strict=True))
    np.testing.assert_array_equal(images["ant/grey.png"], np.dstack([pixels[..., 0]] * 3))
    for same in ("ant/DEEP.PNG", "bee/link.png", "cat/link.png"):
        np.testing.assert_array_equal(images[same], images["ant/grey.png"])


def test_what_is_no_picture_by_name_is_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / "readme.txt").write_text("about")
    (tmp_path / "ant" / "notes.txt").write_text("about")
    (tmp_path / "ant" / ".DS_Store").write_text("")
    (tmp_path / "ant" / "more.png").mkdir()
    assert Folder(8).load(tmp_path).classes == ("ant", "bee")
    for _ in range(2):  # made, then found: it is said in every run
        told = [line for line in capsys.readouterr().err.splitlines() if ": left out: " in line]
        assert told == [
            f"{tmp_path}: left out: 2 files not named like pictures: 2 .txt",
            f"{tmp_path}: left out: 2 folders without pictures: {Path('ant', 'more.png')}, empty",
        ]
        Folder(8).load(tmp_path)


def test_class_names_may_be_any_text_in_any_spelling(tmp_path: Path) -> None:
    names = ("Hündin", "猫", "a b", "émeu")
    fill(tmp_path / "train", classes=tuple(unicodedata.normalize("NFC", name) for name in names))
    fill(tmp_path / "test", classes=tuple(unicodedata.normalize("NFD", name) for name in names))
    dataset = Folder(8).load(tmp_path)
    assert dataset.classes == ("Hündin", "a b", "émeu", "猫")
    assert np.bincount(dataset.test.labels).tolist() == [4, 4, 4, 4]


def test_file_names_may_be_no_text_at_all_but_class_names_may_not(tmp_path: Path) -> None:
    fill(tmp_path)
    odd = os.fsdecode(b"\xff\xfe.png")
    try:
        shutil.copy(tmp_path / "ant" / "00000.png", tmp_path / "ant" / odd)
    except OSError:
        pytest.skip("this file system refuses such names")
    dataset = Folder(8).load(tmp_path)
    assert len(dataset.train) + len(dataset.test) == 9
    (tmp_path / "ant" / odd).write_text("no picture")
    with pytest.raises(DataError, match=r"\\udcff\\udcfe\.png: "):
        Folder(8).load(tmp_path)
    dataset = Folder(8, corrupt="skip").load(tmp_path)
    assert len(dataset.train) + len(dataset.test) == 8
    (tmp_path / "ant").rename(tmp_path / os.fsdecode(b"\xff"))
    with pytest.raises(DataError, match="not UTF-8"):
        Folder(8).load(tmp_path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: None, "No such file or directory; data names the folder"),
        (lambda root: root.write_text("file"), "Not a directory"),
        (lambda root: root.mkdir(), "holds 0 folders of pictures"),
        (lambda root: fill(root, classes=("one",)), "holds 1 folder of pictures"),
        (lambda root: fill(root / "train" / "deeper"), r"train: holds 1 folder .* data='.*deeper'"),
        (lambda root: [fill(root / "train"), (root / "test").mkdir()], "test: holds no pictures"),
        (lambda root: [fill(root / "train"), fill(root / "val", classes=("ant", "cow"))], "cow: there are no pictures"),
        (lambda root: [fill(root / "train"), fill(root / "test"), (root / "val").mkdir()], "val: holds no pictures"),
        (lambda root: [fill(root / "train"), fill(root / "Val"), fill(root / "dev")], "Val and dev are two folders"),
        (lambda root: [fill(root / "train"), fill(root / "train2")], "train2: ant.00000.png would be left out"),
        (lambda root: [fill(root / "train"), fill(root, classes=("bus",))], "bus: 00000.png would be left out"),
        (lambda root: [fill(root / "Test"), fill(root / "Val")], "Test: holds ant.00000.png, but there is no folder t"),
        (lambda root: fill(root / "data" / "train"), r"holds 1 folder .* those in .*data meant\? data='.*data'"),
        (lambda root: fill(root / "ant", classes=("train", "Val")), "ant: holds Val and train, which belong above"),
        (lambda root: fill(root, classes=("train", "test")), "train: holds pictures, but no folders of classes"),
        (lambda root: [fill(root / "train"), (root / "test").symlink_to("train")], "is the same folder as"),
        (lambda root: [fill(root / "train"), (root / "Test").symlink_to("gone")], "Test: is a link to nothing"),
        (lambda root: [fill(root, count=1)], "no class has more than one picture"),
    ],
)
def test_folders_of_another_layout_are_told_apart(make: Any, words: str, tmp_path: Path) -> None:
    make(tmp_path / "data")
    with pytest.raises(DataError, match=words):
        Folder(8).load(tmp_path / "data")


@pytest.mark.parametrize("name", ["Val", "VALIDATION", "valid", "dev", "eval"])
@pytest.mark.parametrize("test", ["Test", "TESTING"])
@pytest.mark.parametrize("train", ["train", "Training"])
def test_parts_are_known_by_their_usual_names_in_any_case(name: str, test: str, train: str, tmp_path: Path) -> None:
    for folder in (train, name, test):
        fill(tmp_path / folder, count=2)
    listing = list_folder(tmp_path, 0.1)
    assert listing.has_validation
    assert [Path(file).parts[0] for file in listing.train.files] == [train] * 4 + [name] * 4
    assert {Path(file).parts[0] for file in listing.test.files} == {test}
    assert listing.left_out == []


def test_a_class_may_be_called_like_a_part(tmp_path: Path) -> None:
    fill(tmp_path, classes=("bus", "train"))
    assert list_folder(tmp_path, 0.1).classes == ("bus", "train")
    fill(tmp_path / "more", classes=("dev", "valid", "invalid"))
    assert list_folder(tmp_path / "more", 0.1).classes == ("dev", "invalid", "valid")


def test_links_in_circles_are_left_out_and_told(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "again").symlink_to(".")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "ant" / "up").symlink_to("..")
    (tmp_path / "cow").mkdir()
    (tmp_path / "cow" / "sheep").mkdir()
    (tmp_path / "cow" / "sheep" / "cow").symlink_to("../../cow")
    listing = list_folder(tmp_path, 0.1)
    assert listing.classes == ("ant", "bee")
    (tmp_path / "dog").symlink_to("gone")
    assert list_folder(tmp_path, 0.1).left_out[-2] == "2 links to nothing: dog, self"
    loops = ", ".join(str(Path(*parts)) for parts in (("again",), ("ant", "up"), ("cow", "sheep", "cow")))
    assert listing.left_out[-1] == f"3 links to a folder around it: {loops}"
    (tmp_path / "bee" / "other").symlink_to("../ant")
    with pytest.raises(DataError, match=r"bee.other: is the same folder as .*ant; remove the link"):
        list_folder(tmp_path, 0.1)
    (tmp_path / "bee" / "other").unlink()
    (tmp_path / "ant" / "other").symlink_to("../bee")
    with pytest.raises(DataError, match=r"bee: is the same folder as .*other; remove the link"):
        list_folder(tmp_path, 0.1)


def test_pictures_are_read_at_any_depth_below_the_folder_of_their_class(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    for place in (Path("ant", "2020", "may", "a.png"), Path("bee", "x", "b.png"), Path("cow", "1", "c.png")):
        (tmp_path / place).parent.mkdir(parents=True)
        shutil.copy(tmp_path / "ant" / "00000.png", tmp_path / place)
    (tmp_path / "ant" / "2020" / "notes.txt").write_text("about")
    (tmp_path / "ant" / "none").mkdir()
    listing = list_folder(tmp_path, 0.1)
    assert listing.classes == ("ant", "bee", "cow")
    found = sorted(listing.train.keys() + listing.test.keys())
    assert len(found) == 9
    assert {"ant/2020/may/a.png", "bee/x/b.png", "cow/1/c.png"} <= set(found)
    assert listing.left_out == [
        "1 file not named like pictures: 1 .txt",
        f"1 folder without pictures: {Path('ant', 'none')}",
    ]
    first = Folder(8).load(tmp_path).digest
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "ant" / "2020" / "may" / "a.png")
    assert Folder(8).load(tmp_path).digest != first


def test_files_that_are_not_used_are_counted_by_kind_wherever_they_are(tmp_path: Path) -> None:
    for part in ("train", "val"):
        fill(tmp_path / part)
    shutil.copy(tmp_path / "train" / "ant" / "00000.png", tmp_path / "cover.png")
    shutil.copy(tmp_path / "train" / "ant" / "00000.png", tmp_path / "train" / "cover.png")
    (tmp_path / "labels").mkdir()
    for file in ("a.csv", "LICENSE", "labels/1.json", "labels/2.JSON", "train/b.csv", "val/c.csv", "val/ant/d.csv"):
        (tmp_path / file).write_text("")
    assert list_folder(tmp_path, 0.1).left_out == [
        "7 files not named like pictures: 4 .csv, 2 .json, 1 without an ending",
        f"2 pictures in no folder of a class: cover.png, {Path('train', 'cover.png')}",
        "1 folder without pictures: labels",
    ]


def test_a_picture_stays_in_its_part_whatever_comes_and_goes(tmp_path: Path) -> None:
    fill(tmp_path, 80, size=1)

    def parts() -> dict[str, str]:
        listing = list_folder(tmp_path, 0.2)
        held_out = listing.above < 0.2
        named = dict(zip(listing.train.files, np.where(held_out, "validation", "train").tolist(), strict=True))
        return named | dict.fromkeys(listing.test.files, "test")

    before = parts()
    assert set(before.values()) == {"train", "validation", "test"}
    for index in range(20):
        shutil.copy(tmp_path / "ant" / "00000.png", tmp_path / "ant" / f"new{index}.png")
    (tmp_path / "bee" / "00099.png").unlink()
    (tmp_path / "bee" / "00098.png").rename(tmp_path / "bee" / "renamed.png")
    after = parts()
    assert len(after) == len(before) + 19
    assert {name: part for name, part in after.items() if name in before}.items() <= before.items()


def test_names_are_the_same_on_all_systems(tmp_path: Path) -> None:
    keys = []
    for form in ("NFC", "NFD"):
        root = tmp_path / form
        fill(root, classes=(unicodedata.normalize(form, "émeu"), "ant"))
        for file in list(root.rglob("*.png")):
            file.rename(file.with_name(unicodedata.normalize(form, f"é{file.name}")))
        listing = list_folder(root, 0.3)
        keys.append((listing.train.keys(), listing.test.keys()))
    assert keys[0] == keys[1]


def test_the_locale_changes_no_side(tmp_path: Path) -> None:
    fill(tmp_path, 20, classes=("émeu", "ant", "猫"), size=1)
    for file in list(tmp_path.rglob("*1*.png")):
        file.rename(file.with_name(f"ñ{file.name}"))
    code = (
        "import os; from pathlib import Path; from tests.support.folders import list_folder;"
        f"found = list_folder(Path(os.fsdecode({os.fsencode(tmp_path)!r})), 0.2);"
        "print(ascii((found.classes, found.train.keys(), found.test.keys(), found.digest)))"
    )
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    found = [
        subprocess.run([*PYTHON, "-c", code], env=with_locale(**more), capture_output=True, text=True, check=True)
        for more in ({"PYTHONUTF8": "1"}, ascii_only)
    ]
    assert found[0].stdout == found[1].stdout
    assert ascii("émeu") in found[0].stdout
