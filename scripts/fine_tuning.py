#!/usr/bin/env python3
"""Measure what a trained network is worth where there are 200 pictures of two classes, and write a section about it.

.venv/bin/python scripts/fine_tuning.py --data data    # CIFAR-10; about five minutes on two cores

`small.yaml` is trained on the pictures of eight classes of CIFAR-10, and then on 200 of the other two: from these
weights, with all but the last layer frozen, and from nothing. The learning rate of each way is the best of four for
one seed, judged by other training pictures of the two classes; then the test pictures are used, once for each of three
seeds.
"""

import json
import statistics
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
from parts.markdown import write

from cnnlite.config.load import load_config
from cnnlite.data import Dataset
from cnnlite.runs.restore import load_data
from cnnlite.utils.types import Array

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "fine-tuning.md"
SECTION = """\
## What it gains

`small.yaml` on 200 pictures of cats and dogs, 100 of each, in three ways: from nothing; from weights that were trained
on the pictures of the other eight classes of CIFAR-10, for two epochs; and from these with all layers frozen but the
last. 300 steps of 20 pictures each, with the config's schedule; tested on the 2,000 test pictures of cats and dogs. The
learning rate of each way is the best of 0.1, 0.03, 0.01 and 0.003 for seed 0, judged by 500 other training pictures of
cats and dogs, before the test pictures were used. Seeds 0, 1 and 2; the 200 pictures and the weights are the same for
all. `.venv/bin/python scripts/fine_tuning.py --data data` does all of it, and writes this:

| trained | lr | test accuracy | of each seed |
|---|---|---|---|
"""
MARKS = ("<!-- fine-tuning -->", "<!-- end of fine-tuning -->")
PAIR = ("cat", "dog")
PICTURES, HELD = 100, 250
"""Pictures of each class to train on, and others to choose the learning rate by."""
RATES = (0.1, 0.03, 0.01, 0.003)
SEEDS = (0, 1, 2)
EIGHT = "-o data.validation=none -o model.13.linear.out_features=8 -o train.epochs=2"
TWO = "-o data.validation=none -o model.13.linear.out_features=2 -o train.epochs=30 -o train.batch_size=20"
WAYS = {
    "from nothing": "",
    "`--from`": "--from {base}",
    "`--from`, all but the last layer frozen": "--from {base} --freeze ^(?!13[.])",
}


def train(run: Path, data: Path, options: str, **values: object) -> float:
    """Train `small.yaml` on a file of arrays, unless that is done already; return the accuracy on its test pictures."""
    result = run / "result.json"
    if not result.exists():
        words = [word.format(**values) for word in options.split()]
        command = ["train", "-q", "--workers", "1", "-c", "small", "-o", "data.dataset=arrays", "--data", str(data)]
        command += [*words, "--run-dir", str(run)]
        if (run / "checkpoints" / "last.npz").exists():
            command = ["train", "-q", "--workers", "1", "--resume", str(run)]
        subprocess.run([sys.executable, "-m", "cnnlite", *command], check=True, stdout=sys.stderr)  # noqa: S603 - ours
    return float(json.loads(result.read_text(encoding="utf-8"))["test_accuracy"])


def save(path: Path, train: tuple[Array, Array], test: tuple[Array, Array], names: list[str]) -> None:
    """Save pictures and labels as `arrays` reads them."""
    (images, labels), (tests, answers) = train, test
    np.savez(path, x_train=images, y_train=labels, x_test=tests, y_test=answers, class_names=np.array(names))


def divide(dataset: Dataset, folder: Path) -> None:
    """Write the files: eight classes; 200 pictures of the pair, with others to choose by; with the test pictures."""
    classes = list(dataset.classes)
    two = [classes.index(name) for name in PAIR]
    others = [index for index in range(len(classes)) if index not in two]

    def of(test: bool, chosen: list[int], start: int = 0, stop: int | None = None) -> tuple[Array, Array]:
        part = dataset.test if test else dataset.train
        places = [np.flatnonzero(part.labels == index)[start:stop] for index in chosen]
        known = np.repeat(np.arange(len(chosen)), [len(rows) for rows in places])
        return np.asarray(part.images)[np.concatenate(places)], known

    few = of(False, two, 0, PICTURES)
    save(folder / "eight.npz", of(False, others), of(True, others), [classes[index] for index in others])
    save(folder / "choose.npz", few, of(False, two, PICTURES, PICTURES + HELD), list(PAIR))
    save(folder / "test.npz", few, of(True, two), list(PAIR))


def measure(folder: Path, jobs: int) -> list[str]:
    """Train all, so many at once; return the rows of the table."""
    with ThreadPoolExecutor(jobs) as pool:
        base = pool.submit(train, folder / "base", folder / "eight.npz", EIGHT)

        def start(way: str, lr: float, seed: int, file: str) -> "Future[float]":
            if WAYS[way]:
                base.result()
            run = folder / f"{list(WAYS).index(way)}-{file}-{lr:g}-{seed}"
            options = f"{TWO} {WAYS[way]} -o train.optimizer.sgd.lr={lr:g} --seed {seed}"
            return pool.submit(train, run, folder / f"{file}.npz", options, base=folder / "base")

        rows = []
        tried = {(way, lr): start(way, lr, SEEDS[0], "choose") for way in WAYS for lr in RATES}
        for way in WAYS:
            lr = max(RATES, key=lambda lr, way=way: tried[way, lr].result())  # type: ignore[misc]
            tested = [100 * future.result() for future in [start(way, lr, seed, "test") for seed in SEEDS]]
            mean = f"{statistics.mean(tested):.1f} % ± {statistics.stdev(tested):.1f}"
            rows.append(f"| {way} | {lr:g} | {mean} | {', '.join(f'{accuracy:.1f}' for accuracy in tested)} |")
        print(f"eight classes: {base.result():.1%}", {key: future.result() for key, future in tried.items()})
        return rows


@click.command(help=__doc__)
@click.option("--data", default="data", help="The folder that holds CIFAR-10.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/fine-tuning"), help="Folder for the runs.")
@click.option("--jobs", type=int, default=2, help="Trainings at once.")
def main(data: str, runs: Path, jobs: int) -> None:
    """Train all, but what an earlier call has trained, and write the section into docs/fine-tuning.md."""
    runs.mkdir(parents=True, exist_ok=True)
    divide(load_data(load_config("small", ["data.validation=none"], data=data)), runs)
    text = SECTION + "\n".join(measure(runs, jobs))
    print(text)
    write(PAGE, text, MARKS)


if __name__ == "__main__":
    main()
