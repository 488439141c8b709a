"""Gets the CIFAR datasets: download, check, unpack."""

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cnnlite.data.datasets.cifar import LARGEST_FILE
from cnnlite.data.download.archive import LARGEST_ARCHIVE, extract, md5
from cnnlite.data.download.connection import is_address, shown
from cnnlite.data.download.fetch import BytesDone, fetch, kept
from cnnlite.errors import ConfigError, DataError
from cnnlite.utils.files import locked_folder, writing
from cnnlite.utils.hints import Argument
from cnnlite.utils.signals import Stopped
from cnnlite.utils.suggest import did_you_mean


@dataclass(frozen=True)
class Archive:
    """A published archive, and the MD5s of what is in it."""

    url: str
    md5: str
    folder: str
    members: Mapping[str, str]


ARCHIVES = {
    "cifar10": Archive(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        md5="c58f30108f718f92721af3b95e74349a",
        folder="cifar-10-batches-py",
        members={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
            "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
        },
    ),
    "cifar100": Archive(
        url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        folder="cifar-100-python",
        members={
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            "meta": "7973b15100ade9c7d40fb424638fde48",
        },
    ),
}


def download_cifar(
    root: Path,
    *,
    dataset: str = "cifar10",
    from_file: Path | None = None,
    url: str | None = None,
    progress: BytesDone = lambda done, total: None,
    say: Callable[[str], object] = lambda text: None,
) -> Path:
    """Put a dataset into ``root`` and return its folder; does nothing if it is there already, complete and verified.

    Args:
        root: Folder of the datasets; made if need be.
        dataset: ``cifar10`` or ``cifar100``.
        from_file: An archive on this machine, instead of a download.
        url: Another address of the archive; what it holds must be the same, the packing may differ.
        progress: Told about the bytes downloaded, then about those unpacked.
        say: Told what happens, a line at a time.

    Raises ConfigError for an unknown dataset or a bad address, DataError if the archive cannot be had or is not what it
    should be, StorageError if ``root`` cannot be written.
    """
    if dataset not in ARCHIVES:
        raise ConfigError(f"there is nothing to download for {dataset!r}{did_you_mean(dataset, ARCHIVES)}")
    if from_file is not None and url is not None:
        raise ConfigError(f"{Argument('from_file')} and {Argument('url')} exclude each other")
    archive = ARCHIVES[dataset]
    target = root / archive.folder
    if is_complete(target, archive):
        say(f"{target}: complete and verified already, nothing to do")
        return target
    if from_file is not None and not from_file.is_file():
        raise DataError(f"{from_file}: {'not a file' if from_file.exists() else 'no such file'}")
    if url is not None and not is_address(url):
        hint = f"for a file on this machine use {Argument('from_file')}"
        raise ConfigError(f"{Argument('url')} {shown(url)}: not an http or https address; {hint}")
    with writing(root):
        root.mkdir(parents=True, exist_ok=True)
    with locked_folder(root) as alone:
        if not alone:
            raise DataError(f"{root}: another process is downloading into this folder; wait until it is done")
        if is_complete(target, archive):
            say(f"{target}: complete and verified by another process")
            return target
        if from_file is not None:
            say(f"unpacking {from_file}")
            aside = extract(from_file, target, archive.members, progress)
        else:
            aside = _get(url or archive.url, target, archive, progress, say)
    if aside is not None:
        say(f"the incomplete or changed files that were there are now in {aside}")
    say(f"{target}: complete and verified")
    return target


def is_complete(folder: Path, archive: Archive) -> bool:
    """True if all files of the dataset are in ``folder``, byte for byte; DataError if they cannot be read."""
    try:
        for name, checksum in archive.members.items():
            # What is no file of the right kind of size (a pipe, a device) might be read for ever.
            status = (folder / name).stat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST_FILE or md5(folder / name) != checksum:
                return False
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read: {error.strerror}") from None


def _get(url: str, target: Path, archive: Archive, progress: BytesDone, say: Callable[[str], object]) -> Path | None:
    """Download and unpack an archive; returns what `extract` does."""
    # Other programs call theirs .part, too: this one says whose it is.
    part = target.with_name(f"{target.name}.tar.gz.cnnlite.part")

    def fetch_official() -> bool:
        """Download what is missing, and return True if the whole is the published archive."""
        fetch(url, part, limit=LARGEST_ARCHIVE, progress=progress)
        return md5(part) == archive.md5

    try:
        resumed = part.exists()
        say(f"{'going on with' if resumed else 'downloading'} {url}")
        official = fetch_official()
        if resumed and not official:  # perhaps it began as another file, or another one is on the server now
            say("the checksum of the whole is wrong: starting over")
            part.unlink()
            official = fetch_official()
        if not official and url == archive.url:
            part.unlink()
            raise DataError(
                f"{url}: the archive has the wrong checksum and is removed; "
                f"try again, or a mirror with {Argument('url')}"
            )
        say("unpacking" if official else "not the official archive: what is in it will be checked")
        try:
            aside = extract(part, target, archive.members, progress)
        except DataError as error:
            part.unlink()
            raise DataError(f"{error}; the download is removed, run the same command again") from None
    except Stopped as stopped:
        stopped.hint = kept(part).removeprefix("; ")
        raise
    part.unlink()
    return aside
