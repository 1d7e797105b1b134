"""The page in Chromium: live speech with a file as the microphone, and what goes wrong."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.streaming import FinalText
from ds2_jax.serving.options import DEFAULTS, Limits
from tests.browser import Browser
from tests.conftest import NO_NPM
from tests.serving.pages import chromium, done, drop, microphone, open_page, press, sent_samples, until, words
from tests.serving.servers import LIVE_CONFIG, running, talkative, write_talk

pytestmark = pytest.mark.slow
AXE = "axe-core@4.14.1"
RECORD = "document.querySelector('#record')"
PROBLEM = "document.querySelector('#speak-problem:not([hidden])')?.textContent ?? ''"


@pytest.fixture(scope="module")
def wordy(tmp_path_factory: pytest.TempPathFactory) -> Recogniser:
    """A model that can stream and writes many words."""
    return talkative(tmp_path_factory.mktemp("runs") / "wordy", LIVE_CONFIG, seed=11)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the microphone hears."""
    return write_talk(tmp_path_factory.mktemp("spoken") / "talk.wav", 12.0, 3)


@pytest.fixture
def browser(spoken: Path) -> Iterator[Browser]:
    with Browser(chromium(), *microphone(spoken)) as browser:
        yield browser


def speak(browser: Browser, num_answers: int) -> None:
    """Starts the microphone, and waits for so many answers of the server."""
    before = len(browser.received)
    browser.evaluate(f"{RECORD}.click()")
    until(browser, f"{RECORD}.dataset.state === 'listening'")
    while len(browser.received) < before + num_answers:
        browser.evaluate("1")


def finish(browser: Browser) -> None:
    """Stops the microphone, and waits for the last words."""
    browser.evaluate(f"{RECORD}.click()")
    until(browser, f"{RECORD}.dataset.state === 'idle'")


def test_words_come_while_they_are_spoken(wordy: Recogniser, browser: Browser, spoken: Path, tmp_path: Path) -> None:
    with running({"wordy": wordy}, tmp_path / "uploads") as server:
        open_page(browser, server.url)
        speak(browser, 80)
        shown = browser.evaluate("document.querySelector('.open').textContent")
        level = browser.evaluate("document.querySelector('#level').ariaValueNow")
        finish(browser)
        server.wait_until_idle()
        summary = browser.evaluate("document.querySelector('.state').textContent")
    answers = [json.loads(each) for each in browser.received]
    partials = [each["partial"] for each in answers if each.get("partial")]
    assert len(partials) > 20
    assert shown in partials
    assert 30 < int(level) <= 100

    sent = sent_samples(browser)
    rate = round(10 * len(browser.sent[0]) / 2)  # blocks of a tenth of a second
    stream = wordy.stream(rate)
    events = stream.feed(sent) + stream.finish()
    finals = [word.text for event in events if isinstance(event, FinalText) for word in event.words]
    assert words(browser) == finals
    assert len(finals) > 10
    assert summary == f"0:{len(sent) // rate:02}, {len(finals)} words"

    # The microphone of Chromium plays the file at another rate, after a start that is not exact.
    waveform, file_rate = soundfile.read(spoken, dtype="float32")
    heard = soxr.resample(sent.astype(np.float32), rate, file_rate)
    length = len(heard) // 2
    window = heard[len(heard) - length :]
    correlation = np.fft.irfft(np.fft.rfft(waveform, 2**19) * np.conj(np.fft.rfft(window, 2**19)))
    at = int(np.argmax(correlation[: len(waveform) - length]))
    assert np.corrcoef(waveform[at : at + length], window)[0, 1] > 0.95
    assert browser.complaints == []
    allowed = (server.url, server.url.replace("http", "ws"))
    assert browser.requests
    assert all(each.startswith(allowed) for each in browser.requests)


def test_a_click_on_a_live_word_plays_what_was_said(wordy: Recogniser, browser: Browser, tmp_path: Path) -> None:
    with running({"wordy": wordy}, tmp_path / "uploads") as server:
        open_page(browser, server.url)
        speak(browser, 90)
        finish(browser)
    browser.evaluate("""
        const copy = AudioBuffer.prototype.copyToChannel;
        AudioBuffer.prototype.copyToChannel = function (samples, channel) {
          window.played = [this.sampleRate, ...samples.map((each) => 32768 * each)];
          copy.call(this, samples, channel);
        };""")
    start, end = browser.evaluate("""
        (() => {
          const word = [...document.querySelectorAll(".word")].at(-2);
          word.click();
          return [Number(word.dataset.start), Number(word.dataset.end)];
        })()""")
    rate, *samples = until(browser, "window.played")
    first = round((start - 0.06) * rate)
    np.testing.assert_array_equal(samples, sent_samples(browser)[first : round((end + 0.06) * rate)])
    until(browser, "!document.querySelector('.playing')")


