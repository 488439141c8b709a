"""A config before it is checked: plain data, from files and the command line, that knows where each value is from."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cnnlite.config.construct import construct, kind_of
from cnnlite.config.kinds import Kind
from cnnlite.config.options import show
from cnnlite.config.plugins import load, record_of
from cnnlite.config.problem_list import Problems
from cnnlite.config.yaml_reader import BROKEN, Document, Steps, dotted, read_yaml
from cnnlite.errors import Problem
from cnnlite.utils.files import place
from cnnlite.utils.hints import Argument, Override
from cnnlite.utils.text import clip


class Draft:
    """The data of a config for the class ``root``, open to changes."""

    def __init__(self, root: type, document: Document):
        self.root = root
        self.data = document.data
        self.places = {steps: (document.file, line) for steps, line in document.lines.items()}
        """File and line of every value; line 0 is the command line."""
        self.problems = list(document.problems)
        self._model_file = ""
        """The file that the model is from, if it has one of its own."""

    def include_model(self, folders: Sequence[Path]) -> None:
        """Put the content of a file in the place of ``model: FILE.yaml``, looked for in ``folders`` in this order."""
        name = self.data.get("model")
        if not isinstance(name, str) or not name.endswith((".yaml", ".yml")):
            return
        self.data["model"] = BROKEN
        try:
            name = place(name)
        except ValueError as error:
            self._add(("model",), str(error))
            return
        path = next((folder / name for folder in folders if os.path.exists(folder / name)), None)
        if path is None:
            where = " or ".join(dict.fromkeys(str(folder) for folder in folders))
            self._add(("model",), f"there is no file {clip(name)!r} in {where}")
            return
        self._model_file = str(path)
        document = read_yaml(path)
        self.problems += document.problems
        content = document.data
        inside: Steps = ()
        if isinstance(content, dict) and list(content) == ["model"]:
            content, inside = content["model"], ("model",)
        elif not isinstance(content, list) and content is not BROKEN:
            message = f"expected a list of layers, or the one key 'model', got {show(content)}"
            if isinstance(content, dict) and {"model", "data", "train"} <= content.keys():
                message = "this is a whole config; put its model into a file of its own, or name it as the config"
            self.problems.append(Problem("model", message, document.file, 1))
            return
        self.data["model"] = content
        for steps, line in document.lines.items():
            if steps[: len(inside)] == inside:
                self.places["model", *steps[len(inside) :]] = (document.file, line)

    def run_plugins(self, folders: Sequence[Path], given: Sequence[Path], *, of_run: bool) -> None:
        """Run the files that ``plugins`` lists, and those ``given``, and put their record in the place of the list.

        Files are looked for in ``folders``, in this order, after the current one if the list is from the command line.
        The list of a config that is ``of_run`` is not the user's, and runs nothing; nor does the record of one.

        Raises:
            ConfigError: If a file is missing or cannot be run; without it, all its names would be unknown.
        """
        names, record = self.data.get("plugins"), {}
        if isinstance(names, list):
            given = [*self._plugin_files(folders, of_run), *given]
        elif isinstance(names, dict):
            record = names
        elif "plugins" in self.data:
            if names is not BROKEN:
                self._add(("plugins",), f"expected a list of Python files, got {show(names)}")
            self.data["plugins"] = BROKEN
            return
        new = record_of([load(path) for path in given])
        added = {name: digest for name, digest in new.items() if digest not in record.values()}
        if names is not None or added:
            self.data["plugins"] = {**record, **added}

    def _plugin_files(self, folders: Sequence[Path], of_run: bool) -> list[Path]:
        problems, files = Problems(self.places), []
        by_user = self.places.get(("plugins",), ("", 0))[1] == 0
        if of_run and not by_user:
            problems.add(("plugins",), f"no config of a run brings its code: give {Argument('plugins')}")
        names, _ = construct(list[Annotated[str, place]], self.data["plugins"], ("plugins",), problems)
        problems.raise_any()
        folders = [Path(), *folders] if by_user else folders
        for index, name in enumerate(names):
            if path := next((folder / name for folder in folders if os.path.exists(folder / name)), None):
                files.append(path)
            else:
                where = " or ".join(dict.fromkeys(str(folder) for folder in folders))
                problems.add(("plugins", index), f"there is no file {clip(name)!r} in {where}")
        problems.raise_any()
        return files

    def override(self, assignment: str) -> None:
        """Apply an override, ``KEY=VALUE``: keys and indices of the place with dots between them, the value in YAML."""
        label = str(Override(clip(assignment)))
        place, equals, text = assignment.partition("=")
        words = [word.strip() for word in re.sub(r"\[(\d+)\]", r".\1", place).split(".")]
        if not equals or not all(words):
            self.problems.append(Problem("", "expected KEY=VALUE, such as train.epochs=5", label))
            return
        document = read_yaml(text, label)
        self.set(words, document.data, label)
        self.problems += [replace(problem, path=clip(place), line=0) for problem in document.problems]

    def set(self, words: Sequence[str], value: Any, label: str) -> None:
        """Set the value at a place, and forget what was wrong there; ``label`` is its origin in messages."""
        try:
            self.data, steps = _put(self.data, kind_of(self.root), (), words, value)
        except ValueError as error:
            self.problems.append(Problem("", str(error), label))
            return
        if len(steps) < len(words):  # inside of what could not be read
            return
        self._forget(steps)
        self.places = {at: origin for at, origin in self.places.items() if at[: len(steps)] != steps}
        for length in range(1, len(steps) + 1):
            self.places.setdefault(steps[:length], (label, 0))

    def yield_to_override(self, *alternatives: tuple[str, str]) -> None:
        """Where the command line gives one of several values that exclude each other, leave out the file's."""
        given = {at for at in alternatives if self.places.get(at, ("", 1))[1] == 0}
        if any(self.data[part].get(key) is not None for part, key in given):
            for part, key in set(alternatives) - given:
                self.data[part].pop(key, None)

    def _forget(self, steps: Steps) -> None:
        """Drop the problems of what was at a place or below it, in the model's own file too."""
        place, file = dotted(steps), self._model_file if steps == ("model",) else None
        self.problems = [
            problem
            for problem in self.problems
            if problem.path != place
            and not problem.path.startswith((f"{place}.", f"{place}["))
            and problem.file != file
        ]

    def _add(self, steps: Steps, message: str) -> None:
        file, line = self.places.get(steps, ("", 0))
        self.problems.append(Problem(dotted(steps), message, file, line))


