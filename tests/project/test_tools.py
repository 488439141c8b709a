"""What is installed around the package agrees: groups and extras, constraints, pre-commit, workflow, scripts."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
GROUP = PYPROJECT["dependency-groups"]["dev"]
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
SETUP = (ROOT / "scripts/setup").read_text(encoding="utf-8")


def names(requirements: list[str]) -> set[str]:
    """Names of packages, as ``constraints.txt`` writes them."""
    return {re.split(r"[^\w-]", text)[0].lower() for text in requirements}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"([a-z\d-]+)==([\w.]+)( ; .+)?", line) for line in lines if not line.startswith("#")]
    return {match[1]: match[2] for match in found if match}


def test_all_that_setup_installs_has_an_exact_version() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[0] != "#"]
    assert len(lines) == len(pins())
    assert names(sum(EXTRAS.values(), PYPROJECT["project"]["dependencies"] + GROUP)) <= pins().keys()


def test_setup_installs_every_extra_and_tools_repeat_none() -> None:
    installed = re.search(r"--group dev --editable '\.\[([\w,]+)\]'", SETUP)
    assert installed
    assert installed[1].split(",") == sorted(EXTRAS)
    assert not names(GROUP) & names(sum(EXTRAS.values(), PYPROJECT["project"]["dependencies"]))


def test_pre_commit_runs_the_ruff_of_the_constraints() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["rev"] == f"v{pins()['ruff']}"


def test_the_workflow_names_scripts_that_are_there_and_all_parts() -> None:
    commands = [step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]
    named = set(re.findall(r"(?:scripts|\.ci)/\w+", " ".join(commands)))
    assert named >= {"scripts/test", ".ci/run"}
    assert [path for path in named if not (ROOT / path).is_file()] == []
    parts = re.search(r"^all=\((.+)\)$", (ROOT / ".ci/run").read_text(encoding="utf-8"), re.MULTILINE)
    assert parts
    assert parts[1].split() == WORKFLOW["jobs"]["parts"]["strategy"]["matrix"]["part"]


def test_the_workflow_tries_the_pythons_that_the_package_promises() -> None:
    promised = re.findall(r"Python :: (3\.\d+)", " ".join(PYPROJECT["project"]["classifiers"]))
    assert promised == WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert PYPROJECT["project"]["requires-python"] == f">={promised[0]}"
