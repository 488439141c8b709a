"""A folder of pictures trains as the same images in arrays do, from a cache that is always that of the folder."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from cnnlite.cli import cli
from cnnlite.config.load import config_from_data
from cnnlite.data import Dataset, Images, Normalizer, load_dataset
from cnnlite.data.datasets.cifar import Cifar10
from cnnlite.data.datasets.folder import Folder
from cnnlite.data.datasets.shapes import Shapes
from cnnlite.data.splits import Validation
from cnnlite.errors import ConfigError, DataError, StorageError
from cnnlite.runs.checkpoint import load_checkpoint
from cnnlite.runs.directory import RunDirectory
from cnnlite.training.loop import train
from cnnlite.training.reporter import Reporter
from cnnlite.utils.files import lock
from cnnlite.utils.signals import StopFlag
from tests.support.folders import Image, fill, indices, list_folder, noise, write
from tests.support.small_runs import TINY, assert_same_run


@pytest.fixture(scope="module")
def shapes() -> Dataset:
    return Shapes(train_images=126, test_images=40).load(Path())


@pytest.fixture(scope="module")
def tree(shapes: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    write(root / "train", shapes.train, shapes.classes)
    write(root / "test", shapes.test, shapes.classes)
    return root


def as_arrays(root: Path, source: Dataset) -> Dataset:
    """The images of a dataset in the order in which the folder that was written from it has them."""
    listing = list_folder(root, 0.1)
    order = np.array([source.classes.index(name) for name in listing.classes]).argsort()
    parts = [
        Images(part.images[where], order[part.labels[where]])
        for part, where in ((source.train, indices(listing.train.files)), (source.test, indices(listing.test.files)))
    ]
    return Dataset("arrays", parts[0], None, parts[1], listing.classes, "")


def assert_same_images(found: Images | None, expected: Images | None) -> None:
    assert found is not None
    assert expected is not None
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_training_from_a_folder_is_training_from_arrays_bit_for_bit(
    tree: Path, shapes: Dataset, tmp_path: Path
) -> None:
    data = yaml.safe_load(TINY)
    data["data"] |= {"dataset": {"folder": {"size": 32}}, "root": str(tree), "validation": 20}
    config = config_from_data(data, "folder")
    found = load_dataset(config.data.dataset, tree, validation=20)
    arrays = as_arrays(tree, shapes)
    arrays = replace(arrays, train=arrays.train.take(slice(106)), validation=arrays.train.take(slice(106, None)))
    for part in ("train", "validation", "test"):
        assert_same_images(getattr(found, part), getattr(arrays, part))
    arrays = replace(arrays, name=found.name, digest=found.digest, above=found.above)
    for name, dataset in (("folder", found), ("arrays", arrays)):
        run = RunDirectory.create_at(tmp_path / name)
        train(config, run, dataset=dataset, reporter=Reporter(quiet=True), stop=StopFlag())
        run.close()
    assert_same_run(tmp_path / "folder", tmp_path / "arrays")


def test_cifar_10_as_pictures_is_cifar_10(cifar10: Path, tmp_path: Path) -> None:
    whole = Cifar10().load(cifar10)
    some = replace(whole, train=whole.train.take(slice(800)), test=whole.test.take(slice(200)))
    for part in ("train", "test"):
        write(tmp_path / part, getattr(some, part), some.classes)
    found, arrays = Folder(32).load(tmp_path), as_arrays(tmp_path, some)
    assert found.classes == whole.classes
    assert_same_images(found.train, arrays.train)
    assert_same_images(found.test, arrays.test)


def test_the_command_trains_evaluates_and_predicts(tree: Path, tmp_path: Path) -> None:
    data = yaml.safe_load(TINY)
    data["data"] = {"dataset": {"folder": {"size": 24, "resize": 28}}, "validation": 0.2}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(data))
    run = str(tmp_path / "run")
    best = f"{run}/checkpoints/best.npz"
    for command in (
        ["train", "-c", str(tmp_path / "mine.yaml"), "--data", str(tree), "--run-dir", run, "--epochs", "1", "-q"],
        ["eval", best],
        ["predict", best, str(tree / "test" / "disc")],
    ):
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 0, result.output
    meta = load_checkpoint(Path(best)).meta
    assert meta["in_shape"] == [24, 24, 3]
    assert meta["dataset"]["name"] == tree.name
    dataset = load_dataset(config_from_data(meta["config"]).data.dataset, tree, validation=0.2)
    assert dataset.validation is not None
    assert (len(dataset.train) + len(dataset.validation), len(dataset.test)) == (126, 40)
    assert 10 < len(dataset.validation) < 40
    assert set(dataset.validation.labels) == set(dataset.train.labels) == set(range(10))


def test_the_second_time_nothing_is_decoded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "a")
    first = Folder(8).load(tmp_path / "a")
    assert "reading 8 pictures, once" in capsys.readouterr().err
    code = (
        "import sys; from pathlib import Path; from cnnlite.data.datasets.folder import Folder;"
        f"print(Folder(8).load(Path({str(tmp_path / 'a')!r})).digest, 'PIL' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [first.digest, "False"]
    assert done.stderr == ""


LOAD = """
from pathlib import Path
from cnnlite.data.datasets.folder import Folder
print(Folder(8).load(Path({!r})).digest)
"""


def test_processes_that_start_together_decode_once_and_tidy_up_after_a_killed_one(
    tmp_path: Path,
) -> None:
    path = Folder(8).cache_path(fill(tmp_path))
    path.parent.mkdir()
    left, others = path.with_name(f".cnnlite-{'0' * 16}.tmp"), path.with_name(".others.tmp")
    left.touch()
    others.touch()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with open(path.with_suffix(".lock"), "ab") as held:
        assert lock(held)
        command = [sys.executable, "-c", LOAD.format(str(tmp_path))]
        processes = [
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        for process in processes:
            assert process.stderr is not None
            assert "waiting for another process" in process.stderr.readline()
        assert not path.exists()
    ends = [process.communicate(timeout=60) for process in processes]
    assert len({out for out, _ in ends}) == 1
    assert sorted(err.count("reading 8 pictures, once") for _, err in ends) == [0, 1]
    assert sorted(file.name for file in path.parent.iterdir()) == sorted(
        [others.name, path.name, path.with_suffix(".lock").name]
    )


def break_three(root: Path) -> list[Path]:
    cut, text, link = root / "ant" / "00000.png", root / "bee" / "00005.png", root / "bee" / "nowhere.png"
    cut.write_bytes(cut.read_bytes()[:60])
    text.write_text("<html>")
    link.symlink_to(root / "missing.png")
    return [cut, text, link]


@pytest.mark.usefixtures("as_typed")
def test_pictures_that_cannot_be_read_are_refused_all_at_once(tmp_path: Path) -> None:
    fill(tmp_path)
    broken = break_three(tmp_path)
    with pytest.raises(DataError) as caught:
        Folder(8).load(tmp_path)
    *named, last = str(caught.value).splitlines()
    assert sorted(line.split(": ")[0] for line in named) == sorted(map(str, broken))
    without = "or train a new run without them: -o data.dataset.folder.corrupt=skip"  # a run's own data are as they are
    assert last == f"3 pictures cannot be read; mend or remove them, {without}"
    assert [file.suffix for file in (tmp_path / ".cnnlite").iterdir()] == [".lock"]


def test_one_picture_is_called_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path)
    for broken in break_three(tmp_path)[1:]:
        broken.unlink()
    with pytest.raises(DataError, match="\n1 picture cannot be read; mend or remove it, or train a new run without it"):
        Folder(8).load(tmp_path)
    Folder(8, corrupt="skip").load(tmp_path)
    assert "skipped 1 picture: " in capsys.readouterr().err


def test_or_they_are_skipped_and_told_each_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path)
    whole = list_folder(tmp_path, 0.25)
    before = dict(zip(whole.train.files, Folder(8, test_fraction=0.25).load(tmp_path).train.images, strict=True))
    broken = {str(path.relative_to(tmp_path)) for path in break_three(tmp_path)}
    for _ in range(2):
        capsys.readouterr()
        dataset = Folder(8, corrupt="skip", test_fraction=0.25).load(tmp_path)
        assert "skipped 3 pictures" in capsys.readouterr().err
        listing = list_folder(tmp_path, 0.25)
        files = [file for file in listing.train.files if file not in broken]
        assert len(dataset.train) == len(files)
        assert len(dataset.train) + len(dataset.test) == 6
        for file, image, label in zip(files, dataset.train.images, dataset.train.labels, strict=True):
            assert file.startswith(dataset.classes[label])
            if file in before:
                np.testing.assert_array_equal(image, before[file])


def test_skipped_validation_pictures_do_not_move_the_split(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        fill(tmp_path / part)
    break_three(tmp_path / "val")
    dataset = load_dataset(Folder(8, corrupt="skip"), tmp_path)
    assert (len(dataset.train), len(dataset.validation or ()), len(dataset.test)) == (8, 6, 8)


@pytest.mark.parametrize("validation", [0.2, 3])
def test_where_a_folder_says_which_validate_only_default_and_none_are_taken(
    validation: Validation, tmp_path: Path
) -> None:
    for part in ("train", "val", "test"):
        fill(tmp_path / part)
    with pytest.raises(ConfigError, match=r"data\.validation: .* itself says which .* write default or none"):
        load_dataset(Folder(8), tmp_path, validation=validation)
    assert len(load_dataset(Folder(8), tmp_path, validation="none").train) == 16
    break_all(tmp_path / "val")
    with pytest.raises(DataError, match="none of the pictures to validate with can be read"):
        load_dataset(Folder(8, corrupt="skip"), tmp_path)


def test_a_number_to_validate_with_is_kept_and_leaves_each_class_some_to_train_on(tmp_path: Path) -> None:
    fill(tmp_path, 12, classes=("ant", "bee", "cow"))
    whole = load_dataset(Folder(8), tmp_path, validation="none")
    for count in (3, 7, len(whole.train) - 3):
        dataset = load_dataset(Folder(8), tmp_path, validation=count)
        assert len(dataset.validation or ()) == count
        assert set(dataset.train.labels) == {0, 1, 2}
        assert dataset.validation is not None
        assert set(dataset.validation.labels) == {0, 1, 2}
    with pytest.raises(ConfigError, match="leaves none on one side, or a class without any to train on"):
        load_dataset(Folder(8), tmp_path, validation=len(whole.train) - 2)


def test_too_few_pictures_to_validate_with_are_none(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    dataset = load_dataset(Folder(8), tmp_path)
    assert (len(dataset.train), dataset.validation, len(dataset.test)) == (2, None, 2)


def break_all(root: Path) -> None:
    for file in root.rglob("*.png"):
        file.write_text("<html>")


def test_a_source_loads_one_folder_like_any_other_whatever_it_loaded_before(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        fill(tmp_path / "parts" / part)
    fill(tmp_path / "whole")
    source = Folder(8)
    before = dict(vars(source))
    first, second = source.load(tmp_path / "parts"), source.load(tmp_path / "whole")
    assert first.held_out == len(first.train) // 2 > 1
    assert second.held_out == 2
    assert vars(source) == before


@pytest.mark.parametrize("change", ["touch", "add", "remove", "rename", "resize", "swap", "replace", "rewrite"])
def test_a_changed_folder_is_read_again(change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path)
    picture = tmp_path / "ant" / "00000.png"
    Image.fromarray(noise(8, 8, 3)).save(picture, "BMP")  # all of the same size
    other = tmp_path / "bee" / "00004.png"
    Image.fromarray(noise(8, 8, 3, seed=1)).save(other, "BMP")
    for path in (picture, other):  # as archives and rsync set one time for all
        os.utime(path, ns=(10**18, 10**18))
    first = Folder(8).load(tmp_path)
    if change in ("swap", "replace", "rewrite"):
        contents = picture.read_bytes(), other.read_bytes()
        if change == "swap":
            picture.rename(tmp_path / "spare")
            other.rename(picture)
            (tmp_path / "spare").rename(other)
        else:
            for path, content in ((picture, contents[1]), (other, contents[0])):
                if change == "replace":
                    path.unlink()
                path.write_bytes(content)
                os.utime(path, ns=(10**18, 10**18))
    elif change == "touch":
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture, "BMP")
        os.utime(picture, ns=(1, 1))
    elif change == "add":
        shutil.copy(picture, tmp_path / "ant" / "another.png")
    elif change == "remove":
        picture.unlink()
    elif change == "rename":
        picture.rename(tmp_path / "bee" / "00000.png")
    else:
        Image.fromarray(noise(9, 9, 3)).save(picture)
    capsys.readouterr()
    assert Folder(8).load(tmp_path).digest != first.digest
    assert "were added, removed or changed; reading all pictures again" in capsys.readouterr().err
    Folder(8).load(tmp_path)
    assert capsys.readouterr().err == ""


def test_options_have_caches_of_their_own(tmp_path: Path) -> None:
    one, other = fill(tmp_path / "one", size=16), fill(tmp_path / "other", classes=("cow", "dog"))
    options: list[dict[str, Any]] = [{}, {"resize": 12}, {"stretch": True}, {"test_fraction": 0.5}, {"seed": 1}]
    digests = {json.dumps(entry): Folder(8, **entry).load(one).digest for entry in options}
    assert len(list((one / ".cnnlite").glob("*.images"))) == 5
    for entry in options:
        assert Folder(8, **entry).load(one).digest == digests[json.dumps(entry)]
    for root in (one, other):
        Folder(8, cache=str(tmp_path / "caches")).load(root)
    assert len(list((tmp_path / "caches").glob("*.images"))) == 2
    assert not (other / ".cnnlite").exists()


def test_where_the_cache_cannot_be_written_another_place_is_named(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / ".cnnlite").write_text("a file, not a folder")
    with pytest.raises(StorageError, match=r"^[^\[]*\.cnnlite: cannot write: .*data\.dataset\.folder\.cache=DIR"):
        Folder(8).load(tmp_path)
    assert len(Folder(8, cache=str(tmp_path / "cache")).load(tmp_path).train) == 6


@pytest.mark.parametrize(
    "options",
    [{"size": 0}, {"size": 8, "resize": 7}, {"size": 8, "resize": 9, "stretch": True}, {"size": 8, "test_fraction": 1}],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(reversed(options)) if len(options) < 3 else "resize"):
        Folder(**options)


def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path: Path) -> None:
    fill(tmp_path, 2, size=2)
    for index in range(300):
        (tmp_path / "ant" / f"link{index}.png").symlink_to("00000.png")
    code = f"""
import resource, sys
from pathlib import Path
from cnnlite.data import Batches, Normalizer, load_dataset
from cnnlite.data.datasets.folder import Folder

def private():
    return sum(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024

dataset = load_dataset(Folder(2), Path({str(tmp_path)!r}), validation=0.1)  # loads Pillow
before = private()
dataset = load_dataset(Folder(320), Path({str(tmp_path)!r}), validation=0.1, center_crop=300)
size = dataset.train.images.nbytes / 2**20
normalizer = Normalizer.fit(dataset.train.images)
batches = Batches(dataset.train, 4, seed=0, transforms=[], normalizer=normalizer)
for step in range(10):
    batches.batch(step)
print(size, private() - before)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("there is no /proc to tell the memory")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    size, grown = map(float, done.stdout.split())
    assert size > 60
    assert grown < 40


def test_statistics_of_many_large_images_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise(300, 5, 4, 3)
    whole = Normalizer.fit(images, "per_pixel")
    monkeypatch.setattr("cnnlite.data.normalize._PIECE_BYTES", 60 * 70)
    parts = Normalizer.fit(images, "per_pixel")
    np.testing.assert_array_equal(parts.mean, whole.mean)
    np.testing.assert_array_equal(parts.std, whole.std)
