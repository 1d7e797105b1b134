"""Recordings are read block by block and in excerpts, and their durations are known."""

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from ds2_jax.audio import waveform as waveform_lib
from ds2_jax.audio.reading import audio_duration, decoded_duration, read_audio, read_blocks, read_excerpt
from ds2_jax.audio.waveform import MAX_VALUES, mono_waveform, waveform_blocks
from ds2_jax.system.errors import InputError
from tests.audio.recordings import RATE, cut, mp3, tone, write, write_mp3_without_length


def test_decoded_duration_is_what_is_read(tmp_path: Path) -> None:
    """The size of one file gives only an estimate. Another file is cut short, which its header does not show."""
    path = write_mp3_without_length(tmp_path / "a.mp3", tone(3), RATE, "CONSTANT")
    path.write_bytes(b"ID3\x04\x00\x00\x00\x00\x02\x00" + bytes(256) + path.read_bytes())
    assert decoded_duration(path) == len(read_audio(path, RATE)) / RATE == audio_duration(path)
    assert soundfile.info(path).duration > audio_duration(path)
    whole = write(tmp_path / "b.flac", tone(2, 44_100, 2), 44_100)
    assert decoded_duration(whole) == audio_duration(whole) == 2
    with pytest.raises(InputError, match=r"b\.flac must "):
        decoded_duration(cut(whole, 0.5))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "sph"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_blocks_are_the_whole(tmp_path: Path, suffix: str, rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (3 * rate, 2))
    path = write(tmp_path / f"a.{suffix}", noise, rate)
    monkeypatch.setattr("ds2_jax.audio.waveform.BLOCK_SAMPLES", 10_007)
    blocks = list(read_blocks(path, RATE))
    assert len(blocks) >= 4
    assert {(block.dtype, block.ndim) for block in blocks} == {(np.dtype(np.float32), 1)}
    np.testing.assert_allclose(np.concatenate(blocks), read_audio(path, RATE), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_blocks_and_excerpts_of_mp3_need_the_frames_before(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seek makes the decoder forget bits that the next frame needs; soundfile seeks after every read."""
    rng = np.random.default_rng(0)
    bursts = rng.normal(0, 0.2, 10 * RATE) * np.repeat(rng.uniform(0, 1, 100) ** 4, RATE // 10)
    path = tmp_path / "a.mp3"
    soundfile.write(path, np.clip(bursts, -1, 1), RATE, format="MP3", bitrate_mode=mode, compression_level=0.8)
    whole = read_audio(path, RATE)
    monkeypatch.setattr("ds2_jax.audio.waveform.BLOCK_SAMPLES", 10_007)
    np.testing.assert_allclose(np.concatenate(list(read_blocks(path, RATE))), whole, rtol=0, atol=1e-6)
    for start in (20_000, 77_777, 150_000):
        position = (start + 0.5) / (len(whole) - 4_000 + 1)
        np.testing.assert_allclose(
            read_excerpt(path, RATE, 4_000, position), whole[start : start + 4_000], rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("subtype", ["GSM610", "IMA_ADPCM", "MS_ADPCM", "ULAW", "PCM_24"])
def test_blocks_of_coded_wav_are_the_whole(tmp_path: Path, subtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.wav", tone(2), RATE, subtype)
    monkeypatch.setattr("ds2_jax.audio.waveform.BLOCK_SAMPLES", 1_003)
    np.testing.assert_array_equal(np.concatenate(list(read_blocks(path, RATE))), read_audio(path, RATE))


@settings(max_examples=25)
@given(st.lists(st.integers(0, 9_000), max_size=12), st.sampled_from([8_000, 16_000, 22_050, 48_000]))
def test_sizes_of_blocks_make_no_difference(edges: list[int], rate: int) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (9_000, 2)).astype(np.float32)
    blocks = np.split(samples, sorted(edges))
    expected = mono_waveform(samples, rate, RATE, "a")
    np.testing.assert_allclose(
        np.concatenate(list(waveform_blocks(blocks, rate, RATE, "a"))), expected, rtol=0, atol=1e-6
    )


def test_a_fault_behind_the_first_blocks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ds2_jax.audio.waveform.BLOCK_SAMPLES", 5_000)
    samples = tone(2)
    samples[23_456] = np.nan
    path = write(tmp_path / "a.wav", samples, RATE, "FLOAT")
    blocks = read_blocks(path, RATE)
    assert [len(next(blocks)) for _ in range(4)] == [5_000] * 4
    with pytest.raises(InputError, match=r"a\.wav must hold samples of at most 1e\+06 .*, got nan at sample 23456\."):
        next(blocks)
    path = cut(write(tmp_path / "b.flac", np.random.default_rng(0).uniform(-1, 1, (30_000, 1))), 0.9)
    with pytest.raises(InputError, match=r"b\.flac must decode to its end"):
        list(read_blocks(path, RATE))
    whole = mp3(tmp_path / "c.mp3", "CONSTANT")
    whole.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"c\.mp3 must hold the 132300 samples that its header states, got \d+\."):
        list(read_blocks(whole, RATE))
    with pytest.raises(InputError, match=r"d must have at least one sample at 16000 Hz, got none \(1 at 48000 Hz\)\."):
        list(waveform_blocks([np.ones((1, 1), np.float32)], 48_000, RATE, "d"))


def test_an_excerpt_of_ogg_is_reached_without_seeking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libsndfile 1.2.2 crashes (SIGSEGV) when it seeks in a Vorbis stream with damaged codebooks."""
    path = write(tmp_path / "a.ogg", tone(2))
    whole = read_audio(path, RATE)
    seek = soundfile.SoundFile.seek

    def stay(file: soundfile.SoundFile, frames: int, whence: int = 0) -> int:
        assert frames == (0 if whence == 1 else seek(file, 0, 1)), "soundfile goes to where it is, behind a read"
        return int(seek(file, frames, whence))

    monkeypatch.setattr(soundfile.SoundFile, "seek", stay)
    monkeypatch.setattr(waveform_lib, "BLOCK_SAMPLES", 5000)
    np.testing.assert_array_equal(read_excerpt(path, RATE, 4000, 0.75), whole[int(0.75 * 28_001) :][:4000])


def test_an_excerpt_where_libsndfile_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A seek in a damaged MP3 went past its end and caused a ValueError of NumPy (negative dimensions)."""
    path = write(tmp_path / "a.wav", tone(1))
    monkeypatch.setattr(soundfile.SoundFile, "tell", lambda file: file.frames + 7)
    message = (
        f"{path} must end after the 16000 samples that its header states, got sample 16007. Replace the recording."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        read_excerpt(path, RATE, 4000, 0.5)


def test_blocks_end_where_the_whole_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libsndfile reads a damaged MP3 up to the damage, and on the next call the samples after it."""
    path, calls = write(tmp_path / "a.wav", tone(1)), []
    read = soundfile.SoundFile.read

    def interrupted(file: soundfile.SoundFile, frames: int, **options: object) -> np.ndarray:
        calls.append(frames)
        return read(file, min(frames, 9000), **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", interrupted)
    with pytest.raises(InputError, match="must hold the 16000 samples that its header states, got 9000"):
        list(read_blocks(path, RATE))
    assert len(calls) == 1


@pytest.mark.parametrize("samples", [2**36 - 1, MAX_VALUES + 1])
def test_a_header_that_claims_hours(tmp_path: Path, samples: int) -> None:
    path = write(tmp_path / "a.flac", tone())
    data = bytearray(path.read_bytes())
    fields = int.from_bytes(data[18:26], "big") >> 36 << 36 | samples  # 20 bits of rate, 3 of channels, 5 of width
    data[18:26] = fields.to_bytes(8, "big")
    path.write_bytes(data)
    message = (
        f"{path} must have at most 1,073,741,824 samples over all channels, got {samples:,} in its "
        "header. Replace it or cut it."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        read_audio(path, RATE)
    with pytest.raises(InputError, match=f"^{path} must decode to its end"):
        list(read_blocks(path, RATE))


def test_many_channels_make_blocks_no_larger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    read = soundfile.SoundFile.read

    def measured(file: soundfile.SoundFile, frames: int, **options: object) -> np.ndarray:
        samples = read(file, frames, **options)
        sizes.append(samples.size)
        return samples

    path = write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, (5000, 1024)))
    monkeypatch.setattr(soundfile.SoundFile, "read", measured)
    blocks = np.concatenate(list(read_blocks(path, RATE)))
    assert (sum(sizes), max(sizes)) == (5000 * 1024, 8 * waveform_lib.BLOCK_SAMPLES)
    np.testing.assert_allclose(blocks, read_audio(path, RATE), atol=1e-7)
