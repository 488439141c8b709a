"""The preview of a step is what the network gets in that step of a training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from cnnlite.cli import cli
from cnnlite.config.load import Config, config_from_data
from cnnlite.data import Batches, Dataset
from cnnlite.errors import ConfigError
from cnnlite.nn.network import Network
from cnnlite.runs.directory import RunDirectory
from cnnlite.runs.restore import load_data
from cnnlite.tools.lettering import HEIGHT, caption
from cnnlite.tools.preview import Preview, preview
from cnnlite.training.loop import train
from cnnlite.training.reporter import Reporter
from cnnlite.utils.signals import StopFlag
from cnnlite.utils.types import Array
from tests.support.small_runs import TINY
from tests.utils.test_png import decoded

VARIANTS: dict[str, dict[str, Any]] = {
    "flipped and cropped": {},
    "mixup": {"mix": "mixup"},
    "cutmix, per pixel": {"mix": "cutmix", "normalize": "per_pixel"},
    "unnormalized": {"normalize": "none", "augment": ["trivial_augment_wide", {"random_erasing": {"probability": 1}}]},
    "colours": {"augment": [{"color_jitter": {"brightness": 0.5, "hue": 0.5}}, "random_rotation"], "drop_last": True},
}


def config_of(data: dict[str, Any] | None = None, **train: Any) -> Config:
    config = yaml.safe_load(TINY)
    config["data"] |= data or {}
    config["train"] |= train
    return config_from_data(config, "tiny")


def seen_by_network(config: Config, dataset: Dataset, folder: Path, patch: pytest.MonkeyPatch) -> list[Array]:
    """Train, and return the inputs of the network in each step."""
    seen: dict[int, list[Array]] = {}
    forward = Network.forward

    def watched(self: Network, x: Array, *, training: bool = False, step: int = 0, **rest: Any) -> Array:
        if training:
            seen.setdefault(step, []).append(x.copy())
        return forward(self, x, training=training, step=step, **rest)

    patch.setattr(Network, "forward", watched)
    run = RunDirectory.create_at(folder)
    train(config, run, dataset=dataset, reporter=Reporter(quiet=True), stop=StopFlag())
    run.close()
    assert list(seen) == list(range(len(seen)))
    return [np.concatenate(parts) for parts in seen.values()]


@pytest.mark.parametrize("variant", VARIANTS)
def test_images_are_those_that_the_network_gets_in_that_step(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(VARIANTS[variant], epochs=2)
    dataset = load_data(config)
    inputs = seen_by_network(config, dataset, tmp_path / "run", monkeypatch)
    raw = dataset.train.images.astype(np.float64)
    axes = (0,) if "pixel" in variant else (0, 1, 2)
    mean, std = (0.0, 255.0) if variant == "unnormalized" else (raw.mean(axis=axes), raw.std(axis=axes))
    for step in (0, 1, 6, len(inputs) - 1):
        found = preview(config, dataset, step, 1000)
        expected = inputs[step] * std + mean
        np.testing.assert_allclose(found.images, expected, atol=0.502)
        assert len(found.images) == found.batch_size == len(inputs[step])
        if "mix" not in VARIANTS[variant]:  # bytes went in, so bytes come out
            np.testing.assert_allclose(found.images, expected, atol=2e-3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_sources_and_labels_are_those_of_the_batch(variant: str) -> None:
    config = config_of({**VARIANTS[variant], "augment": [], "normalize": "none"})
    dataset = load_data(config)
    found = preview(config, dataset, 8, 1000)
    images, labels = dataset.train.images, dataset.train.labels
    assert found.sources.shape == (16, 2 if "mix" in VARIANTS[variant] else 1)
    for image, sources, shares in zip(found.images, found.sources, found.labels, strict=True):
        assert {dataset.classes[labels[index]] for index in sources} >= set(shares)
        assert sum(shares.values()) == pytest.approx(1)
        assert list(shares.values()) == sorted(shares.values(), reverse=True)
        own = shares.get(dataset.classes[labels[sources[0]]], 0.0)
        if variant == "mixup" and len(shares) == 2:
            first, second = images[sources].astype(float)
            np.testing.assert_allclose(image, own * first + (1 - own) * second, atol=0.51)
        elif "mix" not in VARIANTS[variant]:
            np.testing.assert_array_equal(image, images[sources[0]])
            assert own == 1


def test_part_of_a_batch_is_its_beginning_and_no_other_image_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of({"mix": "cutmix"})
    dataset = load_data(config)
    whole = preview(config, dataset, 3, 16)
    made = []
    batch = Batches.batch

    def watched(self: Batches, step: int, part: slice = slice(None)) -> tuple[Array, Array]:
        made.append(part)
        return batch(self, step, part)

    monkeypatch.setattr(Batches, "batch", watched)
    few = preview(config, dataset, 3, 5)
    assert made == [slice(5)]
    assert few.batch_size == whole.batch_size == 16
    np.testing.assert_array_equal(few.images, whole.images[:5])
    np.testing.assert_array_equal(few.sources, whole.sources[:5])
    assert few.labels == whole.labels[:5]


def test_steps_after_the_last_are_refused() -> None:
    config = config_of(epochs=2)
    dataset = load_data(config)
    assert preview(config, dataset, 13, 1).epoch == 2
    with pytest.raises(ConfigError, match="step='14': the training has the steps 0 to 13"):
        preview(config, dataset, 14, 1)


def tiles(sheet: Array, shape: tuple[int, ...], lines: int) -> list[Array]:
    """The pictures of a sheet, row by row, as small as they were."""
    factor = -(-96 // max(shape[:2]))
    height, width = factor * shape[0] + lines * HEIGHT + 6, factor * shape[1] + 6
    found = []
    for top in range(0, sheet.shape[0], height):
        for left in range(0, sheet.shape[1], width):
            cell = sheet[top : top + factor * shape[0], left : left + factor * shape[1]]
            if cell[..., 3].any():
                small = cell[::factor, ::factor, :3]
                np.testing.assert_array_equal(small.repeat(factor, axis=0).repeat(factor, axis=1), cell[..., :3])
                found.append(small)
    return found


@pytest.mark.parametrize("shape", [(32, 32, 3), (5, 7, 1), (130, 97, 3), (40, 20, 4)])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_sheet_shows_every_pixel(shape: tuple[int, ...], mixed: bool) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, *shape), np.uint8)
    labels = [{"cat": 1.0}, *[{"dog": 0.75, "cat": 0.25} if mixed else {"dog": 1.0}] * 6]
    sheet = Preview(0, 1, 9, images, np.zeros((7, 1), np.int64), labels).sheet()
    found = tiles(sheet, shape, 1 + mixed)
    assert len(found) == 7
    for ours, image in zip(found, images, strict=True):
        np.testing.assert_array_equal(ours, image[..., :3] if shape[-1] > 1 else image.repeat(3, axis=-1))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY, encoding="utf-8")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["preview", *arguments])


@pytest.mark.usefixtures("here")
def test_the_command_writes_the_sheet_and_says_which_images_these_are() -> None:
    done = run("tiny.yaml", "--step", "6", "--count", "3")
    assert done.exit_code == 0, done.output
    config = config_of()
    found = preview(config, load_data(config), 6, 3)
    sheet = decoded(Path("preview.png").read_bytes())
    np.testing.assert_array_equal(sheet, found.sheet())
    first, *lines, last = done.stdout.splitlines()
    assert first == "step 6, in epoch 1: 3 of its 10 images"
    expected = [
        f"{number:4}  training image {source}: {next(iter(label))}"
        for number, ([source], label) in enumerate(zip(found.sources.tolist(), found.labels, strict=True), 1)
    ]
    assert (lines, last) == (expected, "preview.png")
    assert {path.name for path in Path().iterdir()} == {"tiny.yaml", "preview.png"}


@pytest.mark.parametrize("mix", [None, "mixup"])
def test_pictures_are_named_by_their_files(mix: str | None, tmp_path: Path) -> None:
    pictures = pytest.importorskip("PIL.Image", reason="the extra `images` is not installed")
    from tests.support.folders import fill

    fill(tmp_path, 12)
    (tmp_path / "ant" / "00003.png").write_bytes(b"no picture")
    data = {"dataset": {"folder": {"size": 8, "corrupt": "skip"}}, "root": str(tmp_path), "validation": 3}
    data |= {"augment": [], "normalize": "none", "mix": mix}
    config = config_from_data(
        {**yaml.safe_load(TINY), "data": data, "model": ["flatten", {"linear": {"out_features": 2}}]}
    )
    found = preview(config, load_data(config), 0, 9)
    assert len(found.names) == 9
    for image, names, label in zip(found.images, found.names, found.labels, strict=True):
        files = [np.asarray(pictures.open(tmp_path / name), np.float64) for name in names]
        assert {Path(name).parent.name for name in names} >= set(label)
        share = label[Path(names[0]).parent.name] if len(label) == 2 else 1.0
        if mix is None or len(label) == 2:
            np.testing.assert_allclose(image, share * files[0] + (1 - share) * files[-1], atol=0.51)
        assert f"training image{'s' if mix else ''} {' and '.join(names)}: " in found.describe()
    assert [image["names"] for image in found.facts()["images"]] == found.names


@pytest.mark.usefixtures("here")
def test_mixed_labels_are_said_with_their_shares_and_json_has_all() -> None:
    arguments = ("-c", "tiny.yaml", "-o", "data.mix=mixup", "--count", "2", "--out", "mixed.png")
    facts = json.loads(run(*arguments, "--json").stdout)
    assert (facts["config"], facts["file"], facts["step"], facts["batch_size"]) == ("tiny.yaml", "mixed.png", 0, 16)
    lines = run(*arguments, "--force").stdout.splitlines()
    for line, image in zip(lines[1:], facts["images"], strict=False):
        one, other = image["sources"]
        shares = ", ".join(f"{share:.0%} {name}" for name, share in image["labels"].items())
        assert line.endswith(f"training images {one} and {other}: {shares}")


@pytest.mark.usefixtures("here")
def test_nothing_is_overwritten_unless_asked_for() -> None:
    Path("preview.png").write_text("mine")
    done = run("tiny.yaml")
    assert (done.exit_code, done.stderr.splitlines()) == (
        2,
        ["error: preview.png: exists already; name another place, or replace it with --force"],
    )
    assert Path("preview.png").read_text() == "mine"
    assert run("tiny.yaml", "--force").exit_code == 0
    assert Path("preview.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "Missing argument 'CONFIG'"),
        (["tiny.yaml", "-c", "tiny.yaml"], 2, "error: CONFIG is given twice: tiny.yaml and tiny.yaml"),
        (["tiny.yaml", "--step", "-1"], 2, "-1 is not in the range"),
        (["tiny.yaml", "--step", "21"], 2, "error: --step 21: the training has the steps 0 to 20"),
        (["tiny.yaml", "--count", "0"], 2, "0 is not in the range"),
        (["tiny.yaml", "--out", "a.jpg"], 2, "a.jpg should end in .png"),
        (["tiny.yaml", "--out", "no/a.png"], 5, "error: no/a.png: cannot write: No such file or directory"),
        (["tiny.yml"], 2, "error: tiny.yml: "),
        (
            ["tiny.yaml", "-o", "data.augment=[{color_jitter: {hue: 2.0}}]"],
            2,
            "data.augment[0].color_jitter.hue: hue 2.0 is not in [0, 0.5]",
        ),
        (
            ["tiny.yaml", "-o", "data.augment=[{random_crop: {padding: 40, mode: reflect}}]"],
            2,
            "data.augment[0]: cannot reflect 40 pixels of 32x32 images",
        ),
        (["tiny.yaml", "-o", "train.batch_size=9000"], 2, "train.batch_size: 9000 is not in 1..106"),
    ],
)
def test_what_cannot_be_shown_is_one_line_and_no_file(arguments: list[str], code: int, message: str) -> None:
    done = run(*arguments)
    assert done.exit_code == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("preview.png").exists()


@pytest.mark.usefixtures("here")
def test_every_command_of_a_config_takes_it_either_way() -> None:
    for command in ("validate", "summary"):
        bare, named = (
            CliRunner().invoke(cli, [command, *words]) for words in (["tiny.yaml"], ["--config", "tiny.yaml"])
        )
        assert bare.exit_code == named.exit_code == 0
        assert bare.output == named.output


def test_captions_leave_out_accents_and_mark_what_they_cannot_write() -> None:
    for text, expected in (("frösche", "frosche"), ("caf\u00e9", "cafe"), ("蛙", "?")):
        assert np.array_equal(caption(text, 60), caption(expected, 60)), text
    assert not np.array_equal(caption("frosche", 60), caption("fr?sche", 60))
