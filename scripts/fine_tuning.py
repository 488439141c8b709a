#!/usr/bin/env python3
"""Measure what a trained network is worth where there are 200 pictures of two classes, and write the table.

.venv/bin/python scripts/fine_tuning.py --data data    # CIFAR-10; about twenty minutes on two cores

`small.yaml` is trained on the pictures of eight classes of CIFAR-10, and then on 200 of the other two: from these
weights, with all but the last layer frozen, and from nothing. The learning rate of each way is the best of five for
one seed, judged by other training pictures of the two classes; then the test pictures are used, once for each of three
seeds.
"""

import json
import statistics
import subprocess
import sys
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
MARKS = ("<!-- fine-tuning -->", "<!-- end of fine-tuning -->")
PAIRS = (("cat", "dog"), ("ship", "truck"))
PICTURES, HELD = 100, 500
"""Pictures of each class to train on, and others to choose the learning rate by."""
RATES = (0.1, 0.03, 0.01, 0.003, 0.001)
SEEDS = (0, 1, 2)
RECIPE = "-o data.validation=none -o train.epochs=60 -o train.batch_size=20 -o model.13.linear.out_features=2"
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
        command = ["train", "-q", "-c", "small", "-o", "data.dataset=arrays", "--data", str(data), *words]
        subprocess.run([sys.executable, "-m", "cnnlite", *command, "--run-dir", str(run)], check=True)  # noqa: S603 - ours
    accuracy = json.loads(result.read_text(encoding="utf-8"))["test_accuracy"]
    return float(accuracy)


def save(path: Path, train: tuple[Array, Array], test: tuple[Array, Array], names: list[str]) -> None:
    """Save pictures and labels as `arrays` reads them."""
    (images, labels), (tests, answers) = train, test
    np.savez(path, x_train=images, y_train=labels, x_test=tests, y_test=answers, class_names=np.array(names))


def divide(dataset: Dataset, pair: tuple[str, str], folder: Path) -> None:
    """Write three files: eight classes; 200 pictures of the pair, with others to choose by; with the test pictures."""
    classes = list(dataset.classes)
    (images, labels), (tests, answers) = (
        (np.asarray(part.images), part.labels) for part in (dataset.train, dataset.test)
    )
    two = [classes.index(name) for name in pair]
    others = [index for index in range(len(classes)) if index not in two]

    def of(array: Array, given: Array, chosen: list[int], start: int, stop: int | None) -> tuple[Array, Array]:
        places = [np.flatnonzero(given == index)[start:stop] for index in chosen]
        known = np.repeat(np.arange(len(chosen)), [len(rows) for rows in places])
        return array[np.concatenate(places)], known

    names = [classes[index] for index in others]
    eight = of(images, labels, others, 0, None), of(tests, answers, others, 0, None)
    save(folder / "eight.npz", *eight, names)
    few = of(images, labels, two, 0, PICTURES)
    save(folder / "choose.npz", few, of(images, labels, two, PICTURES, PICTURES + HELD), list(pair))
    save(folder / "test.npz", few, of(tests, answers, two, 0, None), list(pair))


def measure(dataset: Dataset, pair: tuple[str, str], runs: Path) -> list[str]:
    """Return the rows of the table for two classes."""
    folder = runs / "-".join(pair)
    folder.mkdir(parents=True, exist_ok=True)
    divide(dataset, pair, folder)
    base = folder / "base"
    eight = "-o data.validation=none -o model.13.linear.out_features=8"
    train(base, folder / "eight.npz", eight)
    rows = []
    for number, (way, options) in enumerate(WAYS.items()):
        recipe = f"{RECIPE} -o train.optimizer.sgd.lr={{lr}} --seed {{seed}} {options}"
        found = {
            lr: train(folder / f"{number}-{lr}", folder / "choose.npz", recipe, lr=lr, seed=SEEDS[0], base=base)
            for lr in RATES
        }
        lr = max(found, key=lambda rate: found[rate])
        tested = [
            100 * train(folder / f"{number}-seed{seed}", folder / "test.npz", recipe, lr=lr, seed=seed, base=base)
            for seed in SEEDS
        ]
        each = ", ".join(f"{accuracy:.1f}" for accuracy in tested)
        mean = f"{statistics.mean(tested):.1f} % ± {statistics.stdev(tested):.1f}"
        rows.append(f"| {' and '.join(pair)} | {way} | {lr:g} | {mean} | {each} |")
    return rows


@click.command(help=__doc__)
@click.option("--data", default="data", help="The folder that holds CIFAR-10.")
@click.option(
    "--runs", type=click.Path(path_type=Path), default=Path("runs/fine-tuning"), help="The folder for the runs."
)
def main(data: str, runs: Path) -> None:
    """Train all, those left from an earlier call aside, and write the table into docs/fine-tuning.md."""
    dataset = load_data(load_config("small", ["data.validation=none"], data=data))
    rows = [row for pair in PAIRS for row in measure(dataset, pair, runs)]
    head = ["| classes | trained | lr | test accuracy | of each seed |", "|---|---|---|---|---|"]
    table = "\n".join([*head, *rows])
    print(table)
    write(PAGE, table, MARKS)


if __name__ == "__main__":
    main()
