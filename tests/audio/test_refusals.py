"""Files that are missing, unusable or of other formats are refused with an error that says why."""

import os
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax.audio import sndfile
from ds2_jax.audio.reading import audio_duration, read_audio
from ds2_jax.audio.sndfile import UnknownFormatError
from ds2_jax.system.errors import InputError
from tests.audio.recordings import RATE, assert_refused, cut, tone, write

pytestmark = pytest.mark.usefixtures("no_ffmpeg")


def test_missing(tmp_path: Path) -> None:
    assert_refused(tmp_path / "no.wav", "be a readable file, got: No such file or directory. Correct the path.$")


def test_a_folder(tmp_path: Path) -> None:
    assert_refused(tmp_path, "be a file, got a folder. Correct the path.$")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    assert_refused(tmp_path / "a.wav", "be a file on disk, got a pipe or a device. Write the audio into a file first.$")


@pytest.mark.parametrize(
    ("name", "finding"),
    [("a\0.wav", "(stat: )?embedded null (byte|character in path)"), ("a" * 300, "File name too long")],
    ids=["null", "long"],
)
def test_a_path_that_no_file_can_have(tmp_path: Path, name: str, finding: str) -> None:
    assert_refused(tmp_path / name, f"be a readable file, got: {finding}. Correct the path.$")


@pytest.mark.parametrize("suffix", ["wav", "mp3"])
def test_a_name_that_is_not_utf8(tmp_path: Path, suffix: str) -> None:
    written = write(tmp_path / f"a.{suffix}", tone())
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    os.link(written, path)
    np.testing.assert_array_equal(read_audio(path, RATE), read_audio(written, RATE))
    assert audio_duration(path) == 0.5


