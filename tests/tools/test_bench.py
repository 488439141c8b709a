import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cnnlite.cli import cli
from cnnlite.config.load import load_config
from cnnlite.data.datasets.shapes import Shapes
from cnnlite.nn import network as networks
from cnnlite.nn.layers.base import Layer
from cnnlite.runtime import engine, machine
from cnnlite.tools import bench
from cnnlite.utils.types import Array

CONFIG = """\
data: {dataset: cifar10, center_crop: 8}
model:
  - conv2d: {out_channels: 4, kernel_size: 3, padding: 1}
  - batch_norm
  - relu
  - residual: {body: [{conv2d: {out_channels: 4, kernel_size: 3, padding: 1}}, batch_norm]}
  - relu
  - max_pool2d: {kernel_size: 2}
  - flatten
  - linear: {out_features: 10}
train: {epochs: 1, batch_size: 6, optimizer: {sgd: {lr: 0.1, momentum: 0.9}}}
"""
MULTIPLY_ADDS = 2 * (8 * 8 * 4 * 9 * 3) + 3 * (8 * 8 * 4 * 9 * 4) + 3 * (4 * 4 * 4 * 10)
"""Of a training step for one image: nobody needs the gradient for the input of the first convolution."""
KEYS = [
    "config",
    "batch_size",
    "step_ms_median",
    "step_ms_min",
    "images_per_second",
    "gflops",
    "gemm_peak_gflops",
    "peak_memory_bytes",
    "workers",
    "blas_kernel",
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without any data in it, and a quick measurement of the machine."""
    (tmp_path / "net.yaml").write_text(CONFIG, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(machine, "_PROBES", 1)
    monkeypatch.setattr(machine, "pinned", lambda: None)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["bench", *arguments])


def test_json_has_exactly_the_promised_keys_and_its_figures_fit_together() -> None:
    result = run("net.yaml", "--json", "--steps", "4", "--threads", "1")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert list(facts) == KEYS
    assert 0 < facts["step_ms_min"] <= facts["step_ms_median"]
    assert facts["images_per_second"] == pytest.approx(6 / facts["step_ms_median"] * 1e3)
    assert facts["gflops"] == pytest.approx(2 * MULTIPLY_ADDS * 6 / facts["step_ms_median"] / 1e6)
    assert facts["gemm_peak_gflops"] > 0.1
    assert (facts["config"], facts["batch_size"], facts["workers"]) == ("net.yaml", 6, 1)
    assert facts["blas_kernel"] == machine.blas_kernel()
    assert 10e6 < facts["peak_memory_bytes"] < 1e11


def test_the_text_has_the_same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    timing = bench.Timing(12.345, 11.5, 4860.2, 150.04, 200.0, 123_400_000, 2, "SkylakeX")
    text = bench.Report(60, timing, None, 0.0, 0.0).describe("net")
    words = ("60 random images", "12.35 ms", "11.50 ms", "4,860 images/s", "150.0", "75% of the 200.0", "123.4 MB")
    assert [word for word in words if word not in text] == []
    assert "workers 2, BLAS kernel SkylakeX" in text


def test_flags_and_overrides_choose_batch_threads_steps_and_network(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int, int]] = []
    seconds = bench.Step.seconds

    def noting(self: bench.Step, steps: int) -> list[float]:
        made.append((steps, len(self.x), self.network.parameters["0.weight"].value.shape[3]))
        return seconds(self, steps)

    monkeypatch.setattr(bench.Step, "seconds", noting)
    arguments = ["--batch-size", "3", "--threads", "2", "--steps", "5", "-o", "model.0.conv2d.out_channels=7"]
    result = run("net.yaml", *arguments, "-o", "model.3.residual.body.0.conv2d.out_channels=7")
    assert result.exit_code == 0, result.output
    assert made == [(bench.WARM_UP_STEPS, 3, 7), (5, 3, 7)]
    assert engine.threads() == 2
    assert "3 random images, workers 2" in result.stdout


def test_without_a_number_of_steps_there_are_at_least_ten_and_about_two_seconds_of_them() -> None:
    assert bench._enough_steps([9.0, 9.0, 0.1]) == 20
    assert bench._enough_steps([5.0]) == 10
    assert bench._enough_steps([1e-9]) == 2000


def test_bundled_names_work_without_any_data() -> None:
    assert run("seed-advanced", "--steps", "1").exit_code == 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux can forget a peak")
def test_the_memory_is_that_of_the_steps_not_of_what_came_before_and_after() -> None:
    code = """
import numpy as np
from cnnlite.config.load import load_config
from cnnlite.runtime import machine
from cnnlite.tools import bench

def wasteful(threads=None):
    waste.append(np.ones(300 * 2**20, np.uint8))
    return 1.0

waste, machine.gemm_peak = [], wasteful
np.ones(300 * 2**20, np.uint8)
before = machine.peak_memory_bytes()
found = bench.bench(load_config("net.yaml"), steps=2).timing.peak_memory_bytes
print(len(waste), found, before, machine.peak_memory_bytes())
"""  # in a process of its own: others hold memory
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    wasted, found, before, after = map(int, done.stdout.split())
    assert wasted == 1
    assert found < min(before, after) - 200 * 2**20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing"], "missing"),
        ([], "CONFIG"),
        (["net.yaml", "--batch-size", "0"], "batch-size"),
        (["net.yaml", "--steps", "0"], "steps"),
        (["net.yaml", "-o", "model.7.linear.out_features=9"], "10 classes"),
    ],
)
def test_errors_are_those_of_usage(arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


def test_a_dataset_whose_images_are_known_from_files_only_is_refused_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Shapes, "in_shape", None)
    result = run("net.yaml", "-o", "data.dataset=shapes")
    assert result.exit_code == 2
    assert "-o data.dataset=cifar10" in result.stderr


def test_a_pinned_kernel_is_a_warning_that_leaves_the_json_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "pinned", lambda: "pinned for this test")
    result = run("net.yaml", "--json", "--steps", "1")
    assert result.stderr == "warning: pinned for this test\n"
    assert list(json.loads(result.stdout)) == KEYS


def test_layers_that_another_does_the_work_of_are_named_with_it() -> None:
    facts = json.loads(run("net.yaml", "--json", "--steps", "3", "--layers").stdout)
    assert list(facts) == [*KEYS, "layers", "rest_ms", "rest_serial_ms"]
    assert facts["rest_ms"] > 0
    assert facts["rest_ms"] >= facts["rest_serial_ms"] >= 0
    rows = {row["name"]: row for row in facts["layers"]}
    assert {name: row["kind"] for name, row in rows.items()} == {
        "0": "conv2d",
        "1": "batch_norm + relu",
        "3": "residual + relu",
        "3.body.0": "conv2d",
        "3.body.1": "batch_norm",
        "5": "max_pool2d",
        "6": "flatten",
        "7": "linear",
    }
    for name, row in rows.items():
        assert row.keys() == {"name", "kind", "forward_ms", "backward_ms", "serial_ms"}
        assert 0 <= row["serial_ms"] <= row["forward_ms"] + row["backward_ms"]
        if name not in ("3", "6"):
            assert row["forward_ms"] > 0
            assert row["backward_ms"] > 0


def test_times_of_layers_are_their_own_and_sum_up_to_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    step = bench.prepare(load_config("net.yaml"))
    costs = {"0": 1.0, "1": 2.0, "3": 4.0, "3.body.0": 8.0, "3.body.1": 16.0, "5": 32.0, "6": 64.0, "7": 128.0}
    named = dict(step.network.model.walk())

    def slow(layer: Layer, way: str, cost: float) -> None:
        method = getattr(type(layer), way)

        def slower(*args: Any, **options: Any) -> Any:
            now[0] += cost / 1e3
            return method(layer, *args, **options)

        setattr(layer, way, slower)

    for name, cost in costs.items():
        slow(named[name], "forward", cost)
        slow(named[name], "backward", 3 * cost)
    update = step.optimizer.step
    monkeypatch.setattr(step.optimizer, "step", lambda *given: (now.__setitem__(0, now[0] + 0.5), update(*given)))
    rows, rest, rest_serial = bench.measure_layers(step, 4)
    assert {row.name: row.forward_ms for row in rows} == pytest.approx(costs)
    assert {row.name: row.backward_ms for row in rows} == pytest.approx({k: 3 * v for k, v in costs.items()})
    assert (rest, rest_serial) == pytest.approx((500, 500))
    assert {row.name: row.serial_ms for row in rows} == pytest.approx({k: 4 * v for k, v in costs.items()})
    table = bench._table(rows, rest, rest_serial / 2).splitlines()
    assert re.search(r"1 +batch_norm \+ relu +2\.000 +6\.000 +0\.5% +8\.000", table[2])
    assert re.search(r"all layers +255\.000 +765\.000 +67\.1% +1020\.000", table[-3])
    assert re.search(r"loss and update +500\.000 +32\.9% +250\.000", table[-2])
    assert re.search(r"the whole step +1270\.000", table[-1])


def test_serial_is_no_more_than_the_whole_however_times_of_the_machine_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "SHARD_WORK", 1)
    step = bench.prepare(load_config("net.yaml"), 8)
    slower = iter([1.0, 3.0])  # a neighbour came when the first worker alone was measured
    monkeypatch.setattr(bench, "_layer_ms", lambda *_: np.full((9, 2), next(slower)))
    rows, rest, rest_serial = bench.measure_layers(step, 4)
    assert [row.serial_ms for row in rows] == [row.forward_ms + row.backward_ms for row in rows]
    assert rest_serial == rest


@pytest.mark.parametrize("workers", [1, 3])
def test_serial_is_what_each_worker_spends_however_few_samples_it_has(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr(networks, "SHARD_WORK", 1)
    engine.set_workers(workers)
    step = bench.prepare(load_config("net.yaml"), 8)
    named = dict(step.network.model.walk())
    costs = {"0": (5.0, 0.25), "1": (0.0, 2.0), "5": (3.0, 0.0), "7": (0.0, 0.5)}

    def slow(layer: Layer, whole: float, sample: float) -> None:
        kind = type(layer)

        def slower(self: Layer, x: Array, context: Any) -> Array:
            now[0] += (whole + sample * len(x)) / 1e3
            return kind.forward(self, x, context)

        layer.__class__ = type("Slow", (kind,), {"forward": slower})

    for name, (whole, sample) in costs.items():
        slow(named[name], whole, sample)
    lengths = []
    update = step.optimizer.step

    def noted(*given: Any) -> None:
        lengths.append(engine.team().size)
        update(*given)

    monkeypatch.setattr(step.optimizer, "step", noted)
    before = {name: array.copy() for name, array in step.network.state().items()}
    step.settle()
    with step.step.working():
        rows, rest, rest_serial = bench.measure_layers(step, 4)
    expected = {row.name: costs.get(row.name, (0.0, 0.0))[0] for row in rows}
    assert {row.name: row.serial_ms for row in rows} == pytest.approx(expected, abs=1e-9)
    assert (rest, rest_serial) == (0, 0)
    assert {1, 8, workers} == {*lengths}
    assert engine.team().size == 1
    assert all(np.isfinite(array).all() for array in step.network.state().values())
    assert any((array != before[name]).any() for name, array in step.network.state().items())
    assert step.seconds(1) == [pytest.approx((5 + 0.25 * 8 + 2 * 8 + 3 + 0.5 * 8) / 1e3)]


def test_watching_leaves_no_trace_and_survives_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    step = bench.prepare(load_config("net.yaml"))
    monkeypatch.setattr(step.optimizer, "step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bench.measure_layers(step, 1)
    for _, layer in step.network.model.walk():
        assert not {"forward", "backward"} & vars(layer).keys()
