"""Fuzz targets: audio files and films."""

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np

from ds2_jax.audio import reading
from ds2_jax.audio.parts import AudioBytes
from ds2_jax.system.errors import InputError
from tests.fuzz import seeds
from tests.fuzz.target import Target, accepted, attempt
from tests.fuzz.upstream import damaged_codebooks


def _read_audio(path: Path) -> None:
    """Checks that all readers of audio agree on whether a file is whole and on its content, without ffmpeg."""
    with mock.patch("ds2_jax.audio.ffmpeg.shutil.which", return_value=None):
        _read_in_every_way(path)


def _read_in_every_way(path: Path) -> None:
    content = AudioBytes(str(path), path.read_bytes())
    whole = attempt(path, lambda: reading.read_audio(path, seeds.RATE))
    blocks = attempt(path, lambda: np.concatenate(list(reading.read_blocks(path, seeds.RATE))))
    held = attempt(path, lambda: reading.read_audio(content, seeds.RATE))
    excerpt = attempt(path, lambda: reading.read_excerpt(path, seeds.RATE, 1000, 0.5))
    duration = attempt(path, lambda: reading.audio_duration(path))
    flac = attempt(path, lambda: reading.lossless_flac(path))
    assert isinstance(duration, InputError) or 0 < duration < 1e12
    assert isinstance(excerpt, InputError) or (excerpt.shape == (1000,) and np.isfinite(excerpt).all())
    if isinstance(whole, InputError):
        assert isinstance(blocks, InputError), f"refused whole, not by blocks: {whole}"
        assert isinstance(flac, InputError) or flac is None, f"refused, but written as FLAC: {whole}"
        raise whole
    assert whole.dtype == np.float32
    assert whole.ndim == 1
    assert len(whole)
    assert np.isfinite(whole).all()
    assert not isinstance(blocks, InputError), f"accepted whole, not by blocks: {blocks}"
    np.testing.assert_allclose(blocks, whole, atol=1e-5 * max(1, np.abs(whole).max()))
    if not isinstance(held, InputError):
        np.testing.assert_array_equal(held, whole)
    if flac:
        assert not isinstance(flac, InputError)
        np.testing.assert_array_equal(reading.read_audio(AudioBytes("flac", flac), seeds.RATE), whole)


def _wav() -> Sequence[bytes]:
    kinds = (("WAV", "PCM_16", 1), ("WAV", "PCM_16", 2), ("WAV", "PCM_24", 1), ("WAV", "FLOAT", 1), ("WAV", "ULAW", 1))
    more = (("WAVEX", "PCM_16", 2), ("WAV", "IMA_ADPCM", 1), ("WAV", "MS_ADPCM", 1), ("WAV", "GSM610", 1))
    return [seeds.encode(*kind) for kind in (*kinds, *more)]


def _wav_claims() -> Sequence[bytes]:
    wav = seeds.encode("WAV", "PCM_16")  # bytes 22: channels, 24: rate, 32: bytes a frame, 34: bits, 40: data
    channels = [seeds.claim(wav, 22, "<H", value) for value in (0, 255, 256, 1024, 1025, 65535)]
    framed = [seeds.claim(each, 32, "<H", 2 * 1024) for each in channels]
    rates = [seeds.claim(wav, 24, "<I", value) for value in (0, 1, 2**31 - 1, 2**31, 2**32 - 1)]
    sizes = [seeds.claim(wav, 40, "<I", value) for value in (0, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 2)]
    widths = [seeds.claim(wav, 34, "<H", value) for value in (0, 1, 64, 65535)]
    wide = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        2**31,
        b"WAVE",
        b"fmt ",
        16,
        1,
        1024,
        16000,
        2**25,
        2048,
        16,
        b"data",
        2048 * 4000,
    ) + bytes(2048 * 4000)
    return [*channels, *framed, *rates, *sizes, *widths, wide]


def _flac() -> Sequence[bytes]:
    return [seeds.encode("FLAC", "PCM_16"), seeds.encode("FLAC", "PCM_24", 2), seeds.encode("FLAC", "PCM_S8", 1, 8000)]


def _flac_claims() -> Sequence[bytes]:
    flac = seeds.encode("FLAC", "PCM_16")  # bytes 18 to 25: rate (20 bits), channels (3), width (5), samples (36)
    fields = int.from_bytes(flac[18:26], "big")
    counts = [fields | 2**36 - 1, fields & ~(2**36 - 1) | 2**31, fields & ~(2**36 - 1) | 2**29, fields & ~(2**36 - 1)]
    wide = fields | 7 << 41 | 2**36 - 1
    return [seeds.claim(flac, 18, ">Q", value) for value in (*counts, wide, fields | 2**64 - 2**44, 0, 2**64 - 1)]


def _ogg() -> Sequence[bytes]:
    return [seeds.encode("OGG", "VORBIS"), seeds.encode("OGG", "VORBIS", 2), seeds.encode("OGG", "OPUS")]


