"""Long checks of what a run survives, and how often it was tried; the tests run them short.

Every part ends the process with an AssertionError where something is lost, let in, or not the same bits.
"""

import importlib.util
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click

from cnnlite.config.load import load_config
from cnnlite.data import Dataset
from cnnlite.errors import CheckpointError
from cnnlite.optim.base import gradient_norm
from cnnlite.runs.checkpoint import load_checkpoint
from cnnlite.runs.directory import RunDirectory
from cnnlite.runs.restore import load_data
from cnnlite.tools import bench
from cnnlite.tools.verify_resume import differences
from cnnlite.training.loop import train
from cnnlite.training.reporter import Reporter
from cnnlite.utils.signals import StopFlag
from tests.support.faults import Faults, dying
from tests.support.small_runs import TINY, tiny

COMMAND = [sys.executable, "-W", "error", "-m", "cnnlite", "train", "--quiet", "--threads", "1"]
TARGETS = ("pickles", "checkpoints", "facts", "archives", "batches", "configs")
FREQUENT = ["-o", "train.validate_every=3", "-o", "train.checkpoint_every=1"]


def kill_at_random(folder: Path, kills: int, epochs: int, seed: int) -> str:
    """Kill a run that saves after every step at random moments, resume it each time, and compare its end."""
    chance = random.Random(seed)
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    new = [*COMMAND, "-c", "tiny.yaml", *FREQUENT, "--epochs", str(epochs)]
    began = time.monotonic()
    subprocess.run([*new, "--run-dir", "whole"], cwd=folder, capture_output=True, check=True)
    longest = time.monotonic() - began
    done = halfway = before_any = runs = 0
    run = folder / "killed-0"
    while done < kills or not runs or run.exists():
        resume = any(run.glob("checkpoints/[!.]*.npz"))
        command = [*COMMAND, "--resume", run.name] if resume else [*new, "--run-dir", run.name]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        start = time.monotonic()
        try:
            # Starting takes a large part of this; a kill there is one at a random moment too.
            _, err = process.communicate(timeout=chance.uniform(0, longest / 2) if done < kills else None)
        except subprocess.TimeoutExpired:
            process.kill()
            _, err = process.communicate()
        assert not err or "this run is complete" in err, err  # killed on its way out, all done
        if process.returncode == 0:
            found = differences(folder / "whole", run)
            assert not found, found
            runs += 1
            if not resume:  # the machine has less to do than it had
                longest = min(longest, time.monotonic() - start)
            run = folder / f"killed-{runs}"
            continue
        assert process.returncode == -signal.SIGKILL, process.returncode
        done += 1
        halfway += any(run.rglob(".*.tmp"))
        whole = [load_checkpoint(path) for path in run.glob("checkpoints/[!.]*.npz")]
        before_any += not whole
        if not whole and run.exists():  # as a user would: nothing to resume, start again
            subprocess.run(["rm", "-r", str(run)], check=True)
    return (
        f"{done} SIGKILLs at random moments of {runs} runs that save after every step, {halfway} of them in the middle "
        f"of a save, {before_any} before the first: every checkpoint left was whole, every run ended with the same bits"
    )


def die_at_calls(folder: Path, every: int) -> str:
    """End a process at each call that writes, of a whole run, resume, and compare."""
    config, dataset = tiny(epochs=1, checkpoint_every=2), load_data(tiny())

    def sitting(path: Path, faults: Faults | None) -> None:
        resumed = path.exists() and any(path.glob("checkpoints/[!.]*.npz"))
        run = RunDirectory.open(path) if resumed else RunDirectory.create_at(path)
        checkpoint = run.newest_checkpoint()[0] if resumed else None
        if faults is None:
            train(config, run, dataset=dataset, reporter=Reporter(quiet=True), stop=StopFlag(), resume=checkpoint)
        else:
            with faults.watching():
                train(config, run, dataset=dataset, reporter=Reporter(quiet=True), stop=StopFlag())
        run.close()

    counting = Faults(0, dying)
    sitting(folder / "counted", counting)
    tried = 0
    for at in range(1, len(counting.calls) + 1, every):
        path = folder / str(at)
        assert _status_of(lambda path=path, at=at: sitting(path, Faults(at, dying))) == signal.SIGKILL  # type: ignore[misc]
        if not any(path.glob("checkpoints/[!.]*.npz")):
            path = folder / f"{at}-again"
        sitting(path, None)
        found = differences(folder / "counted", path)
        assert not found, (at, counting.calls[at - 1], found)
        tried += 1
    return (
        f"a run killed at {tried} of the {len(counting.calls)} system calls by which it writes, and resumed: same bits"
    )


def _status_of(task: Callable[[], None]) -> int:
    """The signal or exit status that a child ends with."""
    child = os.fork()
    if child == 0:
        try:
            task()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def damage(folder: Path, every: int) -> str:
    """Flip each bit of the checkpoint of a small run, and cut it short everywhere; no change may go unnoticed."""
    path = folder / "damaged.npz"
    run = RunDirectory.create_at(folder / "run")
    train(tiny(epochs=1), run, dataset=load_data(tiny()), reporter=Reporter(quiet=True), stop=StopFlag())
    run.close()
    content = run.checkpoint_path("last").read_bytes()
    path.write_bytes(content)
    load_checkpoint(path)
    flips = cuts = 0
    with open(path, "r+b", buffering=0) as file:
        for bit in range(0, 8 * len(content), every):
            place, byte = bit // 8, content[bit // 8]
            os.pwrite(file.fileno(), bytes([byte ^ 1 << bit % 8]), place)
            flips += _refused(path)
            os.pwrite(file.fileno(), bytes([byte]), place)
        load_checkpoint(path)
        for size in range(len(content) - 1, -1, -every):
            file.truncate(size)
            cuts += _refused(path)
    return (
        f"{flips:,} single bits flipped and {cuts:,} truncations of a checkpoint of {len(content):,} bytes: all refused"
    )


