"""report/: the page and report.json of an evaluation, as files and in a browser."""

import base64
import collections
import dataclasses
import html.parser
import io
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import soundfile

from ds2_jax import cli
from ds2_jax.config import Config, FeatureConfig
from ds2_jax.data.manifest import Utterance, read_manifest, write_manifest
from ds2_jax.decoding.options import DecodingOptions
from ds2_jax.evaluation.evaluate import evaluate
from ds2_jax.evaluation.report import utterance as utterance_lib
from ds2_jax.evaluation.report.bootstrap import Comparison, Interval
from ds2_jax.evaluation.report.command import make_folder
from ds2_jax.evaluation.report.contents import Origin, contents
from ds2_jax.evaluation.report.page import page, verdict
from ds2_jax.evaluation.results import Evaluation, Result, read_evaluation
from ds2_jax.system.errors import InputError
from tests.browser import Browser, find_chromium
from tests.conftest import NO_CHROMIUM
from tests.small_runs import RATE, SMALL_CONFIG, write_noise_manifest, write_untrained_run

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">&amp;"
TRANSCRIPTS = ("GO ON", "YES NO", "STOP", f"{HOSTILE} NOW", "ÉTÉ", "GO GO")
VOID = {"meta", "img", "br", "link", "input", "hr"}


def with_test(config: Config, manifest: Path, sample_rate: int = RATE) -> Config:
    data = dataclasses.replace(config.data, test=manifest)
    return dataclasses.replace(config, data=data, features=FeatureConfig(sample_rate=sample_rate))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of noise by five speakers, of which an id, a speaker and a transcript are hostile, and another one."""
    folder = tmp_path_factory.mktemp("runs")
    path = write_noise_manifest(folder, TRANSCRIPTS, name="test")
    utterances = [
        dataclasses.replace(each, speaker=f"speaker{i % 5}", id=f"u{i}") for i, each in enumerate(read_manifest(path))
    ]
    utterances[3] = dataclasses.replace(utterances[3], id=f'"{HOSTILE}', speaker=f"'{HOSTILE}")
    write_manifest(path, utterances)
    write_untrained_run(folder / "run", with_test(SMALL_CONFIG, path))
    lower = dataclasses.replace(with_test(SMALL_CONFIG, path, 8000))
    alphabet = dataclasses.replace(lower.data, alphabet="' abcdefghijklmnopqrstuvwxyz")
    write_untrained_run(folder / "lower", dataclasses.replace(lower, data=alphabet))
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    """The folder of the report of the run, beside one of another sample rate and case."""
    code = cli.main(
        ["evaluate", str(folder / "run"), "--report", str(folder / "report"), "--against", str(folder / "lower")]
    )
    assert code == 0
    return folder / "report"


@pytest.fixture(scope="module")
def numbers(report: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((report / "report.json").read_text())
    return loaded


class Document(html.parser.HTMLParser):
    """A page read strictly: every element closed where it was opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: collections.defaultdict[str, str] = collections.defaultdict(str)
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        self.words[self._open[-1] if self._open else ""] += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def document(report: Path) -> Document:
    return Document((report / "index.html").read_text(encoding="utf-8"))


def decode(uri: str, kind: str) -> bytes:
    assert uri.startswith(f"data:{kind};base64,")
    return base64.b64decode(uri.split(",", 1)[1], validate=True)


def test_page_is_whole_and_names_what_it_holds(document: Document) -> None:
    assert document.words["title"].startswith("Evaluation of run")
    ids = [attributes["id"] for _, attributes in document.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for attributes in document.of("a")]
    assert {link.removeprefix("#") for link in links} <= set(ids)
    labels = [attributes["aria-labelledby"] for _, attributes in document.elements if "aria-labelledby" in attributes]
    assert set(labels) <= set(ids)
    headings = [tag for tag, _ in document.elements if re.fullmatch("h[1-6]", tag)]
    assert headings.count("h1") == 1
    assert all(int(after[1]) <= int(before[1]) + 1 for before, after in itertools.pairwise(headings))
    assert document.of("html")[0]["lang"] == "en"
    assert all(attributes.get("alt") for attributes in document.of("img"))
    assert all(attributes.get("aria-label") for attributes in [*document.of("audio"), *document.of("svg")])
    for name in ("summary", "comparison", "speakers", "lengths", "words", "calibration", "utterances"):
        assert name in ids


def test_page_needs_nothing_else(report: Path, document: Document) -> None:
    sources = [attributes["src"] for _, attributes in document.elements if "src" in attributes]
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert document.of("link") == []
    page = re.sub(r"data:[\w/]+;base64,[\w+/=]+", "", (report / "index.html").read_text(encoding="utf-8"))
    assert "http:" not in page
    assert "https:" not in page
    assert "url(" not in page
    assert sorted(path.name for path in report.iterdir()) == ["index.html", "report.json"]


