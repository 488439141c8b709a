"""Reads YAML strictly, and remembers on which line everything stands.

Keys are text and stand once. Files are small by nature, so size, depth and what aliases expand to are limited.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import yaml

from cnnlite.config.yaml_scalars import resolve
from cnnlite.errors import ConfigError, DataError, Problem
from cnnlite.utils.files import read_small
from cnnlite.utils.text import clip

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
"""Values in one file, what aliases expand to included."""
MAX_DEPTH = 64
"""Levels of nesting; low enough that recursion over a config, or a copy of its network, fits Python's stack."""

Steps: TypeAlias = tuple[str | int, ...]
"""The way to a value from the top: keys of mappings and indices of lists."""

_TAG = "tag:yaml.org,2002:"
_TAGGED_TYPES: dict[str, tuple[type, ...]] = {
    _TAG + "null": (type(None),),
    _TAG + "bool": (bool,),
    _TAG + "int": (int,),
    _TAG + "float": (float, int),
}


class _Broken:
    """Stands for a value that could not be read and whose problem is noted."""


BROKEN: Any = _Broken()


@dataclass
class Document:
    """Plain data (None, bool, int, float, str, list, dict with text keys) and where it came from."""

    data: Any
    """``BROKEN`` stands in for every value that is part of ``problems``."""
    lines: dict[Steps, int]
    """Line of each value, counted from 1; of its key if it has one."""
    file: str
    problems: list[Problem] = field(default_factory=list)
    """Faults to report along with other mistakes, as far as the rest is readable."""


def dotted(steps: Steps) -> str:
    """Write a place as people do: ``model[4].conv2d.kernel_size``."""
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + (clip(step) if step.isidentifier() else repr(clip(step)))
    return text


def read_yaml(source: Path | str, file: str = "") -> Document:
    """Read the file at a Path, or the text in a str (then ``file`` is what to call it in messages).

    What is wrong is left in ``Document.problems``; the data of what cannot be opened, or is not YAML, are ``BROKEN``.
    """
    file = str(source) if isinstance(source, Path) else file
    try:
        return _Composer(read_text(source) if isinstance(source, Path) else source, file).document()
    except ConfigError as error:
        return Document(BROKEN, {}, file, error.problems)


def read_text(path: Path) -> str:
    """Read a regular, small UTF-8 file; ConfigError, unopened, if it is anything else (a FIFO would wait for ever)."""
    file = str(path)
    try:
        if path.is_dir():
            inside = path / "config.yaml"  # of a run
            hint = f"; its config is {inside}" if inside.is_file() else ""
            raise ConfigError([Problem("", f"is a directory, not a YAML file{hint}", file)])
        data = read_small(path, MAX_BYTES, "a config is a small text file")
    except DataError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError([Problem("", f"cannot be read: {error.strerror}", file)]) from None
    except ValueError:
        raise ConfigError([Problem("", "is not a possible file name", repr(file))]) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"byte 0x{data[error.start]:02x} is not UTF-8; save the file with the encoding UTF-8"
        raise ConfigError([Problem("", message, file, line)]) from None


