"""Controls headless Chromium over a pipe with its DevTools protocol, without another package."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
    *("--autoplay-policy=no-user-gesture-required", "--remote-debugging-pipe"),
)
SECONDS = 120
"""Time that Chromium may take for an answer."""


def find_chromium() -> str | None:
    """Returns the path of Chromium; None if it is not installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """A page in Chromium; a context manager.

    Args:
        chromium: path of Chromium.
        options: further options of its command line.

    Attributes:
        complaints: errors and warnings on the page's console, and errors of its scripts.
        requests: addresses that the page requested, except data URLs; WebSockets too.
        sent: binary messages that the page sent over WebSockets.
        received: text messages that it got over WebSockets.
    """

    def __init__(self, chromium: str, *options: str) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.sent: list[bytes] = []
        self.received: list[str] = []
        self._replies: dict[int, dict[str, Any]] = {}
        self._loaded = False
        self._buffer = b""
        self._count = 0
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, to = os.pipe()
        self._to = open(to, "wb")  # noqa: PTH123, SIM115 - a descriptor; unlike os.write, a file writes everything
        self._from, theirs_out = os.pipe()
        shell = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'  # Chromium expects its pipes at these descriptors
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", shell, "bash", chromium, *OPTIONS, *options, f"--user-data-dir={self._profile.name}"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)

    def __enter__(self) -> Self:
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._to.close()
        os.close(self._from)
        self._process.kill()
        self._process.wait()
        self._profile.cleanup()

    def open(self, page: Path | str) -> None:
        """Opens a file or an address and waits until it is loaded."""
        self._loaded = False
        self.call("Page.navigate", url=page if isinstance(page, str) else page.absolute().as_uri())
        while not self._loaded:
            self._read()

    def evaluate(self, script: str) -> Any:
        """Evaluates JavaScript in the page and returns the value; waits for a promise."""
        reply = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in reply:
            raise AssertionError(f"{reply['exceptionDetails']}")
        return reply["result"].get("value")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command of the protocol to the page and returns the result."""
        return self._call(method, self._session, **parameters)

    def _call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        message |= {"sessionId": session} if session else {}
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while self._count not in self._replies:
            self._read()
        reply = self._replies.pop(self._count)
        if "error" in reply:
            raise AssertionError(f"{method}: {reply['error']}")
        result: dict[str, Any] = reply["result"]
        return result

    def _read(self) -> None:
        """Reads one message."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], SECONDS)
            assert ready, f"Chromium said nothing for {SECONDS} s"
            data = os.read(self._from, 2**20)
            assert data, "Chromium ended"
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(line)
        if "id" in message:
            self._replies[message["id"]] = message
            return
        method, parameters = message["method"], message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        else:
            self._note(method, parameters)

    def _note(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.complaints.append(str(parameters["entry"]))
        elif method == "Network.requestWillBeSent" and not parameters["request"]["url"].startswith("data:"):
            self.requests.append(parameters["request"]["url"])
        elif method == "Network.webSocketCreated":
            self.requests.append(parameters["url"])
        elif method == "Network.webSocketFrameSent" and parameters["response"]["opcode"] == 2:
            self.sent.append(base64.b64decode(parameters["response"]["payloadData"]))
        elif method == "Network.webSocketFrameReceived" and parameters["response"]["opcode"] == 1:
            self.received.append(parameters["response"]["payloadData"])