def _put(node: Any, kind: Kind, at: Steps, words: Sequence[str], value: Any) -> tuple[Any, Steps]:
    """``node`` with ``value`` at the place that ``words`` lead to, and the steps to that place from the top.

    The kind tells a named object, such as ``sgd`` or ``{sgd: {lr: 0.1}}``, from options. ValueError if the words lead
    nowhere; unknown options are left to be found with all others. Words that lead into what could not be read change
    nothing, and the steps end there.
    """
    if not words:
        return value, at
    if node is BROKEN:
        return node, at
    word, rest = words[0], words[1:]
    if isinstance(node, list):
        if not re.fullmatch("[0-9]{1,9}", word) or int(word) >= len(node):
            raise ValueError(f"{dotted(at)} is a list; {clip(word)!r} is none of its indices 0 to {len(node) - 1}")
        index = int(word)
        item, steps = _put(node[index], kind.inside(index), (*at, index), rest, value)
        return [*node[:index], item, *node[index + 1 :]], steps
    inner = kind.inside(word if len(word) < 60 else clip(word))
    if kind.registry is not None:
        node = {node: None} if isinstance(node, str) else node or {word: None}
        if isinstance(node, dict) and list(node) != [word]:
            now = ", ".join(clip(str(key)) for key in node)
            raise ValueError(f"{dotted(at)} is {now}, not {word}; to change it: {Override(f'{dotted(at)}={word}')}")
    node = {} if node is None else node
    if not isinstance(node, dict):
        raise ValueError(f"{dotted(at)} is {show(node)}; there is no {clip(word)!r} in it")
    item, steps = _put(node.get(word), inner, (*at, word), rest, value)
    return {**node, word: item}, steps
