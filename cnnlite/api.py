"""Public interface of `import cnnlite`: training, and trained networks. Everything else is internal."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cnnlite.config.plugins import differences
from cnnlite.config.plugins import load as load_plugin
from cnnlite.errors import ConfigError
from cnnlite.runs.locate import checkpoint_of
from cnnlite.runs.results import Result
from cnnlite.runtime import distributed, engine
from cnnlite.tools.predict import Model
from cnnlite.training.launch import Request, launch
from cnnlite.training.reporter import Reporter
from cnnlite.utils.files import place
from cnnlite.utils.printable import one_line
from cnnlite.utils.signals import StopFlag


@dataclass(frozen=True)
class Trained(Result):
    """Result of a training, with its run directory."""

    run: Path
    """Path of the run directory."""

    @property
    def checkpoint(self) -> Path:
        """Path of the checkpoint that was best on the validation images; `load` reads it."""
        return self.run / "checkpoints" / "best.npz"


def _place(path: str | os.PathLike[str]) -> str:
    try:
        return place(os.fspath(path))
    except ValueError as error:
        raise ConfigError(f"{one_line(os.fspath(path), 100)}: {error}") from None


def load(
    checkpoint: str | os.PathLike[str],
    *,
    workers: int | None = None,
    plugins: Sequence[str | os.PathLike[str]] = (),
) -> Model:
    """Load a trained network from a checkpoint, or a run's best one, for predictions.

    ``workers`` is the number of threads, by default one per core. All networks share them: the last call decides, and
    one prediction runs at a time. ``plugins`` are Python files with layers of your own, which are run first.

    Raises:
        CheckpointError: If the file is not a checkpoint, or the run has none yet.
        ConfigError: If the folder is not a run, or a plugin cannot be run.
        PluginError: If it was trained with a plugin that is not given.
    """
    for path in plugins:
        load_plugin(Path(_place(path)))
    if fewer := engine.set_workers(workers):
        warnings.warn(fewer, RuntimeWarning, stacklevel=2)
    model = Model.load(checkpoint_of(Path(_place(checkpoint))))
    for text in differences(model.config.plugins):
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    return model


def train(
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    overrides: Sequence[str] = (),
    run_dir: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    data: str | os.PathLike[str] | None = None,
    from_: str | os.PathLike[str] | None = None,
    freeze: str | None = None,
    epochs: float | None = None,
    budget: float | None = None,
    workers: int | None = None,
    plugins: Sequence[str | os.PathLike[str]] = (),
    quiet: bool = False,
    tensorboard: bool = False,
) -> Trained:
    """Train and test a network, as the command ``cnnlite train`` does; the arguments are options of the command.

    ``config`` is a file, the name of a bundled config, or its content as plain data; ``budget`` is in seconds.
    KeyboardInterrupt ends the training at once; ``resume`` continues it from the last checkpoint.

    Returns:
        The result, with the path of the run directory.

    Raises:
        CnnliteError: One of the errors in ``cnnlite.errors``.
    """
    request = Request(
        config=config if config is None or isinstance(config, Mapping) else _place(config),
        overrides=overrides,
        run_dir=None if run_dir is None else Path(_place(run_dir)),
        resume=None if resume is None else Path(_place(resume)),
        seed=seed,
        data=None if data is None else _place(data),
        from_=None if from_ is None else _place(from_),
        freeze=freeze,
        epochs=epochs,
        budget=budget,
        plugins=[Path(_place(path)) for path in plugins],
        tensorboard=tensorboard,
    )
    with distributed.joined() as ranks:
        fewer = engine.set_workers(workers, ranks.most_workers())
        reporter = Reporter(quiet=quiet, mute=not ranks.first)
        if fewer:
            reporter.warn(f"warning: {fewer}")
        result, run = launch(request, reporter, StopFlag(), lambda missing: False)
    return Trained(**asdict(result), run=run)
