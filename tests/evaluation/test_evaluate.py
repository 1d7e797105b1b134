"""Error rates of a run, and the files that hold them."""

import contextlib
import dataclasses
import io
import json
import shutil
import signal
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import soundfile

from ds2_jax.config import DataConfig
from ds2_jax.data.manifest import TimedWord, Utterance, read_manifest, write_manifest
from ds2_jax.data.splits import Split
from ds2_jax.decoding.hypothesis import Hypothesis, Word
from ds2_jax.decoding.options import GREEDY, DecodingOptions
from ds2_jax.evaluation import results as results_lib
from ds2_jax.evaluation.account import account
from ds2_jax.evaluation.evaluate import evaluate
from ds2_jax.evaluation.results import Evaluation, Result, read_evaluation, write_evaluation
from ds2_jax.evaluation.split_outputs import evaluate_split
from ds2_jax.runs import run_folder
from ds2_jax.runs.trained import TrainedModel
from ds2_jax.system import interrupts
from ds2_jax.system.errors import InputError
from tests.small_runs import RATE, SMALL_CONFIG, write_noise, write_noise_manifest, write_untrained_run


def result(name: str, reference: str, hypothesis: str, speaker: str = "") -> Result:
    return Result(Utterance(Path(f"{name}.wav"), 1.0, reference, name, speaker), reference, hypothesis)


EVALUATION = Evaluation(
    [
        result("good", "GO ON", "GO ON", "anna"),
        result("worst", "ONE TWO", "", "bert"),
        result("bad", "STOP", "STOPS", "anna"),
    ],
    loss=1.5,
    unalignable=0,
)


def test_summary_adds_up_the_counts() -> None:
    summary = EVALUATION.summary
    assert summary["utterances"] == 3
    assert summary["wer"] == 3 / 5
    assert summary["wer_counts"] == {"substitutions": 1, "deletions": 2, "insertions": 0, "reference_length": 5}
    assert summary["cer"] == (6 + 1) / (4 + 6 + 4)
    assert summary["cer_with_spaces"] == (7 + 1) / (5 + 7 + 4)
    assert "WER 60.00% (3 errors in 5 words: 1 substituted, 2 deleted, 0 inserted)" in str(EVALUATION)


def test_results_are_written_worst_first(tmp_path: Path) -> None:
    path = write_evaluation(tmp_path / "new", "dev", EVALUATION)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert path == tmp_path / "new/dev.jsonl"
    assert [line["id"] for line in lines] == ["worst", "bad", "good"]
    assert lines[1] == {
        "id": "bad",
        "word_errors": 1,
        "reference": "STOP",
        "hypothesis": "STOPS",
        "speaker": "anna",
        "audio": "bad.wav",
    }
    assert json.loads((tmp_path / "new/dev.json").read_text()) == EVALUATION.summary


def test_report_shows_the_worst_speakers_and_some_utterances() -> None:
    lines = account(EVALUATION, "dev").splitlines()
    assert lines[0] == f"dev: {EVALUATION}"
    start = lines.index("by speaker:")
    assert [line.split()[0] for line in lines[start + 1 : start + 3]] == ["bert", "anna"]
    assert lines[start + 2].endswith("33.33% (1 errors in 3 words)")
    assert lines[lines.index("  ONE TWO") + 1] == "  (nothing)"
    assert lines[lines.index("  STOP") + 1] == "  STOPS"
    assert "by speaker:" not in account(Evaluation([result("a", "GO", "GO")], 0.0, 0), "dev")


