"""`score` compares texts of any recogniser, as `evaluate` compares those of a run."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ds2_jax import cli
from tests.browser import Browser, find_chromium
from tests.conftest import NO_CHROMIUM, ROOT

SAID = """\
talk 1 anna 0.00 2.00 show me the flights
talk 1 ben 2.00 5.00 okay it's arrivederci
"""
HEARD = """\
talk 1 0.10 0.20 SHOW 0.9
talk 1 0.40 0.20 ME 0.9
talk 1 0.80 0.20 FLIGHT 0.5
talk 1 2.10 0.20 OK 0.9
talk 1 2.50 0.20 IT'S 0.9
talk 1 3.50 0.20 ARIVEDEC 0.9
talk 1 3.90 0.20 CHI 0.9
"""
RULES = 'case = "lower"\n[replace]\nokay = "ok"\n'


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, content in (("said.stm", SAID), ("heard.ctm", HEARD), ("rules.toml", RULES)):
        Path(name).write_text(content)
    Path("better.ctm").write_text(HEARD.replace("FLIGHT ", "THE "))
    return tmp_path


def test_rates_speakers_comparison_and_every_utterance(
    files: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    words = "score said.stm heard.ctm --rules rules.toml --against better.ctm --out out/all.jsonl"
    assert cli.main(words.split()) == 0
    output = capsys.readouterr().out
    assert "heard.ctm: WER 57.14% (4 errors in 7 words: 2 substituted, 1 deleted, 1 inserted)" in output
    assert "ben                  WER  66.67% (2 errors in 3 words)" in output
    assert "against better.ctm: WER 57.14% and 42.86%, difference +14.29 points" in output
    assert "2 references of said.stm (STM) and heard.ctm (CTM), matched by time" in caplog.text
    lines = [json.loads(line) for line in Path("out/all.jsonl").read_text().splitlines()]
    assert [line["hypothesis"] for line in lines] == ["show me flight", "ok it's arivedec chi"]
    assert cli.main("score said.stm heard.ctm --rules rules.toml --weights nist".split()) == 0
    assert cli.main("score out/all.jsonl out/all.jsonl".split()) == 0
    assert capsys.readouterr().out.count("WER 57.14%") == 2


def test_what_is_missing_is_told(
    files: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    Path("less.ctm").write_text(HEARD[: HEARD.index("talk 1 2.10")])
    assert cli.main(["score", "said.stm", "less.ctm", "--rules", "rules.toml"]) == 0
    assert "less.ctm has nothing for 1 of 2 references, which count as deleted: talk-1-ben-2.00-5.00" in caplog.text
    assert "WER 71.43% (5 errors in 7 words" in capsys.readouterr().out


def test_the_report_shows_the_texts(files: Path) -> None:
    words = "score said.stm heard.ctm --rules rules.toml --report report --against better.ctm"
    assert cli.main(words.split()) == 0
    report = json.loads(Path("report/report.json").read_text())
    assert (report["wer"], report["hypotheses"], report["references"]) == (4 / 7, "heard.ctm", "said.stm")
    assert "loss" not in report
    chromium = find_chromium()
    if chromium is None:
        pytest.skip(NO_CHROMIUM)
    with Browser(chromium) as browser:
        browser.open(Path("report/index.html"))
        text = browser.evaluate("document.body.innerText")
        headings = browser.evaluate("[...document.querySelectorAll('h2')].map((each) => each.innerText)")
    assert headings == ["Summary", "Comparison", "By speaker", "By length", "Confused words", "Worst utterances"]
    assert "arivedec" in text
    assert "loss" not in text
    assert "spectrogram" not in text
    assert browser.complaints == []


def test_it_needs_neither_jax_nor_a_model(files: Path) -> None:
    shutil.copytree(ROOT / "ds2_jax", "ds2_jax", ignore=shutil.ignore_patterns("__pycache__"))
    code = "import sys; from ds2_jax import cli; print(cli.main(), *{'jax', 'tensorflow'} & set(sys.modules))"
    words = "score said.stm heard.ctm --report report".split()
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("index.html\n0\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("score none.stm heard.ctm", "error: REFERENCES none.stm must be a readable file, got: No such"),
        (
            "score said.stm said.stm",
            "error: said.stm must be a CTM file, since the references are segments",
        ),
        ("score said.stm heard.ctm --rules heard.ctm", "error: heard.ctm must be TOML, got: "),
        ("score said.stm heard.ctm --report said.stm", "error: --report must be a folder, got said.stm"),
    ],
)
def test_wrong_files_are_named(files: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words.split()) == 1
    assert message in capsys.readouterr().err


def test_segments_with_the_same_times_are_compared_apart(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("twice.stm").write_text("rec 1 s 0 5 good day\nrec 1 s 0 5 good day\n")
    Path("once.ctm").write_text("rec 1 0.5 1 good\nrec 1 3 1 day\n")
    assert cli.main(["score", "twice.stm", "once.ctm", "--against", "once.ctm"]) == 0
    assert "WER 50.00% and 50.00%, difference +0.00 points" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("heard.ctm", "--out must be another file than those that are read, got 'heard.ctm'"),
        (".", "--out must be a file, not a folder or a link, got '.'"),
        ("link", "--out must be a file, not a folder or a link, got 'link'"),
    ],
)
def test_nothing_that_is_there_is_replaced(
    files: Path, out: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("link").symlink_to("elsewhere")
    assert cli.main(["score", "said.stm", "heard.ctm", "--out", out]) == 1
    output = capsys.readouterr()
    assert message in output.err
    assert "WER" not in output.out  # it is found before anything is scored


def test_references_in_place_of_hypotheses_are_noticed(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    Path("a.txt").write_text("one two\nthree\n")
    assert cli.main(["score", "a.txt", "a.txt"]) == 0
    assert "every text of a.txt equals its reference: are these the recognised texts?" in caplog.text
