"""Runs of the training loop for tests: started, stopped or killed at a moment, resumed."""

from pathlib import Path

from cnnlite.config.load import Config
from cnnlite.data import Dataset
from cnnlite.runs.directory import RunDirectory
from cnnlite.runs.results import Result
from cnnlite.training.loop import train
from cnnlite.training.reporter import Reporter
from cnnlite.utils.signals import StopFlag, Stopped


class KilledError(BaseException):
    """Ends a run without giving it a chance to save, as SIGKILL does."""


class StopAt(StopFlag):
    """Stops, or kills, at the n-th moment when the loop asks whether it should."""

    def __init__(self, countdown: int, kill: bool = False):
        super().__init__()
        self.countdown = countdown
        self.kill = kill

    def check(self) -> None:
        self.countdown -= 1
        if self.countdown == 0:
            raise KilledError if self.kill else Stopped(2)


def start(config: Config, path: Path, dataset: Dataset, stop: StopFlag | None = None) -> Result:
    run = RunDirectory.create_at(path)
    try:
        return train(config, run, dataset=dataset, reporter=Reporter(quiet=True), stop=stop or StopFlag())
    finally:
        run.close()


def resume(config: Config, path: Path, dataset: Dataset, stop: StopFlag | None = None) -> Result:
    run = RunDirectory.open(path)
    try:
        checkpoint, _ = run.newest_checkpoint()
        reporter = Reporter(quiet=True)
        return train(config, run, dataset=dataset, reporter=reporter, stop=stop or StopFlag(), resume=checkpoint)
    finally:
        run.close()
