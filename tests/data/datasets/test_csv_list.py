"""Pictures that a CSV file lists are found, whatever separates the columns, and groups are never divided."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnlite.data import load_dataset
from cnnlite.data.datasets.csv_list import PictureList
from cnnlite.data.datasets.folder import Folder
from cnnlite.data.datasets.listing import PART_OF
from cnnlite.errors import DataError, OptionError
from tests.support.doors import write_csv
from tests.support.folders import Image, fill, noise


def rows_of(root: Path, *folders: str) -> list[tuple[Any, ...]]:
    """The pictures below folders of classes, each with the name of its folder."""
    files = [file for folder in folders for file in sorted((root / folder).rglob("*.png"))]
    return [(file.relative_to(root).as_posix(), file.parent.name) for file in files]


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|", ", "])
def test_a_list_is_the_folder_that_it_lists(separator: str, end: str, start: str, tmp_path: Path) -> None:
    fill(tmp_path, 12)
    names = ('"File Name"', "Class")
    write_csv(tmp_path / "names.csv", [names, *rows_of(tmp_path, ".")], separator, start)
    content = (tmp_path / "names.csv").read_text(encoding="utf-8")
    (tmp_path / "names.csv").write_bytes(content.replace("\n", end).encode())
    for root in (tmp_path, tmp_path / "names.csv"):
        found = PictureList(8, test_fraction=0.25).load(root)
        assert found.digest == Folder(8, test_fraction=0.25).load(tmp_path).digest
        assert found.classes == ("ant", "bee")


def test_a_column_says_the_parts_as_folders_do(tmp_path: Path) -> None:
    rows: list[tuple[Any, ...]] = [("path", "label", "split")]
    for part in ("train", "Val", "TEST"):
        fill(tmp_path / part, 5)
        rows += [(*row, part) for row in rows_of(tmp_path, part)]
    file = write_csv(tmp_path / "a.tsv", rows, "\t")
    assert PictureList(8).load(file).digest == Folder(8).load(tmp_path).digest
    dataset = load_dataset(PictureList(8), file)
    assert [len(part or ()) for part in (dataset.train, dataset.validation, dataset.test)] == [10, 10, 10]
    two = load_dataset(PictureList(8), write_csv(tmp_path / "two.csv", [row for row in rows if row[2] != "TEST"]))
    np.testing.assert_array_equal(two.test.images, dataset.validation.images if dataset.validation else None)


def test_quotes_spaces_and_names_of_any_text_are_read(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    (tmp_path / "odd, names").mkdir()
    (tmp_path / "ant" / "00000.png").rename(tmp_path / "odd, names" / 'a "b" é.png')
    rows = rows_of(tmp_path, "ant", "bee")
    quoted = f'"odd, names/a ""b"" é.png", "ant"\n\n  {tmp_path}/bee/00004.png,  bee \n'
    file = write_csv(tmp_path / "a.csv", [("path", " label "), *rows[:-4], *rows[-3:]])
    file.write_text(file.read_text() + quoted, encoding="utf-8")
    dataset = PictureList(8).load(file)
    assert len(dataset.train) + len(dataset.test) == 8
    assert dataset.classes == ("ant", "bee")


@pytest.mark.parametrize("fraction", [0.1, 0.3])
def test_groups_are_in_one_part_whatever_the_fraction_or_number(fraction: float, tmp_path: Path) -> None:
    rows = [("image", "target", "patient", "age")]
    for index in range(120):
        group = index // 4
        Image.fromarray(np.full((2, 2, 3), group, np.uint8)).save(tmp_path / f"{index}.png")
        rows.append((f"{index}.png", str(index % 3), f"p{group}", "40"))
    source = PictureList(2, test_fraction=fraction, columns={"group": "patient"})
    file = write_csv(tmp_path / "a.csv", rows, "|")
    for validation in ("default", fraction, 9, 10, 11):
        dataset = load_dataset(source, file, validation=validation)
        assert dataset.validation is not None
        groups = [{*part.images[:, 0, 0, 0].tolist()} for part in (dataset.train, dataset.validation, dataset.test)]
        assert sum(map(len, groups)) == len(set.union(*groups)) == 30
        assert not isinstance(validation, int) or len(dataset.validation) == 8
        assert all(set(part.labels) == {0, 1, 2} for part in (dataset.train, dataset.validation, dataset.test))


def test_numbers_are_in_the_order_of_numbers_and_grey_stays_grey(tmp_path: Path) -> None:
    rows = [("path", "label")]
    for index in range(24):
        Image.fromarray(np.full((4, 4), 10 * index, np.uint8)).save(tmp_path / f"{index}.png")
        rows.append((f"{index}.png", str(index % 12)))
    dataset = PictureList(4, channels=1).load(write_csv(tmp_path / "a.csv", rows))
    assert dataset.classes == tuple(map(str, range(12)))
    assert dataset.train.images.shape[1:] == (4, 4, 1)
    both = [*zip(dataset.train.images, dataset.train.labels, strict=True)]
    assert all(image.min() == image.max() and image.max() // 10 % 12 == label for image, label in both)


def test_columns_that_are_not_used_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path)
    rows: list[tuple[Any, ...]] = [("path", "age", "label", "sex")] + [
        (path, "1", label, "f") for path, label in rows_of(tmp_path, ".")
    ]
    PictureList(8).load(write_csv(tmp_path / "a.csv", rows))
    assert "a.csv: left out: 2 columns: age, sex\n" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["picture", "label", "split"])
def test_a_changed_list_or_picture_is_read_again(change: str, tmp_path: Path) -> None:
    fill(tmp_path)
    rows: list[tuple[Any, ...]] = [("path", "label", "split")] + [
        (*row, "train" if i % 2 else "test") for i, row in enumerate(rows_of(tmp_path, "."))
    ]
    file = write_csv(tmp_path / "a.csv", rows)
    first = PictureList(8).load(file).digest
    if change == "picture":
        Image.fromarray(noise(9, 9, 3)).save(tmp_path / "ant" / "00000.png")
    elif change == "label":
        write_csv(file, [*rows[:2], (rows[2][0], "bee", rows[2][2]), *rows[3:]])
    else:
        write_csv(file, [*rows[:2], (*rows[2][:2], "test"), *rows[3:]])
    assert PictureList(8).load(file).digest != first


def test_pictures_that_are_missing_are_refused_by_name_or_skipped(tmp_path: Path) -> None:
    fill(tmp_path)
    rows = [("path", "label"), *rows_of(tmp_path, "."), ("gone.png", "ant"), (".", "bee")]
    file = write_csv(tmp_path / "a.csv", rows)
    with pytest.raises(DataError) as caught:
        PictureList(8).load(file)
    *named, last = str(caught.value).splitlines()
    assert sorted(named) == [f"{tmp_path / 'gone.png'}: No such file or directory", f"{tmp_path}: is not a file"]
    assert last.startswith("2 pictures cannot be read; mend or remove them")
    assert "data.dataset.list.corrupt=skip" in last
    dataset = PictureList(8, corrupt="skip").load(file)
    assert len(dataset.train) + len(dataset.test) == 8


HEAD = "path,label,split,group\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "a.csv: the first line, divided by commas, names no column path"),
        ("a.png,ant\nb.png,bee\n", "the first line, divided by commas, names no column path, but a.png, ant"),
        ("path\na.png\n", "names no column label, but path; call it so, or say which"),
        ("path,label,file\n", "path and file may all be the path; say which"),
        (HEAD, "lists pictures of 0 classes to train on"),
        ("path,label\na.png,ant\nb.png,ant\n", "lists pictures of 1 classes to train on"),
        ("path,label\na.png,ant,1\n", "line 2: has 3 columns, the first line 2"),
        ("path,label\na.png\n", "line 2: has 1 columns"),
        ("path,label\n\n,ant\n", "line 3: the path is empty"),
        ("path,label\na.png, \n", "line 2: the label is empty"),
        (HEAD + "a.png,ant,,g\n", "line 2: the split is empty"),
        (HEAD + "a.png,ant,train,\n", "line 2: the group is empty"),
        (HEAD + "a.png,ant,3,g\n", "line 2: the split is 3; known: train, training, val"),
        (HEAD + "a.png,ant,train,g\nb.png,bee,test,g\n", "line 3: g is in test here, and in train in line 2"),
        (
            HEAD + "a.png,a,train,g\nb.png,b,train,g\nc.png,c,test,h\n",
            "line 4: there are no pictures of the class c to",
        ),
        ("path,label\na.png,ant\n./a.png,bee\n", "line 3: a.png has another label, split or group than in line 2"),
        ("path,label\na.png,a\x1b[2J\n", "line 2: the label holds control characters"),
        ('path,label\n"a\nb.png",ant\n', "line 3: the path holds control characters"),
        ('path,label\n"a.png,ant\n', "line 2: unexpected end of data"),
        ('path,label\n"a"b.png,ant\n', "line 2: ',' expected after"),
        ("path,label\na.png," + "x" * 200_000 + "\n", "line 2: field larger than field limit"),
        ("path,label\na.png,a\0nt\n", "line 2: "),
    ],
)
def test_lists_that_are_none_are_refused_in_a_line(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=words) as caught:
        PictureList(8).load(tmp_path / "a.csv")
    assert str(caught.value).startswith(str(tmp_path / "a.csv"))
    assert len(str(caught.value).splitlines()) == 1


def test_the_first_faults_of_a_list_are_told_together(tmp_path: Path) -> None:
    rows = ["a.png,ant,train,g", ",ant,train,g", "b.png,bee,3,g", "c.png,bee,test,g", "a.png,bee,train,g", "d.png"]
    (tmp_path / "a.csv").write_text(HEAD + "\n".join([*rows, *["e.png"] * 1000, 'f.png,"']), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        PictureList(8).load(tmp_path)
    place = f"{tmp_path / 'a.csv'}"
    assert str(caught.value).splitlines() == [
        f"{place}, line 3: the path is empty",
        f"{place}, line 4: the split is 3; known: {', '.join(PART_OF)}",
        f"{place}, line 5: g is in test here, and in train in line 2",
        f"{place}, line 6: a.png has another label, split or group than in line 2",
        f"{place}, line 7: has 1 columns, the first line 4",
        f"{place}: and 1,001 more lines that cannot be used",
    ]
    unknown = [f"{index}.png,{'dab'[index % 3]},{'test' if index % 3 == 0 else 'train'},g{index}" for index in range(9)]
    (tmp_path / "a.csv").write_text(HEAD + "\n".join(unknown), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        PictureList(8).load(tmp_path)
    message = "there are no pictures of the class d to train on"
    assert str(caught.value).splitlines() == [f"{place}, line {line}: {message}" for line in (2, 5, 8)]


@pytest.mark.parametrize(
    "content", ["path,label\né.png,ant\n".encode("latin-1"), "path,label\n".encode("utf-16"), b"\xff\xd8\xff\xe0" * 99]
)
def test_lists_that_are_not_utf_8_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.csv: is no CSV in UTF-8; save it as one"):
        PictureList(8).load(tmp_path)


def test_other_places_and_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        PictureList(8).load(tmp_path / "none")
    with pytest.raises(DataError, match=r"holds 0 files that end in \.csv or \.tsv; name the one to read"):
        PictureList(8).load(tmp_path)
    file = write_csv(tmp_path / "a.csv", [("path", "label")])
    with pytest.raises(DataError, match="has no column patient, but path, label"):
        PictureList(8, columns={"group": "patient"}).load(file)
    write_csv(tmp_path / "b.csv", [("path", "label")])
    with pytest.raises(DataError, match="holds 2 files"):
        PictureList(8).load(tmp_path)
    with pytest.raises(OptionError, match="columns: there is no column for 'groups'; known: path, label, split, group"):
        PictureList(8, columns={"groups": "patient"})
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.csv")
        with pytest.raises(DataError, match="is not a regular file"):
            PictureList(8).load(tmp_path / "pipe.csv")


MEMORY = """
import sys
from pathlib import Path
from cnnlite.data import load_dataset
from cnnlite.data.datasets.csv_list import PictureList

def most():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) / 1024

def private():
    return sum(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024

found = []
for name in sys.argv[1:]:
    dataset = load_dataset(PictureList(24), Path(name))
    found += [dataset.train.images.nbytes / 2**20, most(), private()]
print(*found)
"""


@pytest.mark.long
def test_memory_hardly_grows_with_the_number_of_pictures(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("there is no /proc to tell the memory")
    fill(tmp_path, 50, size=2)
    pictures = rows_of(tmp_path, ".")
    files = []
    for times in (1, 80):  # 8,000 pictures
        rows = [(f"{'./' * (index % 2)}{path}", label) for index in range(times) for path, label in pictures]
        files.append(str(write_csv(tmp_path / f"{times}.csv", [("path", "label"), *rows])))
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", MEMORY, *files]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    _, few, few_private, size, many, many_private = map(float, done.stdout.split())
    assert size > 10
    assert many_private - few_private < 7  # 40 for 100,000 pictures, of any size
    assert many - few < size + 25  # the file that is mapped counts as long as nobody else needs the memory
