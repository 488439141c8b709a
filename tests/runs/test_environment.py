import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnlite.runs import environment as module
from cnnlite.runs.environment import environment, with_session
from cnnlite.runtime import machine

ROOT = Path(__file__).parents[2]


def test_the_environment_names_what_figures_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    facts: dict[str, Any] = json.loads(json.dumps(environment()))
    assert facts["numpy"] == np.__version__
    assert facts["variables"]["OPENBLAS_CORETYPE"] == "Haswell"
    assert not {"OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"} & facts["variables"].keys()  # cnnlite has set them, to 1
    assert facts["cpu"]
    assert facts["threads"] >= 1


def test_each_session_is_listed_with_what_was_not_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "blas_kernel", lambda: "SkylakeX")
    first = with_session({}, 0)
    assert first["blas_kernel"] == "SkylakeX"
    assert [(session["step"], session["changed"]) for session in first["sessions"]] == [(0, {})]

    monkeypatch.setattr(machine, "blas_kernel", lambda: "Nehalem")
    second = with_session(json.loads(json.dumps(first)), 14)
    third = with_session(json.loads(json.dumps(second)), 20)
    monkeypatch.setattr(machine, "blas_kernel", lambda: "SkylakeX")
    fourth = with_session(json.loads(json.dumps(third)), 30)

    assert {name: value for name, value in fourth.items() if name != "sessions"} == {
        name: value for name, value in first.items() if name != "sessions"
    }
    assert [(session["step"], session["changed"]) for session in fourth["sessions"]] == [
        (0, {}),
        (14, {"blas_kernel": "Nehalem"}),
        (20, {}),
        (30, {"blas_kernel": "SkylakeX"}),
    ]
    assert all(session["time"].endswith("Z") for session in fourth["sessions"])


@pytest.mark.parametrize("before", [{}, {"sessions": 3}, {"sessions": [1, {}, {"changed": 2}]}])
def test_a_file_that_is_lost_or_strange_begins_anew(before: dict[str, Any]) -> None:
    found = with_session(before, 14)
    assert found["numpy"] == np.__version__
    assert [session["step"] for session in found["sessions"]] == [14]


def test_what_an_older_run_recorded_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {**environment(), "numpy": "1.0"}
    found = with_session(before, 14)
    assert found["numpy"] == "1.0"
    assert found["sessions"][0]["changed"] == {"numpy": np.__version__}


def test_very_many_sessions_keep_the_file_small_and_the_last_state_right(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = [f"Kernel{number}" for number in range(10)]
    monkeypatch.setattr(module, "_commit", lambda: None)
    found: dict[str, Any] = {}
    for number in range(250):
        monkeypatch.setattr(machine, "blas_kernel", lambda number=number: kernels[min(number, 9)])
        found = with_session(found, number)
    assert found["blas_kernel"] == "Kernel0"
    assert len(found["sessions"]) == 100
    assert found["sessions"][1] == found["sessions"][1] | {"step": 151, "changed": {"blas_kernel": "Kernel9"}}
    assert all(not session["changed"] for session in found["sessions"][2:])


@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="not a git checkout")
def test_the_commit_is_that_of_the_code() -> None:
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    if not head:
        pytest.skip("git refuses this checkout")  # as that of another user
    assert str(environment()["commit"]).startswith(head)


def test_a_git_that_fails_in_any_language_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = tmp_path / "git"
    git.write_bytes(b"#!/bin/sh\necho 'fatal: \xff' >&2\nexit 128\n")
    git.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda _: str(git))
    assert environment()["commit"] is None
