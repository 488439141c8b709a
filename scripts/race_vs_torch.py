#!/usr/bin/env python3
"""Train a config here and in PyTorch, a step here and a step there: the seconds of both, from first step to test.

Both begin with the same weights, see the same batches, make the same updates and test with the same views. Needs
PyTorch, CIFAR-10 and a machine that does nothing else, for as long as both take together. Batches are made by cnnlite;
in PyTorch's seconds they do not count.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from parts import torch_twin
from parts.sides import warn_if_busy

from cnnlite.config.load import Config, load_config
from cnnlite.optim import SGD, Composite, Muon
from cnnlite.optim.base import Group, Optimizer
from cnnlite.optim.muon import QUINTIC
from cnnlite.runs.directory import RunDirectory
from cnnlite.runs.restore import load_data
from cnnlite.runtime import engine, machine
from cnnlite.training.evaluation import BATCH_SIZE, mean_logits
from cnnlite.training.loop import Training, prepared
from cnnlite.training.reporter import Reporter
from cnnlite.utils.signals import StopFlag
from cnnlite.utils.types import Array

torch = torch_twin.torch


class Rival:
    """The training in PyTorch.

    Raises:
        TypeError: If there is no twin for a layer, the loss or an optimizer.
    """

    def __init__(self, training: Training, variant: str):
        self.training = training
        self.last = "channels_last" in variant
        self.module = torch_twin.twin(training.network)
        if self.last:
            self.module = self.module.to(memory_format=torch.channels_last)
        tensors = {name.replace("bias", "beta"): value for name, value in self.module.named_parameters()}
        tensors |= dict(self.module.named_parameters())
        optimizer = training.optimizer
        members = optimizer.members if isinstance(optimizer, Composite) else [None]
        self.updates: list[tuple[Group, list[Any], Callable[[int], None]]] = []
        for member in members:
            rule = optimizer if member is None else member.optimizer
            for group in rule.bound:
                owned = [tensors[parameter.name] for parameter in group.parameters]
                rates = self._rates_of("" if member is None else member.match)
                self.updates.append((group, owned, _update(rule, group, owned, rates)))
        self.loss = torch_twin.criterion(training.loss)
        self.forward = torch.compile(self._loss_of) if "compiled" in variant else self._loss_of

    def _rates_of(self, match: str) -> Callable[[int], float]:
        """Return the learning rate of each step of a member of the optimizer."""
        return lambda step: self.training.optimizer.rates(step, self.training._factor(step))[match]

    def _loss_of(self, x: Any, labels: Any) -> Any:
        return self.loss(self.module(x), labels)

    def _tensor(self, x: Array) -> Any:
        return torch.from_numpy(x).permute(0, 3, 1, 2) if self.last else torch_twin.tensor(x)

    def step(self, step: int, x: Array, labels: Array) -> float:
        """Make a step, and return the loss before it."""
        active = self.training.optimizer.active(step)
        for group, tensors, _ in self.updates:
            for tensor in tensors:
                tensor.requires_grad_(group in active)
        self.module.zero_grad(set_to_none=True)
        loss = self.forward(self._tensor(x), torch.from_numpy(labels))
        loss.backward()
        for group, _, update in self.updates:
            if group in active:
                update(step)
        return float(loss.item())

    def test(self) -> float:
        """Return the accuracy on the test images, with the views of the config."""
        images, settings = self.training.dataset.test, self.training.config.train
        self.module.eval()
        right = 0
        for start in range(0, len(images), BATCH_SIZE):
            part = images.take(slice(start, start + BATCH_SIZE))
            views = settings.tta, settings.tta_below
            logits = mean_logits(_Forward(self), part.images, self.training.normalizer, *views)  # type: ignore[arg-type]
            right += int((logits.argmax(axis=1) == part.labels).sum())
        return right / len(images)


@dataclass
class _Forward:
    """What `mean_logits` asks of a network."""

    rival: Rival

    def forward(self, x: Array, *, training: bool) -> Array:
        with torch.no_grad():
            logits: Array = self.rival.module(self.rival._tensor(x)).numpy()
        return logits


def _update(rule: Optimizer, group: Group, tensors: list[Any], rate: Callable[[int], float]) -> Callable[[int], None]:
    """Return the update of a group by ``rule``, given the number of the step."""
    options = group.options
    if isinstance(rule, SGD):
        named = {name: options[name] for name in ("momentum", "nesterov", "weight_decay")}
        theirs = torch.optim.SGD(tensors, lr=options["lr"], fused=True, **named)

        def update(step: int) -> None:
            (only,) = theirs.param_groups
            only["lr"] = rate(step) * options["lr"] / rule.lr
            theirs.step()

        return update
    if isinstance(rule, Muon):
        if options["weight_decay"] or not (options["nesterov"] and options["normalize_weights"]):
            raise TypeError("there is a twin for muon with nesterov and normalize_weights, without weight_decay, only")
        moments = [torch.zeros_like(tensor) for tensor in tensors]
        return lambda step: _muon(tensors, moments, rate(step) * options["lr"] / rule.lr, options)
    raise TypeError(f"there are twins for sgd and muon only, not for {type(rule).__name__}")


def _muon(tensors: list[Any], moments: list[Any], lr: float, options: Any) -> None:
    """Make an update as `Muon` describes it, with Nesterov's momentum and normalized weights."""
    a, b, c = QUINTIC
    with torch.no_grad():
        for weight, moment in zip(tensors, moments, strict=True):
            moment.mul_(options["momentum"]).add_(weight.grad)
            direction = weight.grad.add(moment, alpha=options["momentum"]).reshape(len(weight), -1)
            weight.mul_(len(weight) ** 0.5 / weight.norm())
            direction = direction / (direction.norm() + options["eps"])
            if tall := direction.size(0) > direction.size(1):
                direction = direction.T
            for _ in range(options["iterations"]):
                gram = direction @ direction.T
                direction = torch.addmm(direction, torch.addmm(gram, gram, gram, beta=b, alpha=c), direction, beta=a)
            weight.add_((direction.T if tall else direction).reshape(weight.shape), alpha=-lr)