class _Composer:
    """Turns the events of PyYAML's parser into plain data."""

    def __init__(self, text: str, file: str):
        self.text, self.file = text, file
        self.lines: dict[Steps, int] = {}
        self.problems: list[Problem] = []
        self.nodes = 0
        self.anchors: dict[str, tuple[Steps, Any]] = {}
        self.open: set[str] = set()
        """Anchors of the collections around the place being read."""

    def document(self) -> Document:
        if len(self.text) > MAX_BYTES:
            self.stop(f"more than the {MAX_BYTES:,} bytes that a config may have", 0)
        self.events: Iterator[Any] = yaml.parse(self.text.removeprefix("\ufeff"), Loader=yaml.SafeLoader)
        try:
            data = self.compose()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            message = error.problem or error.context or "this is not YAML"
            if "'\\t'" in message:
                message = "a tab cannot indent YAML; use spaces"
            elif "mapping values" in message:
                message += "; look at the indentation, or quote text that holds a colon"
            elif "<block end>" in message:
                message = self.misplaced(error)
            elif "<document start>" in message:
                message = "this line does not continue what stands above it; look at the indentation"
            elif "expected ':'" in message and error.context_mark:
                mark, message = error.context_mark, "put a colon behind a key, and a space behind a dash"
            self.stop(f"not YAML: {message}", mark.line + 1 if mark else 0)
        except yaml.reader.ReaderError as error:
            line = self.text.count("\n", 0, error.position) + 1
            self.stop(f"not YAML: it holds the control character {error.character!r}", line)
        except (ValueError, OverflowError) as error:
            # PyYAML lets these through from numbers in escapes and directives, such as "\UFFFFFFFF".
            self.stop(f"not YAML: {clip(str(error))}", 0)
        return Document(data, self.lines, self.file, self.problems)

    def misplaced(self, error: yaml.MarkedYAMLError) -> str:
        """Say why something cannot be part of the list or mapping that it stands in."""
        start, here = error.context_mark, error.problem_mark
        if start is None or here is None:
            return "look at the indentation"
        if "".join(self.text.splitlines()[here.line : here.line + 1])[: here.column].strip():
            return "nothing more can follow in this line; quotes and brackets go around the whole value"
        around = f"{'list' if 'collection' in (error.context or '') else 'mapping'} in line {start.line + 1}"
        return f"the indentation of this line does not match the {around} that it stands in"

    def compose(self) -> Any:
        next(self.events)  # the start of the stream
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            return None
        data = self.node(next(self.events), ())
        next(self.events)  # the end of the document
        event = next(self.events)
        if not isinstance(event, yaml.StreamEndEvent):
            self.stop("a second document starts here; a config is one document", event.start_mark.line + 1)
        return data

    def stop(self, message: str, line: int, steps: Steps = ()) -> NoReturn:
        raise ConfigError([*self.problems, Problem(dotted(steps), message, self.file, line)])

    def broken(self, message: str, event: Any, steps: Steps) -> Any:
        self.problems.append(Problem(dotted(steps), message, self.file, event.start_mark.line + 1))
        return BROKEN

    def count(self, steps: Steps, line: int) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self.stop(f"more than {MAX_NODES:,} values (repeats of aliases included); that is not a config", line)
        if len(steps) > MAX_DEPTH:
            self.stop(f"nested more than {MAX_DEPTH} levels deep", line, steps[:3])

    def node(self, event: Any, steps: Steps) -> Any:
        line = event.start_mark.line + 1
        self.count(steps, line)
        self.lines.setdefault(steps, line)
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, steps)
        anchor = event.anchor
        if anchor is not None:
            self.open.add(anchor)
        if isinstance(event, yaml.ScalarEvent):
            value = self.scalar(event, steps)
        else:
            is_list = isinstance(event, yaml.SequenceStartEvent)
            value = self.sequence(steps) if is_list else self.mapping(steps)
            if event.tag not in (None, "!", _TAG + ("seq" if is_list else "map")):
                value = self.broken(f"the tag {event.tag!r} is not allowed; leave it out", event, steps)
        if anchor is not None:
            self.open.discard(anchor)
            self.anchors[anchor] = (steps, value)
        return value

    def scalar(self, event: Any, steps: Steps) -> Any:
        if event.tag in (_TAG + "str", "!") or (event.tag is None and event.implicit[1] and not event.implicit[0]):
            return event.value
        if event.tag is not None and event.tag not in _TAGGED_TYPES:
            return self.broken(f"the tag {event.tag!r} is not allowed; leave it out", event, steps)
        try:
            value = resolve(event.value)
        except ValueError as error:
            return self.broken(str(error), event, steps)
        if event.tag is not None and not isinstance(value, _TAGGED_TYPES[event.tag]):
            return self.broken(f"{clip(event.value)!r} is not what its tag says", event, steps)
        return value

    def sequence(self, steps: Steps) -> list[Any]:
        items: list[Any] = []
        while not isinstance(item := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(item, (*steps, len(items))))
        return items

    def mapping(self, steps: Steps) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        while not isinstance(key_event := next(self.events), yaml.MappingEndEvent):
            line = key_event.start_mark.line + 1
            key = self.node(key_event, (*steps, "?"))
            place = (*steps, key if isinstance(key, str) else "?")
            problem = ""
            if key == "<<":
                problem = "merge keys (<<) are not supported; write the options out, or use an alias"
            elif not isinstance(key, str):
                problem = "a key must be a word; put it in quotes if that is what you mean"
            elif key in entries:
                problem = f"the key {clip(key)!r} stands here twice, first in line {self.lines[place]}"
            else:
                self.lines[place] = line
            if problem and key is not BROKEN:
                self.broken(problem, key_event, steps)
            value = self.node(next(self.events), place)
            if not problem:
                entries[key] = value
        return entries

    def alias(self, event: Any, steps: Steps) -> Any:
        name = event.anchor
        if name in self.open:
            return self.broken(f"the alias *{clip(name)} stands inside what it repeats", event, steps)
        if name not in self.anchors:
            return self.broken(f"the alias *{clip(name)} has no anchor &{clip(name)} above it", event, steps)
        source, value = self.anchors[name]
        return self.copy(value, source, steps, event.start_mark.line + 1)

    def copy(self, value: Any, source: Steps, target: Steps, line: int) -> Any:
        """A copy of an anchored value at another place; its lines are those where it is written."""
        self.count(target, line)
        self.lines.setdefault(target, self.lines.get(source, line))
        if isinstance(value, list):
            return [self.copy(item, (*source, i), (*target, i), line) for i, item in enumerate(value)]
        if isinstance(value, dict):
            return {key: self.copy(item, (*source, key), (*target, key), line) for key, item in value.items()}
        return value
