"""Launches training: from a request to a new or resumed run with config, data and run directory."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnlite.config.load import Config, flatten, load_config, render, settled
from cnnlite.config.plugins import load, loaded
from cnnlite.data import Dataset, DatasetMissing, class_table
from cnnlite.errors import CheckpointError, ConfigError, DataError, LostRunError, Problem, StorageError, require
from cnnlite.runs.checkpoint import Checkpoint, CheckpointFile, load_checkpoint
from cnnlite.runs.directory import RunDirectory, RunElsewhere
from cnnlite.runs.environment import versions, with_session
from cnnlite.runs.restore import check_run, check_training, load_data
from cnnlite.runs.results import Progress, Result, read_object, read_result
from cnnlite.runs.warm_start import check_start, read_start
from cnnlite.runtime import distributed, machine
from cnnlite.training.budget import measure, plan
from cnnlite.training.loop import train
from cnnlite.training.plugins import check_gradients, describe_plugins, keep_plugins
from cnnlite.training.reporter import Reporter
from cnnlite.training.resume import PLACES, check_same, check_version
from cnnlite.training.tensorboard import TensorBoard
from cnnlite.utils.files import is_missing
from cnnlite.utils.hints import Argument, Override, Train
from cnnlite.utils.printable import has_codes
from cnnlite.utils.signals import StopFlag, Stopped


@dataclass(frozen=True)
class Request:
    """Arguments of a training, from the command line or a program."""

    config: str | Mapping[str, Any] | None = None
    """A file, the name of a bundled config, or plain data."""
    overrides: Sequence[str] = ()
    run_dir: Path | None = None
    resume: Path | None = None
    """A run directory, or one of the checkpoints in it."""
    seed: int | None = None
    data: str | None = None
    from_: str | None = None
    """A trained network to start from, in place of the config's ``train.from``."""
    freeze: str | None = None
    """A regular expression for the names of parameters that are not trained, in place of ``train.freeze``."""
    epochs: float | None = None
    budget: float | None = None
    """Seconds for the whole training, in place of a number of epochs."""
    tensorboard: bool = False
    plugins: Sequence[Path] = ()
    """Python files to run, beside those that a config lists."""

    def __post_init__(self) -> None:
        """Refuse arguments that do not go together, with ConfigError."""
        resume, run_dir, budget, epochs = map(Argument, ("resume", "run_dir", "budget", "epochs"))
        if self.resume is not None and self.run_dir is not None:
            raise ConfigError(f"{resume} goes on in its own directory: leave out {run_dir}")
        if self.resume is not None and self.budget is not None:
            raise ConfigError(f"a resumed run keeps its number of steps: leave out {budget}")
        if self.budget is not None and self.epochs is not None:
            raise ConfigError(f"{budget} decides the number of epochs: leave out {epochs}")
        if self.budget is not None and not 0 < self.budget < math.inf:
            raise ConfigError(f"{budget} {self.budget} is not a number of seconds above 0")

    def load_config(self, otherwise: Path | None = None) -> Config:
        """Read the config, or ``otherwise`` if there is none, and apply the overrides; ConfigError if it is wrong."""
        source = otherwise if self.config is None else self.config
        if source is None:
            either = f"{Argument('config')} (see `cnnlite configs list`) or {Argument('resume')}"
            raise ConfigError(f"nothing to train: give {either}")
        overrides = list(self.overrides)
        if self.epochs is not None:
            overrides += [f"train.epochs={self.epochs:.15g}", "train.iterations=null"]
        return load_config(
            source,
            overrides,
            seed=self.seed,
            data=self.data,
            from_=self.from_,
            freeze=self.freeze,
            plugins=self.plugins,
            of_run=self.config is None,
        )

    def plugin_sources(self) -> list[tuple[Path, bytes]]:
        """Run the plugins that are given, and those of a config that is; returns their paths and content."""
        found = [load(path) for path in self.plugins]
        if self.config is not None:
            found = list(loaded(self.load_config().plugins).values())
        return [(plugin.path, plugin.source) for plugin in found]


Offer = Callable[[DatasetMissing], bool]
"""Offers to download a missing dataset; returns True if it was downloaded."""


