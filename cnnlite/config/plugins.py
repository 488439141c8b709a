"""Plugins: Python files of users, whose layers, losses and so on configs may then name.

A plugin is code, and code runs only because a user names its file, in a config of their own or as an argument. What
runs and checkpoints hold of plugins is a record, names of files with digests, and nothing that is in a record is run.
"""

import contextlib
import hashlib
import os
import re
import sys
import traceback
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cnnlite.config.settings
import cnnlite.nn.layers  # noqa: F401 - all registries are complete before a plugin adds to them
from cnnlite.config.construct import with_options
from cnnlite.errors import ConfigError, DataError, PluginError, Problem
from cnnlite.utils.files import read_small
from cnnlite.utils.hints import Argument
from cnnlite.utils.printable import has_codes, is_text, one_line
from cnnlite.utils.registry import Entry, Registry
from cnnlite.utils.suggest import did_you_mean
from cnnlite.utils.text import clip

MAX_BYTES = 1_000_000
_MODULE = "_cnnlite_plugin_"
"""Start of the names of plugins' modules; a part of the digest follows."""


@dataclass(frozen=True)
class Plugin:
    """A file that was run, and what it registered."""

    path: Path
    source: bytes
    classes: Mapping[Entry, type]
    """By kind and name, as in configs."""

    @property
    def name(self) -> str:
        """Name of the file, without folders; a run keeps a copy under it."""
        return self.path.name

    @property
    def digest(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        return hashlib.sha256(self.source).hexdigest()

    @property
    def module(self) -> str:
        """Name of its module, which nobody else has."""
        return f"{_MODULE}{self.digest[:16]}"


_loaded: dict[str, Plugin] = {}
"""By digest: a content is run once, and a file that was changed takes the place of what it was."""


def loaded(record: Mapping[str, str]) -> dict[str, Plugin]:
    """Return the plugins of a record that this process has run, by their names there."""
    return {name: _loaded[digest] for name, digest in record.items() if digest in _loaded}


def files_run() -> list[Path]:
    """List the files of all plugins that this process has run."""
    return [plugin.path for plugin in _loaded.values()]


def load(path: Path, source: bytes | None = None) -> Plugin:
    """Run a file, unless its content was run before, and return it with what it registered.

    It is a module by itself: not to be imported by name, and without its folder in ``sys.path``. What it prints goes to
    stderr. ``source`` is its content, where another process has read it.

    Raises:
        ConfigError: If it cannot be read or run, or registers nothing that a config can name; the registries are then
            as they were.
    """
    source = _read(path) if source is None else source
    plugin = Plugin(path, source, {})
    if known := _loaded.get(plugin.digest):
        return replace(known, path=path)
    changed = [old for old in _loaded.values() if os.path.realpath(old.path) == os.path.realpath(path)]
    with Registry.unless_failing():
        for old in changed:
            Registry.forget(old.classes)
        plugin = replace(plugin, classes=_run(plugin))
    for old in changed:
        del _loaded[old.digest], sys.modules[old.module]
    _loaded[plugin.digest] = plugin
    return plugin


def _read(path: Path) -> bytes:
    if path.suffix != ".py" or has_codes(path.name) or not is_text(path.name):
        raise _refused(path, "is not called like a Python file, such as mine.py")
    if path.is_dir():
        raise _refused(path, "is a directory, not a Python file")
    try:
        return read_small(path, MAX_BYTES, "a plugin is a small Python file")
    except DataError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        near: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError):
            near = {file.name: str(file) for file in path.parent.glob("*.py")}
        hint = did_you_mean(clip(path.name), near, near)
        raise _refused(path, f"cannot be read: {error.strerror}{hint}") from None


def _run(plugin: Plugin) -> Mapping[Entry, type]:
    """Run the source of a plugin, and return the classes that it registers; ConfigError, or what interrupted it."""
    file, before = str(plugin.path), Registry.registered()
    module = sys.modules[plugin.module] = types.ModuleType(plugin.module)
    module.__file__ = file
    try:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                exec(compile(plugin.source, file, "exec", dont_inherit=True), vars(module))  # noqa: S102 - asked for
        except (Exception, SystemExit) as error:
            raise _refused(plugin.path, *_words(error, plugin.path)) from error
        classes = {entry: cls for entry, cls in Registry.registered().items() if entry not in before}
        if not classes:
            hint = 'a class needs a decorator, such as @layers.register("name")'
            raise _refused(plugin.path, f"registers nothing that a config could name; {hint}")
        for (kind, name), cls in classes.items():
            _check(plugin.path, cls, f"{kind} {name!r}")
    except BaseException:
        del sys.modules[plugin.module]
        raise
    return classes


