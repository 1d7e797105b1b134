"""Files of every format, depth, rate and channel count give the samples that were written."""

import io
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ds2_jax.audio.parts import AudioBytes
from ds2_jax.audio.reading import (
    audio_duration,
    lossless_flac,
    read_audio,
    read_excerpt,
    read_samples,
)
from ds2_jax.audio.segment import read_segment
from ds2_jax.system.errors import InputError
from tests.audio.recordings import RATE, assert_refused, cut, tone, write, write_sphere

# Largest difference from the written samples: half a step of the depth, or one step if libsndfile truncates.
PCM = [
    ("wav", "PCM_U8", 2**-7),
    ("wav", "PCM_16", 2**-15),
    ("wav", "PCM_24", 2**-23),
    ("wav", "PCM_32", 1e-7),
    ("wav", "FLOAT", 1e-7),
    ("wav", "DOUBLE", 1e-7),
    ("wav", "ULAW", 2e-2),
    ("wav", "ALAW", 2e-2),
    ("flac", "PCM_S8", 2**-7),
    ("flac", "PCM_16", 2**-15),
    ("flac", "PCM_24", 2**-23),
    ("sph", "PCM_S8", 2**-7),
    ("sph", "PCM_16", 2**-15),
    ("sph", "PCM_24", 2**-23),
    ("sph", "PCM_32", 1e-7),
    ("sph", "ULAW", 2e-2),
    ("sph", "ALAW", 2e-2),
]


@pytest.mark.parametrize(("suffix", "subtype", "step"), PCM)
def test_every_depth_gives_the_samples(tmp_path: Path, suffix: str, subtype: str, step: float) -> None:
    path = write(tmp_path / f"a.{suffix}", tone(), RATE, subtype)
    waveform = read_audio(path, RATE)
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform, tone()[:, 0], rtol=0, atol=step)
    assert audio_duration(path) == 0.5


@pytest.mark.parametrize(("suffix", "subtype"), [("ogg", "VORBIS"), ("ogg", "OPUS"), ("mp3", "MPEG_LAYER_III")])
def test_lossy_formats_give_nearly_the_samples(tmp_path: Path, suffix: str, subtype: str) -> None:
    path = write(tmp_path / f"a.{suffix}", tone(), RATE, subtype)
    waveform = read_audio(path, RATE)
    assert waveform.shape == (8000,)
    middle = slice(1000, -1000)  # lossy coders smear the edges
    np.testing.assert_allclose(waveform[middle], tone()[middle, 0], rtol=0, atol=0.05)
    assert audio_duration(path) == 0.5


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 32_000, 44_100, 48_000])
def test_resampling_is_soxrs_of_the_whole(tmp_path: Path, rate: int) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (rate // 3, 1)).astype(np.float32)
    waveform = read_audio(write(tmp_path / "a.wav", noise, rate, "FLOAT"), RATE)
    expected = soxr.resample(noise[:, 0], rate, RATE, "HQ")  # what librosa calls soxr_hq
    assert abs(len(waveform) - len(noise) * RATE / rate) <= 0.5
    np.testing.assert_allclose(waveform, expected[: len(waveform)], rtol=0, atol=1e-6)


@pytest.mark.parametrize("sample_rate", [8_000, 16_000, 22_050])
def test_resampling_keeps_a_tone(tmp_path: Path, sample_rate: int) -> None:
    path = write(tmp_path / "a.wav", tone(rate=48_000), 48_000, "FLOAT")
    middle = slice(200, -200)
    expected = tone(rate=sample_rate)[middle, 0]
    np.testing.assert_allclose(read_audio(path, sample_rate)[middle], expected, rtol=0, atol=1e-3)


def test_the_files_own_rate_is_not_resampled(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, (1000, 1)).astype(np.float32)
    waveform = read_audio(write(tmp_path / "a.wav", noise, 44_100, "FLOAT"), 44_100)
    np.testing.assert_array_equal(waveform, noise[:, 0])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(channels=st.integers(1, 12), num_samples=st.integers(1, 300), seed=st.integers(0, 99))
def test_mixed_down_to_the_mean(tmp_path: Path, channels: int, num_samples: int, seed: int) -> None:
    noise = np.random.default_rng(seed).uniform(-1, 1, (num_samples, channels)).astype(np.float32)
    waveform = read_audio(write(tmp_path / "a.wav", noise, RATE, "FLOAT"), RATE)
    np.testing.assert_allclose(waveform, noise.astype(np.float64).mean(axis=1), rtol=0, atol=1e-6)


def test_gsm(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(), RATE, "GSM610")
    waveform = read_audio(path, RATE)
    assert waveform.shape == (8320,)  # whole blocks of 320, and one more
    assert np.corrcoef(waveform[:8000], tone()[:, 0])[0, 1] > 0.95
    assert_refused(cut(path, 0.5), "hold the 1625 bytes of audio that its header states, got ")


@pytest.mark.parametrize(("rate", "refused"), [(3_999, True), (4_000, False), (768_000, False), (768_001, True)])
def test_rates_that_speech_has(tmp_path: Path, rate: int, refused: bool) -> None:
    path = write(tmp_path / "a.wav", tone(rate=rate), rate)
    if refused:
        assert_refused(path, f"have a rate of 4000 to 768000 Hz, got {rate} Hz. Replace the recording.$")
    else:
        assert abs(len(read_audio(path, RATE)) - 8000) <= 2


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "sph"])
def test_stereo_in_every_format(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", tone(channels=2))
    expected = tone(channels=2).mean(axis=1)
    np.testing.assert_allclose(read_audio(path, RATE)[1000:-1000], expected[1000:-1000], rtol=0, atol=0.05)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "sph"])
