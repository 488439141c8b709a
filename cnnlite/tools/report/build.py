"""Builds the report of a run, and says what is left out and why."""

import json
from collections.abc import Callable
from pathlib import Path

from cnnlite.config.load import render
from cnnlite.errors import CheckpointError, ConfigError, DataError, require
from cnnlite.tools.report import sections
from cnnlite.tools.report.behaviour import observe
from cnnlite.tools.report.explain import judge
from cnnlite.tools.report.page import Page, details, note
from cnnlite.tools.report.record import Record, load_seen, load_trained
from cnnlite.utils.files import refuse_existing, write_files, writing
from cnnlite.utils.hints import Argument

_WITHOUT_IMAGES = "class by class, mistakes, calibration, feature maps, occlusion and dead ReLUs"
_SPLITS = {
    "validation": "Pictures and tables of images are of the validation images: they may be looked at as often as "
    "you like. The test images were used once, for the test accuracy above, and are shown nowhere.",
    "test": "This run has no validation images, so the pictures and tables of images are of the test images, after "
    "their test. Choose nothing by them, or the test accuracy of later runs will promise too much.",
    "training": "This run has no validation images, and its test is still to come, so the pictures and tables of "
    "images are of the training images: they look better than new images would.",
}


def write_report(
    record: Record,
    folder: Path,
    root: str | None = None,
    say: Callable[[str], None] = print,
    *,
    force: bool = False,
) -> Path:
    """Write ``index.html`` and its pictures to ``folder``, made if needed, and return the path of the page.

    ``root`` overrides the folder of the dataset; ``say`` is told what takes time, and what is left out.

    Raises:
        ConfigError: If a file exists, unless ``force`` allows to replace it; or if the default folder is a link, which
            may lead anywhere in a run from elsewhere.
        StorageError: If the files cannot be written.
    """
    require("cnnlite report", "matplotlib", "plot")
    index = folder / "index.html"
    if folder == record.path / "report" and folder.is_symlink():
        raise ConfigError(f"{folder}: is a link; name the folder that it leads to with {Argument('out')}")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is not a folder; name another with {Argument('out')}")
    refuse_existing([index], force=force)  # the pictures are not known yet
    page = report_page(record, root, say)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    pictures = {folder / name: content for name, content in page.files.items()}
    write_files({index: page.html().encode(), **pictures}, force=force)
    return index


def report_page(record: Record, root: str | None, say: Callable[[str], None]) -> Page:
    """Return the page with all sections that the run, its checkpoint and its dataset allow."""
    config = record.config
    made = f", trained from the config {record.result['config']}" if record.result.get("config") else ""
    page = Page(record.name, f"A report on the run {record.path}{made}")
    sections.overview(page, record)
    trained, seen, left_out = None, None, []
    try:
        trained = load_trained(record)
        seen = load_seen(record, trained, root)
    except CheckpointError as error:
        left_out.append(f"first-layer filters, {_WITHOUT_IMAGES}: {error}")
    except DataError as error:
        left_out.append(f"{_WITHOUT_IMAGES}: {error}")
    if seen is not None:
        page.add(note("Which images these are", _SPLITS[seen.split]))
    sections.findings(page, judge(record, trained, seen))
    if record.rows:
        sections.curves(page, record)
    else:
        left_out.append("curves: metrics.csv has no row yet")
    if trained is not None and seen is not None:
        say(f"looking at {len(seen.images):,} {seen.split} images with the checkpoint of step {trained.step:,}")
        behaviour = observe(trained.network, seen.images, trained.normalizer)
        sections.by_class(page, behaviour, seen.split, trained.classes)
        sections.mistakes(page, behaviour, seen.images, seen.split, trained.classes)
        sections.trust(page, behaviour)
    if trained is not None:
        left_out.append(sections.filters(page, trained))
    if trained is not None and seen is not None:
        left_out.append(sections.features(page, trained, seen))
        sections.occlusion(page, trained, seen)
    page.section("How it was made")
    if any(left_out):
        reasons = "; ".join(filter(None, left_out))
        page.add(note("Left out", reasons, kind="warn"))
        say(f"left out: {reasons}")
    page.add(details("The config, with every default", render(config)))
    if record.environment:
        page.add(details("The machine", json.dumps(record.environment, indent=2, ensure_ascii=False)))
    return page