def _check(path: Path, cls: Any, what: str) -> None:
    """Check that configs can describe a class, and that objects can be made of it; ConfigError if not."""
    code = getattr(cls.__init__, "__code__", None)
    line = code.co_firstlineno if code and code.co_filename == str(path) else 0
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise _refused(path, f"{what} lacks {', '.join(missing)}", line)
    try:
        with_options(cls).schema()
    except Exception as error:  # whatever annotations and defaults are
        raise _refused(path, f"{what}: {error}", line) from error


def _words(error: BaseException, path: Path) -> tuple[str, int]:
    """Say what went wrong in a plugin while it was run, and in which line."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{type(error).__name__}: {error.msg}", error.lineno or 0
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == str(path)]
    line = lines[-1] if lines else 0
    if isinstance(error, SystemExit):
        return "ends the program (SystemExit); a plugin only defines and registers", line
    words = f"{type(error).__name__}: {clip(str(error), 300)}".removesuffix(": ")
    if isinstance(error, ModuleNotFoundError) and (path.parent / f"{error.name}.py").exists():
        words += f"; a plugin is one file: put what it needs of {error.name}.py into it"
    return words, line


def fault_of(error: BaseException) -> str:
    """Return file and line where a plugin raised an error, or called what did; empty if no plugin was at work."""
    places = [
        f"{frame.f_code.co_filename}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).startswith(_MODULE)
    ]
    return one_line(places[-1]) if places else ""


def record_of(plugins: Sequence[Plugin]) -> dict[str, str]:
    """Return the record of plugins, digests by name; ConfigError if two of them have one name."""
    record: dict[str, str] = {}
    for plugin in plugins:
        if record.setdefault(plugin.name, plugin.digest) != plugin.digest:
            raise _refused(plugin.path, f"two plugins are called {plugin.name}; rename one of them")
    return record


def check_record(record: Mapping[str, str]) -> None:
    """Check that a record has names of Python files, without folders, and digests; ValueError if not."""
    for name, digest in record.items():
        if not re.fullmatch(r"[^/\\:]+\.py", name) or has_codes(name):
            raise ValueError(f"{clip(name)!r} is not the name of a Python file")
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(f"{name}: {clip(digest)!r} is no SHA-256")


def readable_record(config: Any) -> dict[str, str]:
    """Return the record in the data of a config, of a checkpoint perhaps; empty if there is none, or it is wrong."""
    record = config.get("plugins") if isinstance(config, dict) else None
    if not isinstance(record, dict) or not all(isinstance(digest, str) for digest in record.values()):
        return {}
    try:
        check_record(record)
    except (TypeError, ValueError):
        return {}
    return record


def differences(record: Mapping[str, str]) -> list[str]:
    """Say which plugins of a run are not those that this process has run; nothing if it has run none at all."""
    names = {plugin.name: digest for digest, plugin in _loaded.items()}
    return [
        f"{name} is not that of the training: its SHA-256 is {names[name][:12]}..., and was {digest[:12]}..."
        if name in names
        else f"{name} of the training, with the SHA-256 {digest[:12]}..., is not among the plugins here"
        for name, digest in record.items()
        if digest not in _loaded and _loaded
    ]


def names_unknown(problems: Sequence[Problem]) -> bool:
    """Return True if one of the problems of a config is a name that is not registered, such as that of a layer."""
    unknown = tuple(f"unknown {registry.kind} " for registry in Registry.by_base.values())
    return any(problem.message.startswith(unknown) for problem in problems)


def ask_for_missing(config: Any, problems: Sequence[Problem]) -> None:
    """Raise PluginError if a config has names that are unknown here, and a record of plugins that may have them."""
    names = {plugin.name for plugin in _loaded.values()}
    record = readable_record(config)
    needed = [name for name, digest in record.items() if digest not in _loaded and name not in names]
    if needed and names_unknown(problems):
        advice = f"no config of a run brings its code: give {Argument('plugins', needed)}"
        raise PluginError([Problem("plugins", f"{', '.join(needed)}: {advice}")], needed)


def _refused(path: Path, message: str, line: int = 0) -> ConfigError:
    return ConfigError([Problem("", message, str(path), line)])
