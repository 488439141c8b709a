"""Starting from a trained network: what is found, what fits, what is said of it, and what is refused."""

import dataclasses
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cnnlite.config.bundled import networks_folder
from cnnlite.config.load import Config, config_from_data, load_config
from cnnlite.data import Dataset
from cnnlite.errors import CheckpointError, CnnliteError, ConfigError, DamagedError
from cnnlite.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cnnlite.runs.pretrained import locate, read_source
from cnnlite.runs.restore import load_network
from cnnlite.runs.safetensors_file import file_of
from cnnlite.runs.warm_start import Start, read_start
from cnnlite.tools.predict import Model
from cnnlite.tools.weights import torch_state
from cnnlite.training.evaluation import evaluate_checkpoint
from cnnlite.utils.types import Array
from tests.support.small_runs import TINY


def config(source: Path | str, *, data: dict[str, Any] | None = None, model: Any = None, **train: Any) -> Config:
    plain = yaml.safe_load(TINY)
    plain["train"] |= {"from": str(source), **train}
    plain["data"] |= data or {}
    plain["model"] = model or plain["model"]
    return config_from_data(plain, "tiny")


def started(source: Path | str, dataset: Dataset, **changes: Any) -> Start:
    start = read_start(config(source, **changes), dataset)
    assert start is not None
    return start


def changed(checkpoint: Path, path: Path, arrays: dict[str, Array | None] | None = None, **meta: Any) -> Path:
    """A copy of a checkpoint with other arrays or facts."""
    loaded = load_checkpoint(checkpoint)
    mixed = {name: array for name, array in {**loaded.arrays, **(arrays or {})}.items() if array is not None}
    save_checkpoint(path, Checkpoint(mixed, {**loaded.meta, **meta}))
    return path


def two_classes() -> list[Any]:
    model: list[Any] = yaml.safe_load(TINY)["model"]
    return [*model[:-1], {"linear": {"out_features": 2}}]


def test_nothing_to_start_from_is_no_start(dataset: Dataset) -> None:
    assert read_start(config_from_data(yaml.safe_load(TINY)), dataset) is None


def test_all_arrays_of_the_same_network_are_taken_to_the_bit(checkpoint: Path, dataset: Dataset) -> None:
    start, arrays = started(checkpoint, dataset), load_checkpoint(checkpoint).arrays
    kept = {name for name in arrays if name.startswith(("param/", "buffer/", "normalize/"))}
    assert start.arrays.keys() == kept
    for name in kept:
        np.testing.assert_array_equal(start.arrays[name], arrays[name])
    assert {row.origin for row in start.rows} == {"taken"}
    assert start.facts()["taken"] == len(start.rows) == 8
    assert (start.facts()["fresh"], start.unused) == ([], [])


def test_a_run_stands_for_its_best_checkpoint(checkpoint: Path, dataset: Dataset) -> None:
    assert started(checkpoint.parents[1], dataset).source.path == checkpoint


def test_averages_are_taken_where_the_source_has_some(checkpoint: Path, tmp_path: Path, dataset: Dataset) -> None:
    average = np.full_like(load_checkpoint(checkpoint).arrays["param/0.bias"], 7)
    path = changed(checkpoint, tmp_path / "averaged.npz", {"average/param/0.bias": average})
    np.testing.assert_array_equal(started(path, dataset).arrays["param/0.bias"], average)


def test_another_number_of_classes_begins_with_a_fresh_last_layer(checkpoint: Path, dataset: Dataset) -> None:
    few = dataclasses.replace(dataset, classes=("round", "square"))
    start = started(checkpoint, few, model=two_classes())
    fresh = {row.name: row.origin for row in start.rows if row.origin != "taken"}
    assert fresh == {"6.weight": "fresh: is 150 x 10 there", "6.bias": "fresh: is 10 there"}
    assert "param/6.bias" not in start.arrays
    assert start.facts()["fresh"] == ["6.weight", "6.bias"]
    text = start.describe()
    assert "2 classes instead of 10: the last layer, 6, begins fresh" in text
    assert "not taken from there: 6.weight, 6.bias" in text
    assert text[0].startswith(f"6 of 8 arrays are from {checkpoint} (SHA-256 {start.source.sha256})")


