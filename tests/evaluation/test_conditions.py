"""Recordings are changed as the condition says, each utterance always in the same way, and the rates are compared."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile

from ds2_jax import cli
from ds2_jax.audio.reading import read_audio
from ds2_jax.data.manifest import Utterance, write_manifest
from ds2_jax.evaluation.condition_settings import Codec, Conditions
from ds2_jax.evaluation.conditions import Condition, list_conditions
from ds2_jax.evaluation.results import Evaluation, Result
from ds2_jax.evaluation.robustness import against_clean, table
from ds2_jax.system.errors import InputError
from tests.small_runs import RATE, SMALL_CONFIG, with_manifests, write_noise_manifest, write_untrained_run


def low_noise(seed: int, rate: int = RATE) -> np.ndarray:
    """Noise below some 2 kHz, [rate] float32."""
    white = np.random.default_rng(seed).normal(0, 0.1, rate)
    return np.asarray(scipy.signal.lfilter([0.1], [1, -0.9], white), np.float32)


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """A folder with noise/, rooms/ and the recording a.wav."""
    for folder, count in (("noise", 3), ("rooms", 2)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            sound = np.tile(low_noise(number + 10), 2)
            if folder == "rooms":
                sound = np.concatenate([[1.0], 0.3 * sound[: 500 * (number + 1)]]).astype(np.float32)
            soundfile.write(tmp_path / folder / f"{number}.wav", sound, RATE, "FLOAT")
    soundfile.write(tmp_path / "a.wav", low_noise(0), RATE, "FLOAT")
    return tmp_path


def heard(folder: Path, condition: Condition, name: str = "a", rate: int = RATE) -> np.ndarray:
    waveform = condition.change(read_audio(folder / "a.wav", rate), rate, name)
    assert 0 <= len(waveform) - condition.num_samples(np.array([rate]), 160)[0] < 160
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, condition.change(read_audio(folder / "a.wav", rate), rate, name))
    return waveform


def test_noise_has_the_ratio_and_depends_on_the_utterance(sounds: Path) -> None:
    plain = low_noise(0)
    loud, quiet = list_conditions(Conditions(noise=sounds / "noise", snr=(0.0, 20.0)))
    assert (loud.name, quiet.name) == ("noise at 0 dB", "noise at 20 dB")
    for condition, ratio in ((loud, 0.0), (quiet, 20.0)):
        added = heard(sounds, condition) - plain
        assert 10 * np.log10(np.mean(plain**2) / np.mean(added**2)) == pytest.approx(ratio, abs=0.01)
    np.testing.assert_allclose(10 * (heard(sounds, quiet) - plain), heard(sounds, loud) - plain, atol=1e-5)  # the same
    drawn = {heard(sounds, loud, f"utterance {number}").tobytes() for number in range(8)}
    assert len(drawn) == 8


def test_rooms_are_those_of_the_folder(sounds: Path) -> None:
    [condition] = list_conditions(Conditions(rooms=sounds / "rooms"))
    drawn = {heard(sounds, condition, f"utterance {number}").tobytes() for number in range(20)}
    assert len(drawn) == 2
    assert low_noise(0).tobytes() not in drawn


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050])
@pytest.mark.parametrize("codec", ["mulaw", "mp3"])
def test_codecs_neither_shift_the_sound_nor_change_it_much(sounds: Path, codec: Codec, rate: int) -> None:
    soundfile.write(sounds / "a.wav", low_noise(0, rate), rate, "FLOAT")
    [condition] = list_conditions(Conditions(codecs=(codec,)))
    got, plain = heard(sounds, condition, rate=rate), low_noise(0, rate)
    shift = scipy.signal.correlate(got, plain[1000:-1000], "valid").argmax() - 1000
    assert shift == 0
    assert 0 < np.mean((got - plain) ** 2) < 0.2 * np.mean(plain**2)


def test_the_telephone_has_no_high_sounds(sounds: Path) -> None:
    soundfile.write(sounds / "a.wav", np.random.default_rng(0).normal(0, 0.1, RATE), RATE, "FLOAT")
    [condition] = list_conditions(Conditions(codecs=("mulaw",)))
    spectrum = np.abs(np.fft.rfft(heard(sounds, condition)))  # 1 Hz a bin
    assert spectrum[4200:].mean() < 0.02 * spectrum[500:3500].mean()


def test_speeds_change_the_length_and_the_pitch(sounds: Path) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    soundfile.write(sounds / "a.wav", tone, RATE, "FLOAT")
    [condition] = list_conditions(Conditions(speeds=(1.25,)))
    waveform = heard(sounds, condition)
    assert len(waveform) == RATE / 1.25
    assert np.abs(np.fft.rfft(waveform)).argmax() * RATE / len(waveform) == pytest.approx(1250, abs=2)


def result(name: str, hypothesis: str) -> Result:
    return Result(Utterance(Path("a.wav"), 1.0, "ONE TWO", name), "ONE TWO", hypothesis)


def test_the_table_compares_the_utterances_that_were_heard() -> None:
    clean = Evaluation([result("a", "ONE TWO"), result("b", "ONE TO")], 1.0)
    noisy = Evaluation([result("b", "TO")], 1.0, left_out=1)
    rows = against_clean(clean, [("noise at 0 dB", noisy)])
    assert rows[1].increase is not None
    assert rows[1].increase[0] == 0.5  # from 1 to 2 errors in the 2 words of b
    lines = table(rows).splitlines()
    assert lines[1].split() == "as recorded 25.00% 0.00% to 50.00% 8.33%".split()
    assert lines[2].endswith("+50.00 points (+50.00 to +50.00)")


def test_a_condition_that_leaves_nothing_is_named() -> None:
    clean = Evaluation([result("a", "ONE TWO")], 1.0)
    with pytest.raises(InputError, match="be readable under the condition rooms, got none"):
        against_clean(clean, [("rooms", Evaluation([], 0.0, left_out=1))])


def test_evaluate_prints_and_stores_every_condition(sounds: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write_noise_manifest(sounds)
    run = write_untrained_run(sounds / "run", with_manifests(SMALL_CONFIG, manifest))
    words = [
        "evaluate",
        str(run),
        "--engine",
        "onnx",
        "--noise",
        str(sounds / "noise"),
        "--snr",
        "10",
        "--codecs",
        "mulaw",
        "mp3",
    ]
    assert cli.main([*words, "--rooms", str(sounds / "rooms"), "--speeds", "0.9"]) == 0
    output = capsys.readouterr().out
    names = [
        "as recorded",
        "noise at 10 dB",
        "rooms",
        "telephone (8 kHz, µ-law)",
        "MP3 (16 kHz, 32 kbit/s)",
        "speed 0.9",
    ]
    places = [output.index(f"\n{name}  ") for name in names]
    assert places == sorted(places)
    [picture] = (run / "conditions").glob("*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert str(picture) in output
    found = json.loads(picture.with_suffix(".json").read_text())
    assert [each["condition"] for each in found["conditions"]] == names
    assert found["provenance"]["manifest"] == str(manifest)
    assert all(each["wer"] >= 0 and len(each["wer_interval"]) == 2 for each in found["conditions"])
    again = ["evaluate", str(run), "--engine", "onnx", "--speeds", "1.1"]
    assert cli.main(again) == 0
    assert len(list((run / "conditions").glob("*.png"))) == 2
    assert cli.main(["summary", str(run)]) == 0  # it does not take them for evaluations


@pytest.mark.parametrize("speed", [0.5, 2.0])
def test_a_speed_lets_files_be_as_much_longer_than_the_manifest_as_they_may_be(sounds: Path, speed: float) -> None:
    soundfile.write(sounds / "a.wav", low_noise(0, RATE + 159), RATE)
    manifest = sounds / "one.jsonl"
    write_manifest(manifest, [Utterance(sounds / "a.wav", 1.0, "GO", "a")])
    run = write_untrained_run(sounds / "run", with_manifests(SMALL_CONFIG, manifest))
    assert cli.main(["evaluate", str(run), "--engine", "onnx", "--speeds", str(speed)]) == 0
    [numbers] = (run / "conditions").glob("*.json")
    assert json.loads(numbers.read_text())["conditions"][1]["utterances"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--noise none", "error: --noise must be a folder or a manifest, got none, which does not exist"),
        ("--speeds 3", "--speeds must be 0.5 to 2, got (3.0,)"),
        ("--noise noise --snr 1000", "--snr must be -100 to 100 dB, got (1000.0,)"),
        ("--codecs opus", "--codecs"),
        ("--snr 10", "--snr must be used with --noise, got (10.0,)"),
        ("--noise noise --snr", "--snr must hold at least one ratio with --noise, got ()"),
    ],
)
def test_wrong_conditions_are_refused_first(
    sounds: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_untrained_run(sounds / "run", with_manifests(SMALL_CONFIG, write_noise_manifest(sounds)))
    assert cli.main(["evaluate", str(run), *words.split()]) == 1
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (run / "evaluations").exists()