def launch(request: Request, reporter: Reporter, stop: StopFlag, offer: Offer) -> tuple[Result, Path]:
    """Start or resume a run and train; return its result and directory.

    A run that ends before its first step leaves no directory behind. Among ranks, the first one reads and writes runs.
    """
    stop = distributed.current().reduce_stop(stop)
    distributed.current().check_same({str(Argument("resume")): request.resume})
    if request.tensorboard:
        require(Argument("tensorboard"), "tensorboardX", "tensorboard")
    if request.resume is not None:
        return _resume(request, request.resume, reporter, stop, offer)
    began = time.perf_counter()
    config = request.load_config()
    request = dataclasses.replace(request, plugins=[found.path for found in loaded(config.plugins).values()])
    broadcast = distributed.current().broadcast
    broadcast(lambda: check_start(config))
    dataset = checked_data(config, offer)
    _check_ranks(config, dataset)
    check_gradients(config, dataset)
    start = broadcast(lambda: read_start(config, dataset))
    planned = ""
    if request.budget is not None:
        pace = measure(config, dataset, stop)
        spent = time.perf_counter() - began
        config, planned = broadcast(lambda: plan(config, pace, request.budget, spent))
    with contextlib.ExitStack() as stack:
        with stop.deferred():  # a signal in between could leave a directory without a lock
            run = _directory(
                lambda: RunDirectory.create_at(request.run_dir) if request.run_dir else RunDirectory.create(config.name)
            )
            stack.enter_context(_held(run, request))
        stop.check()
        config = settled(config)
        # The config comes last: from then on, a run that is killed can be resumed.
        from_ = {} if start is None else {"from": start.facts()}
        run.write_json("environment.json", {"config": config.name, **from_, **with_session({}, 0)})
        if start is not None:
            run.save_start(start.checkpoint())
        run.write_text("config.yaml", render(config))
        keep_plugins(config, run)
        if request.tensorboard:
            reporter.row_logs.append(TensorBoard(run.file("tensorboard")))
        reporter.open_log(run.append_to("log.txt"))
        reporter.line(f"{config.name}: {describe_data(dataset)}; run directory {run.path}")
        for line in [*class_table(dataset), *describe_plugins(config), *(start.describe() if start else ())]:
            reporter.line(line)
        if planned:
            reporter.line(planned)
        _say_slowed(reporter)
        return train(config, run, dataset=dataset, reporter=reporter, stop=stop), run.path


def _resume(request: Request, path: Path, reporter: Reporter, stop: StopFlag, offer: Offer) -> tuple[Result, Path]:
    broadcast = distributed.current().broadcast
    sources = broadcast(request.plugin_sources)
    for file, source in sources:  # on all ranks, as classes of them are part of configs that are broadcast
        load(file, source)
    request = dataclasses.replace(request, plugins=[file for file, _ in sources])
    named = broadcast(path.is_file)
    run = _directory(lambda: _open(path))
    with _held(run, request):
        fits = check_run(path)

        def check(file: CheckpointFile) -> None:
            check_version(Checkpoint({}, file.meta))  # before the config, which that version may read differently
            fits(file)

        unsaved = broadcast(lambda: not named and run.is_unsaved())
        checkpoint, warnings = broadcast(
            (lambda: (_beginning(run), []))
            if unsaved
            else lambda: (load_checkpoint(path, check), []) if named else run.newest_checkpoint(check)
        )
        if named and (last := broadcast(lambda: run.last_step())) > checkpoint.fact("step", int):
            given_up = "rows, checkpoints and result after it will be replaced"
            warnings = [f"going back from step {last} to step {checkpoint.meta['step']}: {given_up}"]
        for warning in warnings:
            reporter.warn(f"warning: {warning}")
        config = broadcast(lambda: request.load_config(run.file("config.yaml")))
        config = settled(config, from_=request.config is not None or request.from_ is not None)
        config = dataclasses.replace(config, name=str(checkpoint.meta.get("name", path.name)))
        changes = check_same(config, checkpoint, reporter)
        unchanged = all(change.path in PLACES for change in changes)
        if unchanged and not named and (result := broadcast(lambda: _finished(run))):
            longer = f"a larger {Argument('epochs')}, or {Override('train.iterations=...')}"
            reporter.warn(f"{run.path}: this run is complete; train on with {longer}")
            return result, run.path
        tensorboard = request.tensorboard or broadcast(lambda: not is_missing(run.file("tensorboard")))
        if tensorboard:
            require(Argument("tensorboard"), "tensorboardX", "tensorboard")
        dataset = checked_data(config, offer)
        if not unsaved and checkpoint.fact("dataset", dict).get("digest") != dataset.digest:
            hint = f"point {Argument('data')} to those"
            raise DataError(f"{config.data.root}: not the images that {run.path} was trained on; {hint}")
        _check_ranks(config, dataset)
        progress = Progress() if unsaved else Progress.of(checkpoint)
        sessions = broadcast(lambda: read_object(run.file("environment.json")))
        run.write_json("environment.json", {"config": config.name, **with_session(sessions, progress.step)})
        run.write_text("config.yaml", render(config))
        keep_plugins(config, run)
        if tensorboard:
            reporter.row_logs.append(TensorBoard(run.file("tensorboard"), progress.evaluated))
        reporter.open_log(run.append_to("log.txt"))
        how = "before its first checkpoint: from its config, from" if unsaved else "at"
        reporter.line(f"resuming {run.path} {how} step {checkpoint.meta.get('step')}")
        _say_slowed(reporter)
        resume = None if unsaved else checkpoint
        return train(config, run, dataset=dataset, reporter=reporter, stop=stop, resume=resume), run.path