def test_every_picture_is_a_spectrogram_and_every_sound_lasts_as_long_as_its_utterance(
    folder: Path, document: Document, numbers: dict[str, Any]
) -> None:
    assert len(document.of("audio")) == len(document.of("img")) == len(TRANSCRIPTS)
    for audio, image, row in zip(document.of("audio"), document.of("img"), numbers["worst_utterances"], strict=True):
        samples, rate = soundfile.read(io.BytesIO(decode(audio["src"], "audio/wav")))
        assert len(samples) / rate == pytest.approx(row["duration"], abs=1e-3)
        original, _ = soundfile.read(folder / Path(row["audio"]).name)
        np.testing.assert_allclose(samples, original, atol=2 / 2**15)
        pixels = matplotlib.image.imread(io.BytesIO(decode(image["src"], "image/png")), format="png")
        assert pixels.shape[:2] == (161, len(samples) // 160 + 1)
        assert pixels.std() > 0.05
        assert audio["aria-label"] == f"Recording {row['id']}"


def test_spectrogram_has_low_frequencies_at_the_bottom_and_time_to_the_right() -> None:
    from ds2_jax.evaluation.report.pictures import spectrogram_maker, spectrogram_png

    time = np.arange(RATE) / RATE
    waveform = np.where(time < 0.5, np.sin(2 * np.pi * 1000 * time), np.sin(2 * np.pi * 7000 * time)).astype(np.float32)
    png = spectrogram_png(spectrogram_maker(FeatureConfig())(waveform))
    brightness = matplotlib.image.imread(io.BytesIO(png), format="png")[..., :3].sum(-1)
    for frame, row in ((20, 160 - 20), (80, 160 - 140)):  # 1000 and 7000 Hz: bins 20 and 140 of 50 Hz each
        column = brightness[:, frame]
        assert np.flatnonzero(column == column.max()).mean() == row


def test_what_a_manifest_holds_is_text(document: Document, report: Path) -> None:
    assert len(document.of("script")) == 1
    assert "owned" not in document.words["script"]
    assert HOSTILE in document.words["bdi"]
    assert not [a for _, a in document.elements if any(name.startswith("on") for name in a)]
    policy = document.of("meta")[3]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert "default-src 'none'" in policy["content"]
    assert "unsafe" not in policy["content"].partition("script-src")[2]


def test_numbers_are_those_of_the_evaluation(folder: Path, numbers: dict[str, Any]) -> None:
    evaluation = read_evaluation(folder / "run/evaluations", f"{folder.name}-test")
    assert evaluation is not None
    assert {name: numbers[name] for name in evaluation.summary} == evaluation.summary
    assert numbers["bootstrap"] == {
        "unit": "speakers",
        "units": 5,
        "resamples": 10_000,
        "seed": 0,
        "confidence": 0.95,
    }
    low, high = numbers["wer_interval"]
    assert low <= numbers["wer"] <= high
    low, high = numbers["cer_interval"]
    assert low <= numbers["cer"] <= high
    for groups in (numbers["speakers"], numbers["lengths"]):
        assert sum(group["utterances"] for group in groups) == len(TRANSCRIPTS)
        assert sum(group["words"]["reference_length"] for group in groups) == evaluation.words.reference_length
    kinds = {"substitution": "substitutions", "deletion": "deletions", "insertion": "insertions"}
    for kind, name in kinds.items():
        assert sum(each["times"] for each in numbers["confusions"][kind]) == numbers["wer_counts"][name]
    assert numbers["calibration"]["count"] == sum(len(each.hypothesis.split()) for each in evaluation.results)
    assert sum(each["count"] for each in numbers["calibration"]["bins"]) == numbers["calibration"]["count"]
    errors = [each["word_errors"] for each in numbers["worst_utterances"]]
    assert errors == sorted(errors, reverse=True)
    assert (numbers["run"], numbers["decoding"]) == (str(folder / "run"), "greedy")


def test_runs_of_other_rate_and_case_are_compared(folder: Path, numbers: dict[str, Any]) -> None:
    comparison = numbers["comparison"]
    assert comparison["against"] == str(folder / "lower")
    assert comparison["rate"] == numbers["wer"]
    assert comparison["difference"] == comparison["rate"] - comparison["other_rate"]
    assert comparison["interval"][0] <= comparison["difference"] <= comparison["interval"][1]
    assert comparison["lower"] + comparison["equal"] + comparison["higher"] == pytest.approx(1)
    assert not (folder / "lower/evaluations").exists()  # it is left as it is


def test_an_earlier_evaluation_is_compared_without_a_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    earlier = folder / f"run/evaluations/{folder.name}-test.jsonl"
    evaluate(folder / "run", None, against=earlier)  # which is replaced meanwhile
    assert f"against {earlier}: WER " in (printed := capsys.readouterr().out)
    assert "difference +0.00 points (95 % +0.00 to +0.00); lower in 0.0% of the resamples, one-sided p-value 1.0" in (
        printed
    )
    assert "95 % interval of the WER: " in printed
    assert "(bootstrap over 5 speakers)" in printed


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("file", r"--report must be a folder, got .*/taken, which is a file\. Give another --report\."),
        ("below a file", r"taken/report must be writable, got: Not a directory\. Make room or mend the permissions"),
    ],
)
def test_a_place_that_takes_no_report_is_named_before_the_work(tmp_path: Path, case: str, message: str) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match=message):
        make_folder(tmp_path / ("taken" if case == "file" else "taken/report"))