def test_a_click_on_a_word_of_a_file_plays_it(
    wordy: Recogniser, browser: Browser, spoken: Path, tmp_path: Path
) -> None:
    with running({"wordy": wordy}, tmp_path / "uploads") as server:
        open_page(browser, server.url)
        drop(browser, spoken)
        done(browser)
        browser.evaluate("""
            window.times = [];
            for (const name of ["play", "pause"]) {
              const kind = HTMLMediaElement.prototype, method = kind[name];
              kind[name] = function () { times.push(this.currentTime); return method.call(this); };
            }""")
        browser.evaluate("document.querySelector('.time').focus()")
        for _ in range(4):
            press(browser, "ArrowRight", 39)
        press(browser, "Enter", 13)
        start, end = browser.evaluate("[document.activeElement.dataset.start, document.activeElement.dataset.end]")
        assert browser.evaluate("document.activeElement === document.querySelectorAll('.word')[3]")
        assert browser.evaluate("document.querySelectorAll('.text [tabindex=\"0\"]').length") == 1
        began, ended = until(browser, "window.times.length === 2 && window.times")
        assert began == pytest.approx(float(start) - 0.06, abs=1e-3)
        assert float(end) <= ended < float(end) + 0.4
        assert browser.complaints == []


def test_files_come_one_after_the_other_and_can_be_cancelled(
    wordy: Recogniser, recogniser: Recogniser, browser: Browser, tmp_path: Path
) -> None:
    files = [write_talk(tmp_path / f"{number}.wav", 2.0 + number, number) for number in range(3)]
    with running({"wordy": wordy, "whole": recogniser}, tmp_path / "uploads") as server:
        open_page(browser, server.url)
        browser.evaluate("document.querySelector('#model').value = 'whole'")
        drop(browser, *files)
        browser.evaluate("document.querySelector('.card:nth-child(2) .remove').click()")  # the second file waits
        done(browser, 2)
        names = browser.evaluate("[...document.querySelectorAll('.card h2')].map((each) => each.textContent)")
        assert names == ["2.wav", "0.wav"]
        for card, path in ((1, files[2]), (2, files[0])):
            assert words(browser, card) == [word.text for word in recogniser.transcribe(path).words]
        server.wait_until_idle()


def test_hot_words_reach_the_server(wordy: Recogniser, browser: Browser, spoken: Path, tmp_path: Path) -> None:
    with running({"wordy": wordy}, tmp_path / "uploads", Limits(hot_word_boost=30)) as server:
        open_page(browser, server.url)
        browser.evaluate("document.querySelector('#hot-words').value = ' kkn, L '")
        drop(browser, spoken)
        done(browser)
        hot = words(browser)
        speak(browser, 40)
        finish(browser)
        assert hot != [word.text for word in wordy.transcribe(spoken).words]
        assert hot.count("KKN") + hot.count("L") > 0
        live = words(browser)
        assert live.count("KKN") + live.count("L") > 0
        browser.evaluate("document.querySelector('#hot-words').value = '漢字'")
        drop(browser, spoken)
        until(browser, "document.body.textContent.includes('cannot write one of the hot words')")
        browser.evaluate(f"{RECORD}.click()")
        assert "hot words" in until(browser, PROBLEM)


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


def test_the_last_half_hour_of_a_talk_is_kept(wordy: Recogniser, browser: Browser, tmp_path: Path) -> None:
    with running({"wordy": wordy}, tmp_path / "uploads") as server:
        open_page(browser, server.url)
        found = browser.evaluate("""
            import("/page/sound.js").then(({ Recording }) => {
              const recording = new Recording(10);
              for (let second = 0; second < 1860; second++) recording.add(new Int16Array(10).fill(second));
              const kept = recording.blocks.length;
              const samples = (from, to) => [...recording.samples(from, to)].map((each) => 32768 * each);
              return [recording.seconds, kept, samples(1790.8, 1791.2), samples(58, 59), samples(1859.5, 1900)];
            })""")
    assert found == [1860, 1800, [1790, 1790, 1791, 1791], [], [1859] * 5]


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
    if shutil.which("npm") is None:
        pytest.skip(NO_NPM)
    folder = tmp_path_factory.mktemp("axe")
    (folder / "package.json").write_text("{}")
    subprocess.run(["npm", "install", "--no-fund", "--no-audit", AXE], cwd=folder, check=True, capture_output=True)
    return (folder / "node_modules/axe-core/axe.min.js").read_text()


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
