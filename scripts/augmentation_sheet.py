#!/usr/bin/env python3
"""Draw docs/augmentation.png: a picture as each augmentation makes it, eight times, the name and options above.

.venv/bin/python scripts/augmentation_sheet.py      # after a change of what an augmentation does
"""

from pathlib import Path

import click
import numpy as np
import yaml

from cnnlite.config.construct import construct
from cnnlite.config.problem_list import Problems
from cnnlite.data import Batches, Images, Normalizer, Transform
from cnnlite.tools.lettering import caption
from cnnlite.tools.report.tiles import enlarge, mosaic
from cnnlite.utils.png import png
from cnnlite.utils.types import Array

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "augmentation.png"
SHOWN = """
- random_flip
- alternating_flip
- random_crop: {padding: 6}
- random_crop: {padding: 6, mode: reflect}
- random_translation: {translate: 0.2}
- random_rotation: {degrees: 30}
- random_resized_crop: {scale: [0.2, 1.0]}
- cutout: {size: 12}
- random_erasing: {probability: 1.0}
- color_jitter: {brightness: 0.5, contrast: 0.5}
- color_jitter: {saturation: 1.0, hue: 0.5}
- trivial_augment_wide
"""
"""Augmentations as a config has them, a row each: all but the one of which nothing is random."""
ACROSS = 8
SIDE = 40


def house() -> Array:
    """Draw a house on a meadow below the sun, uint8 (SIDE, SIDE, 3)."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    sky = np.stack([90 + 3 * y, 150 + 2 * y, np.full_like(y, 235)], axis=-1)
    parts = [
        (np.hypot(x - 32, y - 8) < 5, (255, 225, 60)),
        (y > 30 + 2 * np.sin(x / 6), (70, 150, 60)),
        ((abs(x - 16) < 9) & (y > 19) & (y < 34), (225, 205, 175)),
        ((y < 19) & (y > 8) & (abs(x - 16) < y - 8), (170, 60, 45)),
        ((x > 18) & (x < 23) & (y > 25) & (y < 34), (95, 60, 40)),
        ((x > 9) & (x < 14) & (y > 22) & (y < 27), (60, 90, 130)),
    ]
    for inside, colour in parts:
        sky[inside] = colour
    return sky.round().astype(np.uint8)


def row(transform: Transform, name: str) -> Array:
    """Draw the picture as a transform makes it in eight places of a batch, pixels (H, W, 3)."""
    images = Images(np.repeat(house()[None], ACROSS, axis=0), np.zeros(ACROSS, np.int64))
    raw = Normalizer(np.zeros(3), np.ones(3))
    batch = Batches(images, ACROSS, seed=0, transforms=[transform], normalizer=raw).batch(0)[0]
    pictures = mosaic([enlarge(image, 2 * SIDE) for image in batch.astype(np.uint8)], ACROSS)
    pictures = np.where(pictures[..., 3:] == 0, 255, pictures)[..., :3]  # white in between
    return np.concatenate([caption(name, pictures.shape[1]), pictures])


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=OUT, help="The picture to write.")
def main(out: Path) -> None:
    """Draw a row for each of the augmentations."""
    problems = Problems()
    made, _ = construct(list[Transform], yaml.safe_load(SHOWN), (), problems)
    problems.raise_any()
    names = SHOWN.replace("- ", "").strip().splitlines()
    rows = [row(transform, name) for transform, name in zip(made, names, strict=True)]
    out.write_bytes(png(mosaic(rows, 1)))


if __name__ == "__main__":
    main()
