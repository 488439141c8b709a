"""A training without training: what its network and dataset are, and how much time and memory it takes."""

from collections.abc import Iterator

from cnnlite.launch import Offer, Request, describe_data, load
from cnnlite.pace import measure, plan
from cnnlite.stopping import StopFlag
from cnnlite.summary import summarize
from cnnlite.words import size_text


def preview(request: Request, source: str, stop: StopFlag, offer: Offer) -> Iterator[str]:
    """Describe the training that ``request`` asks for, part by part, and make no run.

    Raises what the training would: ConfigError, DataError for missing or damaged images, DivergedError in its first
    steps.
    """
    config = request.load_config(source)
    yield summarize(config).describe(source)
    dataset = load(config, offer)
    yield f"\ndata           {describe_data(dataset)}"
    pace = measure(config, dataset, stop)
    yield f"time           {plan(config, pace, request.budget)[1]}"
    yield f"peak memory    {size_text(pace.peak_memory_bytes) if pace.peak_memory_bytes else 'unknown'}"