def test_the_bytes_of_a_file_are_read_as_it_is(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", tone(channels=2), 22_050)
    data = AudioBytes("a", path.read_bytes())
    np.testing.assert_array_equal(read_audio(data, RATE), read_audio(path, RATE))
    assert audio_duration(data) == audio_duration(path)


@pytest.mark.parametrize(
    ("name", "subtype", "channels", "converts"),
    [
        ("a.wav", "PCM_16", 1, True),
        ("a.wav", "PCM_16", 8, True),
        ("a.wav", "PCM_16", 9, False),
        ("a.sph", "PCM_16", 2, True),
        ("a.wav", "PCM_24", 1, False),
        ("a.wav", "FLOAT", 1, False),
        ("a.flac", "PCM_16", 1, False),
    ],
)
def test_flac_of_16_bits_loses_nothing(tmp_path: Path, name: str, subtype: str, channels: int, converts: bool) -> None:
    path = write(tmp_path / name, tone(channels=channels), 11_025, subtype)
    flac = lossless_flac(path)
    assert (flac is not None) == converts
    if flac is not None:
        samples, rate = soundfile.read(io.BytesIO(flac), dtype="int16")
        assert rate == 11_025
        np.testing.assert_array_equal(samples, soundfile.read(path, dtype="int16")[0])
        np.testing.assert_array_equal(read_audio(AudioBytes("a", flac), RATE), read_audio(path, RATE))


@pytest.mark.parametrize(("rate", "holds"), [(65_535, True), (65_537, False), (100_010, True), (655_351, False)])
def test_flac_is_not_made_of_rates_that_it_does_not_hold(tmp_path: Path, rate: int, holds: bool) -> None:
    flac = lossless_flac(write(tmp_path / "a.wav", tone(), rate))
    assert (flac is not None) == holds
    assert flac is None or soundfile.read(io.BytesIO(flac))[1] == rate


def test_flac_is_not_made_of_a_file_that_was_cut(tmp_path: Path) -> None:
    path = cut(write(tmp_path / "a.wav", tone()), 0.9)
    with pytest.raises(InputError, match=r"must hold the 16000 bytes of audio that its header states"):
        lossless_flac(path)


def test_a_path_may_be_a_string(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone())
    np.testing.assert_array_equal(read_audio(str(path), RATE), read_audio(path, RATE))
    assert audio_duration(str(path)) == 0.5


@pytest.mark.parametrize("byte_format", ["01", "10"])
def test_sphere_written_by_hand(tmp_path: Path, byte_format: str) -> None:
    samples = np.random.default_rng(0).integers(-(2**15), 2**15, (500, 2))
    path = write_sphere(tmp_path / "a.sph", samples, 500, byte_format, extra="speaker_id -s4 fash\nsample_max -i 9\n")
    np.testing.assert_allclose(read_audio(path, RATE), samples.mean(axis=1) / 2**15, rtol=0, atol=1e-6)
    assert audio_duration(path) == 500 / RATE


def test_sphere_of_an4(tmp_path: Path, an4_archive: Path) -> None:
    with tarfile.open(an4_archive) as archive:
        member = next(m for m in archive if m.name.endswith(".sph"))
        stream = archive.extractfile(member)
        assert stream is not None
        data = stream.read()
    (tmp_path / "a.sph").write_bytes(data)
    samples = np.frombuffer(data[1024:], "<i2")
    checksum = re.search(rb"sample_checksum -i (\d+)", data)
    assert checksum is not None
    assert int(samples.view("<u2").sum()) % 2**16 == int(checksum[1])  # the publisher's checksum over all samples
    np.testing.assert_array_equal(read_audio(tmp_path / "a.sph", RATE), samples / np.float32(2**15))


def test_segments_of_a_coding_that_cannot_seek(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(), RATE, "GSM610")
    whole, _ = read_samples(path)
    samples, rate = read_segment(path, 0.2, 0.1)
    assert rate == RATE
    np.testing.assert_array_equal(samples, whole[3200:4800])
    assert read_excerpt(path, RATE, 1600, 0.5).shape == (1600,)
