import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnlite.environment import environment


def test_the_environment_names_what_figures_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    facts: dict[str, Any] = json.loads(json.dumps(environment()))
    assert facts["numpy"] == np.__version__
    assert facts["variables"]["OPENBLAS_CORETYPE"] == "Haswell"
    assert not {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"} & facts["variables"].keys()  # cnnlite has set them, to 1
    assert facts["cpu"]
    assert facts["threads"] >= 1


def test_a_git_that_fails_in_any_language_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = tmp_path / "git"
    git.write_bytes(b"#!/bin/sh\necho 'fatal: \xff' >&2\nexit 128\n")
    git.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda _: str(git))
    assert environment()["commit"] is None