def _refused(path: Path) -> bool:
    try:
        load_checkpoint(path)
    except CheckpointError:
        return True
    raise AssertionError(f"{path}: a damaged file was read")


def price_of_looking(name: str, steps: int) -> str:
    """Time the search for NaN and infinity, loss and gradient norm, against whole training steps of a config."""
    step = bench.prepare(load_config(name))
    for _ in range(3):
        step()
    looking, whole = [], []
    for _ in range(steps):
        began = time.perf_counter()
        step()
        between = time.perf_counter()
        math.isfinite(gradient_norm(step.optimizer.bound))
        looking.append(time.perf_counter() - between)
        whole.append(between - began)
    cost, total = statistics.median(looking), statistics.median(whole)
    return f"{name}: looking for NaN takes {1e6 * cost:.0f} us of a step's {1e3 * total:.1f} ms, {cost / total:.2%}"


def fuzz(folder: Path, target: str, seconds: int) -> str:
    """Let scripts/fuzz.py look for inputs of a reader that are neither read nor refused."""
    if importlib.util.find_spec("atheris") is None:
        return f"fuzzing {target}: skipped, as atheris is not installed (pip install atheris)"
    script = Path(__file__).resolve().parents[2] / "scripts" / "fuzz.py"
    options = [f"-max_total_time={seconds}", "-timeout=60", "-rss_limit_mb=1024"]
    command = [sys.executable, str(script), target, *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stderr[-3000:]
    end = next(line for line in done.stderr.splitlines() if "DONE" in line)
    return f"fuzzing {target}: {' '.join(end.split())}"


class Sampling(StopFlag):
    """Notes memory and open files each time the loop asks whether it should stop."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: list[int] = []
        self.files: list[int] = []

    def check(self) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.bytes.append(pages * os.sysconf("SC_PAGE_SIZE"))
        self.files.append(len(os.listdir("/proc/self/fd")))


def stay_flat(folder: Path, steps: int, dataset: Dataset | None = None) -> str:
    """Train with a validation every fifth step; memory and open files must not grow after the first fifth."""
    config = tiny(epochs=None, iterations=steps, validate_every=5, checkpoint_every=10)
    run, samples = RunDirectory.create_at(folder / "long"), Sampling()
    train(config, run, dataset=dataset or load_data(config), reporter=Reporter(quiet=True), stop=samples)
    run.close()
    start = len(samples.bytes) // 5
    early, late = max(samples.bytes[: start + 1]), max(samples.bytes[-start:])
    grown = (late - early) / 2**20
    files = {*samples.files[start:]}
    assert grown < 4, f"memory grew by {grown:.1f} MiB, from {early:,} bytes"
    assert max(files) - min(files) == 0, f"open files: {sorted(files)}"
    return (
        f"{steps:,} steps, {steps // 5} validations: {late / 2**20:.0f} MiB, {grown:+.2f} MiB after the first fifth; "
        f"always {max(files)} open files"
    )


@click.command()
@click.option("--kills", default=200, help="SIGKILLs at random moments; 0 to leave them out.")
@click.option("--epochs", default=60, help="Length of the runs that are killed so.")
@click.option("--calls", default=1, help="Kill a run at every so manieth call that writes; 0 to leave it out.")
@click.option("--bits", default=1, help="Flip every so manieth bit; 0 to leave it out.")
@click.option("--steps", default=2000, help="Steps to watch the memory of; 0 to leave it out.")
@click.option("--looks", default=100, help="Steps to time the search for NaN in; 0 to leave it out.")
@click.option("--fuzzing", default=300, help="Seconds to fuzz each reader, if atheris is installed; 0 to leave it out.")
@click.option("--seed", default=0, help="Of the moments of the kills.")
def soak(kills: int, epochs: int, calls: int, bits: int, steps: int, looks: int, fuzzing: int, seed: int) -> None:
    """Try what docs/reliability.md promises, at length."""
    parts: list[tuple[int, Callable[[Path], str]]] = [
        (steps, lambda folder: stay_flat(folder, steps)),
        (looks, lambda _: price_of_looking("seed-advanced.yaml", looks)),
        (looks, lambda _: price_of_looking("small.yaml", looks)),
        (bits, lambda folder: damage(folder, bits)),
        *((fuzzing, lambda folder, target=target: fuzz(folder, target, fuzzing)) for target in TARGETS),
        (calls, lambda folder: die_at_calls(folder, calls)),
        (kills, lambda folder: kill_at_random(folder, kills, epochs, seed)),
    ]
    for wanted, part in parts:
        if wanted:
            began = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="cnnlite-") as folder:
                click.echo(f"{part(Path(folder))}  ({time.monotonic() - began:.0f} s)")


if __name__ == "__main__":
    soak()
