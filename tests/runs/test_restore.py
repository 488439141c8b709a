"""Networks and losses of configs; `test_hostile_checkpoints` and `test_evaluation` load those of checkpoints."""

from pathlib import Path

import numpy as np
import pytest

from cnnlite.config.load import load_config
from cnnlite.errors import ConfigError, DataError
from cnnlite.runs.restore import check_training, describe_model, fitted_loss, load_data
from tests.support.small_runs import TINY, tiny


def test_a_model_is_checked_before_any_data_is_read() -> None:
    text = describe_model(tiny())
    assert "parameters" in text
    assert "(32, 32, 3)" in text
    assert "(10,)" in text


def test_so_is_the_number_of_class_weights_with_the_place_where_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(TINY + "  loss: {focal: {class_weights: [1, 2, 3]}}\n", encoding="utf-8")
    line = len(file.read_text().splitlines())
    place = rf"a\.yaml:{line}: train\.loss\.focal\.class_weights: 3 weights for 10 classes$"
    with pytest.raises(ConfigError, match=place):
        check_training(load_config(file))
    check_training(load_config(file, ["train.loss={focal: {class_weights: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}}"]))


def test_balanced_weights_make_up_for_what_the_batches_show() -> None:
    logits, labels = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.2]]), np.array([0, 1])
    found = {}
    for sampling in ("shuffled", "balanced"):
        file = {
            **tiny().resolved,
            "train": tiny(loss={"cross_entropy": {"class_weights": "balanced"}}).resolved["train"],
        }
        config = load_config({**file, "data": {**file["data"], "sampling": sampling}})
        found[sampling] = fitted_loss(config, np.array([10, 90, 0])).loss_and_gradient(logits, labels)[0]
    plain = tiny().train.loss.loss_and_gradient(logits, labels)[0]
    assert found["balanced"] == pytest.approx(plain)
    assert found["shuffled"] > 1.5 * plain


@pytest.mark.parametrize(
    ("layers", "problem"),
    [
        ("[flatten, linear: {out_features: 3}]", r"\.yaml:3: model\[1\].*3.*2"),
        ("[conv2d: {out_channels: 2, kernel_size: 9}, flatten, linear: {out_features: 2}]", r"\.yaml:3: model\[0\].*9"),
    ],
)
@pytest.mark.parametrize("door", ["folder", "arrays"])
def test_a_network_that_does_not_fit_is_told_before_images_are_read(
    door: str, layers: str, problem: str, tmp_path: Path
) -> None:
    if door == "folder":
        fill = pytest.importorskip("tests.support.folders", reason="the extra `images` is not installed").fill
        fill(tmp_path / "own")
        (tmp_path / "own" / "ant" / "00003.png").write_bytes(b"no picture")
        source, root = "folder: {size: 8}", tmp_path / "own"
    else:
        values = np.random.default_rng(0).uniform(0, 1, (20, 8, 8, 3))
        values[3] = 2
        np.savez(tmp_path / "own.npz", x=values, y=np.arange(20) % 2)  # beyond the range, as reading would tell
        source, root = "arrays: {value_range: [0, 1]}", tmp_path / "own.npz"
    file = tmp_path / "mine.yaml"
    data = f"data: {{dataset: {{{source}}}, root: '{root.as_posix()}'}}"
    file.write_text(f"# mine\n{data}\nmodel: {layers}\ntrain: {{epochs: 1, optimizer: adam}}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=problem):
        load_data(load_config(file))
    assert not list(tmp_path.rglob("*.images"))
    file.write_text(f"{data}\nmodel: [flatten, linear: {{out_features: 2}}]\ntrain: {{epochs: 1, optimizer: adam}}\n")
    with pytest.raises(DataError, match="cannot be read"):
        load_data(load_config(file))
