"""A headless Chromium, driven over the pipe of its own debugging protocol: no driver and no package besides.

https://chromedevtools.github.io/devtools-protocol/; messages are JSON with a NUL behind.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.support.runner import until

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    "--disable-sync", "--mute-audio", "--force-color-profile=srgb", "about:blank",
)  # fmt: skip


class Browser:
    """One Chromium with one page."""

    def __init__(self, program: str, home: str) -> None:
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        # The protocol is on descriptors 3 and 4.
        shell = f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, program, f"--user-data-dir={home}", *FLAGS],
            pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True, env={**os.environ, "HOME": home},
        )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        self._rest, self._number = b"", 0
        self._session: str | None = None
        self.requests: list[str] = []
        """URLs of everything that the page has asked for."""
        self.complaints: list[str] = []
        """What its console and its scripts complained of."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._to)  # it ends when the pipe does
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)
            self._process.wait()
        os.close(self._from)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            self._event(answer)
        assert "error" not in answer, (method, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = os.read(self._from, 1 << 16)
            assert data, "the browser is gone"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def _event(self, event: dict[str, Any]) -> None:
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.complaints.append(str(parameters["entry"]["text"]))

    def open(self, url: str) -> None:
        """Load a page."""
        self.call("Page.navigate", url=url)
        until(lambda: self.run("document.readyState") == "complete", f"{url} to load")

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def text(self) -> str:
        """What a person reads."""
        return str(self.run("document.body ? document.body.innerText : ''"))

    def shows(self, words: str, deadline: float = 20.0) -> None:
        """Wait until the page shows `words`, for `deadline` seconds."""
        until(lambda: words in self.text(), f"the page to show {words!r}", deadline)

    def screen(self, width: int, height: int, *, dark: bool = False, mobile: bool = False) -> None:
        """Its size in CSS pixels, and what its person likes."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key: str) -> None:
        """One key, pressed and released."""
        code = {"Enter": 13, "Escape": 27, "ArrowRight": 39, "ArrowLeft": 37, "ArrowDown": 40, "ArrowUp": 38}
        more: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code.get(key, ord(key[0].upper()))}
        if key == "Enter":
            more["text"] = "\r"
        elif len(key) == 1:
            more["text"] = key
        self.call("Input.dispatchKeyEvent", type="keyDown", **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", **more)

    def picture(self, path: Path) -> Path:
        """A PNG of what is in the window."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        return path


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser; skips the test where there is none, and fails where it was promised (GLM47_CI_BROWSER)."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        if os.environ.get("GLM47_CI_BROWSER") == "1":
            pytest.fail("GLM47_CI_BROWSER=1 promised a browser: there is no chromium", pytrace=False)
        pytest.skip("there is no chromium here: apt install chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home, Browser(program, home) as found:
        yield found
