"""Every format, depth, rate and channel count; what is refused and how it says so."""

import io
import os
import re
import struct
import tarfile
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ds2_jax.audio import reading as reading_lib
from ds2_jax.audio.headers import AudioBytes
from ds2_jax.audio.reading import (
    MAX_VALUES,
    UnknownFormatError,
    audio_duration,
    decoded_duration,
    lossless_flac,
    mono_waveform,
    read_audio,
    read_blocks,
    read_excerpt,
    waveform_blocks,
)
from ds2_jax.system.errors import InputError

RATE = 16_000


def tone(seconds: float = 0.5, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """[S, C] float64: a sine of another frequency and loudness in each channel."""
    time = np.arange(int(seconds * rate)) / rate
    return np.stack([0.8 / (c + 1) * np.sin(2 * np.pi * 200 * (c + 1) * time) for c in range(channels)], axis=1)


def write(path: Path, samples: np.ndarray, rate: int = RATE, subtype: str | None = None) -> Path:
    soundfile.write(path, samples, rate, subtype, format="NIST" if path.suffix == ".sph" else None)
    return path


def write_sphere(path: Path, samples: np.ndarray, sample_count: int, byte_format: str = "01", extra: str = "") -> Path:
    """A NIST Sphere file written by hand: text header of 1024 bytes, then [S, C] int16."""
    lines = [
        "NIST_1A",
        "   1024",
        f"sample_count -i {sample_count}",
        f"sample_rate -i {RATE}",
        "sample_n_bytes -i 2",
        f"sample_byte_format -s2 {byte_format}",
        f"channel_count -i {samples.shape[1]}",
        "sample_coding -s3 pcm",
        *extra.splitlines(),
        "end_head\n",
    ]
    order = "<i2" if byte_format == "01" else ">i2"
    path.write_bytes("\n".join(lines).encode().ljust(1024) + samples.astype(order).tobytes())
    return path


def cut(path: Path, keep: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def assert_refused(path: Path, message: str, *, header: bool = True) -> None:
    """`read_audio`, and `audio_duration` where the header shows it, fail with "PATH must MESSAGE...".

    So they do where a file's bytes are given instead.
    """
    message = f"^{re.escape(str(path))} must {message}"
    sources: list[Path | AudioBytes] = [path]
    if os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises where the name is too long
        sources.append(AudioBytes(str(path), path.read_bytes()))
    for source in sources:
        with pytest.raises(InputError, match=message):
            read_audio(source, RATE)
        if header:
            with pytest.raises(InputError, match=message):
                audio_duration(source)


# Largest difference from the written samples: half a step of the depth, one step where libsndfile truncates.
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
def test_resampling_is_librosas_soxr_hq(tmp_path: Path, rate: int) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (rate // 3, 1)).astype(np.float32)
    waveform = read_audio(write(tmp_path / "a.wav", noise, rate, "FLOAT"), RATE)
    expected = librosa.resample(noise[:, 0], orig_sr=rate, target_sr=RATE, res_type="soxr_hq")
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
    assert_refused(cut(path, 0.5), "hold the 1625 bytes of audio its header promises, got ")


@pytest.mark.parametrize(("rate", "refused"), [(3_999, True), (4_000, False), (768_000, False), (768_001, True)])
def test_rates_that_speech_has(tmp_path: Path, rate: int, refused: bool) -> None:
    path = write(tmp_path / "a.wav", tone(rate=rate), rate)
    if refused:
        assert_refused(path, f"have a rate of 4000 to 768000 Hz, got {rate} Hz. Replace the file.$")
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
    with pytest.raises(InputError, match=r"must hold the 16000 bytes of audio its header promises"):
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
    assert int(samples.view("<u2").sum()) % 2**16 == int(checksum[1])  # the publisher's own, over all samples
    np.testing.assert_array_equal(read_audio(tmp_path / "a.sph", RATE), samples / np.float32(2**15))


def test_missing(tmp_path: Path) -> None:
    assert_refused(tmp_path / "no.wav", "be a readable file, got: No such file or directory. Correct the path.$")


def test_a_folder(tmp_path: Path) -> None:
    assert_refused(tmp_path, "be a file, got a folder. Correct the path.$")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    assert_refused(tmp_path / "a.wav", "be a file on disk, got a pipe or a device. Write the audio into a file first.$")


@pytest.mark.parametrize(
    ("name", "finding"), [("a\0.wav", "embedded null byte"), ("a" * 300, "File name too long")], ids=["null", "long"]
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
    message = r"be whole WAV, .* or similar audio, got a file libsndfile cannot open \(.+\)\. Replace"
    assert_refused(tmp_path / "a.wav", message)


# Those that libsndfile writes besides the ones above; of SD2 it reads nothing without the Macintosh's second file.
OTHER_FORMATS = "AIFF AU AVR CAF HTK IRCAM MAT4 MAT5 MPC2K PAF PVF RF64 SDS SVX VOC W64 WVE XI".split()


def write_as(path: Path, audio_format: str) -> Path:
    """Half a second of a tone; WVE has 8 kHz and XI 44.1 kHz whatever is asked for."""
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
    """RAW has no header: nothing tells its rate."""
    known = {"WAV", "WAVEX", "FLAC", "OGG", "MP3", "NIST", *OTHER_FORMATS}
    assert set(soundfile.available_formats()) - known == {"RAW", "SD2"}


@pytest.mark.parametrize("keep", [0.999, 0.6])
@pytest.mark.parametrize("audio_format", "AIFF AU CAF HTK MAT4 RF64 SVX VOC W64 WVE".split())
def test_other_formats_cut_short(tmp_path: Path, audio_format: str, keep: float) -> None:
    path = cut(write_as(tmp_path / "a", audio_format), keep)
    message = r"be whole (WAV, .* )?audio, got (a file cut short|a file libsndfile cannot open|\d+ bytes of \d+)"
    assert_refused(path, message)


@pytest.mark.parametrize("audio_format", "AVR IRCAM MAT5 MPC2K PAF PVF XI".split())
def test_formats_in_which_a_cut_does_not_show(tmp_path: Path, audio_format: str) -> None:
    """As the docstring of `read_audio` says."""
    path = cut(write_as(tmp_path / "a", audio_format), 0.6)
    assert 0.25 < audio_duration(path) < 0.35


@pytest.mark.parametrize(("size", "num_frames"), [(0, 0), (0x7F000008, 0x1FC00000)])
def test_aiff_written_into_a_pipe(tmp_path: Path, size: int, num_frames: int) -> None:
    """As ffmpeg and sox write it: neither knows the size."""
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
    """For `ffmpeg.py`: damage that libsndfile sees is none of ffmpeg's business."""
    for name, content in (("film.mp4", b"\0\0\0\x20ftypisom" + bytes(99)), ("talk.txt", b"hello")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnknownFormatError):
            audio_duration(tmp_path / name)
    for name, audio_format, keep in (("a.wav", "WAV", 0.5), ("b.wav", "WAV", 0.001), ("c.caf", "CAF", 0.6)):
        path = cut(write_as(tmp_path / name, audio_format), keep)
        with pytest.raises(InputError) as caught:
            audio_duration(path)
        assert type(caught.value) is InputError


def test_compressed_sphere_is_refused(tmp_path: Path) -> None:
    path = write_sphere(tmp_path / "a.sph", np.zeros((9, 1)), 9)
    path.write_bytes(path.read_bytes().replace(b"-s3 pcm\n", b"-s26 pcm,embedded-shorten-v2.00\n"))
    assert_refused(path, "be whole .* audio, got a file libsndfile cannot open ")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    assert_refused(tmp_path / "a.wav", "hold audio, got an empty file. Replace the file.$")


@pytest.mark.parametrize("suffix", ["wav", "sph"])
def test_no_samples(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a.{suffix}", np.zeros((0, 1)))
    assert_refused(path, "hold audio, got 0 samples. Replace")


def test_too_short_to_resample(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.ones((1, 1)), 48_000)
    assert_refused(path, "last at least one sample of 16000 Hz, got 1 of 48000 Hz. Replace", header=False)


@pytest.mark.parametrize("keep", [0.99, 0.5])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT", "IMA_ADPCM"])
def test_wav_cut_short(tmp_path: Path, subtype: str, keep: float) -> None:
    path = cut(write(tmp_path / "a.wav", tone(2), RATE, subtype), keep)
    assert_refused(path, r"hold the \d+ bytes of audio its header promises, got \d+\. Replace")


def test_wav_with_chunks_before_and_after_the_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(), RATE, "PCM_16")
    data = path.read_bytes()
    extra = b"LIST" + struct.pack("<I", 5) + b"data!" + b"\0"  # odd size, then its pad byte
    body = b"WAVE" + data[12:36] + extra + data[36:] + extra
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert read_audio(path, RATE).shape == (8000,)
    path.write_bytes(path.read_bytes()[: -len(extra) - 2])
    assert_refused(path, "hold the 16000 bytes of audio its header promises, got 15998. Replace")


def test_big_endian_wav(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(), RATE, "PCM_16", endian="BIG")
    assert path.read_bytes().startswith(b"RIFX")
    np.testing.assert_allclose(read_audio(path, RATE), tone()[:, 0], rtol=0, atol=2**-15)
    assert_refused(cut(path, 0.9), "hold the 16000 bytes of audio its header promises, got ")


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000])
def test_wav_written_into_a_pipe_is_whole(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "a.wav", tone(), RATE, "PCM_16")
    data = bytearray(path.read_bytes())
    data[40:44] = struct.pack("<I", size)
    path.write_bytes(data)
    np.testing.assert_allclose(read_audio(path, RATE), tone()[:, 0], rtol=0, atol=2**-15)


def test_sphere_cut_short(tmp_path: Path) -> None:
    path = write_sphere(tmp_path / "a.sph", np.zeros((499, 2)), 500)
    assert_refused(path, "hold the 500 samples its header promises, got 499. Replace")


def test_sphere_with_a_damaged_header(tmp_path: Path) -> None:
    path = write_sphere(tmp_path / "a.sph", np.zeros((500, 1)), 500)
    path.write_bytes(path.read_bytes().replace(b"\n   1024\n", b"\n   10x4\n"))  # text would be read as samples
    assert_refused(path, "hold the 500 samples its header promises, got 1007. Replace")


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
    assert_refused(path, "state its length, got a stream without it. Rewrite it: ffmpeg -i OLD NEW.flac.$")


def test_more_samples_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.flac", tone())
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: np.empty(2**55))
    assert_refused(path, "fit into memory, got 8000 samples. Replace", header=False)


@pytest.mark.parametrize("lost_bytes", [1, 3000, 15_000])
@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_ogg_cut_short(tmp_path: Path, subtype: str, lost_bytes: int) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (6 * RATE, 1))
    path = write(tmp_path / "a.ogg", noise, RATE, subtype)
    path.write_bytes(path.read_bytes()[:-lost_bytes])
    assert_refused(path, "hold one whole Ogg stream, got a file cut short. Replace")


