"""Measurements of known signals and of real speech."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax.audio.reading import read_audio
from ds2_jax.curation.recordings import Recording, measure, measure_all
from ds2_jax.data.manifest import Problem, Utterance
from tests.small_runs import RATE, noise, write_noise


def measured(path: Path, sample_rate: int = RATE) -> Recording:
    recording = measure(Utterance(path, 1.0, "A", path.stem), sample_rate)
    assert isinstance(recording, Recording), recording
    return recording


def test_noise_is_measured(tmp_path: Path) -> None:
    recording = measured(write_noise(tmp_path / "a.wav"))
    assert (recording.sample_rate, recording.num_samples) == (RATE, RATE // 2)
    assert recording.level == pytest.approx(np.sqrt(1 / 12), rel=0.02)  # uniform between -0.5 and 0.5
    assert 0 < recording.clipped < 1e-3


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100])
def test_samples_are_counted_as_training_reads_them(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(1.0)[: rate // 3], rate)
    assert measured(path, 16_000).num_samples == len(read_audio(path, 16_000))


@pytest.mark.parametrize("level", [0.99997, 0.3, 0.02])
def test_cut_peaks_show_at_any_level(tmp_path: Path, level: float) -> None:
    sine = np.sin(np.arange(RATE) * 0.05)
    soundfile.write(tmp_path / "cut.wav", level * np.clip(2 * sine, -1, 1), RATE)
    soundfile.write(tmp_path / "whole.wav", level * sine * noise(1.0), RATE)
    assert measured(tmp_path / "cut.wav").clipped == pytest.approx(2 / 3, abs=0.02)  # |sin| > 1/2
    assert measured(tmp_path / "whole.wav").clipped < 1e-3


def test_overshoot_of_what_was_cut_is_clipped(tmp_path: Path) -> None:
    waves = np.clip(4 * np.sin(np.arange(RATE) * 0.05), -1, 1) * (1 + 0.1 * np.abs(noise(1.0)))
    soundfile.write(tmp_path / "a.wav", waves, RATE, subtype="FLOAT")
    assert measured(tmp_path / "a.wav").clipped > 0.8


@pytest.mark.parametrize(
    ("second", "cancels"), [(-1.0, True), (-0.99, True), (-0.5, False), (0.0, False), (1.0, False)]
)
def test_the_level_is_that_of_the_mix(tmp_path: Path, second: float, cancels: bool) -> None:
    left = noise(0.5)
    soundfile.write(tmp_path / "a.wav", np.stack([left, second * left], 1), RATE, subtype="FLOAT")
    found = measured(tmp_path / "a.wav")
    assert found.level == pytest.approx(abs(1 + second) / 2 * left.std(), abs=1e-6)
    assert found.cancels == cancels


def test_content_is_known_again_in_another_format_and_nowhere_else(tmp_path: Path) -> None:
    samples = np.round(noise(0.5) * 2**15) / 2**15
    other = samples.copy()
    other[-1] += 2**-15
    for name, content, rate in (
        ("a.wav", samples, RATE),
        ("a.flac", samples, RATE),
        ("b.wav", samples[:-1], RATE),
        ("c.wav", samples, 8_000),
        ("d.wav", np.stack([samples, samples], 1), RATE),
        ("e.wav", other, RATE),
    ):
        soundfile.write(tmp_path / name, content, rate)
    first, same, *others = (
        measured(tmp_path / name).digest for name in ("a.wav", "a.flac", "b.wav", "c.wav", "d.wav", "e.wav")
    )
    assert first == same
    assert len({first, *others}) == 5


def test_all_are_measured_in_their_order_and_bad_ones_named(tmp_path: Path) -> None:
    paths = [write_noise(tmp_path / f"{i}.wav", 0.1 + 0.01 * i) for i in range(40)]
    paths[7].write_bytes(b"")
    broken = noise(0.1)
    broken[5] = np.nan
    soundfile.write(paths[20], broken, RATE, subtype="FLOAT")
    found = measure_all([Utterance(p, 1.0, "A", p.stem) for p in paths], RATE, title="test", num_workers=3)
    bad = {i: each for i, each in enumerate(found) if isinstance(each, Problem)}
    assert [(i, each.id, each.reason) for i, each in bad.items()] == [
        (7, "7", "unreadable audio"),
        (20, "20", "unreadable audio"),
    ]
    assert "nan at sample 5" in bad[20].detail
    lengths = [each.num_samples for each in found if isinstance(each, Recording)]
    assert lengths == [round((0.1 + 0.01 * i) * RATE) for i in range(40) if i not in bad]
