"""The page in Chromium: what goes wrong, the key, and everybody's access to it."""

import re
import shutil
from pathlib import Path

import pytest

from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.serving.options import DEFAULTS, Limits
from tests.browser import Browser
from tests.environments import install_node
from tests.serving.pages import PROBLEM, RECORD, done, drop, finish, open_page, press, speak, until, words
from tests.serving.servers import running, write_talk

pytestmark = pytest.mark.slow
AXE = "axe-core@4.14.1"


def test_the_key_is_asked_for_until_it_is_right(
    wordy: Recogniser, browser: Browser, spoken: Path, tmp_path: Path
) -> None:
    def give(key: str) -> None:
        browser.evaluate(f"document.querySelector('#key').value = '{key}'")
        browser.evaluate("document.querySelector('#key-dialog [type=submit]').click()")

    with running({"wordy": wordy}, tmp_path / "uploads", keys=["right-key"]) as server:
        browser.open(f"{server.url}/")
        until(browser, "document.querySelector('#key-dialog[open]')?.id")
        assert not browser.evaluate("document.querySelector('#key-wrong').checkVisibility()")
        give("wrong-key")
        until(browser, "document.querySelector('#key-wrong').textContent.includes('does not know')")
        give("right-key")
        until(browser, "document.querySelector('#model').value")
        drop(browser, spoken)
        done(browser)
        assert words(browser)
        speak(browser, 20)
        finish(browser)
        assert words(browser)
        open_page(browser, server.url)  # the tab remembers the key
        assert not any("key" in each.removeprefix(server.url) for each in browser.requests)
        browser.evaluate("sessionStorage.clear()")
        browser.open(f"{server.url}/")
        until(browser, "document.querySelector('#key-dialog[open]')?.id")
        press(browser, "Escape", 27)
        until(browser, "document.querySelector('#notice').textContent.includes('needs a key')")


def test_a_server_that_goes_away_is_told_and_the_text_stays(
    wordy: Recogniser, browser: Browser, spoken: Path, tmp_path: Path
) -> None:
    with running({"wordy": wordy}, tmp_path / "uploads") as server:
        open_page(browser, server.url)
        speak(browser, 50)
        until(browser, "document.querySelector('.open').textContent.length > 4")
    assert "connection to the server was lost" in until(browser, PROBLEM)
    assert browser.evaluate("document.querySelector('.segment p').textContent.length") > 4
    assert browser.evaluate(f"{RECORD}.dataset.state") == "idle"
    drop(browser, spoken)
    until(browser, "document.querySelector('.card .problem').textContent.includes('cannot be reached')")


def test_a_busy_server_is_told_and_another_try_helps(
    wordy: Recogniser, browser: Browser, spoken: Path, tmp_path: Path
) -> None:
    with running({"wordy": wordy}, tmp_path / "uploads") as server:
        open_page(browser, server.url)
        server.service.num_streams = DEFAULTS.max_streams
        browser.evaluate(f"{RECORD}.click()")
        assert "server is busy" in until(browser, PROBLEM)
        server.service.num_requests = DEFAULTS.max_requests
        drop(browser, spoken)
        until(browser, "document.querySelector('.card .problem').textContent.includes('busy')")
        server.service.num_streams = server.service.num_requests = 0
        browser.evaluate("document.querySelector('.card .again').click()")
        done(browser)
        assert words(browser)
        speak(browser, 5)
        finish(browser)
        assert browser.evaluate(PROBLEM) == ""


