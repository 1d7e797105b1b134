"""The page in Chromium: live speech with a file as the microphone, files, hot words and sound."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.streaming import FinalText
from ds2_jax.serving.options import Limits
from tests.browser import Browser
from tests.serving.pages import PROBLEM, RECORD, done, drop, finish, open_page, press, sent_samples, speak, until, words
from tests.serving.servers import running, write_talk

pytestmark = pytest.mark.slow


def best_correlation(waveform: np.ndarray, window: np.ndarray) -> float:
    """Finds the place [S] of a waveform that is most like a window; returns their correlation."""
    size = 2 ** int(np.ceil(np.log2(len(waveform) + len(window))))
    products = np.fft.irfft(np.fft.rfft(waveform, size) * np.conj(np.fft.rfft(window, size)))
    at = int(np.argmax(products[: len(waveform) - len(window)]))
    return float(np.corrcoef(waveform[at : at + len(window)], window)[0, 1])


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
    assert len(finals) > 3  # the untrained model hears every other start of the file as another text
    assert summary == f"0:{len(sent) // rate:02}, {len(finals)} words"

    # The microphone of Chromium plays the file at another rate, from a start that is not exact, and may skip when busy.
    waveform, file_rate = soundfile.read(spoken, dtype="float32")
    played = soxr.resample(waveform, file_rate, rate)
    size = rate // 2
    windows = [sent[start : start + size].astype(np.float32) for start in range(0, len(sent) - size, size)]
    likeness = [best_correlation(played, window) for window in windows if window.std() > 100]  # without pauses
    assert len(likeness) > 4
    assert np.median(likeness) > 0.99
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


def test_a_word_that_is_played_is_not_heard_again(
    wordy: Recogniser, browser: Browser, spoken: Path, tmp_path: Path
) -> None:
    with running({"wordy": wordy}, tmp_path / "uploads") as server:
        open_page(browser, server.url)
        drop(browser, spoken)
        done(browser)
        speak(browser, 10)
        assert all(np.frombuffer(each, np.int16).any() for each in browser.sent[2:])
        before = len(browser.sent)
        browser.evaluate("document.querySelector('.word').click()")
        until(browser, "document.querySelector('.playing') === null")
        finish(browser)
    assert not all(np.frombuffer(each, np.int16).any() for each in browser.sent[before:])


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
