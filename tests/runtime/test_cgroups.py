"""Limits of control groups are found wherever they are set, in made-up systems and in the real one."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cnnlite.runtime import cgroups, engine, machine
from cnnlite.runtime.cgroups import memory_limit, processors

ROOT = Path(__file__).parents[2]
SECOND = "0::{}\n"
FIRST = "5:memory:{0}\n3:cpuset:/\n2:cpu,cpuacct:{0}\n1:name=systemd:/\n"
UNLIMITED = "9223372036854771712"

System = Callable[[str, str, dict[str, str]], Path]


@pytest.fixture
def system(tmp_path: Path) -> System:
    """Makes a folder with a system's files: what /proc says of groups and mounts, and what is in /sys/fs/cgroup."""

    def make(groups: str, mounts: str, files: dict[str, str]) -> Path:
        everything = {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts}
        everything |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
        for name, text in everything.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    return make


def second(top: str = "/", place: str = "/sys/fs/cgroup") -> str:
    return (
        "23 28 0:21 / /proc rw,nosuid shared:5 - proc proc rw\n"
        f"31 23 0:28 {top} {place} rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
    )


def first(top: str = "/") -> str:
    return (
        f"35 31 0:32 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        f"32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw shared:3 - cgroup cgroup rw,cpu,cpuacct\n"
    )


def test_version_2_is_read_from_the_own_group_up_to_the_top(system: System) -> None:
    files = {
        "memory.max": "max\n",
        "a.slice/memory.max": "8000000\n",
        "a.slice/cpu.max": "150000 100000\n",
        "a.slice/job/memory.max": "max\n",
        "a.slice/job/memory.high": "5000000\n",
        "a.slice/job/cpu.max": "max 100000\n",
        "other/memory.max": "1000\n",
    }
    root = system(SECOND.format("/a.slice/job"), second(), files)
    assert memory_limit(root) == 5_000_000
    assert processors(root) == 1.5
    (root / "sys/fs/cgroup/a.slice/memory.max").write_text("3000000\n")
    (root / "sys/fs/cgroup/a.slice/job/cpu.max").write_text("50000 100000\n")
    assert memory_limit(root) == 3_000_000
    assert processors(root) == 0.5


def test_version_1_is_read_from_the_own_group_up_to_the_top(system: System) -> None:
    files = {
        "memory/memory.limit_in_bytes": UNLIMITED,
        "memory/slurm/memory.limit_in_bytes": "7000000\n",
        "memory/slurm/job/memory.limit_in_bytes": UNLIMITED,
        "cpu,cpuacct/slurm/job/cpu.cfs_quota_us": "400000\n",
        "cpu,cpuacct/slurm/job/cpu.cfs_period_us": "100000\n",
        "cpu,cpuacct/slurm/cpu.cfs_quota_us": "-1\n",
        "cpu,cpuacct/slurm/cpu.cfs_period_us": "100000\n",
    }
    root = system(FIRST.format("/slurm/job"), first(), files)
    assert memory_limit(root) == 7_000_000
    assert processors(root) == 4.0


def test_both_versions_at_once_are_read(system: System) -> None:
    files = {"memory/job/memory.limit_in_bytes": "9000000\n", "unified/service/memory.max": "4000000\n"}
    mounts = first() + second(place="/sys/fs/cgroup/unified")
    root = system(FIRST.format("/job") + SECOND.format("/service"), mounts, files)
    assert memory_limit(root) == 4_000_000
    assert processors(root) is None


@pytest.mark.parametrize(
    ("group", "top"),
    [
        ("/", "/"),  # a namespace of its own
        ("/docker/4711", "/docker/4711"),  # the host's paths, the mount begins at the container
        ("/../../elsewhere", "/"),  # outside the namespace that the mount shows
        ("/docker/4711", "/docker/0815"),  # the path says nothing about what is mounted
        ("/gone (deleted)", "/"),
    ],
)
def test_in_a_container_the_top_of_what_is_mounted_counts(group: str, top: str, system: System) -> None:
    root = system(SECOND.format(group), second(top), {"memory.max": "6000000\n", "cpu.max": "200000 100000\n"})
    assert (memory_limit(root), processors(root)) == (6_000_000, 2.0)
    files = {"memory/memory.limit_in_bytes": "5000000\n"}
    root = system(FIRST.format(group), first(top), files)
    assert memory_limit(root) == 5_000_000


def test_places_with_spaces_are_found(system: System) -> None:
    root = system(SECOND.format("/my job"), second(place=r"/sys/fs/cgroup/a\040b"), {"a b/my job/memory.max": "77\n"})
    assert memory_limit(root) == 77


@pytest.mark.parametrize("text", ["", "max\n", "nonsense\n", "-5\n", "0\n", "0 0\n", "max 0\n", "1\n2\n3\n", UNLIMITED])
def test_what_sets_no_limit_is_none(text: str, system: System) -> None:
    root = system(SECOND.format("/"), second(), {"cpu.max": text, "memory.max": text.replace("1\n2\n3", "x")})
    assert (memory_limit(root), processors(root)) == (None, None)


def test_without_control_groups_there_is_no_limit(tmp_path: Path, system: System) -> None:
    assert (memory_limit(tmp_path), processors(tmp_path)) == (None, None)
    root = system("", "", {"memory.max": "1"})
    assert (memory_limit(root), processors(root)) == (None, None)


def test_lines_of_another_kind_are_passed_over(system: System) -> None:
    root = system("nonsense\n\n" + SECOND.format("/job"), "\nnonsense\n1 2 - x\n" + second(), {"job/memory.max": "77"})
    assert memory_limit(root) == 77


@pytest.mark.parametrize(("quota", "threads"), [(None, 8), (0.2, 1), (2.0, 2), (2.1, 3), (64.0, 8)])
def test_as_many_threads_compute_as_affinity_and_quota_allow(
    quota: float | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(cgroups, "processors", lambda: quota)
    assert engine.available_cores() == threads


def test_the_memory_that_may_be_used_is_no_more_than_the_group_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "memory_limit", lambda: 123_456)
    assert machine.memory() == 123_456
    monkeypatch.setattr(cgroups, "memory_limit", lambda: None)
    assert machine.memory() > 10**8


@pytest.fixture
def real_group() -> Iterator[list[Path]]:
    """A control group below this process's own, with 300 MB of memory or the time of half a core."""
    made: list[Path] = []
    limits = {"memory": ("memory.limit_in_bytes", "300000000"), "cpu": ("cpu.cfs_quota_us", "50000")}
    with contextlib.suppress(OSError):
        for controller, (name, text) in limits.items():
            for parent in cgroups._folders(controller, Path("/")):
                if (parent / name).exists():
                    group = parent / f"cnnlite-test-{os.getpid()}"
                    group.mkdir()
                    made.append(group)
                    (group / name).write_text(text, encoding="ascii")
                    break
    try:
        if len(made) < 2:
            pytest.skip("needs root and control groups of version 1")
        yield made
    finally:
        for group in made:
            group.rmdir()


def test_limits_of_a_real_group_are_found(real_group: list[Path]) -> None:
    code = (
        "import sys; [open(name, 'w').write('0') for name in sys.argv[1:]]\n"
        "from cnnlite.runtime import cgroups, engine, machine\n"
        "print(machine.memory(), cgroups.processors(), engine.available_cores())"
    )
    command = [sys.executable, "-c", code, *(str(group / "cgroup.procs") for group in real_group)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    memory, processors, cores = done.stdout.split()
    assert 299 * 10**6 < int(memory) <= 300 * 10**6
    assert (processors, cores) == ("0.5", "1")
