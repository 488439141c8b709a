#!/usr/bin/env python3
"""Fuzz the readers of files: each input must be read, or refused with one of our errors.

    .venv/bin/python -m pip install atheris                      # Linux, CPython 3.11 to 3.13
    .venv/bin/python scripts/fuzz.py TARGET [libFuzzer options]
    .venv/bin/python scripts/fuzz.py TARGET FILE                 # repeat an input that an earlier run left

Options are such as -max_total_time=600 -timeout=10 -rss_limit_mb=1024. libFuzzer follows which lines an input reaches
and mutates those that reach new ones. An escaping exception, more than -timeout seconds or more than -rss_limit_mb end
the run and leave the input in a file.
"""

import contextlib
import functools
import gzip
import hashlib
import io
import json
import re
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

try:
    import atheris  # type: ignore[import-untyped]
except ModuleNotFoundError:
    needs = "scripts/fuzz.py needs atheris: .venv/bin/python -m pip install atheris"
    sys.exit(f"{needs}  (Linux, CPython 3.11 to 3.13)")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

READERS = {
    *(
        "cnnlite.config.options",
        "cnnlite.config.kinds",
        "cnnlite.config.construct",
        "cnnlite.runs.checkpoint",
        "cnnlite.config.load",
        "cnnlite.config.overrides",
    ),
    *("cnnlite.runs.restore", "cnnlite.nn.network", "cnnlite.nn.memory"),
    *(
        "cnnlite.config.yaml_reader",
        "cnnlite.data.download.archive",
        "cnnlite.data.datasets.cifar",
        *(f"cnnlite.data.datasets.{name}" for name in ("annotations", "csv_rows", "idx", "json_items", "npy_files")),
        "cnnlite.data.download.unpickle",
    ),
}
"""Modules that libFuzzer follows, besides the packages below; each takes seconds at the start."""
OTHERS = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.glob("cnnlite/**/*.py")} - READERS
WRITERS = {f"yaml.{name}" for name in ("cyaml", "dumper", "emitter", "representer", "serializer")}
PACKAGES = {name.removesuffix(".__init__") for name in OTHERS}

with atheris.instrument_imports(include=["cnnlite", "yaml", "zipfile"], exclude=[*OTHERS, *PACKAGES, *WRITERS]):
    from cnnlite.config import load
    from cnnlite.data.datasets.annotations import read_annotations
    from cnnlite.data.datasets.cifar import Cifar10
    from cnnlite.data.datasets.csv_rows import Rows
    from cnnlite.data.datasets.idx import Idx
    from cnnlite.data.datasets.npy_files import read_arrays
    from cnnlite.data.download.archive import extract
    from cnnlite.data.download.unpickle import RefusedError, read_pickle
    from cnnlite.runs import checkpoint, restore

from zipfile import ZipFile  # noqa: E402 - followed, so not earlier

from cnnlite.config.bundled import bundled_folder  # noqa: E402 - not to be followed
from cnnlite.errors import CheckpointError, ConfigError, DataError, StorageError  # noqa: E402 - not to be followed
from cnnlite.runs.results import Progress  # noqa: E402
from cnnlite.training.reporter import Reporter  # noqa: E402
from cnnlite.training.resume import check_same  # noqa: E402
from tests.support import cifar_files, doors  # noqa: E402
from tests.support.config_parts import FULL  # noqa: E402
from tests.support.small_runs import tiny, trained  # noqa: E402

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz"))
SEEDS = FOLDER / "seeds"


def pickles(data: bytes) -> None:
    """Read any bytes as a pickle of CIFAR."""
    with contextlib.suppress(RefusedError):
        if not isinstance(read_pickle(data), dict):
            raise AssertionError("neither read nor refused")


def binaries(data: bytes) -> None:
    """Read any bytes as a batch, next to good ones, in both versions."""
    for name in ("data_batch_1", "data_batch_1.bin"):
        root = FOLDER / name
        if not root.exists():
            cifar_files.write(
                root, cifar_files.python_files(2) if name == "data_batch_1" else cifar_files.binary_files(2)
            )
        (root / name).write_bytes(data)
        with contextlib.suppress(DataError):
            Cifar10().load(root)


def own_data(data: bytes) -> None:
    """Read any bytes as arrays, as annotations of COCO, as a list, and as images of MNIST next to good labels."""
    for name, read in (("a.npz", read_arrays), ("a.json", read_annotations), ("a.csv", lambda path: [*Rows(path, {})])):
        path = FOLDER / name
        path.write_bytes(data)
        with contextlib.suppress(DataError):
            read(path)
    (FOLDER / "npy").mkdir(exist_ok=True)
    (FOLDER / "npy" / "x.npy").write_bytes(data)
    with contextlib.suppress(DataError):
        read_arrays(FOLDER / "npy")
    train, test, _ = doors.shapes(10, 10)
    if not (root := FOLDER / "idx").exists():
        doors.write_idx(root, train, test)
    (root / "train-images-idx3-ubyte").write_bytes(data)
    with contextlib.suppress(DataError, StorageError):
        Idx().load(root)


def small_data() -> list[bytes]:
    """Return files of one's own data to begin with."""
    packed = [io.BytesIO(), io.BytesIO(), io.BytesIO()]
    np.savez(packed[0], x=np.zeros((3, 2, 2), np.uint8), y=np.arange(3))
    np.savez_compressed(packed[1], x=np.zeros((3, 2, 2)), y=np.array(["a", "b", "c"]))
    np.save(packed[2], np.zeros((3, 2, 2), np.uint8))
    annotations = doors.coco([("a.png", 9, 9)], [(0, 0, [1, 2, 3, 4.5])], ["ant", "bee"])
    listed = b'path;label;split;group\n"a.png";ant;train;g\n'
    return [
        *(file.getvalue() for file in packed),
        json.dumps(annotations).encode(),
        listed,
        doors.idx(np.zeros((2, 2, 2))),
    ]


