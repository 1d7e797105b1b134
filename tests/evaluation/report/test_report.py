"""The report of an evaluation: its numbers, comparisons with other runs, and notes about long recordings."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
import soundfile

from ds2_jax.data.manifest import read_manifest, write_manifest
from ds2_jax.decoding.options import DecodingOptions
from ds2_jax.evaluation.evaluate import evaluate
from ds2_jax.evaluation.report import utterance as utterance_lib
from ds2_jax.evaluation.report.command import make_folder
from ds2_jax.evaluation.results import read_evaluation
from ds2_jax.system.errors import InputError
from tests.evaluation.report.conftest import TRANSCRIPTS
from tests.evaluation.report.document import Document, decode


def earlier_evaluation(folder: Path) -> Path:
    """Finds the evaluation that made the report."""
    [path] = (path for path in (folder / "run/evaluations").glob("*-test-*.jsonl") if "skipped" not in path.name)
    return path


def test_numbers_are_those_of_the_evaluation(folder: Path, numbers: dict[str, Any]) -> None:
    evaluation = read_evaluation(folder / "run/evaluations", earlier_evaluation(folder).stem)
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
    assert not (folder / "lower/evaluations").exists()  # it does not change


def test_an_earlier_evaluation_is_compared_without_a_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    earlier = earlier_evaluation(folder)
    evaluate(folder / "run", None, against=earlier)  # this evaluation replaces it
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
        (
            "below a file",
            r"taken/report must be writable, got: Not a directory\. Free space, or correct the path",
        ),
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
        "--against: RUN must be the folder of a training run, a folder or file that export wrote, or spelling, got "
        f"{tmp_path}, which has no config.json. "
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
    assert "The reference cannot be aligned: The transcript must use the alphabet" in document.words["p"]