def _beginning(run: RunDirectory) -> Checkpoint:
    """Return a checkpoint of the run before its first step, without arrays; CheckpointError if there is no config."""
    path = run.file("config.yaml")
    if is_missing(path):
        hint = f"start it again with {Argument('config')} and {Argument('run_dir', str(run.path))}"
        raise CheckpointError(f"{run.path}: was ended before its config was written; {hint}")
    config = load_config(path, of_run=True)
    name = read_object(run.file("environment.json")).get("config")
    facts = {"step": 0, "epoch": 0.0, "config": config.resolved, "versions": versions()}
    return Checkpoint({}, {"name": name if isinstance(name, str) and not has_codes(name) else config.name, **facts})


def _open(path: Path) -> RunDirectory:
    if path.is_file() and path.parent.name != "checkpoints":
        raise ConfigError(f"{path}: is not in a run directory; {Argument('resume')} takes a run, such as runs/small")
    return RunDirectory.open(path.parent.parent if path.is_file() else path)


def _directory(make: Callable[[], RunDirectory]) -> RunDirectory:
    """Return the run directory that ``make`` returns on the first rank."""
    made: list[RunDirectory] = []

    def path() -> Path:
        made.append(make())
        return made[0].path

    place = distributed.current().broadcast(path)
    return made[0] if made else RunElsewhere(place)


def _check_ranks(config: Config, dataset: Dataset) -> None:
    """Check that all ranks have the same config and images; ConfigError or DataError if not."""
    ranks = distributed.current()
    ranks.check_same({place: value for place, value in flatten(config.resolved).items() if place != "data.root"})
    ranks.check_same({"images of SHA-256": dataset.digest}, DataError)


@contextlib.contextmanager
def _held(run: RunDirectory, request: Request) -> Iterator[None]:
    """Hold the run's lock inside the block, and discard a run without any result after an error."""
    try:
        yield
    except BaseException as error:
        if run.discard() or isinstance(error, LostRunError):
            raise
        plugins = [str(path) for path in request.plugins] or None
        hint = f"continue with: {Train({'resume': str(run.path), 'data': request.data, 'plugins': plugins})}"
        if isinstance(error, StorageError):
            raise StorageError(f"{error}\n{_state(run)}{hint}") from error
        if isinstance(error, Stopped):
            error.hint = hint
        raise
    finally:
        run.close()


def _state(run: RunDirectory) -> str:
    """Return a note that the last checkpoint is whole, if that is certain; else empty."""
    with contextlib.suppress(StorageError):
        return "" if run.is_unsaved() else "the last checkpoint is whole; "
    return ""


def checked_data(config: Config, offer: Offer) -> Dataset:
    """Check network and optimizer, then load the dataset; offer to download it if it is missing."""
    check_training(config)
    try:
        dataset = load_data(config)
    except DatasetMissing as missing:
        if distributed.current().size > 1 or not offer(missing):
            raise
        dataset = load_data(config)
    if dataset.validation is None:
        why = "there are no validation images (data.validation) to"
        if config.train.patience is not None:
            raise ConfigError([Problem("train.patience", f"{why} tell when to stop; leave it out")])
        if config.train.monitor != "accuracy":
            raise ConfigError([Problem("train.monitor", f"{why} compare checkpoints by; leave it out")])
    return dataset


def describe_data(dataset: Dataset) -> str:
    """Format the number of images in each split."""
    validation = f"{len(dataset.validation):,}" if dataset.validation else "no"
    return (
        f"{dataset.name}, {len(dataset.train):,} images to train on, {validation} to validate with, "
        f"{len(dataset.test):,} to test with"
    )


def _say_slowed(reporter: Reporter) -> None:
    """Report if an environment variable or the build of NumPy makes training slower than it could be."""
    if slowed := machine.slowed():
        reporter.line(slowed)


def _finished(run: RunDirectory) -> Result | None:
    """Return the result of a complete run; None if the run is not complete."""
    try:
        result = Result(**read_result(run.file("result.json")))
    except TypeError:  # fields are missing, or the whole file
        return None
    return result if result.status == "complete" else None