def test_report_tells_how_good_confidences_and_word_times_are() -> None:
    words = (Word("GO", 0.25, 1.0, 0.8, ()), Word("UP", 1.0, 2.0, 0.4, ()))
    said = Utterance(Path("a.wav"), 2.0, "GO ON", "a", words=(TimedWord("GO", 0.0, 1.25), TimedWord("ON", 1.25, 2.0)))
    heard = Result(said, "GO ON", "GO UP", [Hypothesis("GO UP", words, 0.3, -1.0)])
    lines = account(Evaluation([heard, EVALUATION.results[0]], 0.0, 0), "dev").splitlines()
    assert [line for line in lines if line.startswith(("confidences", "word times"))] == [
        "confidences of words: expected calibration error 0.300, area under the ROC curve 1.000, 50.0% of 2 right",
        "confidences of utterances: expected calibration error 0.300, area under the ROC curve undefined, "
        "0.0% of 1 right",
        "word times: starts 250 ms off in the mean (250 in the median, 95 % within 250), "
        "ends 250 ms off in the mean (250 in the median, 95 % within 250), over 1 right words",
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    manifest = write_noise_manifest(folder, ("GO", "YES NO", "ÉTÉ"), name="test")
    config = dataclasses.replace(SMALL_CONFIG, data=dataclasses.replace(SMALL_CONFIG.data, test=manifest))
    return write_untrained_run(folder / "run", config)


@pytest.fixture(scope="module")
def evaluated(run: Path) -> tuple[Evaluation, str]:
    """Evaluates the run's test split; gives the evaluation and what was printed."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        evaluation = evaluate(run, None)
    return evaluation, output.getvalue()


def test_every_utterance_counts_even_one_outside_the_alphabet(run: Path, evaluated: tuple[Evaluation, str]) -> None:
    evaluation, output = evaluated
    assert [each.utterance.id for each in evaluation.results] == ["test0", "test1", "test2"]
    assert evaluation.words.reference_length == 4
    assert evaluation.unalignable == 1
    assert evaluation.rates["loss"] > 0
    assert evaluation.provenance is not None
    path = run / f"evaluations/{evaluation.provenance.name}.json"
    assert json.loads(path.read_text()) == evaluation.summary
    assert f"{evaluation}" in output
    assert "speaker0" in output
    assert f"all utterances, worst first: {path}l\n" in output


def test_hypotheses_do_not_depend_on_the_order(run: Path, tmp_path: Path, evaluated: tuple[Evaluation, str]) -> None:
    utterances = read_manifest(run.parent / "test.jsonl")
    write_manifest(tmp_path / "reversed.jsonl", reversed(utterances))
    forward = {each.utterance.id: each.hypothesis for each in evaluated[0].results}
    backward = {each.utterance.id: each.hypothesis for each in evaluate(run, tmp_path / "reversed.jsonl").results}
    assert backward == forward


def test_a_folder_that_takes_no_results_is_told_before_decoding(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluations"))
    (copy / "evaluations").write_text("in the way")
    monkeypatch.setattr(TrainedModel, "score", None)
    with pytest.raises(InputError, match=r"run/evaluations must be writable, got: File exists\."):
        evaluate(copy, None)


def test_rates_are_printed_where_the_results_cannot_be_written(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(path: Path, _: str) -> None:
        raise InputError(f"{path.suffix} must be writable, got: No space left on device.")

    monkeypatch.setattr(results_lib, "write_text", fail)
    with pytest.raises(InputError, match="No space left"):
        evaluate(run, None)
    assert ": WER 100.00% (4 errors in 4 words: " in capsys.readouterr().out


def test_the_same_evaluation_replaces_its_own_and_another_does_not(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluations"))
    for place in ("a/en", "b/en"):  # of one name, with different recordings
        write_noise_manifest(tmp_path / place, ("GO",) if place == "a/en" else ("GO", "NO"), name="test")

    def names(*evaluations: Evaluation) -> list[str]:
        return sorted(each.provenance.name for each in evaluations if each.provenance)

    first = evaluate(copy, tmp_path / "a/en/test.jsonl")
    second = evaluate(copy, tmp_path / "b/en/test.jsonl")
    assert names(evaluate(copy, tmp_path / "a/en/test.jsonl")) == names(first)
    assert sorted(path.stem for path in (copy / "evaluations").glob("*.json")) == names(first, second)


def test_what_has_no_loss_is_counted(evaluated: tuple[Evaluation, str]) -> None:
    assert ", 3 utterances; 1 without a loss (too short, empty, or unknown characters)" in evaluated[1]


def test_empty_references_have_no_error_rate() -> None:
    nothing = Evaluation([result("a", "", "GO", "anna"), result("b", "", "", "bert")], 0.0, 2)
    assert str(nothing).startswith("no words in the references, so no error rate; 1 words recognised, 2 utterances")
    told = account(nothing, "dev")
    assert "WER" not in told
    assert "  anna                 no words in the references; 1 recognised\n" in told


def test_evaluation_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = dataclasses.replace(EVALUATION, results=[*EVALUATION.results, result("u", "A\u2028B", "")], left_out=3)
    write_evaluation(tmp_path, "test", written)
    read = read_evaluation(tmp_path, "test")
    assert read is not None
    assert read.summary == written.summary
    assert str(read) == str(written)
    assert read_evaluation(tmp_path, "dev") is None
    (tmp_path / "test.jsonl").write_text("{}")
    with pytest.raises(
        InputError, match=r"test\.json and test\.jsonl must hold an evaluation, got KeyError: 'audio'\. "
    ):
        read_evaluation(tmp_path, "test")


def test_loss_that_is_not_finite_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^The loss of dev must be finite, got nan\. The weights are useless: "):
        write_evaluation(tmp_path, "dev", dataclasses.replace(EVALUATION, loss=float("nan")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("corpus", ["an4", None])
def test_missing_manifest_is_named_and_nothing_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corpus: Literal["an4"] | None
) -> None:
    monkeypatch.chdir(tmp_path)
    data = DataConfig(corpus=corpus, root=Path("data"), test=None if corpus else Path("data/an4/test.jsonl"))
    run_folder.open_run(tmp_path / "run", dataclasses.replace(SMALL_CONFIG, data=data), overwrite=False)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    with pytest.raises(InputError) as caught:
        evaluate(tmp_path / "run", None)
    missing = f"{tmp_path}/data/an4/test.jsonl"
    assert str(caught.value) == (
        f"{missing} must be a manifest to evaluate, got a folder or nothing at this path. Give the path of a "
        "manifest: --manifest FILE."
        if corpus
        else f"data.test must be a manifest, got {missing}, which does not exist. Make it: python main.py prepare an4 "
        f"--root {tmp_path}/data (--help lists its options)."
    )


def test_run_without_test_split_needs_a_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "load_config", lambda _: SMALL_CONFIG)
    with pytest.raises(InputError, match=r"--manifest must be given, got none: the run names no data\.test\."):
        evaluate(tmp_path, None)


def test_evaluation_stops_where_it_is_asked_to(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_requested", signal.SIGTERM)
    with pytest.raises(interrupts.Stopped, match="terminated"):
        evaluate(run, None)


def test_unreadable_audio_stops_the_evaluation(run: Path, tmp_path: Path) -> None:
    path: Any = write_noise_manifest(tmp_path)
    (tmp_path / "all1.wav").write_bytes(b"")
    with pytest.raises(InputError, match=r"Utterance all1: .*all1\.wav"):
        evaluate(run, path)


def test_unreadable_audio_is_left_out_and_listed_where_the_run_skips(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_noise_manifest(tmp_path / "data")
    (tmp_path / "data/all0.wav").unlink()
    (tmp_path / "data/all1.wav").write_bytes(b"")
    config = run_folder.load_config(run)
    skips = dataclasses.replace(config, data=dataclasses.replace(config.data, on_bad_utterance="skip"))
    monkeypatch.setattr(run_folder, "load_config", lambda _: skips)
    evaluation = evaluate(run, path)
    assert [each.utterance.id for each in evaluation.results] == ["all2"]
    assert evaluation.left_out == 2
    assert "; 2 left out" in capsys.readouterr().out
    [listed] = (run / "evaluations").glob("data-all-*_skipped.jsonl")
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [(line["id"], line["reason"]) for line in lines] == [
        ("all0", "missing audio"),
        ("all1", "unreadable audio"),
    ]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("test.json", "[" * 100_000),
        ("test.json", '{"loss": "1.5", "unalignable": 0, "left_out": 0}'),
        ("test.json", '{"loss": NaN, "unalignable": 0, "left_out": 0}'),
        ("test.json", '{"loss": 1.5, "unalignable": 0.5, "left_out": 0}'),
        ("test.json", '{"loss": 1.5, "unalignable": 0, "left_out": 0, "provenance": []}'),
        ("test.json", '{"loss": 1.5, "unalignable": 0, "left_out": 0, "provenance": {"manifest": 1}}'),
        ("test.jsonl", '{"id": "a", "reference": 1, "hypothesis": "", "speaker": "", "audio": "a"}\n'),
    ],
)
def test_an_evaluation_of_other_types_is_refused(tmp_path: Path, file: str, text: str) -> None:
    write_evaluation(tmp_path, "test", Evaluation([], 1.5, 0))
    (tmp_path / file).write_text(text)
    with pytest.raises(
        InputError, match=f"^{tmp_path}/test.json and test.jsonl must hold an evaluation, got "
    ) as error:
        read_evaluation(tmp_path, "test")
    assert str(error.value).endswith(f". Delete {tmp_path}/test.json to evaluate again.")


def test_constant_sound_has_no_text_and_one_loss(tmp_path: Path) -> None:
    """The drawn weights write something for a recording that is not constant."""
    soundfile.write(tmp_path / "silent.wav", np.full(RATE, 0.25), RATE)
    write_noise(tmp_path / "loud.wav", seconds=1.0)
    rows = [Utterance(tmp_path / f"{name}.wav", 1.0, "A B", name) for name in ("silent", "loud")]
    model = TrainedModel.load(write_untrained_run(tmp_path / "run", SMALL_CONFIG))
    for options in (GREEDY, DecodingOptions(beam_width=8)):
        evaluation = evaluate_split(model, Split(rows, model.alphabet), model.decoder(options), title="test")
        texts = {each.utterance.id: each.hypothesis for each in evaluation.results}
        assert texts["silent"] == ""
        assert texts["loud"]
    assert evaluation.unalignable == 0
