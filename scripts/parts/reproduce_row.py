"""Train a row of the table in docs/results.md again, with each of its seeds, and keep the figures in docs/results."""

import json
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from cnnlite.config.load import load_config, render

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"


@dataclass(frozen=True)
class Row:
    """A row of the table: a config, by name or path, options of `cnnlite train`, and seeds."""

    config: str
    flags: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)

    def command(self, seed: int) -> list[str]:
        """Return the command that the table shows, as a list of words."""
        return ["cnnlite", "train", "--config", self.config, *self.flags, "--seed", str(seed)]


ROWS = {
    "quickstart": Row("quickstart.yaml"),
    "seed-simple": Row("seed-simple.yaml"),
    "seed-advanced": Row("seed-advanced.yaml"),
    "small": Row("small.yaml"),
    "mobilenet": Row("mobilenet.yaml"),
    "mobilenet-short": Row("mobilenet.yaml", ("--epochs", "1.4")),
    "convnext": Row("convnext.yaml", seeds=(0,)),
    "10-minutes": Row("10-minutes.yaml"),
    "speedrun-94": Row("speedrun-94.yaml"),
    "resnet20-12-epochs": Row("resnet20.yaml", ("--epochs", "12", "-o", "train.schedule=one_cycle"), seeds=(0,)),
}


def reproduce(name: str, row: Row, *, runs: Path, results: Path, data: str | None = None) -> None:
    """Train with each seed, resuming earlier runs; collect the results and print them as a table row.

    Raises:
        subprocess.CalledProcessError: If a training fails.
    """
    for seed in row.seeds:
        run = runs / f"{name}-seed{seed}"
        command = [*row.command(seed), "--run-dir", str(run)]
        if (run / "checkpoints" / "last.npz").exists():
            command = ["cnnlite", "train", "--resume", str(run)]
        command += ["--data", data] if data else []
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", *command], check=True)  # noqa: S603 (commands from the table above)
        print(f"{name}, seed {seed}: {time.perf_counter() - started:.0f} s from start to end", flush=True)
        collect(run, results / run.name)
    print(table_row(name, row, results))


def collect(run: Path, target: Path) -> None:
    """Copy the metrics and the result of a run, and its config without this machine's data directory."""
    target.mkdir(parents=True, exist_ok=True)
    for file in ("metrics.csv", "result.json"):
        shutil.copyfile(run / file, target / file)
    config = load_config(run / "config.yaml", data="data")
    (target / "config.yaml").write_text(render(config), encoding="utf-8")


def table_row(name: str, row: Row, results: Path) -> str:
    """Return the collected results of a row as the table shows them: means and standard deviations over the seeds."""
    texts = [(results / f"{name}-seed{seed}" / "result.json").read_text(encoding="utf-8") for seed in row.seeds]
    found: list[dict[str, Any]] = [json.loads(text) for text in texts]
    seconds = sorted(result["train_seconds"] for result in found)
    accuracies = [_percent([result[f"{kind}_accuracy"] for result in found]) for kind in ("best_validation", "test")]
    cells = [f"`{row.config}`", f"{found[0]['steps']:,}", *accuracies, f"{seconds[0]:.0f} to {seconds[-1]:.0f} s"]
    return f"| {' | '.join(cells)} | `{shlex.join(row.command(row.seeds[0]))}` |"


def _percent(values: list[float | None]) -> str:
    known = [100 * value for value in values if value is not None]
    if not known:
        return "-"
    deviation = f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else ""
    return f"{statistics.mean(known):.1f} %{deviation}"


@click.command(help=__doc__)
@click.argument("name", metavar="[ROW]", type=click.Choice(list(ROWS)), required=False)
@click.option("--list", "listing", is_flag=True, help="Show the rows and their commands.")
@click.option("--data", metavar="DIR", help="Folder of the downloaded datasets.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), help="Folder for run directories.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, help="Folder to collect figures in.")
def main(name: str | None, listing: bool, data: str | None, runs: Path, results: Path) -> None:
    """Reproduce one row, or list them all."""
    if listing:
        for key, row in ROWS.items():
            seeds = ", ".join(map(str, row.seeds))
            click.echo(f"{key:23}{shlex.join(row.command(row.seeds[0]))}    (seeds {seeds})")
    elif name is None:
        raise click.UsageError("which row? --list shows them")
    else:
        try:
            reproduce(name, ROWS[name], runs=runs, results=results, data=data)
        except subprocess.CalledProcessError as error:
            sys.exit(error.returncode if error.returncode > 0 else 128 - error.returncode)


if __name__ == "__main__":
    main()