def archives(data: bytes) -> None:
    """Read any bytes as a tar archive, compressed here so that mutations reach the content."""
    path = FOLDER / "a.tar.gz"
    path.write_bytes(data if data[:1] == b"\x1f" else gzip.compress(data, 0))
    members = {"data_batch_1": hashlib.md5(b"x", usedforsecurity=False).hexdigest()}
    with contextlib.suppress(DataError):
        extract(path, FOLDER / "cifar-10-batches-py", members, lambda done, total, /: None)


def configs(data: bytes) -> None:
    """Read any bytes as a config; an accepted one must read back as the same config."""
    path = FOLDER / "a.yaml"
    path.write_bytes(data)
    with contextlib.suppress(ConfigError):
        read = load.load_config(path)
        again = load.config_from_data(read.resolved)
        if again.resolved != read.resolved:
            raise AssertionError("the resolved config is another one")


def checkpoints(data: bytes) -> None:
    """Read any bytes as a checkpoint, sealed with the right checksum so that mutations reach the content."""
    path = FOLDER / "a.npz"
    path.write_bytes(sealed(data))
    with contextlib.suppress(CheckpointError):
        checkpoint.load_checkpoint(path)


def facts(data: bytes) -> None:
    """Read any bytes as the metadata of a checkpoint with the arrays of a small run, then load and resume it."""
    path = FOLDER / "b.npz"
    packed = io.BytesIO()
    with ZipFile(packed, "w") as archive:
        for name, array in {"meta": np.frombuffer(data, np.uint8), **small_run().arrays}.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array)
        archive.comment = SEAL + b"0" * DIGITS
    path.write_bytes(sealed(packed.getvalue()))
    with contextlib.suppress(CheckpointError):
        restore.load_network(path)
    with contextlib.suppress(CheckpointError, ConfigError):
        found = checkpoint.load_checkpoint(path, restore.check_run(path))
        check_same(tiny(), found, Reporter(mute=True))
        Progress.of(found)


SEAL, DIGITS = b"sha256:", 64


def sealed(data: bytes) -> bytes:
    """Return the data with the end of a checkpoint, and the right checksum in it."""
    body = data[: -len(SEAL) - DIGITS] + SEAL
    return body + hashlib.sha256(body).hexdigest().encode()


@functools.cache
def small_run() -> checkpoint.Checkpoint:
    """Return the checkpoint of a short training."""
    return checkpoint.load_checkpoint(trained(FOLDER / "run", tiny(epochs=1)))


def small_checkpoint() -> bytes:
    """Return a checkpoint to begin with."""
    path = FOLDER / "seed.npz"
    arrays = {"param/0.weight": np.ones((2, 3), np.float32), "buffer/1.n": np.array(7)}
    checkpoint.save_checkpoint(path, checkpoint.Checkpoint(arrays, {"step": 1, "classes": ["a"]}))
    return path.read_bytes()


def small_archive(form: int) -> bytes:
    """Return an uncompressed tar archive to begin with."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as tar:
        for member, content in cifar_files.members({"data_batch_1": b"x"}):
            member.pax_headers = {"mtime": "1.5"}
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def small_configs() -> list[bytes]:
    """Return configs to begin with; the first is small, as PyYAML reads a page in 10 ms."""
    least = "model: [flatten, {linear: {out_features: 10}}]\ndata: {dataset: shapes}\n"
    least += "train: {epochs: 1, optimizer: {sgd: {lr: 1e-3}}}\n"
    layers = "model: &a\n- conv2d: {out_channels: 2, kernel_size: [3, 1]}\n- residual: {body: [relu]}\ndata: *a\n"
    return [least.encode(), layers.encode(), FULL.encode()]


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "pickles": (pickles, lambda: [cifar_files.python_files(1)[name] for name in ("data_batch_1", "batches.meta")]),
    "batches": (
        binaries,
        lambda: [cifar_files.python_files(2)["data_batch_1"], cifar_files.binary_files(2)["data_batch_1.bin"]],
    ),
    "own-data": (own_data, small_data),
    "archives": (archives, lambda: [small_archive(tarfile.USTAR_FORMAT), small_archive(tarfile.PAX_FORMAT)]),
    "configs": (configs, small_configs),
    "checkpoints": (checkpoints, lambda: [small_checkpoint()]),
    "facts": (facts, lambda: [json.dumps(small_run().meta).encode()]),
}


def words() -> set[str]:
    """Return the words of configs, which mutations of bytes would not find."""
    return {word for path in bundled_folder().glob("*.yaml") for word in re.findall(r"\w+", path.read_text())}


def main() -> None:
    """Fuzz the target named first."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: .venv/bin/python scripts/fuzz.py {'|'.join(TARGETS)} [libFuzzer options]")
    target, seeds = TARGETS[sys.argv[1]]
    SEEDS.mkdir()
    for number, seed in enumerate(seeds()):
        (SEEDS / str(number)).write_bytes(seed)
    options = ["-max_len=8192"]
    if target in (configs, facts):
        (FOLDER / "words").write_text("".join(f'"{word}"\n' for word in sorted(words())), encoding="utf-8")
        options = ["-max_len=1024" if target is configs else "-max_len=4096", f"-dict={FOLDER / 'words'}"]
    again = any(Path(argument).is_file() for argument in sys.argv[2:])  # an input found by an earlier run
    atheris.Setup([sys.argv[0], *options, *sys.argv[2:], *([] if again else [str(SEEDS)])], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
