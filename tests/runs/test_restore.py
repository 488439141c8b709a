"""Networks and losses of configs; `test_hostile_checkpoints` and `test_evaluation` load those of checkpoints."""

from pathlib import Path

import numpy as np
import pytest

from cnnlite.config.load import load_config
from cnnlite.errors import ConfigError
from cnnlite.runs.restore import check_training, describe_model, fitted_loss
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
