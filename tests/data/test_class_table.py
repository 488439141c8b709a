"""What is said of the classes before a training."""

from pathlib import Path

import numpy as np
from click.testing import CliRunner

from cnnlite.cli import cli
from cnnlite.data import Dataset, Images, class_table
from tests.support.folders import fill, noise


def dataset(train: list[int], validation: list[int] | None, test: list[int], *, own: bool = True) -> Dataset:
    """A dataset with so many images of each class."""

    def images(counts: list[int]) -> Images:
        labels = np.repeat(np.arange(len(counts)), counts)
        return Images(noise(len(labels), 1, 1, 3), labels)

    held_out = None if validation is None else images(validation)
    classes = tuple(f"class{index}" for index in range(len(train)))
    return Dataset(
        "mine", images(train), held_out, images(test), classes, "", above=np.zeros(sum(train)) if own else None
    )


def test_each_class_has_a_row() -> None:
    assert class_table(dataset([1200, 30], [100, 2], [90, 3])) == [
        "class   train  validation  test",
        "class0  1,200         100    90",
        "class1     30           2     3",
        "total   1,230         102    93",
    ]


def test_what_a_class_lacks_is_said_with_what_it_has() -> None:
    lines = class_table(dataset([2, 1, 5], [1, 0, 1], [1, 0, 0]))
    assert lines[5:] == [
        "warning: no image to validate with of class1 (1 in all)",
        "warning: no image to test with of class1 (1 in all), class2 (6 in all)",
    ]
    assert class_table(dataset([2, 1, 5], None, [1, 0, 1]))[5:] == [
        "warning: no image to test with of class1 (1 in all)"
    ]


def test_many_classes_take_a_few_lines() -> None:
    counts = list(range(1, 101))
    assert class_table(dataset(counts, [0] * 50 + [3] * 50, [5] * 100)) == [
        "100 classes, of each 1 (class0) to 100 (class99) to train on, 0 (class0) to 3 (class50) to validate with, "
        "5 (class0) to 5 (class0) to test with",
        "warning: no image to validate with of class0 (6 in all), class1 (7 in all), class2 (8 in all), "
        "class3 (9 in all), class4 (10 in all) and 45 more classes",
    ]


def test_of_a_dataset_that_everybody_knows_only_what_is_lacking_is_said() -> None:
    assert class_table(dataset([5, 5], [1, 2], [2, 2], own=False)) == []
    assert class_table(dataset([5, 5], [0, 2], [2, 2], own=False)) == [
        "warning: no image to validate with of class0 (7 in all)"
    ]


def test_a_dry_run_shows_it_too(tmp_path: Path) -> None:
    fill(tmp_path / "pics", 5)
    config = tmp_path / "mine.yaml"
    config.write_text(
        f"data: {{dataset: {{folder: {{size: 8}}}}, root: '{(tmp_path / 'pics').as_posix()}'}}\n"
        "model: [flatten, {linear: {out_features: 2}}]\n"
        "train: {epochs: 1, batch_size: 2, optimizer: {sgd: {lr: 0.1}}}\n"
    )
    done = CliRunner().invoke(cli, ["train", "-c", str(config), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "\nclass  train  validation  test\nant " in done.output
