"""However a folder changes, no image that a run has trained on counts as another."""

import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from click.testing import CliRunner

from cnnlite.cli import cli
from cnnlite.config.load import config_from_data
from cnnlite.data import Dataset, Images, as_seen, fingerprints, load_dataset, repeated
from cnnlite.data.datasets.folder import Folder
from cnnlite.data.fingerprints import PARTS
from cnnlite.runs.checkpoint import load_checkpoint
from cnnlite.runtime import engine
from cnnlite.utils.types import Array
from tests.data.test_class_table import dataset as counted
from tests.support.folders import fill, noise
from tests.support.small_runs import TINY, tiny
from tests.support.training_parts import start


def numbered(train: list[int], validation: list[int] | None, test: list[int]) -> Dataset:
    """Images that are black but for their number."""

    def images(numbers: list[int]) -> Images:
        return Images(np.array(numbers, np.uint8).reshape(-1, 1, 1, 1), np.array(numbers, np.int64) % 2)

    held_out = None if validation is None else images(validation)
    return Dataset("mine", images(train), held_out, images(test), ("a", "b"), "", above=np.zeros(len(train)))


def parts(now: Dataset, before: dict[str, Array]) -> tuple[list[list[int]], str]:
    """The numbers of the images of each part as they were seen, and what has changed."""
    found = []
    for part in PARTS:
        chosen, changes = as_seen(now, before, part)
        assert chosen is not None
        images = chosen.take(slice(None))
        found.append(sorted(images.images.ravel().tolist()))
        assert images.labels.tolist() == [number % 2 for number in images.images.ravel().tolist()]
    return found, changes


def test_images_go_back_to_where_the_run_saw_them_and_what_came_and_went_is_counted() -> None:
    before = fingerprints(numbered([1, 2, 3, 4], [5], [6, 7]))
    now = numbered([1, 6, 20], [2, 21], [3, 5, 7, 22, 22])
    back, changes = parts(now, before)
    assert back == [[1, 2, 3], [5, 21], [6, 7, 22, 22]]
    assert changes.startswith("4 new, 1 missing;")


def test_one_that_was_in_several_parts_stays_in_them_as_often_as_it_was() -> None:
    before = fingerprints(numbered([1, 2], [2, 3], [3, 4]))
    back, changes = parts(numbered([8], None, [1, 2, 2, 3]), before)
    assert back == [[1, 2], [2, 3], [3]]
    assert changes.startswith("1 new, 2 missing;")
    assert parts(numbered([9], [2, 2, 2, 2], [3, 4]), before)[0] == [[2, 2, 2], [2, 3], [3, 4]]
    assert parts(numbered([9], [2, 3, 1], [2, 3, 4]), before)[0] == [[1, 2], [2, 3], [3, 4]]


def test_images_that_have_another_class_now_are_counted_and_stay_in_their_part() -> None:
    now = numbered([1, 2, 3], [4], [5, 9])
    before = fingerprints(now)
    now.train.labels[0], now.test.labels[0] = 0, 0
    for part, labels in (("train", [0, 0, 1]), ("test", [0, 1])):
        images, changes = as_seen(now, before, part)
        assert images is not None
        assert images.take(slice(None)).labels.tolist() == labels
        assert changes.startswith("0 new, 0 missing, 2 have another class now; those")
    older = {part: before[part] for part in PARTS}
    assert as_seen(now, older, "test")[1].startswith("0 new, 0 missing;")
    odd = before | {"train/labels": np.zeros((2, 2))}
    assert as_seen(now, odd, "test")[1].startswith("0 new, 0 missing;")


def test_what_a_run_saw_is_taken_batch_by_batch() -> None:
    images = Images(noise(4000, 50, 50, 3), np.zeros(4000, np.int64))
    whole = Dataset("mine", images, None, images.take(slice(3, 9)), ("a",), "", above=np.zeros(4000))
    before = fingerprints(whole)
    tracemalloc.start()
    try:
        found, _ = as_seen(whole, before, "train")
        assert found is not None
        for start in range(0, len(found), 100):
            np.testing.assert_array_equal(found.take(slice(start, start + 100)).images, images.images[start:][:100])
        assert tracemalloc.get_traced_memory()[1] < images.images.nbytes / 4
    finally:
        tracemalloc.stop()


def test_without_fingerprints_nothing_is_moved_and_that_is_said() -> None:
    now = numbered([1], None, [2])
    odd = {"train": np.ones((2, 2)), "other": np.ones(3, np.uint64)}
    for before in ({}, odd):
        assert as_seen(now, before, "test") == (now.test, "which of them it has seen is not known")
    assert fingerprints(counted([3, 3], None, [1, 1], own=False)) == {}


def test_fingerprints_are_the_same_on_any_number_of_threads() -> None:
    images = Images(noise(300, 9, 9, 3), np.zeros(300, np.int64))
    whole = Dataset("mine", images, None, images.take(slice(7)), ("a",), "", above=np.zeros(300))
    found = []
    for threads in (1, 3):
        engine.set_threads(threads)
        found.append(fingerprints(whole))
    assert len(set(found[0]["train"].tolist())) == 300
    np.testing.assert_array_equal(found[0]["train"], found[1]["train"])
    np.testing.assert_array_equal(found[0]["test"], found[0]["train"][:7])