def test_what_is_no_run_is_not_compared(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        evaluate(folder / "run", None, against=tmp_path)
    assert str(caught.value) == (
        f"--against: RUN must be the folder of a training run, got {tmp_path}, which has no config.json. "
        "Give --against the folder of a run, or a .jsonl of its evaluations folder."
    )


def test_a_long_recording_is_shown_in_part_and_other_readings_are_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(utterance_lib, "MOST_SECONDS", 0.25)
    write_manifest(tmp_path / "one.jsonl", read_manifest(folder / "test.jsonl")[:1])
    evaluate(folder / "run", tmp_path / "one.jsonl", DecodingOptions(num_best=3), report_folder=tmp_path / "report")
    document = Document((tmp_path / "report/index.html").read_text(encoding="utf-8"))
    samples, rate = soundfile.read(io.BytesIO(decode(document.of("audio")[0]["src"], "audio/wav")))
    assert len(samples) / rate == 0.25
    assert "The first 0.25 of 0.5 seconds are shown." in document.words["p"]
    assert "beam search, num best 3" in document.words["dd"]
    assert document.words["summary"] == "The 3 best readings"
    assert len(re.findall(r"score -\d", document.words["small"])) == 3


def test_reference_without_a_place_is_told(document: Document) -> None:
    assert "The reference has no place in time: The transcript must use the alphabet" in document.words["p"]


ORIGIN = Origin("runs/a", "test.jsonl", "greedy")


def result(reference: str, hypothesis: str) -> Result:
    from ds2_jax.decoding.hypothesis import Hypothesis, Word

    words = tuple(Word(word, 0.0, 0.1, 0.9, ()) for word in hypothesis.split())
    utterance = Utterance(Path("a.wav"), 1.0, reference, "a")
    return Result(utterance, reference, hypothesis, [Hypothesis(hypothesis, words, 0.9, 0.0)])


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ([], "No utterance was evaluated."),
        ([result("", "GO")], "no words in the references; 1 recognised"),
        ([result("GO", "")], "Most substituted: none."),
        ([result("GO", "GO")], "Most deleted: none."),
    ],
)
def test_page_is_whole_where_there_is_little_to_show(results: list[Result], words: str) -> None:
    document = Document(page(contents(ORIGIN, Evaluation(results, 0.0, 0), None), []))
    assert words in document.words["p"]
    ids = {attributes.get("id") for _, attributes in document.elements}
    assert "speakers" not in ids
    assert "comparison" not in ids
    assert ("calibration" in ids) == any(each.hypothesis for each in results)


def test_long_tables_say_that_they_are_cut() -> None:
    results = [
        dataclasses.replace(
            result(f"W{i}", f"V{i}"), utterance=Utterance(Path("a.wav"), 1.0, f"W{i}", str(i), f"speaker{i:03}")
        )
        for i in range(120)
    ]
    document = Document(page(contents(ORIGIN, Evaluation(results, 0.0, 0), None), []))
    assert "The worst 100 of 120; report.json has all." in document.words["p"]
    assert "The first 20 of 120; report.json has all." in document.words["p"]
    assert "speaker099" in document.words["bdi"]
    assert "speaker100" not in document.words["bdi"]


def test_verdict_follows_the_interval() -> None:
    def compared(low: float, high: float) -> Comparison:
        return Comparison("b", 0.1, 0.1, Interval(low, high), 0.5, 0.0, 0.5)

    assert verdict(compared(-0.2, -0.1)).startswith("This run is better")
    assert verdict(compared(0.1, 0.2)).startswith("This run is worse")
    assert verdict(compared(-0.1, 0.2)).startswith("Not decided")


@pytest.fixture(scope="module")
def browser(report: Path) -> Iterator[Browser]:
    """The page of the report in Chromium."""
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
    assert played[1] <= 1  # each silences the one before
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
    browser.evaluate("console.error('seen')")  # that complaints are heard at all
    assert len(browser.complaints) == 1
