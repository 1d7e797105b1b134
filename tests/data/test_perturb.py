"""Each change has its effect, on tones and on speech, and every draw is keyed by the utterance."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax.audio import made_speech
from ds2_jax.audio.reading import read_audio, read_excerpt
from ds2_jax.config import PerturbConfig
from ds2_jax.data.perturb import (
    Perturbation,
    Perturber,
    add_noise,
    change_tempo,
    find_sounds,
    perturb,
    reverberate,
    shortened,
)
from ds2_jax.system.errors import InputError
from tests.small_runs import RATE, noise, write_noise

ALL = PerturbConfig(speed_probability=0.5, tempo_probability=0.5, gain_probability=0.5)


def tone(hertz: float, seconds: float) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def pitch(waveform: np.ndarray) -> float:
    """Finds the strongest frequency in Hz, to a tenth of a bin."""
    middle = waveform[len(waveform) // 4 : -len(waveform) // 4] * np.hanning(
        len(waveform[len(waveform) // 4 : -len(waveform) // 4])
    )
    return float(np.argmax(np.abs(np.fft.rfft(middle, 16 * RATE))) / 16)


def decibels(waveform: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(waveform, dtype=np.float64))))


def perturber(config: PerturbConfig, count: int = 1000, seed: int = 0, fastest: float = 10.0) -> Perturber:
    num_samples = np.full(count, 3 * RATE)
    return Perturber(config, RATE, seed, num_samples, (num_samples / fastest).astype(np.int64))


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.1, 1.337, 2.0])
def test_speed_changes_length_and_pitch(factor: float) -> None:
    changed = perturb(tone(200, 2), RATE, Perturbation(speed=factor))
    assert len(changed) == shortened(2 * RATE, factor)
    assert pitch(changed) == pytest.approx(200 * factor, rel=2e-3)
    assert changed.dtype == np.float32


@pytest.mark.parametrize("factor", [0.5, 0.85, 0.99, 1.15, 2.0])
@pytest.mark.parametrize("hertz", [90, 200, 1111])
def test_tempo_changes_length_and_keeps_pitch(factor: float, hertz: float) -> None:
    changed = change_tempo(tone(hertz, 2), RATE, factor)
    assert len(changed) == shortened(2 * RATE, factor)
    assert pitch(changed) == pytest.approx(hertz, rel=5e-3)
    inner = changed[RATE // 10 : -RATE // 10]
    assert decibels(inner) == pytest.approx(decibels(tone(hertz, 2)), abs=0.3)  # periods meet, so nothing cancels
    assert np.abs(np.diff(inner)).max() < 1.5 * np.abs(np.diff(tone(hertz, 2))).max()  # no clicks


def test_tempo_moves_what_is_said_in_proportion() -> None:
    waveform = np.concatenate(
        [noise(0.3, 0) * 0.01, noise(0.2, 1), noise(0.7, 2) * 0.01, noise(0.2, 3), noise(0.4) * 0.01]
    )
    for factor in (0.8, 1.25):
        loud = np.flatnonzero(np.abs(change_tempo(waveform, RATE, factor)) > 0.1) / RATE * factor
        assert loud[0] == pytest.approx(0.3, abs=0.03)
        assert loud[-1] == pytest.approx(1.4, abs=0.04)


def test_tempo_and_speed_together_have_the_length_that_the_plan_is_told() -> None:
    waveform = made_speech.utterance(1.7, seed=0)
    for speed, tempo in ((0.9, 0.85), (1.0931, 1.1417), (0.93, 1.07)):
        changed = perturb(waveform, RATE, Perturbation(speed=speed, tempo=tempo))
        assert len(changed) == shortened(len(waveform), speed * tempo)


def test_gain_is_in_decibels() -> None:
    waveform = noise(1)
    changed = perturb(waveform, RATE, Perturbation(gain=-6))
    assert decibels(changed) - decibels(waveform) == pytest.approx(-6, abs=1e-4)


@pytest.mark.parametrize("seconds", [0.3, 1.0, 9.0])  # shorter than the speech, as long, longer
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_noise_reaches_its_ratio(tmp_path: Path, seconds: float, rate: int) -> None:
    path = tmp_path / "noise.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.05, round(seconds * rate)), rate)
    waveform = made_speech.utterance(1.0, seed=0)
    for position in (0.0, 0.31, 0.999):
        for snr in (-5.0, 12.3, 40.0):
            change = Perturbation(noise=path, noise_position=position, noise_snr=snr)
            added = perturb(waveform, RATE, change).astype(np.float64) - waveform
            assert decibels(waveform) - decibels(added) == pytest.approx(snr, abs=0.1)
            assert np.square(added).reshape(10, -1).sum(1).min() > 0  # in every tenth of the speech


def test_silent_noise_and_silent_speech_stay_finite() -> None:
    waveform, silence = noise(0.1), np.zeros(RATE // 10, np.float32)
    np.testing.assert_array_equal(add_noise(waveform, silence, 10), waveform)
    np.testing.assert_array_equal(add_noise(silence, waveform, 10), silence)
    np.testing.assert_array_equal(reverberate(silence, noise(0.1)), silence)


def test_reverberation_convolves_without_delay_and_keeps_the_power() -> None:
    waveform = made_speech.utterance(1.0, seed=0)
    response = np.zeros(RATE // 2, np.float32)
    response[100], response[100 + RATE // 10] = 0.8, 0.4  # the direct sound, and an echo a tenth of a second later
    echoed = reverberate(waveform, response)
    assert decibels(echoed) == pytest.approx(decibels(waveform), abs=1e-3)
    expected = waveform + 0.5 * np.pad(waveform, (RATE // 10, 0))[: len(waveform)]
    expected *= np.sqrt(np.mean(waveform**2) / np.mean(expected**2))
    np.testing.assert_allclose(echoed, expected, atol=1e-5)


def test_excerpt_is_the_part_of_the_whole(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "a.wav", 2)
    whole = read_audio(path, RATE)
    np.testing.assert_array_equal(read_excerpt(path, RATE, RATE, 0.0), whole[:RATE])
    np.testing.assert_array_equal(read_excerpt(path, RATE, RATE, 1 - 1e-9), whole[RATE:])
    np.testing.assert_array_equal(read_excerpt(path, RATE, RATE, 0.25), whole[RATE // 4 :][:RATE])
    again = read_excerpt(path, RATE, 5 * RATE, 0.25)
    np.testing.assert_array_equal(again, np.tile(np.roll(whole, -RATE // 2), 3)[: 5 * RATE])


def test_draws_lie_in_their_ranges_as_often_as_asked(tmp_path: Path) -> None:
    write_noise(tmp_path / "noise/a.wav")
    write_noise(tmp_path / "noise/deep/b.wav")
    config = dataclasses.replace(ALL, tempo=(0.8, 1.2), noise=tmp_path / "noise", noise_snr=(5, 15))
    found = [perturber(config).perturbation(0, index) for index in range(1000)]
    for name, (low, high), neutral in (("speed", (0.9, 1.1), 1), ("tempo", (0.8, 1.2), 1), ("gain", (-6, 8), 0)):
        values = np.array([getattr(each, name) for each in found])
        values = values[values != neutral]
        assert 430 < len(values) < 570, name
        assert low <= values.min() < low + 0.05 * (high - low), name
        assert high - 0.05 * (high - low) < values.max() <= high, name
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.05 * (high - low)), name
    noises = [each.noise.name for each in found if each.noise]
    assert 330 < len(noises) < 470
    assert noises.count("a.wav") == pytest.approx(len(noises) / 2, abs=60)
    assert all(5 <= each.noise_snr <= 15 for each in found)


def test_draws_depend_on_seed_epoch_and_utterance_alone() -> None:
    config = ALL
    one = perturber(config)
    many = perturber(config, count=5000)
    assert [one.perturbation(3, i) for i in (7, 0, 999)] == [many.perturbation(3, i) for i in (7, 0, 999)]
    rows = {
        str(x) for seed in (0, 1) for epoch in (0, 1) for x in [perturber(config, seed=seed).perturbation(epoch, 7)]
    }
    assert len(rows) == 4


def test_an_utterance_too_short_for_its_transcript_keeps_its_length() -> None:
    config = PerturbConfig(speed_probability=1.0, speed=(0.9, 1.1), tempo_probability=1.0, tempo=(0.9, 1.1))
    tight = perturber(config, fastest=1.05)
    lengths = tight.num_samples(np.full(1000, 3 * RATE), epoch=0)
    assert lengths.min() >= int(3 * RATE / 1.05)
    assert 0 < (lengths == 3 * RATE).sum() < 500
    assert (lengths > 3 * RATE).any()


def test_lengths_are_those_of_the_waveforms() -> None:
    changer = perturber(ALL, count=20)
    planned = changer.num_samples(np.full(20, 3 * RATE), epoch=1)
    heard = [len(changer.apply(1, index, noise(3))) for index in range(20)]
    assert heard == planned.tolist()
    assert len(set(heard)) > 10


def test_nothing_asked_changes_nothing() -> None:
    idle = perturber(PerturbConfig())
    assert not idle.active
    assert not idle.changes_lengths
    assert str(idle.perturbation(0, 0)) == "unchanged"
    waveform = noise(0.5)
    np.testing.assert_array_equal(idle.apply(0, 0, waveform), waveform)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speed": (1.1, 0.9)}, "perturb.speed must be a range, smallest first, within 0.5 to 2, got (1.1, 0.9)."),
        ({"tempo": (0.1, 1.0)}, "perturb.tempo must be a range, smallest first, within 0.5 to 2, got (0.1, 1.0)."),
        (
            {"gain": (-3.0, 99.0)},
            "perturb.gain must be a range, smallest first, within -100 to 40 dB, got (-3.0, 99.0).",
        ),
        ({"noise_probability": 1.5}, "perturb.noise_probability must be in [0, 1], got 1.5."),
    ],
)
def test_wrong_settings_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        PerturbConfig(**change)  # type: ignore[arg-type]


def test_places_without_sounds_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^perturb\.noise must be a folder or a manifest, got .*x, which does not exist"
    ):
        find_sounds(tmp_path / "x", "perturb.noise")
    with pytest.raises(InputError, match=r"^perturb\.noise must hold audio files \(.*\), got none in"):
        find_sounds(tmp_path, "perturb.noise")
    (tmp_path / "a.wav").write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.wav must hold audio, got an empty file"):
        find_sounds(tmp_path, "perturb.noise")


def test_hidden_sounds_are_passed_over(tmp_path: Path) -> None:
    write_noise(tmp_path / "a.wav")
    (tmp_path / "._a.wav").write_bytes(b"no sound")
    (tmp_path / ".cache").mkdir()
    write_noise(tmp_path / ".cache/b.wav")
    assert find_sounds(tmp_path, "perturb.noise") == (tmp_path / "a.wav",)


def test_sounds_must_be_whole_files(tmp_path: Path) -> None:
    write_noise(tmp_path / "a.wav")
    row = '{"audio": "a.wav", "duration": 0.2, "transcript": "", "offset": 0.1}'
    (tmp_path / "noise.jsonl").write_text(f"{row}\n")
    rule = "perturb.noise must list whole files, without offset, in line 1, got .*. Cut the segment into its own"
    with pytest.raises(InputError, match=f"^{rule}"):
        find_sounds(tmp_path / "noise.jsonl", "perturb.noise")


def test_sounds_of_a_manifest(tmp_path: Path) -> None:
    write_noise(tmp_path / "a.wav")
    (tmp_path / "noise.jsonl").write_text('{"audio": "a.wav", "duration": 0.5, "transcript": ""}\n')
    assert find_sounds(tmp_path / "noise.jsonl", "perturb.noise") == (tmp_path / "a.wav",)
