"""The page of a report is complete, needs no other file, and treats manifests and names as plain text."""

import dataclasses
import itertools
import re
from pathlib import Path

import pytest

from ds2_jax.data.manifest import Utterance
from ds2_jax.evaluation.report.bootstrap import Comparison, Interval
from ds2_jax.evaluation.report.contents import Origin, contents
from ds2_jax.evaluation.report.page import page
from ds2_jax.evaluation.results import Evaluation, Result
from tests.evaluation.report.conftest import HOSTILE
from tests.evaluation.report.document import Document


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


def test_what_a_manifest_holds_is_text(document: Document, report: Path) -> None:
    assert len(document.of("script")) == 1
    assert "owned" not in document.words["script"]
    assert HOSTILE in document.words["bdi"]
    assert not [a for _, a in document.elements if any(name.startswith("on") for name in a)]
    policy = document.of("meta")[3]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert "default-src 'none'" in policy["content"]
    assert "unsafe" not in policy["content"].partition("script-src")[2]


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
    assert "Only the worst 100 of 120 are shown; report.json has all." in document.words["p"]
    assert "The first 20 of 120 are shown; report.json has all." in document.words["p"]
    assert "speaker099" in document.words["bdi"]
    assert "speaker100" not in document.words["bdi"]


def compared(low: float, high: float, against: str = "runs/b") -> Document:
    """Makes a page on which the difference of two runs has a given interval."""
    comparison = Comparison(against, 0.1, 0.11, Interval(low, high), 0.5, 0.0, 0.5)
    return Document(page(contents(ORIGIN, Evaluation([result("GO", "NO")], 0.0, 0), comparison), []))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.2, -0.1, "This run is better: the interval lies below 0."),
        (0.1, 0.2, "This run is worse: the interval lies above 0."),
        (-0.1, 0.2, "Undecided: the interval contains 0."),
    ],
)
def test_verdict_follows_the_interval(low: float, high: float, verdict: str) -> None:
    assert verdict in compared(low, high).words["p"]


def test_a_difference_of_rates_and_its_interval_are_in_points() -> None:
    words = compared(-0.0195, 0.0012).words["p"]
    assert "−1.00 points" in words
    assert "95 %: −1.95 to +0.12 points" in words
    assert "% to" not in words.partition("−1.00 points")[2]


def test_names_and_recognised_words_are_text() -> None:
    recognised = result(HOSTILE, HOSTILE.lower())
    comparison = Comparison(HOSTILE, 0.1, 0.1, Interval(-0.1, 0.1), 0.5, 0.0, 0.5)
    origin = Origin(f"runs/{HOSTILE}", HOSTILE, f"beam search {HOSTILE}")
    document = Document(page(contents(origin, Evaluation([recognised], 0.0, 0), comparison), []))
    assert len(document.of("script")) == 1
    assert document.of("img") == []
    assert HOSTILE in document.words["p"]
    assert document.words["dd"] == f"{origin.run}{origin.manifest}{origin.decoding}"
    assert Path(HOSTILE).name in document.words["title"]