def test_other_classes_of_the_same_number_are_remarked_upon(checkpoint: Path, dataset: Dataset) -> None:
    others = dataclasses.replace(dataset, classes=tuple("abcdefghij"))
    assert any(
        "the last layer, 6, is taken, though the classes" in line for line in started(checkpoint, others).describe()
    )
    assert not any("last layer" in line for line in started(checkpoint, dataset).describe())


def test_layers_that_are_new_or_gone_are_told_apart(checkpoint: Path, dataset: Dataset) -> None:
    model = yaml.safe_load(TINY)["model"]
    start = started(checkpoint, dataset, model=[*model[:3], "batch_norm", *model[4:]])
    origins = {row.name: row.origin for row in start.rows}
    assert origins["0.weight"] == "taken"
    assert origins["3.gamma"] == "fresh: not there"
    assert origins["6.weight"] == "fresh: is 150 x 10 there"


def test_the_digest_is_that_of_the_file(checkpoint: Path, dataset: Dataset) -> None:
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert started(checkpoint, dataset).facts()["sha256"] == digest


# Normalization


def test_images_are_normalized_as_for_the_source(checkpoint: Path, tmp_path: Path, dataset: Dataset) -> None:
    mean = np.array([1, 2, 3], np.float32)
    start = started(changed(checkpoint, tmp_path / "dark.npz", {"normalize/mean": mean}), dataset)
    np.testing.assert_array_equal(start.arrays["normalize/mean"], mean)
    assert start.describe()[-1] == "images are normalized as they were there: with its mean and deviation"


@pytest.mark.parametrize("mode", ["none", "per_pixel", {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}])
def test_a_config_that_normalizes_otherwise_is_obeyed_and_told(checkpoint: Path, dataset: Dataset, mode: Any) -> None:
    start = started(checkpoint, dataset, data={"normalize": mode})
    assert "normalize/mean" not in start.arrays
    here = f"images are normalized as data.normalize says, {json.dumps(mode)}"
    assert start.describe()[-1] == f'{here}, and were otherwise for the source: "per_channel"'


def test_statistics_of_images_of_another_size_are_not_taken(checkpoint: Path, tmp_path: Path, dataset: Dataset) -> None:
    arrays: dict[str, Any] = {f"normalize/{name}": np.ones((8, 8, 3), np.float32) for name in ("mean", "std")}
    facts = load_checkpoint(checkpoint).meta["config"]
    facts["data"]["normalize"] = "per_pixel"
    path = changed(checkpoint, tmp_path / "small.npz", arrays, config=facts)
    start = started(path, dataset, data={"normalize": "per_pixel"})
    assert "normalize/mean" not in start.arrays
    assert start.describe()[-1].endswith("the source's mean and deviation are of images of another shape")


# Files of safetensors


