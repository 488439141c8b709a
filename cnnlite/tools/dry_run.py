"""Dry run of a training: describes network and dataset, and predicts time and memory."""

from collections.abc import Iterator

from cnnlite.data import class_table
from cnnlite.runs.warm_start import check_start, read_start
from cnnlite.tools.summary import summarize
from cnnlite.training.budget import measure, plan
from cnnlite.training.launch import Offer, Request, checked_data, describe_data
from cnnlite.utils.signals import StopFlag
from cnnlite.utils.text import size_text


def preview(request: Request, stop: StopFlag, offer: Offer) -> Iterator[str]:
    """Describe the training that ``request`` asks for, part by part, without making a run.

    Raises:
        ConfigError: If the config is wrong, or the budget too short.
        DataError: If images are missing or damaged.
        DivergedError: If the first steps diverge.
    """
    config = request.load_config()
    check_start(config)
    yield summarize(config).describe(request.config if isinstance(request.config, str) else config.name)
    dataset = checked_data(config, offer)
    yield f"\ndata           {describe_data(dataset)}"
    yield from class_table(dataset)
    if (start := read_start(config, dataset)) is not None:
        yield from start.describe()
    pace = measure(config, dataset, stop)
    yield f"time           {plan(config, pace, request.budget)[1]}"
    yield f"peak memory    {size_text(pace.peak_memory_bytes) if pace.peak_memory_bytes else 'unknown'}"
