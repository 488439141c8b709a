"""Headless Chromium, steered by the DevTools protocol through a pair of pipes: keys, clicks, scripts and pictures."""

import base64
import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-pipe",
)
SIZES = {"desk": (1280, 900), "phone": (390, 844)}
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Escape": 27, "Enter": 13, "Tab": 9}
KEYS |= {"Home": 36, "End": 35, "PageUp": 33, "PageDown": 34}

# Chromium reads commands from descriptor 3 and answers on 4, which may be taken before.
_PIPES = 'exec 213<&"$0" 214>&"$1"; shift; exec 3<&213 4>&214 213<&- 214>&-; exec "$@"'


class Chromium:
    """A browser with one tab at a time, and what it complained about or asked for."""

    def __init__(self, program: str, profile: Path):
        (commands, own_commands), (own_answers, answers) = os.pipe(), os.pipe()

        self._process = subprocess.Popen(
            ["bash", "-c", _PIPES, str(commands), str(answers), program, *FLAGS, f"--user-data-dir={profile}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(commands, answers),
        )
        os.close(commands)
        os.close(answers)
        self._in, self._out = own_commands, own_answers
        self._rest = b""
        self._count = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        """Errors and warnings of the console, and exceptions."""
        self.requests: list[str] = []
        """Addresses that pages asked for."""

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result."""
        self._count += 1
        number = self._count
        message = {"id": number, "method": method, "params": params}
        if self._session is not None and not method.startswith("Target."):
            message["sessionId"] = self._session
        os.write(self._in, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _read(self, seconds: float = 60) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._out], [], [], max(0, end - time.monotonic()))
            assert ready, "Chromium does not answer"
            piece = os.read(self._out, 1 << 20)
            assert piece, "Chromium has ended"
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def open(self, page: Path, size: str = "desk", *, hash_: str = "", dark: bool = False, calm: bool = True) -> None:
        """Open a page from disk in a new tab of this size, and wait until it says that it is ready."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.complaints.clear()
        self.requests.clear()
        width, height = SIZES[size]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=size == "phone",
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=size == "phone")
        features = [("prefers-color-scheme", "dark" if dark else "light")]
        features += [("prefers-reduced-motion", "reduce" if calm else "no-preference")]
        self.call("Emulation.setEmulatedMedia", features=[{"name": name, "value": value} for name, value in features])
        self.call("Page.navigate", url=page.as_uri() + hash_)
        self.wait_for("document.documentElement?.dataset.ready")

    def run(self, script: str) -> Any:
        """Evaluate a script in the page, await it if need be, and return its value."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, script: str, seconds: float = 60) -> None:
        """Evaluate a script until its value is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({script})"):
            assert time.monotonic() < end, (f"never true: {script}", self.complaints)
            time.sleep(0.02)

    def press(self, *keys: str) -> None:
        """Press keys one after the other, as the keyboard does."""
        for key in keys:
            code = KEYS.get(key, ord(key.upper()) if len(key) == 1 else 0)
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            facts: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **facts)
            self.call("Input.dispatchKeyEvent", type="keyUp", **facts)

    def click(self, script: str, across: float = 0.5, down: float = 0.5, *, touch: bool = False) -> None:
        """Click, or tap, into the element that a script finds, at this part of its width and height."""
        x, y = self._place(script, across, down)
        if touch:
            self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
            self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
            return
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def point(self, script: str, across: float = 0.5, down: float = 0.5) -> None:
        """Move the mouse to the element that a script finds."""
        x, y = self._place(script, across, down)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def _place(self, script: str, across: float, down: float) -> tuple[float, float]:
        left, top, width, height = self.run(
            f"(async () => {{ const e = {script}; e.scrollIntoView({{block: 'center', inline: 'center'}}); "
            "await new Promise(requestAnimationFrame); await new Promise(requestAnimationFrame); "
            "const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()"
        )
        return left + across * width, top + down * height

    def picture(self, file: Path, *, whole: bool = False) -> None:
        """Save a picture of the page, or of all of it."""
        content = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        file.write_bytes(base64.b64decode(content))

    def close(self) -> None:
        """End the browser."""
        with contextlib.suppress(AssertionError, OSError):
            self._session = None
            self.call("Target.getTargets")
            os.write(self._in, b'{"id": 0, "method": "Browser.close"}\0')
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)


@contextlib.contextmanager
def running(program: str, profile: Path) -> Iterator[Chromium]:
    """Run Chromium for the block."""
    browser = Chromium(program, profile)
    try:
        yield browser
    finally:
        browser.close()
