import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

from cnnlite.data import transforms
from tests.support.pages import ROOT
from tests.utils.test_png import decoded

SCRIPT = ROOT / "scripts" / "augmentation_sheet.py"


def test_the_picture_in_docs_is_what_the_augmentations_make_now(tmp_path: Path) -> None:
    subprocess.run([sys.executable, SCRIPT, "--out", tmp_path / "sheet.png"], check=True)
    drawn, shown = (decoded(path.read_bytes()) for path in (tmp_path / "sheet.png", ROOT / "docs/augmentation.png"))
    np.testing.assert_array_equal(drawn, shown)


def test_the_picture_shows_all_augmentations_but_the_one_of_which_nothing_is_random() -> None:
    shown = yaml.safe_load(SCRIPT.read_text(encoding="utf-8").split('SHOWN = """')[1].split('"""')[0])
    names = {each if isinstance(each, str) else next(iter(each)) for each in shown}
    assert names == set(transforms) - {"center_crop"}