def test_what_is_wrong_with_a_file_is_told(wordy: Recogniser, browser: Browser, tmp_path: Path) -> None:
    files = {"large.wav": b"x" * 200_000, "empty.wav": b"", "text.wav": b"no sound"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    long = write_talk(tmp_path / "long.wav", 3.0, 0)
    limits = Limits(max_megabytes=0.1, max_seconds=2)
    with running({"wordy": wordy}, tmp_path / "uploads", limits) as server:
        open_page(browser, server.url)
        assert "0.1 MB and 2 seconds" in browser.evaluate("document.querySelector('#limits').textContent")
        drop(browser, *(tmp_path / name for name in files), long)
        done(browser, 4)
        problems = browser.evaluate("[...document.querySelectorAll('.problem-text')].map((each) => each.textContent)")
    told = [each for each in problems if each]
    for problem, part in zip(told, ("too long", "no sound", "is empty", "up to 0.1 MB"), strict=True):
        assert part in problem


def test_a_file_that_is_gone_is_told(wordy: Recogniser, browser: Browser, spoken: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone.wav"
    shutil.copy(spoken, gone)
    with running({"wordy": wordy}, tmp_path / "uploads") as server:
        open_page(browser, server.url)
        server.service.num_requests = DEFAULTS.max_requests
        drop(browser, gone)
        until(browser, "document.querySelector('.card .problem').textContent.includes('busy')")
        server.service.num_requests = 0
        gone.unlink()
        browser.evaluate("document.querySelector('.card .again').click()")
        until(browser, "document.querySelector('.card .problem').textContent.includes('cannot read this')")
        drop(browser, tmp_path)  # a folder
        until(browser, "document.querySelector('.card .problem').textContent.includes('folders')")


def test_stopping_before_the_microphone_opens_closes_it(wordy: Recogniser, browser: Browser, tmp_path: Path) -> None:
    with running({"wordy": wordy}, tmp_path / "uploads") as server:
        open_page(browser, server.url)
        browser.evaluate(f"""
            const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
            const allowed = new Promise((resolve) => (window.allow = resolve));
            navigator.mediaDevices.getUserMedia = async (wanted) => {{
              await allowed;
              return (window.media = await open(wanted));
            }};
            {RECORD}.click();
            {RECORD}.click();""")
        until(browser, f"{RECORD}.dataset.state === 'idle'")
        browser.evaluate("allow()")
        until(browser, "window.media?.getTracks().every((each) => each.readyState === 'ended')")
        speak(browser, 2)
        finish(browser)
        server.wait_until_idle()
        assert browser.complaints == []


def test_sound_that_does_not_start_is_told(wordy: Recogniser, browser: Browser, tmp_path: Path) -> None:
    # So does Firefox on a computer without a loudspeaker.
    with running({"wordy": wordy}, tmp_path / "uploads") as server:
        open_page(browser, server.url)
        browser.evaluate(f"""
            const started = new Promise((resolve) => (window.begin = resolve));
            AudioContext.prototype.resume = () => started;
            {RECORD}.click()""")
        assert "sound does not start" in until(browser, PROBLEM)
        browser.evaluate(f"{RECORD}.click()")
        until(browser, f"{RECORD}.dataset.state === 'starting'")
        browser.evaluate(f"{RECORD}.click(); begin()")
        browser.evaluate("new Promise((resolve) => setTimeout(resolve, 300))")
        assert browser.evaluate(f"{RECORD}.dataset.state") == "idle"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("NotAllowedError", "does not let this page use the microphone"),
        ("NotFoundError", "No microphone was found"),
        ("NotReadableError", "Another program may be using it"),
    ],
)
def test_what_is_wrong_with_the_microphone_is_told(
    wordy: Recogniser, browser: Browser, tmp_path: Path, error: str, message: str
) -> None:
    with running({"wordy": wordy}, tmp_path / "uploads") as server:
        open_page(browser, server.url)
        browser.evaluate(f"""
            navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException("", "{error}"); }};
            {RECORD}.click()""")
        assert message in until(browser, PROBLEM)
        assert browser.evaluate("document.querySelectorAll('.card').length") == 0


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core."""
    return (install_node(tmp_path_factory.mktemp("axe"), AXE) / "axe-core/axe.min.js").read_text()


RIGHT_TO_LEFT = """
    import("/page/card.js").then(({ Card }) => {
      const card = new Card(document.querySelector("#cards"), "تسجيل".repeat(30) + ".wav", {}, {});
      const texts = ["كلمة", "<b>b</b>", "كلمة"];
      const confidences = [1, 0.7, 0.2];
      const words = texts.map((word, at) => ({ word, start: at, end: at + 1, confidence: confidences[at] }));
      card.fill({ text: "", duration: 3, words, segments: [{ text: "", start: 0, end: 3 }] });
      card.state("0:03, 3 words", "done");
      card.open("stable ", "changing");
    })"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_accessible_and_fits_narrow_screens(
    wordy: Recogniser, browser: Browser, spoken: Path, tmp_path: Path, axe: str, theme: str
) -> None:
    def violations() -> list[str]:
        script = "axe.run().then((found) => found.violations.map((each) => each.id + ' ' + each.nodes[0].html))"
        found: list[str] = browser.evaluate(script)
        return found

    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
    bad = tmp_path / f"{'very long name ' * 12}.wav"
    bad.write_bytes(b"no sound")
    with running({"wordy": wordy, "another": wordy}, tmp_path / "uploads", keys=["key"]) as server:
        browser.open(f"{server.url}/")
        until(browser, "document.querySelector('#key-dialog[open]')?.id")
        browser.evaluate(axe)
        assert violations() == []
        browser.evaluate("document.querySelector('#key').value = 'key'")
        browser.evaluate("document.querySelector('#key-dialog [type=submit]').click()")
        until(browser, "document.querySelector('#model').value")
        assert violations() == []
        drop(browser, spoken, bad)
        done(browser, 2)
        speak(browser, 30)
        assert violations() == []
        browser.evaluate(RIGHT_TO_LEFT)
        classes = browser.evaluate("[...document.querySelectorAll('.card:first-child .word')].map((e) => e.className)")
        assert classes == ["word", "word unsure", "word doubtful"]
        assert browser.evaluate("document.querySelector('.card b')") is None
        assert violations() == []
        ground, ink = browser.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
        brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ground, ink)]
        assert (brightness[0] > brightness[1]) == (theme == "light")
        for width in (1200, 375, 320, 200):
            browser.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False
            )
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
        finish(browser)
