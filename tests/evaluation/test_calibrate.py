"""Calibrations fitted to a model's outputs, and the command."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ds2_jax import cli
from ds2_jax.config import Config
from ds2_jax.data.manifest import TimedWord, Utterance
from ds2_jax.data.splits import Split
from ds2_jax.decoding.calibration import UNCALIBRATED
from ds2_jax.decoding.decoder import Decoder
from ds2_jax.evaluation import calibrate as calibrate_lib
from ds2_jax.evaluation.calibrate import MIN_WORDS, TEMPERATURES, best_temperature, fit_calibration
from ds2_jax.evaluation.split_outputs import UtteranceOutput
from ds2_jax.evaluation.time_errors import gather, time_errors
from ds2_jax.runs.fitted import read_calibration
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from tests.small_runs import SMALL_CONFIG, write_noise_manifest, write_untrained_run

CONFIG = Config()
ALPHABET = Alphabet.of(CONFIG.data)
FRAME = CONFIG.seconds_per_frame


def planted(logits: np.ndarray, temperature: float) -> tuple[np.ndarray, list[bool]]:
    """Makes log-confidences [K, W] at every temperature, and words that are right as often as one temperature says."""

    def confidences(at: float) -> np.ndarray:
        return -np.log1p(np.exp(-logits / at))

    right = np.random.default_rng(1).uniform(size=len(logits)) < np.exp(confidences(temperature))
    return np.array([confidences(each) for each in TEMPERATURES.tolist()]), right.tolist()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_of_planted_confidences_is_found(temperature: float) -> None:
    confidences, right = planted(np.random.default_rng(0).normal(2, 3, 20_000), temperature)
    assert TEMPERATURES[best_temperature(confidences, right)] == pytest.approx(temperature, rel=0.05)


def test_wrong_word_of_full_confidence_costs_no_infinity() -> None:
    confidences = np.zeros((len(TEMPERATURES), 2))
    assert best_temperature(confidences, [False, True]) == 0


def said(words: Sequence[str], first: int, lag: int = 0, certainty: float = 0.99) -> tuple[np.ndarray, list[TimedWord]]:
    """Makes posteriors [T', V] of words with two frames a letter, `lag` frames late, and the times of the words."""
    path, times = [0] * first, []
    for word in words:
        times.append(TimedWord(word, len(path) * FRAME, (len(path) + 2 * len(word)) * FRAME))
        path += np.repeat(ALPHABET.encode(word), 2).tolist() + ALPHABET.encode("A A")[1:2]
    path = [0] * lag + path[:-1] + [0] * 8
    probs = np.full((len(path), ALPHABET.size), (1 - certainty) / (ALPHABET.size - 1))
    probs[np.arange(len(path)), path] = certainty
    return np.log(probs).astype(np.float32), times


def heard(lag: int, transcripts: Sequence[str], timed: bool = True) -> tuple[list[UtteranceOutput], Split]:
    outputs, utterances = [], []
    for index, transcript in enumerate(transcripts):
        log_probs, times = said(("GO", "LEFT", "NOW"), 5 + index, lag)
        words = tuple(times) if timed else ()
        utterances.append(Utterance(Path(f"{index}.wav"), 9.0, transcript, f"{index}", words=words))
        outputs.append(UtteranceOutput(index, log_probs, 1.0))
    return outputs, Split(utterances, ALPHABET)


def test_offsets_undo_a_planted_lag_exactly() -> None:
    outputs, split = heard(3, ["GO LEFT NOW"] * 4)
    calibration, findings = fit_calibration(outputs, split, CONFIG, 7, "dev")
    assert calibration.start_offset == pytest.approx(-3 * FRAME, abs=1e-4)
    assert calibration.end_offset == pytest.approx(-3 * FRAME, abs=1e-4)
    assert (calibration.step, calibration.fitted_on, calibration.num_words, calibration.num_timed_words) == (
        7,
        "dev",
        12,
        12,
    )
    decoder = Decoder(ALPHABET, FRAME, calibration)
    errors = []
    for index, log_probs, _ in outputs:
        [reading] = decoder(log_probs)
        spans = [(word.start, word.end) for word in reading.words]
        errors += time_errors(split.utterances[index], "GO LEFT NOW", reading.text, spans)
    after = gather(errors)
    assert after is not None
    np.testing.assert_allclose([after.starts, after.ends], 0, atol=1e-4)
    assert findings[1:] == [
        "12 right words and 0 wrong ones: a temperature needs 10 of each, so it stays 1",
        "uncalibrated word times: starts 60 ms off in the mean (60 in the median, 95 % within 60), "
        "ends 60 ms off in the mean (60 in the median, 95 % within 60), over 12 right words",
        f"with -60 ms for starts and -60 ms for ends: {after}",
    ]


@pytest.mark.parametrize("wrong", [0, MIN_WORDS - 1])
def test_split_of_few_errors_and_without_times_leaves_all_as_it_is(wrong: int) -> None:
    transcripts = ["GO LEFT UP"] * wrong + ["GO LEFT NOW"] * 3
    calibration, findings = fit_calibration(*heard(3, transcripts, timed=False), CONFIG, 7, "dev")
    assert dataclasses.replace(calibration, step=0, fitted_on="", num_words=0) == UNCALIBRATED
    assert findings[0].startswith("uncalibrated confidences: expected calibration error 0.")
    assert findings[1:] == [
        f"{9 + 2 * wrong} right words and {wrong} wrong ones: a temperature needs 10 of each, so it stays 1",
        "the manifest has no times of a right word, so the offsets stay 0",
    ]


def test_temperature_needs_right_words_too() -> None:
    calibration, findings = fit_calibration(*heard(3, ["NO"] * 20, timed=False), CONFIG, 7, "dev")
    assert calibration.temperature == 1
    assert findings[1] == "0 right words and 60 wrong ones: a temperature needs 10 of each, so it stays 1"


def test_split_without_words_leaves_all_as_it_is() -> None:
    silence = np.log(np.eye(ALPHABET.size)[[0, 0, 0]] + 1e-9).astype(np.float32)
    split = Split([Utterance(Path("a.wav"), 1.0, "GO", "a")], ALPHABET)
    calibration, findings = fit_calibration([UtteranceOutput(0, silence, 1.0)], split, CONFIG, 7, "dev")
    assert calibration.temperature == 1
    assert findings[0] == "uncalibrated confidences: none"


def test_overconfidence_is_mended() -> None:
    """The model is nearly certain, and one word in three is wrong."""
    calibration, findings = fit_calibration(*heard(0, ["GO LEFT UP", "NO LEFT NOW", "GO NOW"] * 9), CONFIG, 7, "dev")
    [before], [after] = (re.findall(r"calibration error (0\.\d+)", finding) for finding in findings[:2])
    assert 1 < calibration.temperature < 4
    assert float(before) > 0.25
    assert float(after) < 0.1
    assert findings[0].startswith("uncalibrated confidences: ")
    assert findings[1].startswith(f"at temperature {calibration.temperature:.2f}: ")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    config = dataclasses.replace(
        SMALL_CONFIG, data=dataclasses.replace(SMALL_CONFIG.data, dev=write_noise_manifest(folder))
    )
    return write_untrained_run(folder / "run", config)


def test_command_keeps_the_calibration_with_the_run(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model itself runs in the tests of training."""
    log_probs, _ = said(("GO",), 5)
    monkeypatch.setattr(
        calibrate_lib, "split_outputs", lambda *_, **__: [UtteranceOutput(i, log_probs, 1.0) for i in range(3)]
    )
    assert cli.main(["calibrate", str(run)]) == 0
    calibration = read_calibration(run)
    assert (calibration.step, calibration.fitted_on, calibration.num_words) == (0, "dev", 3)
    assert f"calibration on dev, saved in {run}/calibration.json:\n" in capsys.readouterr().err


def test_a_run_that_takes_no_result_is_told_before_the_model_runs(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> None:
        raise InputError(f"{folder} must be writable, got: Read-only file system.")

    monkeypatch.setattr(calibrate_lib, "make_writable", fail)
    monkeypatch.setattr(calibrate_lib, "calibrate_model", None)
    with pytest.raises(InputError, match=f"^{run} must be writable, got: Read-only"):
        calibrate_lib.calibrate(run, None)


def test_another_manifest_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr(calibrate_lib, "calibrate_model", lambda *arguments: found.append(arguments))
    manifest = write_noise_manifest(run.parent, ("GO",), name="other")
    assert cli.main(["calibrate", str(run), "--manifest", str(manifest)]) == 0
    [(model, split, step, name)] = found
    assert (model.run, step, name) == (run, 0, f"{run.parent.name}-other")
    assert [utterance.id for utterance in split.utterances] == ["other0"]


def test_run_without_a_dev_split_needs_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_untrained_run(tmp_path / "run", SMALL_CONFIG)
    assert cli.main(["calibrate", str(run)]) == 1
    assert capsys.readouterr().err == (
        "error: --manifest must be given, got none: the run has no dev split, or trained on it. Add --manifest FILE.\n"
    )