@pytest.fixture(scope="module")
def torch_file(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network of the checkpoint as PyTorch would name and save it."""
    pytest.importorskip("safetensors")
    path = tmp_path_factory.mktemp("torch") / "net.safetensors"
    path.write_bytes(file_of(torch_state(Model.load(checkpoint)), {}))
    return path


def saved(path: Path, arrays: dict[str, Array], metadata: dict[str, str] | None = None) -> Path:
    pytest.importorskip("safetensors")
    path.write_bytes(file_of(arrays, metadata or {}))
    return path


def test_a_file_of_safetensors_gives_the_arrays_that_it_was_made_of(
    checkpoint: Path, torch_file: Path, dataset: Dataset
) -> None:
    ours, theirs = started(checkpoint, dataset), started(torch_file, dataset)
    assert theirs.arrays.keys() == ours.arrays.keys() - {"normalize/mean", "normalize/std"}
    for name, array in theirs.arrays.items():
        np.testing.assert_array_equal(array, ours.arrays[name])
    assert theirs.describe()[-1].endswith("the file does not tell how they were normalized for it")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_and_counters_are_left_out(
    prefix: str, torch_file: Path, tmp_path: Path, dataset: Dataset
) -> None:
    arrays = {f"{prefix}{name}": array for name, array in read_source(torch_file).arrays.items()}
    arrays[f"{prefix}1.num_batches_tracked"] = np.zeros((), np.float32)
    start = started(saved(tmp_path / "wrapped.safetensors", arrays), dataset)
    assert (start.facts()["taken"], start.unused) == (8, [])


def renamed(torch_file: Path, path: Path) -> Path:
    names = {"0.": "stem.conv.", "1.": "stem.bn.", "6.": "fc."}
    arrays = read_source(torch_file).arrays
    return saved(path, {f"{names[name[:2]]}{name[2:]}": array for name, array in arrays.items()})


def test_a_list_of_renames_is_applied_in_order_with_groups(torch_file: Path, tmp_path: Path, dataset: Dataset) -> None:
    path = renamed(torch_file, tmp_path / "named.safetensors")
    pairs = [["^stem", "s"], [r"^s\.(conv|bn)\.", r"\1."], ["^conv", "0"], ["^bn", "1"], ["^fc", "6"]]
    assert started(path, dataset, rename=pairs).facts()["taken"] == 8
    some = started(path, dataset, rename=[["^fc", "6"]])
    assert (some.facts()["taken"], len(some.unused)) == (2, 6)
    assert some.unused == sorted(some.unused)


def test_renames_are_for_checkpoints_too(checkpoint: Path, dataset: Dataset) -> None:
    start = started(checkpoint, dataset, rename=[["^6", "9"]])
    assert start.facts()["fresh"] == ["6.weight", "6.bias"]


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([["^fc", "6"], ["nowhere", "7"]], r"train.rename\[1\]: 'nowhere' is found in no name of .*named.safetensors"),
        ([["^(stem.conv|stem.bn)", "0"]], r"train.rename: gives stem.\w+.bias and stem.\w+.bias the same name, 0.bias"),
    ],
)
def test_renames_that_do_not_fit_the_names_are_refused(
    pairs: Any, words: str, torch_file: Path, tmp_path: Path, dataset: Dataset
) -> None:
    path = renamed(torch_file, tmp_path / "named.safetensors")
    with pytest.raises(ConfigError, match=words):
        started(path, dataset, rename=pairs)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rename": [["[", "a"]]}, r"train.rename\[0\]: '\[' is not a regular expression"),
        ({"rename": [["a", r"\1"]]}, r"train.rename\[0\]: .*cannot take the place of 'a'"),
        ({"rename": [["a", r"\g<b>"]]}, r"train.rename\[0\]: .*cannot take the place of 'a'"),
        ({"rename": [["a"]]}, r"train.rename\[0\]: expected a list of 2"),
        ({"rename": [["a", "b"]], "from": None}, "train.rename: is for the names in train.from"),
        ({"freeze": "["}, r"train.freeze: '\[' is not a regular expression"),
        ({"freeze": "(?i)a"}, "train.freeze: .* flags such as"),
        ({"from": 3}, "train.from: expected text"),
    ],
)
def test_options_that_cannot_be_are_errors_of_the_config(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config("small", **changes)


# What is refused


def test_a_source_of_which_nothing_fits_is_refused(checkpoint: Path, dataset: Dataset) -> None:
    with pytest.raises(
        CheckpointError, match=r"no array in it fits the network: there are 0.weight, .*, here 1.weight"
    ):
        started(checkpoint, dataset, model=["flatten", {"linear": {"out_features": 10}}])


def test_statistics_alone_are_no_start(torch_file: Path, tmp_path: Path, dataset: Dataset) -> None:
    arrays = {name: a for name, a in read_source(torch_file).arrays.items() if "running" in name}
    with pytest.raises(CheckpointError, match="no array in it fits"):
        started(saved(tmp_path / "few.safetensors", arrays), dataset)


def strange(kind: str, folder: Path, checkpoint: Path) -> Path:
    path = folder / ("net.safetensors" if "safetensors" in kind else "net.npz")
    if "cut" in kind:
        whole = checkpoint.read_bytes() if path.suffix == ".npz" else file_of({"a": np.ones(9, np.float32)}, {})
        path.write_bytes(whole[: len(whole) // 2])
    elif "empty" in kind:
        path.touch()
    elif "folder" in kind:
        path.mkdir()
    elif "metadata" in kind:
        saved(path, {"0.weight": np.ones((2, 2), np.float32)}, {"cnnlite": {"metadata: not JSON": "{"}.get(kind, kind)})
    return path


@pytest.mark.parametrize(
    "kind",
    [
        *("missing npz", "cut npz", "empty npz", "folder npz"),
        *("missing safetensors", "cut safetensors", "empty safetensors", "folder safetensors"),
    ],
)
def test_a_missing_or_damaged_source_is_named_in_a_line(
    kind: str, tmp_path: Path, checkpoint: Path, dataset: Dataset
) -> None:
    if "safetensors" in kind:
        pytest.importorskip("safetensors")
    path = strange(kind, tmp_path, checkpoint)
    with pytest.raises(CnnliteError) as caught:
        started(path, dataset)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code in (2, 3)


@pytest.mark.parametrize(
    "facts",
    [
        *("{", "[]", "3", '"text"', '{"classes": 3}', '{"classes": [1]}', '{"classes": ["a\\u001b"]}'),
        *('{"normalize": 3}', '{"normalize": {"mean": [1]}}', '{"normalize": {"mean": [1], "std": [0]}}'),
        *('{"normalize": {"mean": ["x"], "std": [1]}}', '{"normalize": {"mean": [[1, 2], [3]], "std": [1]}}'),
        '{"normalize": {"mean": [NaN], "std": [1]}}',
    ],
)
def test_metadata_that_cnnlite_does_not_write_are_refused(facts: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors", {"0.weight": np.ones((2, 2), np.float32)}, {"cnnlite": facts})
    with pytest.raises(DamagedError, match=r"a\.safetensors"):
        read_source(path)


@pytest.mark.parametrize(
    "facts", [{"classes": 3}, {"classes": [3]}, {"config": 3}, {"config": {"data": 3}}, {"config": {}}]
)
def test_facts_of_a_checkpoint_that_are_wrong_are_refused_or_not_needed(
    facts: dict[str, Any], checkpoint: Path, tmp_path: Path, dataset: Dataset
) -> None:
    path = changed(checkpoint, tmp_path / "a.npz", **facts)
    if "classes" in facts:
        with pytest.raises(DamagedError, match="classes are not names"):
            read_source(path)
    else:
        assert started(path, dataset).facts()["taken"] == 8


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(ConfigError, match=r'pip install "cnnlite\[safetensors\]"'):
        read_source(tmp_path / "a.safetensors")


def test_a_name_of_nothing_suggests_runs(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/mine/checkpoints").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"no such run; did you mean 'runs/mine'\?"):
        started("mien", dataset)


# The networks that come with cnnlite

BUNDLED = sorted(networks_folder().glob("*.npz"))


def test_a_mistyped_bundled_network_is_answered_with_the_right_one() -> None:
    with pytest.raises(ConfigError, match=r"^smal: no such run or file, .* did you mean 'small'"):
        locate("smal")


def test_bundled_networks_are_small_and_those_that_the_page_names() -> None:
    page = (Path(__file__).parents[2] / "docs" / "fine-tuning.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([\w-]+)` \| .+ MB", page, re.MULTILINE)
    assert sorted(named) == [path.stem for path in BUNDLED] != []
    assert sum(path.stat().st_size for path in BUNDLED) < 2_000_000


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
def test_a_bundled_network_is_whole_and_holds_no_place_of_its_maker(path: Path) -> None:
    checkpoint, config, network, _, classes = load_network(path)
    assert config.data.root == "data"
    assert {name.partition("/")[0] for name in checkpoint.arrays} == {"param", "buffer", "normalize"}
    assert (config.name, len(classes)) == ("", 10)
    assert checkpoint.meta["name"] == path.stem
    today = load_config(path.stem)
    assert config.resolved["model"] == today.resolved["model"]
    assert network.size == sum(array.size for name, array in checkpoint.arrays.items() if name.startswith("param/"))


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
def test_a_bundled_network_is_as_good_as_the_page_says(path: Path, cifar10: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "fine-tuning.md").read_text(encoding="utf-8")
    found = re.search(rf"^\| `{path.stem}` .* ([\d.]+) % \|$", page, re.MULTILINE)
    assert found
    assert f"{100 * evaluate_checkpoint(path, root=str(cifar10))[0].accuracy:.1f}" == found[1]


def test_a_bundled_network_is_found_by_its_name_unless_something_else_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: Dataset
) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("small").name == "small.npz"
    start = started("small", dataset, model=load_config("small").resolved["model"], freeze="^0")
    assert start.facts()["taken"] == 17
    (tmp_path / "small" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ConfigError, match="small: is not a run directory"):
        locate("small")
    for strange in ("", ".", "..", "smal", "../configs/small", "small.npz"):
        with pytest.raises(CnnliteError):
            read_source(locate(strange))
