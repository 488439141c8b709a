"""Snapshots over a training: of the network as it was, the same after any interruption, and never in its way."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cnnlite.cli import cli
from cnnlite.config.load import Config, config_from_data, render
from cnnlite.data import Dataset, Normalizer
from cnnlite.errors import CheckpointError, ConfigError
from cnnlite.nn.filters import first_filters
from cnnlite.nn.layers.base import Context
from cnnlite.nn.network import Network
from cnnlite.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cnnlite.training.film import Film, moments
from cnnlite.utils.signals import Stopped
from cnnlite.utils.types import Array
from tests.support.small_runs import assert_same_run, tiny
from tests.support.training_parts import KilledError, StopAt, resume, start


def snapshots(run: Path) -> dict[str, Array]:
    return load_checkpoint(run / "snapshots.npz").arrays


@pytest.fixture(scope="module")
def filmed() -> Config:
    return tiny(snapshots=6)


@pytest.fixture(scope="module")
def whole(filmed: Config, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "whole"
    start(filmed, path, dataset)
    return path


def test_moments_are_from_the_start_to_the_end_and_denser_at_the_start() -> None:
    assert moments(5, 1600) == [0, 100, 400, 900, 1600]
    assert moments(1, 50) == [50]
    assert moments(2, 50) == [0, 50]
    assert moments(100, 3) == [0, 1, 2, 3]


def test_snapshots_are_of_the_network_as_it_was(whole: Path, filmed: Config, dataset: Dataset) -> None:
    found = snapshots(whole)
    assert found["steps"].tolist() == moments(6, 21) == [0, 1, 3, 8, 13, 21]
    assert (found["filters"].shape, found["maps"].shape) == ((6, 6, 3, 3, 3), (6, 6, 5, 5))
    about = load_checkpoint(whole / "snapshots.npz").meta
    assert (about["of"], about["layer"], about["kind"]) == (
        *("validation image 0 of shapes", "1"),
        "batch_norm + relu + max_pool2d",
    )
    fresh = Network(filmed.model, (32, 32, 3), seed=filmed.seed)
    filters = first_filters(fresh)
    assert not isinstance(filters, str)
    np.testing.assert_array_equal(found["filters"][0], filters.weights)
    last = load_checkpoint(whole / "checkpoints" / "last.npz").arrays
    np.testing.assert_array_equal(found["filters"][-1], last["param/0.weight"].transpose(3, 0, 1, 2))
    fresh.load_state({name: array for name, array in last.items() if name.startswith(("param/", "buffer/"))})
    assert dataset.validation is not None
    np.testing.assert_array_equal(found["image"], dataset.validation.images[0])
    x = Normalizer.from_state(last)(dataset.validation.images[:1])
    expected = fresh.model.children["1"].forward(fresh.model.children["0"].forward(x, Context()), Context())
    np.testing.assert_allclose(found["maps"][-1], expected[0].transpose(2, 0, 1), rtol=1e-5)


def test_a_film_changes_no_bit_of_the_training(whole: Path, dataset: Dataset, tmp_path: Path) -> None:
    start(tiny(), tmp_path / "plain", dataset)
    assert not (tmp_path / "plain" / "snapshots.npz").exists()
    for kind in ("last", "best"):
        plain, filmed = (load_checkpoint(run / "checkpoints" / f"{kind}.npz") for run in (tmp_path / "plain", whole))
        assert plain.arrays.keys() == filmed.arrays.keys()
        assert all(np.array_equal(plain.arrays[name], filmed.arrays[name]) for name in plain.arrays)


def test_the_number_of_workers_changes_no_bit_of_a_film(whole: Path, filmed: Config, tmp_path: Path) -> None:
    (tmp_path / "filmed.yaml").write_text(render(filmed), encoding="utf-8")
    for workers in (1, 2):
        arguments = ["--config", tmp_path / "filmed.yaml", "--run-dir", tmp_path / str(workers), "--workers", workers]
        done = CliRunner().invoke(cli, ["train", *map(str, arguments), "--quiet"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        for name, array in snapshots(whole).items():
            np.testing.assert_array_equal(snapshots(tmp_path / str(workers))[name], array)


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
@pytest.mark.parametrize("moment", [2, 5, 9, 10, 14, 18, 22])
def test_an_interrupted_run_goes_on_with_its_film(
    moment: int, kill: bool, whole: Path, filmed: Config, dataset: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    with pytest.raises((KilledError, Stopped)):
        start(filmed, path, dataset, StopAt(moment, kill))
    if (path / "checkpoints" / "last.npz").exists():
        resume(filmed, path, dataset)
    else:
        path = tmp_path / "again"
        start(filmed, path, dataset)
    assert_same_run(whole, path)
    expected, found = snapshots(whole), snapshots(path)
    assert expected.keys() == found.keys()
    for name in expected:
        np.testing.assert_array_equal(expected[name], found[name], err_msg=name)


@pytest.mark.parametrize("damage", ["bytes", "foreign", "other shapes"])
def test_a_damaged_film_is_said_and_begins_again(
    damage: str, filmed: Config, dataset: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    with pytest.raises(Stopped):
        start(filmed, path, dataset, StopAt(12))
    file = path / "snapshots.npz"
    if damage == "bytes":
        file.write_bytes(file.read_bytes()[:-9])
    elif damage == "foreign":
        save_checkpoint(file, Checkpoint({"weights": np.zeros(3)}))
    else:
        arrays = {name: array[..., :1] for name, array in snapshots(path).items() if array.ndim > 3}
        save_checkpoint(file, Checkpoint({"steps": snapshots(path)["steps"], **arrays}))
    resume(filmed, path, dataset)
    assert "the film of the training begins at step" in capfd.readouterr().err
    assert snapshots(path)["steps"].tolist() == [13, 21]


def test_a_run_may_get_more_snapshots_when_it_goes_on(filmed: Config, dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(Stopped):
        start(tiny(), path, dataset, StopAt(12))
    resume(filmed, path, dataset)
    assert snapshots(path)["steps"].tolist() == [13, 21]


@pytest.mark.parametrize(
    ("count", "why"), [(0, "above 0"), (101, "at most 100"), (True, "expected"), ("many", "expected")]
)
def test_senseless_numbers_of_snapshots_are_refused(count: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=rf"train\.snapshots: .*{why}"):
        tiny(snapshots=count)


def film_of(count: int, network: Network) -> Film:
    """A film of a white image, as it is."""
    plain = Normalizer(np.zeros(3, np.float32), np.ones(3, np.float32))
    return Film(count, 10, network, np.full(network.in_shape, 255, np.uint8), plain, "a white image")


def network_of(model: list[Any], in_shape: tuple[int, ...] = (16, 16, 3)) -> Network:
    config = config_from_data(
        {"data": {"dataset": "shapes"}, "model": model, "train": {"epochs": 1, "optimizer": {"sgd": {"lr": 0.1}}}}
    )
    return Network(config.model, in_shape, seed=0)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (["flatten", {"linear": {"out_features": 40}}], {"filters": (1, 32, 16, 16, 3)}),
        (
            [{"conv2d": {"out_channels": 20, "kernel_size": 3}}, "relu"],
            {"filters": (1, 20, 3, 3, 3), "maps": (1, 8, 14, 14)},
        ),
        ([{"conv2d": {"out_channels": 4, "kernel_size": 1}}], {"filters": (1, 4, 1, 1, 3), "maps": (1, 4, 16, 16)}),
        (["global_avg_pool2d", {"linear": {"out_features": 2}}], {}),
    ],
)
def test_networks_of_all_kinds_have_what_there_is_to_see(model: list[Any], expected: dict[str, Any]) -> None:
    film = film_of(2, network_of(model))
    film.take(0)
    film.take(7)
    saved = film.checkpoint()
    shapes = {} if saved is None else {name: array.shape for name, array in saved.arrays.items() if array.ndim > 3}
    assert shapes == expected


def test_large_pictures_are_thinned() -> None:
    model = [{"conv2d": {"out_channels": 2, "kernel_size": 1}}, "relu"]
    film = film_of(1, network_of(model, (200, 150, 3)))
    film.take(10)
    saved = film.checkpoint()
    assert saved is not None
    assert (saved.arrays["maps"].shape, saved.arrays["image"].shape) == ((1, 2, 50, 38), (50, 38, 3))


def test_snapshots_of_another_network_are_refused() -> None:
    film = film_of(2, network_of(["relu"]))
    with pytest.raises(CheckpointError, match="not of this network"):
        film.resume(Checkpoint({"steps": np.arange(2), "maps": np.zeros((2, 1, 3, 3))}), 5)


def test_the_page_of_a_run_with_snapshots_has_them(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "show.html"
    done = CliRunner().invoke(cli, ["show", str(whole), "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert '"steps": [0, 1, 3, 8, 13, 21]' in out.read_text("utf-8")
    (whole.parent / "damaged").mkdir()
    copy = whole.parent / "damaged"
    (copy / "checkpoints").mkdir()
    (copy / "checkpoints" / "best.npz").write_bytes((whole / "checkpoints" / "best.npz").read_bytes())
    (copy / "snapshots.npz").write_bytes(b"PK")
    done = CliRunner().invoke(cli, ["show", str(copy), "--out", str(out), "--force"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "left out: the film of the training: " in done.stderr
    assert '"film": null' in out.read_text("utf-8")
