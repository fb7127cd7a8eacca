"""A headless Chromium with the network cut, spoken to over a pipe by the Chrome DevTools Protocol.

https://chromedevtools.github.io/devtools-protocol/ ; --remote-debugging-pipe needs no port and no library.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
#: Seconds for an answer, or for a page.
PATIENCE = 60.0
#: Schemes of what a page may load without a network.
LOCAL = ("data:", "blob:", "file:", "about:", "chrome:")


class Page:
    """An open page.

    Attributes
    ----------
    requests : addresses of everything that it asked for.
    complaints : what it wrote to the console as a warning or error, and exceptions of its scripts.
    questions : the dialogs that it opened, by their kind ("beforeunload", "confirm"); each is answered with yes.
    """

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer = reader, writer
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.questions: list[str] = []
        self.loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        number = self._send(method, **params)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
        raise TimeoutError(method)

    def _send(self, method: str, **params: Any) -> int:
        """Ask for a method of the protocol, and return the number of its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        return self._number

    def _next(self) -> dict[str, Any]:
        """Return the next message; of an event, note what it tells."""
        while b"\0" not in self._buffer:
            more = os.read(self._reader, 1 << 20)
            assert more, "Chromium has ended"
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        params = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Log.entryAdded" if params["entry"]["level"] in ("warning", "error"):
                self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.complaints.append(details.get("exception", {}).get("description") or details["text"])
            case "Runtime.consoleAPICalled" if params["type"] in ("warning", "error", "assert"):
                self.complaints.append(" ".join(str(word.get("value")) for word in params["args"]))
            case "Page.javascriptDialogOpening":
                self.questions.append(params["type"])
                self._send("Page.handleJavaScriptDialog", accept=True)
            case "Page.loadEventFired":
                self.loaded = True
        return message

    def open(self, address: str) -> None:
        """Load *address* to its end."""
        self.loaded = False
        failure = self.call("Page.navigate", url=address).get("errorText")
        assert not failure, f"{address}: {failure}"
        while not self.loaded:
            self._next()

    def enter_frame(self) -> int:
        """Return a context in which :meth:`evaluate` sees the page's one frame, also of another origin."""
        (child,) = self.call("Page.getFrameTree")["frameTree"]["childFrames"]
        world = self.call("Page.createIsolatedWorld", frameId=child["frame"]["id"])
        return int(world["executionContextId"])

    def evaluate(self, expression: str, context: int | None = None) -> Any:
        """Return the value of a JavaScript expression; of a promise, what it becomes."""
        where = {} if context is None else {"contextId": context}
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, **where)
        assert "exceptionDetails" not in result, f"{expression}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 20, context: int | None = None) -> Any:
        """Evaluate *expression* until it is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if value := self.evaluate(expression, context):
                return value
            time.sleep(0.1)
        raise AssertionError(f"not so after {seconds:g} s: {expression}; the page complains: {self.complaints}")

    def move_to(self, x: float, y: float, click: bool = False) -> None:
        """Move the mouse to a place of the window, in CSS pixels, and click there if asked to."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased") if click else ():
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path) -> None:
        """Save what the window shows as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    @contextmanager
    def another_tab(self, address: str = "about:blank", is_asked: bool = False) -> Iterator[None]:
        """Have another tab in front for the block, so that this page is hidden.

        Parameters
        ----------
        is_asked : expressions in the block are the other tab's.
        """
        session, self._session = self._session, None
        target = self.call("Target.createTarget", url=address)["targetId"]
        other = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = other
        self.wait_for(f"location.protocol === '{address.partition(':')[0]}:' && document.readyState === 'complete'")
        self._session = session
        self.wait_for("document.hidden")
        try:
            self._session = other if is_asked else session
            yield
        finally:
            self._session = None
            self.call("Target.closeTarget", targetId=target)
            self._session = session
            self.wait_for("!document.hidden")

    @contextmanager
    def sized(self, width: int, height: int = 900) -> Iterator[None]:
        """Have a window of this size for the block: a phone's, where it is narrow."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        try:
            yield
        finally:
            self.call("Emulation.clearDeviceMetricsOverride")

    @contextmanager
    def printed(self) -> Iterator[None]:
        """Show the page for the block as it is printed."""
        self.call("Emulation.setEmulatedMedia", media="print")
        try:
            yield
        finally:
            self.call("Emulation.setEmulatedMedia", media="")

    def requests_that_leave(self) -> list[str]:
        """Return the addresses that need a network."""
        return [address for address in self.requests if not address.startswith(LOCAL)]


@contextmanager
def chromium(width: int = 1400, height: int = 900) -> Iterator[Page]:
    """Run a headless Chromium in which no host name resolves and no address is reached but this machine's."""
    assert CHROMIUM, "no Chromium on this machine"
    to_browser, from_us = os.pipe()
    from_browser, to_us = os.pipe()
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        command = [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--window-size={width},{height}",
            f"--user-data-dir={profile}", "--remote-debugging-pipe",
        ]  # fmt: skip
        # The browser reads its descriptor 3 and writes its 4; bash puts them there (dash knows single digits only).
        words = ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{to_us}', "bash", *command]
        process = subprocess.Popen(
            words, pass_fds=(to_browser, to_us), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(to_us)
        try:
            yield Page(from_browser, from_us)
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
            os.close(from_browser)
            os.close(from_us)
