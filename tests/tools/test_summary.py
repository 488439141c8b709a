import json
import math
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cnnlite.cli import cli
from cnnlite.config.bundled import bundled_configs
from cnnlite.config.load import load_config
from cnnlite.runs.restore import check_model
from cnnlite.tools.summary import summarize

NESTED = """\
data: {dataset: cifar10}
model:
  - conv2d: {out_channels: 4, kernel_size: 3, padding: same}
  - residual: {body: [{conv2d: {out_channels: 4, kernel_size: 1}}, batch_norm]}
  - repeat: {times: 18, body: [{residual: {body: [batch_norm], shortcut: [tanh]}}]}
  - repeat: {times: 3, body: [{conv2d: {out_channels: 8, kernel_size: 1, bias: false}}]}
  - parallel: {branches: [[{conv2d: {out_channels: 2, kernel_size: 1}}], {max_pool2d: {kernel_size: 1}}]}
  - global_avg_pool2d
  - linear: {out_features: 10}
train: {epochs: 1, batch_size: 6, optimizer: {sgd: {lr: 0.1}}}
"""
TABLE = """\
nested.yaml: from 32 x 32 x 3 to 10

layer                   output        parameters  multiply-adds    memory
-------------------------------------------------------------------------
input                   32 x 32 x 3
0 conv2d                32 x 32 x 4          112        110,592   16.4 kB
1 residual              32 x 32 x 4           28         16,384   49.2 kB
  body                  32 x 32 x 4           28         16,384   32.8 kB
    0 conv2d            32 x 32 x 4           20         16,384   16.4 kB
    1 batch_norm        32 x 32 x 4            8                  16.4 kB
  shortcut (its input)  32 x 32 x 4
2 repeat                32 x 32 x 4          144                 884.7 kB
  0 to 17, each:        32 x 32 x 4            8                  49.2 kB
    0 residual          32 x 32 x 4            8                  49.2 kB
      body              32 x 32 x 4            8                  16.4 kB
        0 batch_norm    32 x 32 x 4            8                  16.4 kB
      shortcut          32 x 32 x 4                               16.4 kB
        0 tanh          32 x 32 x 4                               16.4 kB
3 repeat                32 x 32 x 8          160        163,840   98.3 kB
  0                     32 x 32 x 8           32         32,768   32.8 kB
    0 conv2d            32 x 32 x 8           32         32,768   32.8 kB
  1 to 2, each:         32 x 32 x 8           64         65,536   32.8 kB
    0 conv2d            32 x 32 x 8           64         65,536   32.8 kB
4 parallel              32 x 32 x 10          18         16,384   81.9 kB
  branch 0              32 x 32 x 2           18         16,384    8.2 kB
    0 conv2d            32 x 32 x 2           18         16,384    8.2 kB
  branch 1 max_pool2d   32 x 32 x 8                               32.8 kB
5 global_avg_pool2d     10                                           40 B
6 linear                10                   110            100      40 B
-------------------------------------------------------------------------
total                                        572        307,300    1.1 MB

parameters     572, 2.3 kB
multiply-adds  307,300 for an image; a training step has about three times as many
memory         1.1 MB of outputs for an image, 6.8 MB for a batch of 6
"""


@pytest.fixture(autouse=True)
def nested(here: Path) -> None:
    """A second config beside the small one."""
    (here / "nested.yaml").write_text(NESTED, encoding="utf-8")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["summary", *arguments])


def test_the_table_indents_what_is_nested_labels_branches_and_shows_repeats_once() -> None:
    result = run("nested.yaml")
    assert result.exit_code == 0, result.output
    assert result.stdout == TABLE


def test_json_has_the_totals_and_every_layer() -> None:
    facts = json.loads(run("tiny.yaml", "--json", "-o", "train.batch_size=9").stdout)
    assert facts["config"] == "tiny.yaml"
    assert (facts["in_shape"], facts["out_shape"], facts["batch_size"]) == ([32, 32, 3], [10], 9)
    assert [layer["name"] for layer in facts["layers"]] == list("0123456")
    for figure in ("parameters", "multiply_adds", "activation_bytes"):
        assert facts[figure] == sum(layer[figure] for layer in facts["layers"])
    assert facts["batch_activation_bytes"] == 9 * facts["activation_bytes"]
    # 15 x 15 x 6 after conv2d, twice more after batch_norm and relu; 5 x 5 x 6 pooled, dropped, flat; 10
    assert facts["activation_bytes"] == 4 * (3 * 15 * 15 * 6 + 3 * 5 * 5 * 6 + 10)


@pytest.mark.parametrize("name", bundled_configs())
def test_totals_of_bundled_configs_are_those_of_their_networks(name: str) -> None:
    config = load_config(name)
    network = check_model(config)
    assert network is not None
    found = summarize(config).model
    assert found.parameters == sum(math.prod(parameter.shape) for parameter in network.parameters.values())
    assert found.multiply_adds == sum(layer.multiply_adds for _, layer in network.model.walk())
    assert found.out_shape == (config.data.dataset.class_count,)


def test_a_model_that_is_one_layer_is_the_first_row_itself() -> None:
    model = "model={parallel: {branches: [[flatten, {linear: {out_features: 10}}]]}}"
    assert "\nparallel " in run("tiny.yaml", "-o", model).stdout
    assert json.loads(run("tiny.yaml", "-o", model, "--json").stdout)["layers"][0]["kind"] == "parallel"


def test_what_cannot_be_built_is_told_as_validate_tells_it() -> None:
    result = run("tiny.yaml", "-o", "model.6.linear.out_features=9")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "9 numbers" in result.stderr


def test_what_is_frozen_is_marked(tmp_path: Path) -> None:
    path = tmp_path / "nested.yaml"
    path.write_text(NESTED, encoding="utf-8")
    frozen = ["-o", r"train.freeze=^0\.|^1\.body\.0|bias"]
    shown = CliRunner().invoke(cli, ["summary", str(path), *frozen])
    assert shown.exit_code == 0, shown.output
    lines = [line.split("  32 x")[0].rstrip() for line in shown.output.splitlines()]
    for line in ("0 conv2d, frozen", "1 residual, partly frozen", "    0 conv2d, frozen", "    1 batch_norm"):
        assert line in lines
    assert re.search(r"^6 linear, partly frozen +10 ", shown.output, re.MULTILINE)
    assert "frozen         6 of" in shown.output
    facts = json.loads(CliRunner().invoke(cli, ["summary", str(path), *frozen, "--json"]).output)
    assert facts["frozen_parameters"] == 112 + 20 + 2 + 10
    assert {layer["name"]: layer["frozen_parameters"] for layer in facts["layers"]}["6"] == 10
