#!/usr/bin/env python3
"""Compare convolutions of many shapes with PyTorch's: forward and both gradients, in turns on this machine.

Needs PyTorch, an idle machine and no data. Writes its figures between the marks in docs/benchmarks.md.
"""

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from parts.markdown import bullets, write
from parts.sides import Match, Side, SideError, match, names, serve, warn_if_busy

from cnnlite.nn.kernels import convolution
from cnnlite.nn.layers.base import Context
from cnnlite.nn.layers.convolution import Conv2d
from cnnlite.runs.environment import environment
from cnnlite.runtime import engine
from cnnlite.utils.types import Array

OUT = Path(__file__).parent.parent / "docs/benchmarks.md"
MARKS = ("<!-- shapes -->", "<!-- end of shapes -->")
VARIANTS = ("default", "channels_last")
TOLERANCE = 1e-4
"""Largest difference of outputs and gradients, relative to the largest value: float32 sums in another order."""
_PARITY_BATCH = 2


class Shape(NamedTuple):
    """A convolution of square images with square kernels."""

    size: int
    channels: int
    filters: int
    kernel: int
    stride: int
    padding: int
    groups: int = 1

    def __str__(self) -> str:
        kernel = f"{self.kernel}x{self.kernel}" + (f" by {self.stride}" if self.stride > 1 else "")
        groups = f" in {self.groups} groups" if self.groups > 1 else ""
        if self.groups == self.channels == self.filters:
            return f"{kernel} depthwise, {self.channels}, {self.size}x{self.size}"
        return f"{kernel}, {self.channels} to {self.filters}{groups}, {self.size}x{self.size}"

    def layer(self) -> Conv2d:
        """Return cnnlite's layer, with random weights."""
        layer = Conv2d(self.filters, self.kernel, self.stride, self.padding, groups=self.groups, bias=False)
        layer.build((self.size, self.size, self.channels), np.random.default_rng(0), np.dtype(np.float32))
        return layer


SHAPES = tuple(
    Shape(*numbers)
    for numbers in [
        (32, 3, 17, 5, 1, 2), (32, 17, 31, 5, 1, 2), (16, 33, 65, 5, 1, 2), (32, 32, 64, 3, 2, 1),
        (33, 13, 27, 3, 2, 1), (16, 64, 128, 3, 2, 1), (32, 16, 32, 1, 1, 0), (16, 64, 128, 1, 2, 0),
        (8, 256, 256, 1, 1, 0), (28, 1, 32, 7, 1, 3), (32, 3, 64, 7, 2, 3), (15, 50, 70, 3, 1, 0),
        (14, 96, 96, 7, 1, 3), (4, 512, 512, 3, 1, 1), (32, 8, 8, 3, 1, 1), (12, 37, 41, 4, 2, 1),
        (32, 64, 64, 3, 1, 1, 64), (16, 128, 128, 3, 2, 1, 128), (16, 96, 96, 5, 1, 2, 96), (8, 256, 256, 3, 1, 1, 256),
        (16, 96, 96, 7, 1, 3, 96), (16, 64, 64, 3, 1, 1, 4), (16, 128, 128, 3, 1, 1, 32),
    ]
)  # fmt: skip
"""Odd and even sizes and channels, kernels of 1 to 7 pixels, strides, many channels on few pixels; groups."""

Results = tuple[Array, Array, Array]


def ours(layer: Conv2d, x: Array, dy: Array) -> Results:
    """Return the output, the gradient of ``x`` and the gradient of the weights."""
    y, dx = layer.forward(x, Context(training=True)), layer.backward(dy)
    assert dx is not None  # noqa: S101 - for the type checker
    return y, dx, layer.grads["weight"]


class Theirs:
    """The same convolution in PyTorch, in one of `VARIANTS`."""

    def __init__(self, shape: Shape, layer: Conv2d, x: Array, dy: Array, variant: str):
        self.torch: Any = importlib.import_module("torch")  # not `import torch`: types are checked alike without it
        layout = self.torch.channels_last if variant == "channels_last" else self.torch.contiguous_format

        def tensor(array: Array, *axes: int) -> Any:
            return self.torch.from_numpy(array).permute(*axes).contiguous(memory_format=layout)

        self.shape = shape
        self.x, self.dy = tensor(x, 0, 3, 1, 2).requires_grad_(), tensor(dy, 0, 3, 1, 2)
        self.weight = tensor(layer.params["weight"], 3, 2, 0, 1).requires_grad_()

    def step(self) -> tuple[Any, Any, Any]:
        """Return output and gradients, as tensors."""
        options = {"stride": self.shape.stride, "padding": self.shape.padding, "groups": self.shape.groups}
        y = self.torch.nn.functional.conv2d(self.x, self.weight, **options)
        return y, *self.torch.autograd.grad(y, [self.x, self.weight], self.dy)

    def results(self) -> Results:
        """Return output and gradients, with axes as ours."""
        y, dx, dweight = (tensor.detach().numpy() for tensor in self.step())
        return y.transpose(0, 2, 3, 1), dx.transpose(0, 2, 3, 1), dweight.transpose(2, 3, 1, 0)