@dataclass
class Race:
    """Seconds, and what came of them, of cnnlite and of PyTorch."""

    steps: int
    seconds: list[float]
    """Of all steps together."""
    losses: list[list[float]]
    test_seconds: list[float]
    accuracies: list[float]

    def describe(self) -> Iterator[str]:
        """Yield lines for people."""
        for name, *figures in zip(
            ("cnnlite", "PyTorch"), self.seconds, self.test_seconds, self.accuracies, strict=True
        ):
            training, test, accuracy = figures
            yield f"{name}: {self.steps} steps in {training:,.0f} s, test in {test:,.0f} s, accuracy {accuracy:.2%}"
        ours, theirs = (training + test for training, test in zip(self.seconds, self.test_seconds, strict=True))
        yield f"PyTorch / cnnlite: {theirs / ours:.2f}"


def race(config: Config, data: str | None, variant: str, steps: int | None, workers: int) -> Race:
    """Train both, in turns."""
    dataset = load_data(config, data)
    engine.set_workers(None, workers)
    torch.set_num_threads(workers)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cnnlite-"))
        run = stack.enter_context(contextlib.closing(RunDirectory.create_at(Path(folder))))
        training = stack.enter_context(prepared(config, run, dataset, Reporter(quiet=True), StopFlag()))
        training.begin()
        training.step.hire(workers)  # before PyTorch has threads, which a fork would not take along
        rival = Rival(training, variant)
        total = min(steps or training.total_steps, training.total_steps)
        found = Race(total, [0.0, 0.0], [[], []], [], [])
        tests = [lambda: training.evaluation_of(dataset.test, config.train.tta).accuracy, rival.test]
        with np.errstate(all="ignore"), click.progressbar(range(total), label="steps") as numbers:
            for step in numbers:
                batch = training.batches.batch(step)
                moments = [time.perf_counter()]
                found.losses[0].append(training.step(step).loss)
                moments.append(time.perf_counter())
                found.losses[1].append(rival.step(step, *batch))
                moments.append(time.perf_counter())
                for which, seconds in enumerate(np.diff(moments)):
                    found.seconds[which] += float(seconds)
            for test in tests:
                began = time.perf_counter()
                found.accuracies.append(test())
                found.test_seconds.append(time.perf_counter() - began)
    return found


@click.command()
@click.option("--config", default="speedrun-94", show_default=True, help="Config, by name or file.")
@click.option("-o", "--override", multiple=True, metavar="KEY=VALUE", help="Override a config option; repeatable.")
@click.option("--data", help="Directory of the dataset.")
@click.option(
    "--variant",
    type=click.Choice(["default", "channels_last", "compiled", "compiled channels_last"]),
    default="compiled channels_last",
    show_default=True,
)
@click.option("--steps", type=click.IntRange(1), help="Number of steps.  [default: as in the config]")
@click.option("--workers", type=click.IntRange(1), default=engine.available_cores(), show_default=True)
def main(
    config: str, override: tuple[str, ...], data: str | None, variant: str, steps: int | None, workers: int
) -> None:
    """Train a config here and in PyTorch, in turns."""
    warn_if_busy()
    found = race(load_config(config, list(override)), data, variant, steps, workers)
    for line in found.describe():
        click.echo(line)
    peak = machine.unpinned_gemm_peak()
    click.echo(f"{workers} threads each; {'?' if peak is None else f'{peak:,.0f}'} GFLOP/s in float32 matrix products")


if __name__ == "__main__":
    main()