def test_ogg_cut_between_pages(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ogg", np.random.default_rng(0).uniform(-0.5, 0.5, (6 * RATE, 1)), RATE, "OPUS")
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"OggS")])
    assert_refused(path, "hold one whole Ogg stream, got a file cut short. Replace")


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
        (data + data, f"a second stream at byte {len(data)}"),
        (data + b"junk" * 10, f"something else than a page at byte {len(data)}"),
    ):
        path.write_bytes(spoiled)
        assert_refused(path, f"hold one whole Ogg stream, got {fault}. Replace the file.$")


def mp3(path: Path, mode: str, *, stated_length: bool = True, tag_bytes: int = 0) -> Path:
    """An MP3 of 3 s behind an ID3 tag; its first frame, which may hold nothing but the length, can be taken out."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (3 * 44_100, 1))
    noise[:44_100] = 0  # a variable bit rate starts low
    soundfile.write(path, noise, 44_100, format="MP3", bitrate_mode=mode, compression_level=0.5)
    data = path.read_bytes()
    assert (b"Info" if mode == "CONSTANT" else b"Xing") in data[:64]
    if not stated_length:
        data = data[data.index(data[:2], 4) :]
    tag = b"ID3\3\0\0" + bytes([0, 0, tag_bytes >> 7, tag_bytes & 0x7F]) + bytes(tag_bytes)
    path.write_bytes(tag + data)
    return path


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_mp3_cut_short(tmp_path: Path, mode: str) -> None:
    path = mp3(tmp_path / "a.mp3", mode, tag_bytes=5000)
    assert read_audio(path, 44_100).shape == (3 * 44_100,)
    path.write_bytes(path.read_bytes()[:-100])  # less than one frame
    assert_refused(path, r"hold the 132300 samples its header promises, got \d+\. Replace", header=False)


@pytest.mark.parametrize("tag_bytes", [0, 5000])
def test_mp3_of_constant_bit_rate_needs_no_length(tmp_path: Path, tag_bytes: int) -> None:
    path = mp3(tmp_path / "a.mp3", "CONSTANT", stated_length=False, tag_bytes=tag_bytes)
    waveform = read_audio(path, 44_100)
    assert abs(len(waveform) - 3 * 44_100) < 3 * 1152  # encoder delay and padding
    np.testing.assert_array_equal(read_audio(AudioBytes("a", path.read_bytes()), 44_100), waveform)
    path.write_bytes(path.read_bytes()[:-100])
    assert abs(len(read_audio(path, 44_100)) - 3 * 44_100) < 3 * 1152  # nothing says that a frame is missing


def test_mp3_of_variable_bit_rate_needs_its_length(tmp_path: Path) -> None:
    path = mp3(tmp_path / "a.mp3", "VARIABLE", stated_length=False)
    assert_refused(path, "state its length in a Xing or Info header where its bit rate varies, got none")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300, -1.1e6])
def test_samples_that_are_not_finite_or_far_too_loud(tmp_path: Path, value: float) -> None:
    samples = tone(channels=2)
    samples[123, 1] = value
    path = write(tmp_path / "a.wav", samples, RATE, "DOUBLE")
    got = {1e300: "inf"}.get(value, f"{value:g}")
    message = re.escape(f"hold samples of at most 1e+06 (full scale is 1), got {got} at sample 123. Replace the file.")
    assert_refused(path, f"{message}$", header=False)


def test_16_bit_numbers_in_a_float_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone() * 2**15, RATE, "FLOAT")
    np.testing.assert_allclose(read_audio(path, RATE), tone()[:, 0] * 2**15, rtol=1e-6, atol=1e-2)


def write_mp3_without_length(path: Path, samples: np.ndarray, rate: int, mode: str) -> Path:
    """An MP3 whose first frame, which states the length, is cut off."""
    soundfile.write(path, samples, rate, format="MP3", bitrate_mode=mode, compression_level=0.5)
    data = path.read_bytes()
    sync = data[:2]
    assert b"Info" in data[:64] or b"Xing" in data[:64]
    path.write_bytes(data[data.index(sync, 64) :])
    return path


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 32_000, 44_100, 48_000])
def test_mp3_of_varying_bit_rate_must_state_its_length(tmp_path: Path, rate: int) -> None:
    """libsndfile would read a part of it: it estimates the length from the first frame, and reads no more than that."""
    rng = np.random.default_rng(0)
    samples = np.concatenate([rng.normal(0, 0.2, rate), np.zeros(4 * rate)])
    path = write_mp3_without_length(tmp_path / "a.mp3", samples, rate, "VARIABLE")
    with soundfile.SoundFile(path) as file:
        assert file.frames < len(samples) / 2
    message = "state its length in a Xing or Info header where its bit rate varies, got none. Rewrite it: ffmpeg"
    assert_refused(path, message)
    path = write_mp3_without_length(tmp_path / "b.mp3", samples, rate, "CONSTANT")
    assert abs(len(read_audio(path, rate)) - len(samples)) < 4000


def test_decoded_duration_is_what_is_read(tmp_path: Path) -> None:
    """Of a file whose header only lets estimate; and of a file cut short, which its header does not show."""
    path = write_mp3_without_length(tmp_path / "a.mp3", tone(3), RATE, "CONSTANT")
    path.write_bytes(b"ID3\x04\x00\x00\x00\x00\x02\x00" + bytes(256) + path.read_bytes())
    assert decoded_duration(path) == len(read_audio(path, RATE)) / RATE < audio_duration(path)
    whole = write(tmp_path / "b.flac", tone(2, 44_100, 2), 44_100)
    assert decoded_duration(whole) == audio_duration(whole) == 2
    with pytest.raises(InputError, match=r"b\.flac must "):
        decoded_duration(cut(whole, 0.5))


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "sph"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_blocks_are_the_whole(tmp_path: Path, suffix: str, rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (3 * rate, 2))
    path = write(tmp_path / f"a.{suffix}", noise, rate)
    monkeypatch.setattr("ds2_jax.audio.reading.BLOCK_SAMPLES", 10_007)
    blocks = list(read_blocks(path, RATE))
    assert len(blocks) >= 4
    assert {(block.dtype, block.ndim) for block in blocks} == {(np.dtype(np.float32), 1)}
    np.testing.assert_allclose(np.concatenate(blocks), read_audio(path, RATE), rtol=0, atol=1e-6)


@pytest.mark.parametrize("subtype", ["GSM610", "IMA_ADPCM", "MS_ADPCM", "ULAW", "PCM_24"])
def test_blocks_of_coded_wav_are_the_whole(tmp_path: Path, subtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.wav", tone(2), RATE, subtype)
    monkeypatch.setattr("ds2_jax.audio.reading.BLOCK_SAMPLES", 1_003)
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
    monkeypatch.setattr("ds2_jax.audio.reading.BLOCK_SAMPLES", 5_000)
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
    with pytest.raises(InputError, match=r"c\.mp3 must hold the 132300 samples its header promises, got \d+\."):
        list(read_blocks(whole, RATE))
    with pytest.raises(InputError, match=r"d must last at least one sample of 16000 Hz, got 1 of 48000 Hz\."):
        list(waveform_blocks([np.ones((1, 1), np.float32)], 48_000, RATE, "d"))


def test_an_excerpt_of_ogg_is_reached_without_seeking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libsndfile 1.2.2 crashes (SIGSEGV) where it seeks in a Vorbis stream with damaged codebooks."""
    path = write(tmp_path / "a.ogg", tone(2))
    whole = read_audio(path, RATE)
    seek = soundfile.SoundFile.seek

    def stay(file: soundfile.SoundFile, frames: int, whence: int = 0) -> int:
        assert frames == (0 if whence == 1 else seek(file, 0, 1)), "soundfile goes to where it is, behind a read"
        return int(seek(file, frames, whence))

    monkeypatch.setattr(soundfile.SoundFile, "seek", stay)
    monkeypatch.setattr(reading_lib, "BLOCK_SAMPLES", 5000)
    np.testing.assert_array_equal(read_excerpt(path, RATE, 4000, 0.75), whole[int(0.75 * 28_001) :][:4000])