def batch_of(layer: Conv2d, batch_size: int) -> tuple[Array, Array]:
    """Return random images, and gradients of the output."""
    rng = np.random.default_rng(0)
    windows = layer.windows
    arrays = []
    for shape in ((*windows.size, windows.channels), (*windows.out, layer.out_channels)):
        array = engine.empty((batch_size, *shape), np.dtype(np.float32))
        array[...] = rng.standard_normal(array.shape, np.float32)
        arrays.append(array)
    return arrays[0], arrays[1]


def difference(shape: Shape, variant: str) -> float:
    """Return the largest difference between both sides on a small batch, relative to the largest value."""
    layer = shape.layer()
    x, dy = batch_of(layer, _PARITY_BATCH)
    pairs = zip(ours(layer, x, dy), Theirs(shape, layer, x, dy, variant).results(), strict=True)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def make_side(
    side: str, numbers: Sequence[int], batch_size: int, threads: int
) -> tuple[dict[str, Any], Callable[[], object]]:
    """Return facts about a side, and its step as a function."""
    engine.set_threads(threads)
    shape = Shape(*numbers)
    layer = shape.layer()
    x, dy = batch_of(layer, batch_size)
    if side == "cnnlite":
        return {"way": convolution.choose(layer.windows, shape.filters)}, lambda: ours(layer, x, dy)
    theirs = Theirs(shape, layer, x, dy, side)
    theirs.torch.set_num_threads(threads)
    found = difference(shape, side)
    if not found < TOLERANCE:
        raise ValueError(f"{shape}: the results differ by {found:.2g} of the largest")
    return {"version": theirs.torch.__version__}, theirs.step


def compare(
    shape: Shape, batch_size: int, *, threads: int, rounds: int, steps: int | None, variants: Sequence[str]
) -> Match:
    """Measure both sides in turns with one shape."""
    return match(lambda side: Side(__file__, [side, shape, batch_size, threads], threads), variants, rounds, steps)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", default="", help="Part of the shapes' names, such as `3x3`.")
@click.option("--variants", default=",".join(VARIANTS), callback=names, show_default=True, help="Variants of PyTorch.")
@click.option("--rounds", type=click.IntRange(1), default=4, show_default=True)
@click.option(
    "--steps", type=click.IntRange(1), help="Number of steps in a round.  [default: about two seconds of them]"
)
@click.option("--threads", type=click.IntRange(1), default=engine.available_cores(), show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=100, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=OUT)
def main(
    only: str, variants: list[str], rounds: int, steps: int | None, threads: int, batch_size: int, out: Path
) -> None:
    """Measure, print, and write to --out."""
    warn_if_busy()
    rows = []
    for shape in (shape for shape in SHAPES if only in str(shape)):
        try:
            found = compare(shape, batch_size, threads=threads, rounds=rounds, steps=steps, variants=variants)
        except SideError as error:
            raise click.ClickException(f"{shape}: {error}") from None
        ours, theirs = found.facts
        rows.append(f"| {shape} | {ours['way']} | {found.cells()} |")
        click.echo(rows[-1])
    if not rows:
        raise click.UsageError(f"no shape holds {only!r}")
    commit = (environment()["commit"] or "unknown")[:12]
    settings = f"Batch {batch_size}, {threads} threads on each side, {rounds} rounds; commit {commit}"
    about = bullets([f"{settings}, PyTorch {theirs['version']}."])
    head = [
        "| convolution | way | cnnlite ms | PyTorch ms | its layout | ratio | in rounds |",
        "|---|---|---|---|---|---|---|",
    ]
    write(out, "\n".join([*head, *rows, "", *about]), MARKS)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(lambda: make_side(*json.loads(sys.argv[2])))
    else:
        main()
