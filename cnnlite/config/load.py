"""Configs: YAML files read into checked, typed settings."""

import contextlib
import copy
import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import yaml

import cnnlite.nn.layers  # noqa: F401 - registers all layers
from cnnlite.config.bundled import bundled_config, bundled_configs, bundled_folder, bundled_names
from cnnlite.config.construct import construct
from cnnlite.config.kinds import not_negative
from cnnlite.config.options import options_of, show
from cnnlite.config.overrides import Draft
from cnnlite.config.plugins import ask_for_missing, check_record
from cnnlite.config.problem_list import Problems
from cnnlite.config.settings import LENGTHS, NO_LENGTH, DataSettings, TrainSettings
from cnnlite.config.yaml_reader import BROKEN, MAX_NODES, Document, Steps, dotted, read_yaml
from cnnlite.config.yaml_scalars import resolve
from cnnlite.errors import ConfigError, Problem
from cnnlite.nn.layers.base import Layer
from cnnlite.nn.layers.containers import Sequential
from cnnlite.nn.losses import losses
from cnnlite.nn.shape_errors import misfits
from cnnlite.optim import optimizers
from cnnlite.optim.schedules import schedules
from cnnlite.utils.hints import Argument
from cnnlite.utils.printable import has_codes
from cnnlite.utils.suggest import did_you_mean
from cnnlite.utils.text import clip


@dataclass(frozen=True)
class Config:
    """Everything that determines a training run."""

    model: Layer
    """Not built yet; its options are checked."""
    data: DataSettings
    train: TrainSettings
    seed: Annotated[int, not_negative] = 0
    plugins: Annotated[dict[str, str], "names of Python files with their SHA-256", check_record] = field(
        default_factory=dict
    )
    """Record of the plugins: the SHA-256 of each, by the name of its file."""
    resolved: dict[str, Any] = field(default_factory=dict, metadata={"option": False})
    """The config as plain data with every default written out; ``config_from_data`` reads it."""
    name: str = field(default="", metadata={"option": False})
    """Stem of the file's name, or the name of the run that the file is of."""
    places: Mapping[Steps, tuple[str, int]] = field(
        default_factory=dict, metadata={"option": False}, compare=False, repr=False
    )
    """File and line of every value that was read from a file or the command line."""

    @contextlib.contextmanager
    def located(self) -> Iterator[None]:
        """Problems of a ConfigError raised inside the block that name a place in the config name file and line too."""
        try:
            yield
        except ConfigError as error:
            known = {dotted(steps): place for steps, place in self.places.items()}
            raise ConfigError([_locate(problem, known) for problem in error.problems]) from None


def _locate(problem: Problem, known: Mapping[str, tuple[str, int]]) -> Problem:
    """The problem with the place of its value, or of the nearest one around it; only the command line has line 0."""
    if problem.file or not problem.path:
        return problem
    around = [path for path in known if problem.path.startswith(path)]
    file, line = known[max(around, key=len)] if around else ("", 0)
    return replace(problem, file=file, line=line)


def load_config(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    seed: int | None = None,
    data: str | None = None,
    from_: str | None = None,
    freeze: str | None = None,
    plugins: Sequence[Path] = (),
    of_run: bool = False,
) -> Config:
    """Read a config: a path, a bundled name, or plain data, and run its plugins, after them those of ``plugins``.

    ``overrides`` are ``KEY=VALUE``; ``seed``, ``data``, ``from_`` and ``freeze`` are values for the keys ``seed``,
    ``data.root``, ``train.from`` and ``train.freeze``. The later wins: source, overrides, and these where they are not
    None. A config that is ``of_run``, or in the directory of one, runs nothing that it names itself. Raises ConfigError
    with all problems.
    """
    if isinstance(source, Mapping):
        path, document = Path("config"), Document(dict(source), {}, "")
    else:
        path = find_config(str(source))
        document = read_yaml(path)
    if not isinstance(document.data, dict):
        message = f"expected the keys {', '.join(options_of(Config))}, got {show(document.data)}"
        if document.data is None:
            message = f"the file is empty; a config has the keys {', '.join(options_of(Config))}"
        elif isinstance(document.data, list):
            message += "; a list of layers belongs below the key 'model'"
        raise ConfigError(document.problems or [Problem("", message, str(path), 1)])
    draft = Draft(Config, document)
    folders = [path.parent, bundled_folder()]
    draft.include_model(folders)
    first = [text for text in overrides if re.match(r"\s*plugins\b", text)]
    for assignment in first:
        draft.override(assignment)
    draft.run_plugins([path.parent], plugins, of_run=of_run or _is_of_run(path))
    for assignment in (text for text in overrides if text not in first):
        draft.override(assignment)
        draft.include_model([Path(), *folders])
    draft.yield_to_override(("train", "epochs"), ("train", "iterations"))
    flags: list[tuple[str, str | int | None, Argument]] = [
        ("seed", seed, Argument("seed")),
        ("data.root", data, Argument("data")),
        ("train.from", from_, Argument("from_")),
        ("train.freeze", freeze, Argument("freeze")),
    ]
    for key, value, place in flags:
        if value is not None:
            draft.set(key.split("."), value, str(place))
    return _check(draft.data, _Problems(draft.places, draft.problems), _name_of(path))


def _name_of(path: Path) -> str:
    """Name a config, and the runs of it: after its file, or after the run whose ``config.yaml`` it is."""
    return path.resolve().parent.name if _is_of_run(path) else path.stem


def _is_of_run(path: Path) -> bool:
    return path.name == "config.yaml" and (path.parent / "checkpoints").is_dir()


def config_from_data(data: Any, name: str = "") -> Config:
    """Make a config from plain data such as ``Config.resolved``; ConfigError with all problems."""
    return _check(data, _Problems(), name)


