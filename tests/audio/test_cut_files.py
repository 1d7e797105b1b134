"""Files that are cut short or damaged are refused. Files that were written into a pipe are read."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax.audio.parts import AudioBytes
from ds2_jax.audio.reading import (
    audio_duration,
    read_audio,
)
from tests.audio.recordings import RATE, assert_refused, cut, mp3, tone, write, write_mp3_without_length, write_sphere

pytestmark = pytest.mark.usefixtures("no_ffmpeg")


@pytest.mark.parametrize("keep", [0.99, 0.5])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT", "IMA_ADPCM"])
def test_wav_cut_short(tmp_path: Path, subtype: str, keep: float) -> None:
    path = cut(write(tmp_path / "a.wav", tone(2), RATE, subtype), keep)
    assert_refused(path, r"hold the \d+ bytes of audio that its header states, got \d+\. Replace")


def test_wav_with_chunks_before_and_after_the_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(), RATE, "PCM_16")
    data = path.read_bytes()
    extra = b"LIST" + struct.pack("<I", 5) + b"data!" + b"\0"  # odd size, then its pad byte
    body = b"WAVE" + data[12:36] + extra + data[36:] + extra
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert read_audio(path, RATE).shape == (8000,)
    path.write_bytes(path.read_bytes()[: -len(extra) - 2])
    assert_refused(path, "hold the 16000 bytes of audio that its header states, got 15998. Replace")


def test_big_endian_wav(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(), RATE, "PCM_16", endian="BIG")
    assert path.read_bytes().startswith(b"RIFX")
    np.testing.assert_allclose(read_audio(path, RATE), tone()[:, 0], rtol=0, atol=2**-15)
    assert_refused(cut(path, 0.9), "hold the 16000 bytes of audio that its header states, got ")


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_wav_written_into_a_pipe_is_whole(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "a.wav", tone(), RATE, "PCM_16")
    data = bytearray(path.read_bytes())
    data[40:44] = struct.pack("<I", size)
    path.write_bytes(data)
    np.testing.assert_allclose(read_audio(path, RATE), tone()[:, 0], rtol=0, atol=2**-15)


def test_sphere_cut_short(tmp_path: Path) -> None:
    path = write_sphere(tmp_path / "a.sph", np.zeros((499, 2)), 500)
    assert_refused(path, "hold the 500 samples that its header states, got 499. Replace")


def test_sphere_with_a_damaged_header(tmp_path: Path) -> None:
    path = write_sphere(tmp_path / "a.sph", np.zeros((500, 1)), 500)
    path.write_bytes(path.read_bytes().replace(b"\n   1024\n", b"\n   10x4\n"))  # text would be read as samples
    assert_refused(path, "hold the 500 samples that its header states, got 1007. Replace")


def test_sphere_need_not_state_its_length(tmp_path: Path) -> None:
    path = write_sphere(tmp_path / "a.sph", np.zeros((500, 1)), 500)
    path.write_bytes(path.read_bytes().replace(b"sample_count", b"simple_count"))
    assert read_audio(path, RATE).shape == (500,)


@pytest.mark.parametrize("keep", [0.999, 0.9, 0.5])
def test_flac_cut_short(tmp_path: Path, keep: float) -> None:
    path = cut(write(tmp_path / "a.flac", np.random.default_rng(0).uniform(-1, 1, (30_000, 1))), keep)
    assert_refused(path, "decode to its end, got .+ Replace", header=False)


def test_flac_written_into_a_pipe(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", tone())
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # STREAMINFO: the 36 bits of the number of samples
    data[22:26] = bytes(4)
    path.write_bytes(data)
    assert_refused(path, "state its length, got a stream without it.+ ffmpeg reads more formats: install it")


@pytest.mark.parametrize("lost_bytes", [1, 3000, 15_000])
@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_cut_short(tmp_path: Path, subtype: str, lost_bytes: int) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (6 * RATE, 1))
    path = write(tmp_path / "a.ogg", noise, RATE, subtype)
    path.write_bytes(path.read_bytes()[:-lost_bytes])
    assert_refused(path, "hold one undamaged Ogg stream, got a file cut short. Replace")


def test_ogg_cut_between_pages(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ogg", np.random.default_rng(0).uniform(-0.5, 0.5, (6 * RATE, 1)), RATE, "OPUS")
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"OggS")])
    assert_refused(path, "hold one undamaged Ogg stream, got a file cut short. Replace")


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_damaged_ogg(tmp_path: Path, subtype: str) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (6 * RATE, 1))
    path = write(tmp_path / "a.ogg", noise, RATE, subtype)
    assert audio_duration(path) == 6
    data = path.read_bytes()
    pages = [match.start() for match in re.finditer(b"OggS", data)]
    assert len(pages) > 5
    start, end = pages[4], pages[5]
    middle = (start + end) // 2
    for spoiled, fault in (
        (data[:middle] + bytes(400) + data[middle + 400 :], f"a damaged page at byte {start}"),
        (data[:middle] + data[middle + 100 :], f"a damaged page at byte {start}"),
        (data[:start] + data[end:], f"a page missing before byte {start}"),
        (data + b"junk" * 10, f"something other than a page at byte {len(data)}"),
    ):
        path.write_bytes(spoiled)
        assert_refused(path, f"hold one undamaged Ogg stream, got {fault}. Replace the recording.$")
    path.write_bytes(data + data[:-100])
    assert_refused(path, "hold one undamaged Ogg stream, got a file cut short")


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_mp3_cut_short(tmp_path: Path, mode: str) -> None:
    path = mp3(tmp_path / "a.mp3", mode, tag_bytes=5000)
    assert read_audio(path, 44_100).shape == (3 * 44_100,)
    path.write_bytes(path.read_bytes()[:-100])  # less than one frame
    assert_refused(path, r"hold the 132300 samples that its header states, got \d+\. Replace", header=False)


@pytest.mark.parametrize("tag_bytes", [0, 5000])
def test_mp3_of_constant_bit_rate_needs_no_length(tmp_path: Path, tag_bytes: int) -> None:
    path = mp3(tmp_path / "a.mp3", "CONSTANT", stated_length=False, tag_bytes=tag_bytes)
    waveform = read_audio(path, 44_100)
    assert abs(len(waveform) - 3 * 44_100) < 3 * 1152  # encoder delay and padding
    np.testing.assert_array_equal(read_audio(AudioBytes("a", path.read_bytes()), 44_100), waveform)
    path.write_bytes(path.read_bytes()[:-100])
    assert abs(len(read_audio(path, 44_100)) - 3 * 44_100) < 3 * 1152  # nothing shows that a frame is missing


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 32_000, 44_100, 48_000])
def test_mp3_of_varying_bit_rate_needs_no_length(tmp_path: Path, rate: int) -> None:
    """libsndfile would read only a part: it estimates the length from the first frame and reads no more than that."""
    rng = np.random.default_rng(0)
    samples = np.concatenate([rng.normal(0, 0.2, rate), np.zeros(4 * rate)])
    path = write_mp3_without_length(tmp_path / "a.mp3", samples, rate, "VARIABLE")
    with soundfile.SoundFile(path) as file:
        assert file.frames < len(samples) / 2
    assert abs(len(read_audio(path, rate)) - len(samples)) < 4000
    assert audio_duration(path) == len(read_audio(path, rate)) / rate
    path = write_mp3_without_length(tmp_path / "b.mp3", samples, rate, "CONSTANT")
    assert abs(len(read_audio(path, rate)) - len(samples)) < 4000
