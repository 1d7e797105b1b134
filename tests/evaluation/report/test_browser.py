"""The page of a report in Chromium."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import Browser, find_chromium
from tests.conftest import NO_CHROMIUM
from tests.evaluation.report.conftest import TRANSCRIPTS


@pytest.fixture(scope="module")
def browser(report: Path) -> Iterator[Browser]:
    """Opens the page of the report in Chromium."""
    chromium = find_chromium()
    if chromium is None:
        pytest.skip(NO_CHROMIUM)
    with Browser(chromium) as browser:
        browser.call("Emulation.setDeviceMetricsOverride", width=1200, height=800, deviceScaleFactor=1, mobile=False)
        browser.open(report / "index.html")
        yield browser


def test_browser_draws_every_spectrogram(browser: Browser) -> None:
    pictures = browser.evaluate("""
        Promise.all([...document.querySelectorAll(".utterance img")].map(async (image) => {
          await image.decode();
          const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight).getContext("2d");
          canvas.drawImage(image, 0, 0);
          const pixels = canvas.getImageData(0, 0, image.naturalWidth, image.naturalHeight).data;
          const box = image.getBoundingClientRect();
          return [image.naturalWidth, box.width, box.height, new Set(pixels).size];
        }))""")
    assert len(pictures) == len(TRANSCRIPTS)
    for natural_width, width, height, values in pictures:
        assert natural_width > 50
        assert width > 500
        assert height > 100
        assert values > 50


def test_browser_plays_every_sound_and_the_cursor_follows(browser: Browser, numbers: dict[str, Any]) -> None:
    played = browser.evaluate("""
        (async () => {
          const found = [];
          for (const utterance of document.querySelectorAll(".utterance")) {
            const audio = utterance.querySelector("audio");
            const before = utterance.querySelector(".cursor").style.left;
            await audio.play();
            while (audio.currentTime < 0.2) await new Promise((resolve) => setTimeout(resolve, 10));
            await new Promise((resolve) => requestAnimationFrame(resolve));
            found.push([audio.duration, before, parseFloat(utterance.querySelector(".cursor").style.left),
                        audio.error]);
          }
          const audible = [...document.querySelectorAll("audio")].filter((each) => !each.paused).length;
          document.querySelectorAll("audio").forEach((each) => each.pause());
          return [found, audible];
        })()""")
    assert played[1] <= 1  # each stops the previous one
    assert len(played[0]) == len(TRANSCRIPTS)
    for (duration, before, cursor, error), row in zip(played[0], numbers["worst_utterances"], strict=True):
        assert duration == pytest.approx(row["duration"], abs=1e-3)
        assert before == ""
        assert 100 * 0.15 / duration < cursor <= 100
        assert error is None


def test_browser_goes_where_the_spectrogram_is_chosen_and_plays_a_word(browser: Browser) -> None:
    at, duration, start, playing = browser.evaluate("""
        (async () => {
          const utterance = document.querySelector(".utterance");
          const audio = utterance.querySelector("audio");
          const timeline = utterance.querySelector(".timeline");
          const box = timeline.getBoundingClientRect();
          const seeked = () => new Promise((resolve) => audio.addEventListener("seeked", resolve, { once: true }));
          const place = { clientX: box.left + box.width / 4, clientY: box.top + 50, bubbles: true };
          let done = seeked();
          utterance.querySelector("img").dispatchEvent(new MouseEvent("click", place));
          await done;
          const at = audio.currentTime;
          const word = timeline.querySelector("button:last-of-type");
          done = seeked();
          word.click();
          await done;
          const playing = !audio.paused;
          audio.pause();
          return [at, audio.duration, audio.currentTime - word.dataset.start, playing];
        })()""")
    assert at == pytest.approx(duration / 4, abs=0.01)
    assert 0 <= start + 1e-3 < 0.2
    assert playing


def test_browser_sorts_tables(browser: Browser) -> None:
    ascending, descending, state = browser.evaluate("""
        (() => {
          const table = document.querySelector("#speakers table");
          const head = table.tHead.rows[0].cells[3];
          const column = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[3].dataset.value));
          head.querySelector("button").click();
          const first = column();
          head.querySelector("button").click();
          return [column(), first, head.ariaSort];
        })()""")
    assert ascending == sorted(ascending)
    assert descending == sorted(ascending, reverse=True)
    assert len(set(ascending)) > 1
    assert state == "ascending"


@pytest.mark.parametrize("width", [1200, 360])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_browser_fits_the_page_to_the_screen_in_both_themes(browser: Browser, width: int, theme: str) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
    needed, ground, ink = browser.evaluate("""
        [document.documentElement.scrollWidth, getComputedStyle(document.body).backgroundColor,
         getComputedStyle(document.body).color]""")
    assert needed <= width
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (ground, ink)]
    assert (brightness[0] > brightness[1]) == (theme == "light")


def test_browser_has_nothing_to_complain_of_and_fetches_nothing(browser: Browser, report: Path) -> None:
    assert browser.complaints == []
    assert browser.requests == [(report / "index.html").as_uri()]
    assert browser.evaluate("document.title") == "Evaluation of run"
    browser.evaluate("console.error('seen')")  # checks that errors are noticed at all
    assert len(browser.complaints) == 1


@pytest.mark.parametrize("width", [1250, 1100, 500])
def test_browser_shows_the_counts_beside_long_words(browser: Browser, width: int) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    hidden = browser.evaluate("""
        document.querySelectorAll("#words td.name .words, #words th.name .words").forEach(
          word => { word.textContent = "INTERNATIONALISATION"; });
        [...document.querySelectorAll("#words .scroller")].map(box => box.scrollWidth - box.clientWidth)
    """)
    assert hidden
    assert max(hidden) <= 0
