"""Two configs as text, and ways to load them and to read the errors."""

from pathlib import Path
from typing import Any

import pytest

from cnnlite.config.load import (
    Config,
    load_config,
)
from cnnlite.errors import ConfigError

FULL = """\
seed: 3
data:
  dataset: shapes
  augment: [random_flip, {random_crop: {padding: 4}}]
model:
  - conv2d: {out_channels: 8, kernel_size: 3, padding: same}
  - batch_norm
  - relu
  - residual:
      body: [{conv2d: {out_channels: 8, kernel_size: [3, 3], padding: same}}, batch_norm]
  - parallel: {branches: [[relu], []], merge: sum}
  - flatten
  - linear: {out_features: 10}
train:
  epochs: 3
  batch_size: 16
  loss: {cross_entropy: {label_smoothing: 0.1}}
  optimizer: {sgd: {lr: 1e-1, momentum: 0.9, groups: [{match: bias, lr: 0.2}]}}
  schedule: {cosine: {warmup_epochs: 2}}
  validate_every: 500
"""

SHORT = """\
data: {dataset: shapes}
model: [flatten, {linear: {out_features: 10}}]
train: {epochs: 1, optimizer: {sgd: {lr: 0.1}}}
"""


def load(path: Path, text: str, *overrides: str, **flags: Any) -> Config:
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides, **flags)


def faults(path: Path, text: str, *overrides: str, **flags: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, text, *overrides, **flags)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(str(path), path.name).splitlines()