def trained(pictures: Path, **data: Any) -> Path:
    """A run on pictures of noise, beside them."""
    config = yaml.safe_load(TINY)
    config["data"] = {"dataset": {"folder": {"size": 8}}, "root": str(pictures), **data}
    config["model"] = ["flatten", {"linear": {"out_features": 64}}, "relu", {"linear": {"out_features": 2}}]
    config["train"] |= {"epochs": 20, "schedule": "constant", "batch_size": 8}
    (pictures.parent / "mine.yaml").write_text(yaml.safe_dump(config))
    run = pictures.parent / "run"
    done = CliRunner().invoke(cli, ["train", "-c", str(pictures.parent / "mine.yaml"), "--run-dir", str(run)])
    assert done.exit_code == 0, done.output
    assert "class  train  validation  test\n" in done.output
    return run


def evaluated(run: Path, split: str) -> tuple[int, float, str]:
    done = CliRunner().invoke(cli, ["eval", str(run), "--split", split, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    return found["images"], found["accuracy"], done.stderr


def test_what_is_added_removed_renamed_or_copied_changes_no_side(tmp_path: Path) -> None:
    pictures = fill(tmp_path / "pics", 30)
    run = trained(pictures, validation=0.2)
    before = {split: evaluated(run, split) for split in ("train", "validation", "test")}
    assert all("trained on" not in found[2] for found in before.values())
    for index in range(30):  # copies of pictures to train on and of others, under names that belong to any part
        shutil.copy(pictures / "ant" / f"{index:05}.png", pictures / "ant" / f"copy{index}.png")
        (pictures / "ant" / f"{index:05}.png").rename(pictures / "ant" / f"moved{index}.png")
    for split, (count, *_) in before.items():
        now, _, said = evaluated(run, split)
        assert ": 30 new, 0 missing; those that it has seen count as what they were then" in said
        assert count < now < 2 * count
    for index in range(30):
        (pictures / "ant" / f"copy{index}.png").unlink()
    for split, (count, accuracy, _) in before.items():
        assert evaluated(run, split)[:2] == (count, accuracy)


def test_copies_in_several_parts_count_alike_before_and_after_a_change(tmp_path: Path) -> None:
    pictures = tmp_path / "pics"
    for part in ("train", "val", "test"):
        fill(pictures / part, 6)
    for number in range(7):
        shutil.copy(pictures / "train" / "ant" / "00000.png", pictures / "test" / "ant" / f"copy{number}.png")
    run = trained(pictures)
    tested = json.loads((run / "result.json").read_text())["test_accuracy"]
    before = {split: evaluated(run, split)[:2] for split in PARTS}
    assert before["test"] == (19, tested)
    fill(pictures / "new", 1, size=9)
    (pictures / "new" / "ant" / "00000.png").rename(pictures / "train" / "ant" / "unrelated.png")
    shutil.rmtree(pictures / "new")
    assert {split: evaluated(run, split)[:2] for split in PARTS} == before


def test_a_picture_that_moved_to_another_class_is_told(tmp_path: Path) -> None:
    pictures = fill(tmp_path / "pics", 30)
    run = trained(pictures)
    for index in (3, 4):
        (pictures / "ant" / f"{index:05}.png").rename(pictures / "bee" / f"moved{index}.png")
    assert ": 0 new, 0 missing, 2 have another class now; those" in evaluated(run, "test")[2]


def test_only_runs_on_pictures_of_ones_own_keep_them(tmp_path: Path, dataset: Dataset) -> None:
    start(tiny(epochs=1), tmp_path / "shapes", dataset)
    assert not load_checkpoint(tmp_path / "shapes/checkpoints/best.npz").part("seen")
    own = load_dataset(Folder(8), fill(tmp_path / "pics", 20), validation=0.1)
    config = tiny(epochs=1)
    model = ["flatten", {"linear": {"out_features": 2}}]
    start(config_from_data({**config.resolved, "model": model}), tmp_path / "own", own)
    kept = load_checkpoint(tmp_path / "own/checkpoints/best.npz").part("seen")
    assert sum(len(kept[part]) for part in PARTS) == sum(len(kept[f"{part}/labels"]) for part in PARTS) == 40


def test_images_in_two_parts_are_told_when_a_run_begins(tmp_path: Path) -> None:
    pictures = tmp_path / "pics"
    for part in ("train", "val", "test"):
        fill(pictures / part, 6)
    for name in ("a", "b"):
        shutil.copy(pictures / "train" / "ant" / "00000.png", pictures / "test" / "ant" / f"{name}.png")
    known = fingerprints(load_dataset(Folder(8), pictures))
    told = "warning: 2 of the images to test with are trained on too, pixel for pixel"
    assert [*repeated(known)] == [told]
    assert told in (trained(pictures) / "log.txt").read_text(encoding="utf-8")
    known["validation"][0] = known["train"][0]
    assert len([*repeated(known)]) == 2
    assert [*repeated({})] == []
