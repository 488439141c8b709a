#!/usr/bin/env python3
"""Put trained networks into networks/, which come with cnnlite: the best checkpoint of a run, without what trains it.

.venv/bin/python scripts/zoo.py runs/small runs/seed-advanced

Optimizer, averages and hashes of pictures are left out, and the folder that the pictures were in.
"""

from pathlib import Path

import click

from cnnlite.config.bundled import networks_folder
from cnnlite.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cnnlite.runs.locate import checkpoint_of
from cnnlite.runs.restore import averaged_state_of

KEPT = (
    "config",
    "classes",
    "class_counts",
    "in_shape",
    "seed",
    "name",
    "step",
    "epoch",
    "dataset",
    "validation",
    "versions",
)
"""Facts that evaluating the network takes, and those that say where it is from."""


def bare(checkpoint: Checkpoint) -> Checkpoint:
    """Return the network of a checkpoint as it is evaluated, with its normalization, and nothing else."""
    statistics = {f"normalize/{name}": array for name, array in checkpoint.part("normalize").items()}
    facts = {name: checkpoint.meta[name] for name in KEPT if name in checkpoint.meta}
    facts["config"]["data"]["root"] = "data"
    return Checkpoint({**averaged_state_of(checkpoint), **statistics}, facts)


@click.command(help=__doc__)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), default=networks_folder(), help="The folder to write into.")
def main(runs: tuple[Path, ...], out: Path) -> None:
    """Write a file for each run, named after its config."""
    out.mkdir(exist_ok=True)
    for run in runs:
        checkpoint = bare(load_checkpoint(checkpoint_of(run)))
        path = out / f"{checkpoint.meta['name']}.npz"
        save_checkpoint(path, checkpoint)
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