def _ogg_claims() -> Sequence[bytes]:
    """Changes the end of the last page's granule position, and channels and rates of the first page."""
    claims = [damaged_codebooks()]
    for ogg in _ogg():
        last = ogg.rindex(b"OggS")
        claims += [seeds.claim(ogg, last + 6, "<q", value) for value in (0, -1, 1, 2**31, 2**40, 2**62, 2**63 - 1)]
        claims += [seeds.claim(ogg, 28 + 11, "<B", value) for value in (0, 8, 255)]
        claims += [seeds.claim(ogg, 28 + 12, "<I", value) for value in (0, 1, 2**31, 2**32 - 1)]
    return claims


def _mp3() -> Sequence[bytes]:
    mp3 = seeds.encode("MP3", "MPEG_LAYER_III")
    return [mp3, seeds.id3(mp3), seeds.encode("MP3", "MPEG_LAYER_III", 2, 44_100)]


def _mp3_claims() -> Sequence[bytes]:
    mp3 = _mp3()[0]
    info = max(mp3.find(b"Info"), mp3.find(b"Xing"))
    frames = [seeds.claim(mp3, info + 8, ">I", value) for value in (0, 1, 2**31 - 1, 2**31, 2**32 - 1)]
    return [*frames, b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + mp3, b"ID3\x04\0\0\x7f\x7f\x7f\x7f"]


def _sphere() -> Sequence[bytes]:
    return [seeds.sphere(), seeds.sphere(2), seeds.encode("NIST", "ULAW"), seeds.encode("NIST", "PCM_24")]


def _sphere_claims() -> Sequence[bytes]:
    sphere = seeds.sphere()
    fields = (b"sample_count -i 4000", b"channel_count -i 1", b"sample_rate -i 16000", b"sample_n_bytes -i 2", b"1024")
    values = (b"0", b"-1", b"1024", b"32767", b"2147483647", b"2147483648", b"9" * 30)
    claims = []
    for field in fields:
        name, _, _ = field.rpartition(b" ")
        for value in values:
            head = sphere[:1024].replace(field, name + b" " + value if name else value).rstrip(b"\0 ")
            claims.append(head.ljust(1024)[:1024] + sphere[1024:])
    return claims


def _aiff() -> Sequence[bytes]:
    return [seeds.encode("AIFF", "PCM_16"), seeds.encode("AIFF", "PCM_24", 2), seeds.encode("AIFF", "FLOAT")]


def _aiff_claims() -> Sequence[bytes]:
    aiff = seeds.encode("AIFF", "PCM_16")
    comm = aiff.index(b"COMM")  # channels at 8, frames at 10, width at 14, rate (80 bits) at 16
    channels = [seeds.claim(aiff, comm + 8, ">H", value) for value in (0, 1024, 32767, 32768, 65535)]
    frames = [seeds.claim(aiff, comm + 10, ">I", value) for value in (0, 2**31 - 1, 2**31, 2**32 - 1)]
    rates = [seeds.claim(aiff, comm + 16, ">H", value) for value in (0, 0x7FFF, 0xFFFF, 0x401E, 0x403E)]
    return [*channels, *frames, *rates]


def _other_audio() -> Sequence[bytes]:
    formats = (
        "AU",
        "CAF",
        "W64",
        "RF64",
        "VOC",
        "SVX",
        "MAT4",
        "MAT5",
        "PAF",
        "IRCAM",
        "HTK",
        "SDS",
        "AVR",
        "PVF",
        "XI",
    )
    kinds = [(each, "DPCM_16" if each == "XI" else "PCM_16") for each in (*formats, "MPC2K", "WVE")]
    return [
        seeds.encode(each, "ALAW" if each == "WVE" else kind, rate=8000 if each == "WVE" else 44_100)
        for each, kind in kinds
    ]


AUDIO = {
    "wav": Target("a.wav", _wav, _read_audio, _wav_claims),
    "flac": Target("a.flac", _flac, _read_audio, _flac_claims),
    "ogg": Target("a.ogg", _ogg, _read_audio),
    "ogg, checksums mended": Target("a.ogg", _ogg, _read_audio, _ogg_claims, seeds.mend_ogg),
    "mp3": Target("a.mp3", _mp3, _read_audio, _mp3_claims),
    "sphere": Target("a.sph", _sphere, _read_audio, _sphere_claims),
    "aiff": Target("a.aiff", _aiff, _read_audio, _aiff_claims),
    "other audio": Target("a.audio", _other_audio, _read_audio),
}


def _films() -> Sequence[bytes]:
    def film(suffix: str) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"a.{suffix}"
            tone = ["-f", "lavfi", "-i", "sine=220:d=0.5:r=16000", "-bitexact"]
            subprocess.run(["ffmpeg", "-loglevel", "error", *tone, path], check=True)
            return path.read_bytes()

    return [film(suffix) for suffix in ("m4a", "webm", "mkv", "wma")]


def _read_film(path: Path) -> None:
    """Reads a film; ffmpeg runs under the same memory limit."""
    tempfile.tempdir = str(path.parent)
    blocks = accepted(path, lambda: list(reading.read_blocks(path, seeds.RATE)))
    assert np.isfinite(np.concatenate(blocks)).all()


FILMS = {"film": Target("a.mp4", _films, _read_film, starts_programs=True)} if shutil.which("ffmpeg") else {}
"""Used only if ffmpeg is installed; no test needs it."""
