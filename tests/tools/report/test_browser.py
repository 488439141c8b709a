"""The page in a real browser, at the widths of a desk and a phone: no complaints on the console, nothing cut off."""

import json
import re
import subprocess
from pathlib import Path

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-file-access-from-files",
    "--enable-logging=stderr",
    "--v=0",
    "--hide-scrollbars",
    "--window-size=1400,900",
    "--dump-dom",
)
WIDTHS = (1280, 390)
# Frames, because a window of Chromium is never as narrow as a phone. The page holds no script; this one looks at it.
FRAMES = """<!doctype html><meta charset="utf-8"><body>
<iframe width="1280" height="900" style="border:0" src="PAGE"></iframe>
<iframe width="390" height="800" style="border:0" src="PAGE"></iframe>
<pre id="found"></pre>
<script>
addEventListener("load", () => {
  const text = "p, td, th, figcaption, b, code, summary";
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, root = page.documentElement;
    return {
      width: root.clientWidth,
      content: root.scrollWidth,
      images: page.images.length,
      broken: [...page.images].filter(image => !image.naturalWidth).length,
      smallest: Math.min(...[...page.querySelectorAll(text)].map(one => parseFloat(getComputedStyle(one).fontSize))),
    };
  });
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script>"""


def test_the_page_is_whole_at_the_widths_of_a_desk_and_a_phone(browser: str, report: Path, tmp_path: Path) -> None:
    frames = tmp_path / "frames.html"
    frames.write_text(FRAMES.replace("PAGE", (report / "index.html").as_uri()), encoding="utf-8")
    command = [browser, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", frames.as_uri()]

    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    assert "CONSOLE" not in done.stderr
    match = re.search(r'<pre id="found">(.+?)</pre>', done.stdout)
    assert match, done.stdout[:2000]
    seen = json.loads(match[1])
    assert [frame["width"] for frame in seen] == list(WIDTHS)
    for frame in seen:
        assert frame["content"] == frame["width"]
        assert frame["images"] > 15
        assert frame["broken"] == 0
        assert frame["smallest"] >= 12
