"""Training with workers as users meet it: signals, kills and limits, as whole processes; and in programs."""

import contextlib
import json
import os
import pty
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cnnlite.runs.checkpoint import load_checkpoint
from cnnlite.runtime.workers import supported
from tests.runtime.test_distributed import MPIEXEC, needs_mpi
from tests.support.plugins import LAYER, WITH_PLUGIN
from tests.support.small_runs import STUCK, assert_same_run

COMMAND = [sys.executable, "-W", "error", "-m", "cnnlite"]
FOUR_SHARDS = ["-o", "model.0.conv2d.out_channels=420"]
NEW = ["train", "-c", "tiny.yaml", *FOUR_SHARDS, "--quiet"]
SOON = 20
"""Seconds; it takes less than one, but on a busy machine."""
LONG = [*NEW, "--epochs", "40", "--run-dir", "run", "--workers", "2", "-o", "train.checkpoint_every=1000"]

pytestmark = [
    pytest.mark.usefixtures("here"),
    pytest.mark.skipif(not supported(), reason="workers are threads here"),
]
either_way = pytest.mark.parametrize("way", ["fork", "spawn"], indirect=True)


@pytest.fixture(autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How workers are started."""
    way: str = getattr(request, "param", "fork")
    monkeypatch.setenv("CNNLITE_WORKERS", way)
    return way


def spawn(command: list[str], **options: Any) -> "subprocess.Popen[str]":
    """A process that obeys SIGINT even if this one was started in the background and does not."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(
        command, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler), **pipes
    )


def finished(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=100, **options)
    assert "Traceback" not in done.stderr
    return done


def wait_for(path: Path, lines: int = 0) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or len(path.read_text().splitlines()) < lines:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def children(process: int) -> list[int]:
    """Running children of a process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(words[1]) == process and words[0] != "Z":
                found.append(int(folder.name))
    return sorted(found)


def none_left(processes: list[int]) -> bool:
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{process}").exists() for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize(
    ("way", "to", "number"),
    [
        *(("fork", "run", signal.SIGTERM), ("fork", "worker", signal.SIGTERM), ("fork", "worker", signal.SIGHUP)),
        *(("fork", "group", signal.SIGINT), ("spawn", "worker", signal.SIGTERM), ("spawn", "group", signal.SIGINT)),
    ],
    indirect=["way"],
)
def test_a_signal_stops_the_run_with_a_checkpoint(to: str, number: signal.Signals) -> None:
    process = spawn([*COMMAND, *LONG], start_new_session=to == "group")
    wait_for(Path("run/metrics.csv"), lines=3)
    workers = children(process.pid)
    assert len(workers) == 1
    if to == "group":
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid if to == "run" else workers[0], number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert err.splitlines()[-1].endswith("continue with: cnnlite train --resume run")
    assert "Traceback" not in err
    assert 10 <= load_checkpoint(Path("run/checkpoints/last.npz")).meta["step"] < 280
    assert none_left(workers)


@pytest.mark.long
@either_way
def test_a_run_stopped_and_killed_with_other_numbers_of_workers_has_the_same_bits() -> None:
    mixed = ["-o", "data.mix=cutmix", "-o", "train.averaging={ema: {decay: 0.9}}", "-o", "train.clip_norm=1.0"]
    short = [*NEW, *mixed, "--epochs", "5"]
    assert finished(*short, "--workers", "1", "--run-dir", "whole").returncode == 0
    process = spawn([*COMMAND, *short, "--workers", "2", "--run-dir", "run"])
    wait_for(Path("run/metrics.csv"), lines=2)
    process.terminate()
    process.communicate(timeout=30)
    process = spawn([*COMMAND, "train", "--resume", "run", "--workers", "3"])
    wait_for(Path("run/metrics.csv"), lines=4)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    assert process.returncode in (0, 5), err
    for workers in ("8", "1"):
        assert finished("train", "--resume", "run", "--workers", workers).returncode == 0
    assert_same_run(Path("whole"), Path("run"))


@either_way
def test_ctrl_c_twice_ends_at_once_and_leaves_no_worker(here: Path) -> None:
    controller, terminal = pty.openpty()
    process = spawn(
        ["setsid", "-c", sys.executable, "-c", STUCK, *NEW, "--workers", "3"],
        **dict.fromkeys(("stdin", "stdout", "stderr"), terminal),
    )
    os.close(terminal)
    wait_for(here / "stuck")
    workers = children(process.pid)
    assert len(workers) == 2
    os.write(controller, b"\x03")
    time.sleep(0.3)
    assert process.poll() is None
    os.write(controller, b"\x03")
    assert process.wait(timeout=5) == 130
    assert none_left(workers)
    shown = os.read(controller, 10**5).decode()
    assert shown.count("Ctrl-C again stops at once") == 1
    assert "Traceback" not in shown
    os.close(controller)
    assert load_checkpoint(Path("runs/tiny/checkpoints/last.npz")).meta["step"] == 8


@either_way
def test_a_killed_worker_ends_the_run_within_seconds() -> None:
    process = spawn([*COMMAND, *LONG, "-o", "train.checkpoint_every=3", "--workers", "3"])
    wait_for(Path("run/metrics.csv"), lines=3)
    workers = children(process.pid)
    began = time.monotonic()
    os.kill(workers[1], signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - began < SOON
    assert process.returncode == 5
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 2
    assert re.fullmatch(
        rf"error: worker \d of 3 \(process {workers[1]}\) was killed by SIGKILL; was there too little memory\?",
        lines[0],
    )
    assert lines[1] == "error: the last checkpoint is whole; continue with: cnnlite train --resume run"
    assert none_left(workers)


FAULTY = """
import os, signal, sys, time
from cnnlite.cli import main
from cnnlite.runtime import engine
from cnnlite.training import loop
evaluate = loop.evaluate_part
def faulty(*arguments, check, workers, **options):
    if workers.size > 1 and workers.index == 1:
        {fault}
    if workers.size > 1:
        for _ in range(10000):
            time.sleep(0.01)
            check()
    return evaluate(*arguments, check=check, workers=workers, **options)