def test_an_excerpt_where_libsndfile_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a seek in a damaged MP3 the place lay behind the end: a ValueError of NumPy (negative dimensions)."""
    path = write(tmp_path / "a.wav", tone(1))
    monkeypatch.setattr(soundfile.SoundFile, "tell", lambda file: file.frames + 7)
    message = f"{path} must end with the 16000 samples its header promises, got sample 16007. Replace the file."
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        read_excerpt(path, RATE, 4000, 0.5)


def test_blocks_end_where_the_whole_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libsndfile reads a damaged MP3 up to the damage, and when asked again what lies behind it."""
    path, calls = write(tmp_path / "a.wav", tone(1)), []
    read = soundfile.SoundFile.read

    def interrupted(file: soundfile.SoundFile, frames: int, **options: object) -> np.ndarray:
        calls.append(frames)
        return read(file, min(frames, 9000), **options)

    monkeypatch.setattr(soundfile.SoundFile, "read", interrupted)
    with pytest.raises(InputError, match="must hold the 16000 samples its header promises, got 9000"):
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
        f"{path} must hold at most 1,073,741,824 samples over all channels to be read whole, got a header that "
        f"promises {samples:,}. Replace it or cut it."
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
    assert (sum(sizes), max(sizes)) == (5000 * 1024, 8 * reading_lib.BLOCK_SAMPLES)
    np.testing.assert_allclose(blocks, read_audio(path, RATE), atol=1e-7)
