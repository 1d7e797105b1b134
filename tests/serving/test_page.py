"""The page: what serves it, and one short visit."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests

from ds2_jax.decoding.hypothesis import Hypothesis, Word
from ds2_jax.recognition.formats import to_srt, to_txt, to_vtt
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.transcript import Segment, Transcript
from ds2_jax.serving.options import Limits
from ds2_jax.serving.page_files import FOLDER
from tests.browser import Browser
from tests.serving.pages import chromium, done, downloads, drop, open_page, words
from tests.serving.servers import running, write_talk


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser(chromium()) as browser:
        yield browser


def test_the_files_of_the_page_need_no_key_and_may_load_nothing_else(recogniser: Recogniser, tmp_path: Path) -> None:
    with running({"whole": recogniser}, tmp_path / "uploads", Limits(max_megabytes=2), keys=["key"]) as server:
        names = [path.name for path in FOLDER.iterdir()]
        assert {"index.html", "main.js", "style.css"} <= set(names)
        for path in ["", *(f"page/{name}" for name in names)]:
            response = requests.get(f"{server.url}/{path}", timeout=10)
            assert response.status_code == 200
            assert response.content == (FOLDER / (path.removeprefix("page/") or "index.html")).read_bytes()
            assert response.headers["content-security-policy"].split("; ")[:2] == [
                "default-src 'self'",
                "media-src 'self' blob:",
            ]
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["cache-control"] == "no-store"
        assert requests.get(f"{server.url}/page/limits.json", timeout=10).json()["max_megabytes"] == 2
        for path, status in (("page/other.js", 404), ("page/../v1/models", 404), ("page/..%2f..%2fapp.py", 404)):
            request = requests.Request("GET", server.url).prepare()
            request.url = f"{server.url}/{path}"
            assert requests.Session().send(request, timeout=10).status_code == status


def test_a_dropped_file_becomes_the_text_that_transcribe_gives(
    wordy: Recogniser, browser: Browser, tmp_path: Path
) -> None:
    audio = write_talk(tmp_path / "<b>talk &amp; more.wav", 12.0, 3)
    expected = wordy.transcribe(audio)
    assert len(expected.words) > 10
    with running({"wordy": wordy}, tmp_path / "uploads") as server:
        open_page(browser, server.url)
        drop(browser, audio)
        done(browser)
        assert words(browser) == [word.text for word in expected.words]
        assert browser.evaluate("document.querySelector('.card h2').textContent") == audio.name
        (tmp_path / "downloads").mkdir()
        txt, srt, vtt, json_ = (path.read_text() for path in downloads(browser, tmp_path / "downloads"))
        assert (txt, srt, vtt) == (to_txt(expected), to_srt(expected), to_vtt(expected))
        assert json.loads(json_)["text"] == expected.text
        assert browser.complaints == []
        assert all(each.startswith((server.url, f"blob:{server.url}")) for each in browser.requests)


def random_transcript(generator: np.random.Generator) -> Transcript:
    """Draws words in one of three scripts, with pauses as between people or within a sentence."""
    letters = ["aeinrst<&>-", "漢字かな", "مرحبا\u064b"][generator.integers(3)]
    time, segments = 0.0, []
    for _ in range(generator.integers(1, 5)):
        spoken = []
        for _ in range(generator.integers(1, 30)):
            text = "".join(generator.choice(list(letters), generator.integers(1, 12)))
            start = round(time + generator.choice([0, 0, 0.1, 0.4, 0.7, 1.5]), 3)
            time = round(start + generator.choice([0.05, 0.2, 0.5, 1.0]), 3)
            spoken.append(Word(text, start, time, 1.0, ()))
        text = " ".join(word.text for word in spoken)
        segments.append(Segment(spoken[0].start, time, [Hypothesis(text, tuple(spoken), 1.0, 0.0)]))
    return Transcript(Path("a.wav"), round(time + generator.choice([0, 0.3, 5]), 3), segments)


def test_subtitles_of_the_page_are_those_of_transcribe(
    recogniser: Recogniser, browser: Browser, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    transcripts = [random_transcript(generator) for _ in range(300)]
    asked = [
        {
            "duration": each.duration,
            "words": [{"word": word.text, "start": word.start, "end": word.end} for word in each.words],
            "segments": [
                {"start": part.start, "end": part.end, "text": part.readings[0].text} for part in each.segments
            ],
        }
        for each in transcripts
    ]
    with running({"whole": recogniser}, tmp_path / "uploads") as server:
        open_page(browser, server.url)
        written = "asked.map((each) => [toSrt(each), toVtt(each)])"
        script = f"import('/page/subtitles.js').then(({{ toSrt, toVtt }}) => {written})"
        got = browser.evaluate(f"((asked) => {script})({json.dumps(asked)})")
        clocks = browser.evaluate("import('/page/card.js').then(({ clock }) => [0, 59.9, 60, 3600, 37230].map(clock))")
    assert got == [[to_srt(each), to_vtt(each)] for each in transcripts]
    assert clocks == ["0:00", "0:59", "1:00", "1:00:00", "10:20:30"]