loop.evaluate_part = faulty
main()
"""


def test_a_worker_killed_in_the_middle_of_a_long_validation_is_noticed() -> None:
    began = time.monotonic()
    script = FAULTY.format(fault="os.kill(os.getpid(), signal.SIGKILL)")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *LONG, "-o", "train.checkpoint_every=3"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert time.monotonic() - began < 20
    assert done.returncode == 5
    assert "was killed by SIGKILL" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("continue with: cnnlite train --resume run")
    assert load_checkpoint(Path("run/checkpoints/last.npz")).meta["step"] == 3


@pytest.mark.parametrize(
    ("fault", "code", "text"),
    [
        ("raise MemoryError('Unable to allocate 9 GiB')", 5, "out of memory with batch size 16: Unable to allocate 9"),
        ("raise ZeroDivisionError('a bug')", 1, "worker 1 of 2 failed: ZeroDivisionError('a bug')"),
        ("os.kill(os.getppid(), signal.SIGTERM); time.sleep(100)", 128 + signal.SIGTERM, "stopped by SIGTERM"),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(100)", 128 + signal.SIGTERM, "stopped by SIGTERM"),
    ],
)
def test_faults_and_signals_during_validation(fault: str, code: int, text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FAULTY.format(fault=fault), *LONG],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert text in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) <= 2


@either_way
def test_a_killed_run_leaves_no_worker_and_resumes() -> None:
    process = spawn([*COMMAND, *LONG, "--workers", "3"])
    wait_for(Path("run/metrics.csv"), lines=2)
    workers = children(process.pid)
    assert len(workers) == 2
    process.kill()
    process.communicate()
    assert none_left(workers)
    assert finished("train", "--resume", "run", "--epochs", "2", "--workers", "2").returncode == 0


@either_way
def test_an_ignored_signal_stays_ignored_by_workers() -> None:
    process = subprocess.Popen(
        [*COMMAND, *NEW, "--workers", "2", "--run-dir", "run"],
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    wait_for(Path("run/metrics.csv"), lines=2)
    for each in (process.pid, *children(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGHUP)
    assert process.wait(timeout=30) == 0


@pytest.mark.parametrize(
    ("way", "closed"), [("fork", "2>&-"), ("fork", "<&- >&- 2>&-"), ("spawn", "<&- >&- 2>&-")], indirect=["way"]
)
def test_streams_closed_from_the_start_do_not_end_training(closed: str) -> None:
    command = f"{shlex.join([*COMMAND, *NEW])} --workers 2 {closed}"
    assert subprocess.run(command, shell=True, timeout=60).returncode == 0


@either_way
def test_too_little_memory_is_two_lines_and_exit_code_5() -> None:
    large = ["-o", "train.batch_size=8000", "-o", "data.dataset.shapes.train_images=9000", "-o", "data.augment=[]"]
    wide = ["-o", "model.0.conv2d.out_channels=300", "-o", "data.validation=none"]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30))

    done = finished(*NEW, *large, *wide, "--workers", "2", preexec_fn=limit)
    assert done.returncode == 5
    assert re.match(r"error: out of memory with batch size 8000: ", done.stderr.splitlines()[-1])
    assert not list(Path("runs").glob("*"))


def test_a_full_table_of_processes_is_said_and_the_run_has_the_same_bits() -> None:
    script = """