@pytest.mark.parametrize("content", [b"hello world\n" * 50, b"RIFF", b"NIST_1A\n   1024\n", b"ID3" + bytes(3000)])
def test_not_audio(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    message = r"be WAV, .* or similar audio that libsndfile reads, got: .+\. ffmpeg reads more formats: install it"
    assert_refused(tmp_path / "a.wav", message)


# The other formats that libsndfile writes. It cannot read SD2 without the Macintosh's second file.
OTHER_FORMATS = "AIFF AU AVR CAF HTK IRCAM MAT4 MAT5 MPC2K PAF PVF RF64 SDS SVX VOC W64 WVE XI".split()


def write_as(path: Path, audio_format: str) -> Path:
    """Writes half a second of a tone. WVE always has 8 kHz and XI always 44.1 kHz."""
    subtype = {"WVE": "ALAW", "XI": "DPCM_16"}.get(audio_format, "PCM_16")
    soundfile.write(path, tone(rate=rate_of(audio_format)), rate_of(audio_format), subtype, format=audio_format)
    return path


def rate_of(audio_format: str) -> int:
    return {"WVE": 8_000, "XI": 44_100}.get(audio_format, RATE)


@pytest.mark.parametrize("audio_format", OTHER_FORMATS)
def test_other_formats(tmp_path: Path, audio_format: str) -> None:
    path = write_as(tmp_path / "a", audio_format)
    rate = rate_of(audio_format)
    step = 2e-2 if audio_format == "WVE" else 2**-14
    np.testing.assert_allclose(read_audio(path, rate), tone(rate=rate)[:, 0], rtol=0, atol=step)
    assert audio_duration(path) == 0.5


def test_every_format_of_libsndfile_is_tried() -> None:
    """RAW has no header, so its rate is unknown."""
    known = {"WAV", "WAVEX", "FLAC", "OGG", "MP3", "NIST", *OTHER_FORMATS}
    assert set(soundfile.available_formats()) - known == {"RAW", "SD2"}


@pytest.mark.parametrize("keep", [0.999, 0.6])
@pytest.mark.parametrize("audio_format", "AIFF AU CAF HTK MAT4 RF64 SVX VOC W64 WVE".split())
def test_other_formats_cut_short(tmp_path: Path, audio_format: str, keep: float) -> None:
    path = cut(write_as(tmp_path / "a", audio_format), keep)
    message = r"be undamaged (WAV, .* )?audio, got (a file cut short|a file libsndfile cannot open|\d+ bytes of \d+)"
    assert_refused(path, "be WAV, .* that libsndfile reads, got" if audio_format == "HTK" else message)


@pytest.mark.parametrize("audio_format", "AVR IRCAM MAT5 MPC2K PAF PVF XI".split())
def test_formats_in_which_a_cut_does_not_show(tmp_path: Path, audio_format: str) -> None:
    """The docstring of `read_audio` lists them."""
    path = cut(write_as(tmp_path / "a", audio_format), 0.6)
    assert 0.25 < audio_duration(path) < 0.35


@pytest.mark.parametrize(("size", "num_frames"), [(0, 0), (0x7F000008, 0x1FC00000)])
def test_aiff_written_into_a_pipe(tmp_path: Path, size: int, num_frames: int) -> None:
    """ffmpeg and sox do not know the size and write these values."""
    path = write_as(tmp_path / "a", "AIFF")
    expected = read_audio(path, RATE)
    data = bytearray(path.read_bytes())
    sound, common = data.index(b"SSND"), data.index(b"COMM")
    data[4:8] = (size + 72 if size else 0).to_bytes(4, "big")
    data[sound + 4 : sound + 8] = size.to_bytes(4, "big")
    data[common + 10 : common + 14] = num_frames.to_bytes(4, "big")
    path.write_bytes(data)
    np.testing.assert_array_equal(read_audio(path, RATE), expected)


def test_au_written_into_a_pipe(tmp_path: Path) -> None:
    path = write_as(tmp_path / "a", "AU")
    expected = read_audio(path, RATE)
    data = bytearray(path.read_bytes())
    data[8:12] = b"\xff" * 4
    path.write_bytes(data)
    np.testing.assert_array_equal(read_audio(path, RATE), expected)


def test_only_what_may_be_whole_is_unknown(tmp_path: Path) -> None:
    """`reading.py` relies on it: ffmpeg must not read a file in which libsndfile sees damage."""
    for name, content in (("film.mp4", b"\0\0\0\x20ftypisom" + bytes(99)), ("talk.txt", b"hello")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnknownFormatError), sndfile.open_audio(tmp_path / name):
            pass
    for name, audio_format, keep in (("a.wav", "WAV", 0.5), ("b.wav", "WAV", 0.1), ("c.caf", "CAF", 0.6)):
        path = cut(write_as(tmp_path / name, audio_format), keep)
        with pytest.raises(InputError) as caught, sndfile.open_audio(path):
            pass
        assert type(caught.value) is InputError


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    assert_refused(tmp_path / "a.wav", "hold audio, got an empty file. Replace the recording.$")


@pytest.mark.parametrize("suffix", ["wav", "sph"])
def test_no_samples(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", np.zeros((0, 1)))
    assert_refused(path, "hold audio, got 0 samples. Replace")


def test_too_short_to_resample(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.ones((1, 1)), 48_000)
    assert_refused(path, r"have at least one sample at 16000 Hz, got none \(1 at 48000 Hz\)\. Replace", header=False)


def test_more_samples_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.flac", tone())
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: np.empty(2**55))
    assert_refused(path, "fit into memory, got 8000 samples. Replace", header=False)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300, -1.1e6])
def test_samples_that_are_not_finite_or_far_too_loud(tmp_path: Path, value: float) -> None:
    samples = tone(channels=2)
    samples[123, 1] = value
    path = write(tmp_path / "a.wav", samples, RATE, "DOUBLE")
    got = {1e300: "inf"}.get(value, f"{value:g}")
    message = re.escape(
        f"hold samples of at most 1e+06 (full scale is 1), got {got} at sample 123. Replace the recording."
    )
    assert_refused(path, f"{message}$", header=False)


def test_16_bit_numbers_in_a_float_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone() * 2**15, RATE, "FLOAT")
    np.testing.assert_allclose(read_audio(path, RATE), tone()[:, 0] * 2**15, rtol=1e-6, atol=1e-2)


def test_no_more_memory_is_asked_for_than_a_file_has(tmp_path: Path) -> None:
    path = tmp_path / "a"
    soundfile.write(path, tone(0.2), RATE, format="WAV")
    data = bytearray(path.read_bytes())
    place = data.index(b"fmt ") + 4
    data[place : place + 4] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"/a must be "):
            read_audio(path, RATE)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
