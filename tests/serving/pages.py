"""The page of a server in Chromium, for tests."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browser import Browser, find_chromium
from tests.conftest import NO_CHROMIUM

SECONDS = 20.0
"""How long a test waits for the page."""
RECORD = "document.querySelector('#record')"
PROBLEM = "document.querySelector('#speak-problem:not([hidden])')?.textContent ?? ''"
"""What went wrong with live speech."""


def chromium() -> str:
    """Returns the path of Chromium; skips the test if there is none."""
    path = find_chromium()
    if path is None:
        pytest.skip(NO_CHROMIUM)
    return path


def microphone(wav: Path) -> tuple[str, ...]:
    """Lists Chromium's options for a microphone that plays a file once."""
    return (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={wav}%noloop",
    )


def until(browser: Browser, condition: str, seconds: float = SECONDS) -> Any:
    """Waits until a JavaScript expression is true; returns its value."""
    deadline = time.monotonic() + seconds
    while not (value := browser.evaluate(condition)):
        if time.monotonic() > deadline:
            raise AssertionError(f"never true: {condition}\n{browser.evaluate('document.body.innerText')}")
        time.sleep(0.03)
    return value


def open_page(browser: Browser, url: str) -> None:
    """Opens the page and waits until it knows the models."""
    browser.open(f"{url}/")
    until(browser, "document.querySelector('#model').value")


def drop(browser: Browser, *files: Path) -> None:
    """Drops files on the page, as a user does."""
    paths = [str(path) for path in files]
    data = {"items": [], "files": paths, "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.call("Input.dispatchDragEvent", type=kind, x=50, y=50, data=data)


def press(browser: Browser, key: str, code: int) -> None:
    """Presses a key."""
    text = {"text": "\r"} if key == "Enter" else {}
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)


def words(browser: Browser, card: int = 1) -> list[str]:
    """Returns the words on a card, by default on the newest."""
    script = f"[...document.querySelectorAll('.card:nth-child({card}) .word')].map((each) => each.textContent)"
    found: list[str] = browser.evaluate(script)
    return found


def done(browser: Browser, cards: int = 1) -> None:
    """Waits until the page has so many transcripts, and is busy with none."""
    labels = "[...document.querySelectorAll('.remove')].map((each) => each.textContent)"
    until(browser, f"JSON.stringify({labels}) === {json.dumps(json.dumps(['Remove'] * cards, separators=(',', ':')))}")


def sent_samples(browser: Browser) -> np.ndarray:
    """Returns the samples that the page sent live, [S] int16."""
    return np.frombuffer(b"".join(browser.sent), "<i2")


def downloads(browser: Browser, folder: Path, card: int = 1) -> Iterator[Path]:
    """Clicks each of a card's downloads; yields the files."""
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    for kind in ("txt", "srt", "vtt", "json"):
        browser.evaluate(f"document.querySelector('.card:nth-child({card}) [data-format={kind}]').click()")
        deadline = time.monotonic() + SECONDS
        while not (found := list(folder.glob(f"*.{kind}"))):
            assert time.monotonic() < deadline, f"no {kind} came"
            time.sleep(0.02)
        yield found[0]


def speak(browser: Browser, num_answers: int) -> None:
    """Starts the microphone, and waits for so many answers of the server."""
    before = len(browser.received)
    browser.evaluate(f"{RECORD}.click()")
    until(browser, f"{RECORD}.dataset.state === 'listening'")
    deadline = time.monotonic() + SECONDS
    while len(browser.received) < before + num_answers:
        assert time.monotonic() < deadline, f"{len(browser.received) - before} of {num_answers} answers came"
        browser.evaluate("1")


def finish(browser: Browser) -> None:
    """Stops the microphone, and waits for the last words."""
    browser.evaluate(f"{RECORD}.click()")
    until(browser, f"{RECORD}.dataset.state === 'idle'")