import errno, os
from cnnlite.cli import main
fork, count = os.fork, []
def refuse():
    count.append(1)
    if len(count) > 1:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()
os.fork = refuse
main()
"""
    arguments = [*NEW, "--epochs", "1", "--run-dir"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments, "refused", "--workers", "4"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "4 processes could not be started" in Path("refused/log.txt").read_text()
    assert finished(*arguments, "whole", "--workers", "1").returncode == 0
    assert_same_run(Path("refused"), Path("whole"))


@pytest.mark.long
@either_way
def test_verify_resume_with_workers() -> None:
    done = finished("verify-resume", "tiny.yaml", *FOUR_SHARDS, "--steps", "5", "--workers", "2")
    assert done.returncode == 0
    assert "end with the same bits" in done.stdout


def test_divergence_is_found_with_workers_as_with_one() -> None:
    diverging = [*NEW, "-o", "train.optimizer={sgd: {lr: 1.0e+30}}"]
    found = [finished(*diverging, "--run-dir", f"run{n}", "--workers", str(n)) for n in (1, 2)]
    one, two = (re.sub("run[12]", "run", done.stderr) for done in found)
    assert [done.returncode for done in found] == [4, 4]
    assert one == two


def test_more_workers_than_samples_cores_and_shards() -> None:
    assert finished(*NEW, "--epochs", "1", "--run-dir", "one", "--workers", "1").returncode == 0
    assert finished(*NEW, "--epochs", "1", "--run-dir", "many", "--workers", "20").returncode == 0
    assert_same_run(Path("one"), Path("many"))


def program(code: str) -> "subprocess.CompletedProcess[str]":
    start = """
import json, os, pathlib, signal, sys, threading, time, yaml
import cnnlite
handler = signal.getsignal(signal.SIGINT)
data = yaml.safe_load(pathlib.Path("tiny.yaml").read_text())
data["model"][0]["conv2d"]["out_channels"] = 210
data["train"]["epochs"] = 2
def train(name, workers=2):
    return cnnlite.train(data, run_dir=name, workers=workers, quiet=True)
"""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", start + code], capture_output=True, text=True, timeout=100
    )


@either_way
def test_training_in_a_thread_of_a_program() -> None:
    done = program("""
train("main")
stop = threading.Event()
busy = [threading.Thread(target=stop.wait) for _ in range(3)]  # fork has to live with them
for thread in busy:
    thread.start()
thread = threading.Thread(target=train, args=("thread",))
thread.start()
thread.join()
stop.set()
for thread in busy:
    thread.join()
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no worker is left", end="")
assert signal.getsignal(signal.SIGINT) is handler
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "no worker is left"
    assert_same_run(Path("main"), Path("thread"))