def settled(config: Config, *, from_: bool = True) -> Config:
    """Make the places that a config names absolute, so that its run finds them from any folder.

    ``from_`` False leaves ``train.from`` as it is: a run that is resumed has settled it already.
    """
    data, train = copy.deepcopy(config.resolved["data"]), config.resolved["train"]
    data["root"] = _absolute(data["root"])
    for options in data["dataset"].values() if isinstance(data["dataset"], dict) else ():
        if options.get("cache"):
            options["cache"] = _absolute(options["cache"])
    if from_ and train["from"] is not None and os.path.lexists(train["from"]):  # else it is a bundled network's name
        train = {**train, "from": _absolute(train["from"])}
    made, data = construct(DataSettings, data, ("data",), Problems())
    settings = replace(config.train, from_=train["from"])
    return replace(config, data=made, train=settings, resolved={**config.resolved, "data": data, "train": train})


def _absolute(path: str) -> str:
    """The path from the root on; as it is if that goes through names that a config cannot hold, as it is no text."""
    found = os.path.abspath(path)
    return path if has_codes(found) or re.search("[\ud800-\udfff]", found) else found


def render(config: Config) -> str:
    """Write a config, every default included, as YAML that reads back as the same config."""
    return yaml.dump(
        config.resolved, Dumper=_Dumper, default_flow_style=None, sort_keys=False, width=120, allow_unicode=True
    )


def flatten(data: Any, place: str = "") -> dict[str, Any]:
    """Turn nested data into one level: ``{"train.optimizer.sgd.lr": 0.1}``."""
    if isinstance(data, dict) and data:
        items = [(f"{place}.{key}" if place else str(key), value) for key, value in data.items()]
    elif isinstance(data, list) and data:
        items = [(f"{place}[{index}]", value) for index, value in enumerate(data)]
    else:
        return {place: data}
    return {name: leaf for key, value in items for name, leaf in flatten(value, key).items()}


def find_config(name: str) -> Path:
    """Find a config: the file if there is one, else a bundled config, with or without ``.yaml``; or ConfigError."""
    if os.path.exists(name) and not os.path.isdir(name):
        return Path(name)
    if bundled := bundled_config(name):
        return bundled
    if os.path.exists(name):
        return Path(name)  # a folder; reading it says so
    near: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):  # of a folder whose name is too long, or none that can be
        near = {path.name: str(path) for path in Path(name).parent.glob("*.yaml")}
    hint = did_you_mean(clip(Path(name).name), [*bundled_names(), *bundled_configs(), *near], near)
    hint = hint or f"; bundled: {', '.join(bundled_names())}"
    raise ConfigError([Problem("", f"no such file, and no bundled config of that name{hint}", clip(name, 200))])


def _check(data: Any, problems: Problems, name: str) -> Config:
    config: Config
    config, resolved = construct(Config, data, (), problems)
    if problems.found and isinstance(data, dict):
        ask_for_missing(data, problems.found)
        problems.found += _misfits(data, problems.places)
        _miss_length(data.get("train"), problems)
    problems.raise_any()
    if _count(resolved) > MAX_NODES:  # a run's config.yaml could not be read again
        raise ConfigError([Problem("", f"more than {MAX_NODES:,} values, defaults included; that is not a config")])
    return replace(config, resolved=resolved, name=name, places=problems.places)


def _misfits(data: dict[str, Any], places: Mapping[Steps, tuple[str, int]]) -> list[Problem]:
    """Find shape errors before the first layer that is wrong in itself, where the shape of images is known."""
    settings, _ = construct(DataSettings, data.get("data"), ("data",), Problems())
    model = data.get("model")
    if settings is BROKEN or settings.in_shape is None or not isinstance(model, list):
        return []
    made = (construct(Layer, layer, ("model", index), Problems())[0] for index, layer in enumerate(model))
    layers = list(itertools.takewhile(lambda layer: layer is not BROKEN, made))
    classes = settings.dataset.class_count if len(layers) == len(model) else None
    known = {dotted(steps): place for steps, place in places.items()}
    return [_locate(problem, known) for problem in misfits(Sequential(layers), settings.in_shape, classes)]


def _miss_length(train: Any, problems: Problems) -> None:
    """Note that nothing says how long to train, which `TrainSettings` can tell only if all its options are right."""
    if not isinstance(train, dict) or any(train.get(key) is not None for key in LENGTHS):
        return
    unknown = [clip(str(key)) for key in train if key not in options_of(TrainSettings)]
    noted = any(problem.message == NO_LENGTH for problem in problems.found)
    if not noted and not any(did_you_mean(key, LENGTHS) for key in unknown):
        problems.add(("train",), NO_LENGTH)


def _count(data: Any) -> int:
    items = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return 1 + sum(map(_count, items))


class _Problems(Problems):
    def misplaced(self, steps: Steps, key: str) -> str:
        if steps[:1] == ("model",):
            return ""
        if key in options_of(Config):
            return "the top, beside 'model'"
        for part, settings in ("data", DataSettings), ("train", TrainSettings):
            if key in options_of(settings):
                return f"{part}.{key}"
        for place, registry in ("optimizer", optimizers), ("schedule", schedules), ("loss", losses):
            owners = [name for name in registry if key in options_of(registry[name])]
            if owners and steps[:2] != ("train", place):
                return f"train.{place}, among the options of {', '.join(owners)}"
        return ""


class _Dumper(yaml.SafeDumper):
    """Small collections in one line, no anchors, and quotes around all text that would not read back as text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    try:
        quotes = None if resolve(text) == text else "'"
    except ValueError:
        quotes = "'"
    if not text.isprintable():
        quotes = '"'  # the only style with escapes
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=quotes)


_Dumper.add_representer(str, _represent_text)