@pytest.mark.parametrize("way", ["spawn"], indirect=True)
def test_a_program_that_trains_in_its_main_module_is_not_run_again_by_spawned_workers() -> None:
    done = program("""
print("once", flush=True)
train("run")
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "once\n"


@pytest.mark.parametrize("way", ["spawn"], indirect=True)
@pytest.mark.parametrize("place", ["program", "module"])
def test_a_layer_of_one_s_own_is_for_spawned_workers_too_if_it_is_in_a_module(place: str) -> None:
    code = '''
from cnnlite.nn.layers.activations import ReLU
from cnnlite.nn.layers.base import layers
@layers.register("halved")
class Halved(ReLU):
    """A layer that is for workers."""
'''
    Path("own.py").write_text(code)
    start = code if place == "program" else "import own\n"
    done = program(
        start
        + """
data["model"][2] = "halved"
for workers in (1, 2):
    train(str(workers), workers)
"""
    )
    assert done.returncode == 0, done.stderr
    told = "2 processes could not be started (what they need cannot be handed over: Halved is defined in the program"
    assert (told in Path("2/log.txt").read_text()) == (place == "program")
    assert_same_run(Path("1"), Path("2"))


@pytest.mark.parametrize("way", ["spawn"], indirect=True)
def test_a_short_run_spawns_no_workers_unless_told_to() -> None:
    assert finished(*NEW, "--epochs", "1", "--run-dir", "run").returncode == 0
    assert "workers" not in Path("run/log.txt").read_text()


def test_training_in_a_program_that_forks_itself() -> None:
    done = program("""
train("before")
import multiprocessing
context = multiprocessing.get_context("fork")
child = context.Process(target=train, args=("child",))
inside = []
def fork_inside():
    while not os.path.exists("parent/metrics.csv"):
        time.sleep(0.01)
    other = context.Process(target=train, args=("inside", 1))
    other.start()
    other.join()
    inside.append(other.exitcode)
thread = threading.Thread(target=fork_inside)
child.start()
thread.start()
train("parent")
thread.join()
child.join()
print(child.exitcode, inside[0], end="")
""")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0 0"
    for name in ("child", "parent", "inside"):
        assert_same_run(Path("before"), Path(name))


@needs_mpi
@pytest.mark.parametrize("to", ["run", "worker"])
def test_ranks_have_workers_of_their_own_and_a_signal_to_any_stops_all(to: str) -> None:
    process = spawn([MPIEXEC, "-n", "2", *COMMAND, *LONG])
    wait_for(Path("run/metrics.csv"), lines=3)
    ranks = [rank for proxy in children(process.pid) for rank in children(proxy)]
    assert len(ranks) == 2
    workers = [children(rank) for rank in ranks]
    assert [len(own) for own in workers] == [1, 1]
    os.kill(ranks[1] if to == "run" else workers[1][0], signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    assert none_left([*ranks, *workers[0], *workers[1]])
    step = load_checkpoint(Path("run/checkpoints/last.npz")).meta["step"]
    assert 10 <= step < 280


@pytest.mark.long
@needs_mpi
def test_ranks_with_workers_have_the_bits_of_ranks_without_and_end_when_one_is_killed() -> None:
    for number in ("1", "2"):
        done = subprocess.run(
            [MPIEXEC, "-n", "2", *COMMAND, *NEW, "--epochs", "2", "--run-dir", number, "--workers", number],
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
    assert_same_run(Path("1"), Path("2"))
    process = spawn([MPIEXEC, "-n", "2", *COMMAND, *LONG])
    wait_for(Path("run/metrics.csv"), lines=2)
    ranks = [rank for proxy in children(process.pid) for rank in children(proxy)]
    workers = [worker for rank in ranks for worker in children(rank)]
    os.kill(workers[-1], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 5, err
    assert "was killed by SIGKILL" in err
    assert "Traceback" not in err
    assert none_left([*ranks, *workers])


def test_waiting_for_others_takes_little_processor_time() -> None:
    """Where another program keeps the cores busy, workers that wait leave them to it."""
    script = """
import os, time
from cnnlite.runtime import engine
from cnnlite.runtime.workers import Workers
def uneven(argument):
    began = time.thread_time()
    for _ in range(20):
        if engine.team().index == 0:
            end = time.thread_time() + 0.02
            while time.thread_time() < end:
                pass
        engine.team().meet()
    return engine.team().exchange(time.thread_time() - began)
team = Workers(4, [uneven], lambda index: None)
print(team.call(0, 0))
team.close()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    first, *others = json.loads(done.stdout)
    assert first >= 0.4
    assert max(others) < 0.3 * first


@either_way
def test_workers_have_the_classes_of_plugins(way: str) -> None:
    text = LAYER.replace("    def __init__", "    by_shards = True\n\n    def __init__")
    Path("doubled.py").write_text(text, encoding="utf-8")
    Path("tiny.yaml").write_text(WITH_PLUGIN, encoding="utf-8")
    for workers in ("1", "2"):
        told = [word for word in NEW if word != "--quiet"]
        done = finished(*told, "--epochs", "1", "--workers", workers, "--run-dir", workers)
        assert (done.returncode, "could not be started" in done.stderr) == (0, False), done.stderr
    assert_same_run(Path("1"), Path("2"))
