"""All the sound of a whole file is read, whatever its header, its tags or the files joined to it say."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax.audio import mp3 as mp3_lib
from ds2_jax.audio.parts import AudioBytes
from ds2_jax.audio.reading import audio_duration, read_audio, read_blocks, read_excerpt
from ds2_jax.system.errors import InputError
from tests.audio.recordings import RATE, converted, mp3, tone, write, write_sphere

CHUNK = b"LIST" + struct.pack("<I", 4) + b"INFO"


def heard(path: Path) -> np.ndarray:
    """Reads a file in every way, which must agree."""
    waveform = read_audio(path, RATE)
    np.testing.assert_allclose(np.concatenate(list(read_blocks(path, RATE))), waveform, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(read_audio(AudioBytes("a", path.read_bytes()), RATE), waveform)
    assert audio_duration(path) == pytest.approx(len(waveform) / RATE, abs=1e-4)
    return waveform


def wav(path: Path, stated: int | None, behind: bytes = b"", subtype: str = "PCM_16") -> np.ndarray:
    """Writes a WAV file that states so many bytes of sound, followed by `behind`. Returns its waveform."""
    write(path, tone(), RATE, subtype)
    waveform = read_audio(path, RATE)
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    if stated is not None:
        data[place : place + 4] = struct.pack("<I", stated)
    path.write_bytes(data + behind)
    return waveform


@pytest.mark.usefixtures("no_ffmpeg")
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW", "IMA_ADPCM"])
@pytest.mark.parametrize("stated", [0, 256, 1024])
def test_wav_whose_recorder_crashed(tmp_path: Path, stated: int, subtype: str) -> None:
    np.testing.assert_array_equal(
        wav(tmp_path / "a.wav", stated, b"", subtype)[:8000], heard(tmp_path / "a.wav")[:8000]
    )


@pytest.mark.usefixtures("no_ffmpeg")
@pytest.mark.parametrize(
    "behind",
    [CHUNK, CHUNK * 2, CHUNK[:10], b"\0", b"LIST", b"id3 \xff\xff\0\0ID3", bytes(3000), b"TAG".ljust(128, b"x")],
)
def test_chunks_behind_the_sound_are_no_sound(tmp_path: Path, behind: bytes) -> None:
    np.testing.assert_array_equal(wav(tmp_path / "a.wav", None, behind), heard(tmp_path / "a.wav"))


@pytest.mark.usefixtures("no_ffmpeg")
def test_a_tag_before_the_header_of_wav(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    waveform = wav(path, None)
    path.write_bytes(id3(50) + path.read_bytes())
    np.testing.assert_array_equal(waveform, heard(path))


@pytest.mark.usefixtures("no_ffmpeg")
def test_two_wav_files_are_joined(tmp_path: Path) -> None:
    """The second one's header is heard as a click of a millisecond."""
    waveform = wav(tmp_path / "a.wav", None)
    data = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(data + write(tmp_path / "b.wav", tone()).read_bytes())
    assert len(heard(tmp_path / "a.wav")) == 2 * len(waveform) + 22


@pytest.mark.usefixtures("no_ffmpeg")
@pytest.mark.parametrize("extra", [CHUNK, b""])
def test_wav_of_more_than_4_gib(tmp_path: Path, extra: bytes) -> None:
    """Sizes are stored modulo 2^32. The file is sparse: 4 GiB of silence and a tone."""
    path = tmp_path / "a.wav"
    write(path, tone())
    head, sound = path.read_bytes()[:44], path.read_bytes()[44:]
    with path.open("wb") as file:
        file.write(head[:40] + struct.pack("<I", 16_000))
        file.seek(44 + (1 << 32))
        file.write(sound + extra)
    assert audio_duration(path) == ((1 << 32) + 16_000) / 2 / RATE
    np.testing.assert_allclose(read_excerpt(path, RATE, 8000, 1 - 1e-12), tone()[:, 0], atol=2e-4)


@pytest.mark.usefixtures("no_ffmpeg")
@pytest.mark.parametrize("name", [b"LIST", b"bext"])
def test_wav_with_an_odd_chunk_that_is_not_filled_up(tmp_path: Path, name: bytes) -> None:
    waveform = wav(tmp_path / "a.wav", None)
    data = (tmp_path / "a.wav").read_bytes()
    odd = name + struct.pack("<I", 7) + b"1234567"
    for place in (12, 36):
        (tmp_path / "a.wav").write_bytes(data[:place] + odd + data[place:])
        np.testing.assert_array_equal(waveform, heard(tmp_path / "a.wav"))


@pytest.mark.usefixtures("no_ffmpeg")
@pytest.mark.parametrize(("audio_format", "place"), [("AU", 8), ("AIFF", None)])
def test_other_formats_with_an_old_size(tmp_path: Path, audio_format: str, place: int | None) -> None:
    path = tmp_path / "a"
    soundfile.write(path, tone(), RATE, "PCM_16", format=audio_format)
    expected = read_audio(path, RATE)
    data = bytearray(path.read_bytes())
    place = data.index(b"SSND") + 4 if place is None else place
    data[place : place + 4] = (1000).to_bytes(4, "big")
    path.write_bytes(data)
    np.testing.assert_array_equal(expected, heard(path)[:8000])


@pytest.mark.usefixtures("no_ffmpeg")
@pytest.mark.parametrize("stated", [-1, 0, 4, 1000])
@pytest.mark.parametrize(("audio_format", "name", "before"), [("CAF", b"data", 4), ("RF64", b"ds64", 16)])
def test_formats_with_sizes_of_64_bits(
    tmp_path: Path, audio_format: str, name: bytes, before: int, stated: int
) -> None:
    path = tmp_path / "a"
    soundfile.write(path, tone(), RATE, "PCM_16", format=audio_format)
    expected = read_audio(path, RATE)
    data = bytearray(path.read_bytes())
    place = data.index(name) + before
    size = struct.pack(">q" if audio_format == "CAF" else "<q", stated)
    path.write_bytes(data[:place] + size + data[place + 8 :])
    np.testing.assert_array_equal(expected, heard(path)[:8000])


def id3(num_bytes: int, *, footer: bool = False) -> bytes:
    size = bytes(num_bytes >> shift & 0x7F for shift in (21, 14, 7, 0))
    flags = b"\x10" if footer else b"\0"
    return b"ID3\4\0" + flags + size + b"\xff" * num_bytes + (b"3DI\4\0" + flags + size if footer else b"")


def apev2(num_bytes: int, *, header: bool = True) -> bytes:
    def end(flags: int) -> bytes:
        return b"APETAGEX" + struct.pack("<4I", 2000, num_bytes + 32, 1, flags) + bytes(8)

    return (end(0xA0000000) if header else b"") + b"\xfe" * num_bytes + end(0x80000000)


LYRICS = b"LYRICSBEGIN" + b"LYR03000" + b"\xff\xfb" * 1500 + b"003019LYRICS200"
TAGS: dict[str, Callable[[bytes], bytes]] = {
    "a large cover": lambda sound: id3(3_000_000) + sound,
    "two ID3v2 tags": lambda sound: id3(300) + id3(200) + sound,
    "ID3v1": lambda sound: sound + b"TAG" + b"\xff" * 125,
    "ID3v2.4 at the end": lambda sound: sound + id3(5000, footer=True),
    "APEv2": lambda sound: sound + apev2(5000),
    "APEv2 without a header": lambda sound: sound + apev2(5000, header=False),
    "APEv2 and ID3v1": lambda sound: sound + apev2(100) + b"TAG" + b"\xff" * 125,
    "APEv2 in front": lambda sound: apev2(700) + sound,
    "Lyrics3": lambda sound: sound + LYRICS + b"TAG" + b"\xff" * 125,
    "zeros": lambda sound: bytes(3000) + sound + bytes(5000),
    "what is no tag": lambda sound: sound + b"whatever" * 99,
}


@pytest.mark.usefixtures("no_ffmpeg")
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("stated_length", [True, False])
@pytest.mark.parametrize("tag", TAGS)
def test_tags_are_no_sound(tmp_path: Path, tag: str, stated_length: bool, mode: str) -> None:
    path = mp3(tmp_path / "a.mp3", mode, stated_length=stated_length)
    sound = path.read_bytes()[10:]  # without the empty tag
    path.write_bytes(sound)
    expected = heard(path)
    path.write_bytes(TAGS[tag](sound))
    np.testing.assert_array_equal(heard(path), expected)


@pytest.mark.usefixtures("no_ffmpeg")
@pytest.mark.parametrize("between", [b"", id3(500), b"TAG" + b"\xff" * 125, bytes(999)])
@pytest.mark.parametrize("stated_length", [True, False])
def test_joined_mp3s_are_read_to_the_end(tmp_path: Path, stated_length: bool, between: bytes) -> None:
    first = mp3(tmp_path / "a.mp3", "VARIABLE", stated_length=stated_length).read_bytes()[10:]
    second = mp3(tmp_path / "b.mp3", "CONSTANT").read_bytes()[10:]
    path = tmp_path / "c.mp3"
    path.write_bytes(first + between + second)
    waveform = heard(path)
    assert len(waveform) == pytest.approx(6 * RATE, abs=0.2 * RATE)
    assert np.abs(waveform[-RATE:]).max() > 0.2


@pytest.mark.usefixtures("no_ffmpeg")
def test_mp3s_that_differ_are_not_read_in_part(tmp_path: Path) -> None:
    first = mp3(tmp_path / "a.mp3", "CONSTANT").read_bytes()
    soundfile.write(tmp_path / "b.mp3", tone(1), RATE, format="MP3")
    path = tmp_path / "c.mp3"
    path.write_bytes(first + (tmp_path / "b.mp3").read_bytes())
    with pytest.raises(InputError, match=r"c\.mp3 must keep its sample rate and channels to the end, got an MP3 in"):
        read_audio(path, RATE)


@pytest.mark.usefixtures("ffmpeg")
@pytest.mark.parametrize(("rate", "channels"), [(RATE, 2), (44_100, 1), (48_000, 2)])
def test_mp3s_that_differ_are_read_through_ffmpeg(tmp_path: Path, rate: int, channels: int) -> None:
    """ffmpeg takes a tag between them for damage."""
    first = mp3(tmp_path / "a.mp3", "CONSTANT").read_bytes()
    soundfile.write(tmp_path / "b.mp3", tone(1, rate, channels), rate, format="MP3")
    path = tmp_path / "c.mp3"
    path.write_bytes(id3(50) + first + id3(500) + (tmp_path / "b.mp3").read_bytes())
    waveform = read_audio(path, RATE)
    assert len(waveform) > RATE * audio_duration(tmp_path / "a.mp3") + RATE
    assert np.abs(waveform[-RATE // 2 : -RATE // 4]).max() > 0.3


@pytest.mark.usefixtures("no_ffmpeg")
def test_mp3s_joined_with_damage_between_them_are_refused(tmp_path: Path) -> None:
    data = mp3(tmp_path / "a.mp3", "CONSTANT").read_bytes()
    path = tmp_path / "c.mp3"
    path.write_bytes(data + b"damage" * 50 + data)
    message = rf"c\.mp3 must be an undamaged MP3, got 310 bytes at byte {len(data)} that are no MP3 frame"
    with pytest.raises(InputError, match=message):
        read_audio(path, RATE)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_frames_are_those_that_libsndfile_counts(tmp_path: Path, rate: int, channels: int) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, tone(1, rate, channels), rate, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    frames = mp3_lib.find_frames(path)
    assert frames is not None
    assert frames.stated == frames.num_frames
    assert (
        soundfile.info(path).frames <= frames.num_samples < soundfile.info(path).frames + 4 * frames.samples_per_frame
    )


@pytest.mark.usefixtures("no_ffmpeg")
def test_all_chunks_of_sound_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone())
    data = path.read_bytes()
    sound = data[data.index(b"data") :]
    path.write_bytes(data + CHUNK + sound + CHUNK)
    waveform = heard(path)
    np.testing.assert_array_equal(waveform[:8000], waveform[8000:])
    assert len(waveform) == 16_000


@pytest.mark.parametrize("name", ["b.wav", "b.flac", "b.ogg", "b.sph", "b.aiff"])
def test_another_recording_behind_an_mp3_is_refused(tmp_path: Path, name: str) -> None:
    path = mp3(tmp_path / "a.mp3", "CONSTANT")
    start = path.stat().st_size
    path.write_bytes(path.read_bytes() + write(tmp_path / name, tone()).read_bytes())
    with pytest.raises(InputError, match=rf"a\.mp3 must hold one recording, got another at byte {start}\."):
        read_audio(path, RATE)


@pytest.mark.usefixtures("no_ffmpeg")
def test_joined_flac_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", tone())
    data = path.read_bytes()
    path.write_bytes(id3(50) + data)
    assert len(heard(path)) == 8000
    path.write_bytes(data + data)
    with pytest.raises(InputError, match=rf"a\.flac must hold one FLAC stream, got another at byte {len(data)}\."):
        read_audio(path, RATE)


@pytest.mark.parametrize("audio_format", ["CAF", "AIFF"])
def test_joined_files_that_libsndfile_reads_in_part_are_refused(tmp_path: Path, audio_format: str) -> None:
    path = tmp_path / "a"
    soundfile.write(path, tone(), RATE, "PCM_16", format=audio_format)
    joined_is_refused(path)


@pytest.mark.usefixtures("ffmpeg")
@pytest.mark.parametrize("name", ["a.m4a", "a.mov", "a.flv", "a.tta", "a.wma", "alac.caf"])
def test_joined_files_that_ffmpeg_reads_in_part_are_refused(tmp_path: Path, name: str) -> None:
    options = ("-c:a", "alac") if name == "alac.caf" else ("-ar", "44100")
    joined_is_refused(converted(write(tmp_path / "source.wav", tone()), name, *options))


@pytest.mark.usefixtures("ffmpeg")
def test_joined_fragments_are_read(tmp_path: Path) -> None:
    fragments = ("-c:a", "aac", "-movflags", "frag_keyframe+empty_moov")
    path = converted(write(tmp_path / "source.wav", tone()), "a.mp4", *fragments)
    path.write_bytes(path.read_bytes() * 2)
    assert len(read_audio(path, RATE)) >= 8000


def joined_is_refused(path: Path) -> None:
    assert len(read_audio(path, RATE)) > 0.45 * RATE  # ffmpeg drops the first frame of WMA
    data = path.read_bytes()
    path.write_bytes(data + data)
    with pytest.raises(InputError, match=f"must hold one recording, got another at byte {len(data)}. Divide it there"):
        read_audio(path, RATE)


UNKNOWN_TO_LIBSNDFILE = {
    "a.oga": ("-c:a", "flac"),
    "a.wav": ("-c:a", "libmp3lame"),
    "alac.caf": ("-c:a", "alac"),
    "a.wv": (),
    "a.voc": (),
    "a.tta": (),
    "b.wav": ("-c:a", "adpcm_yamaha"),
    "a.spx": ("-c:a", "libspeex"),
    "a.mka": ("-c:a", "mp3"),
}


@pytest.mark.usefixtures("ffmpeg")
@pytest.mark.parametrize("name", UNKNOWN_TO_LIBSNDFILE)
def test_what_libsndfile_does_not_support_is_read_through_ffmpeg(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "source.wav", tone(2), RATE)
    path = converted(source, name, *UNKNOWN_TO_LIBSNDFILE[name])
    waveform = heard(path)
    assert len(waveform) == pytest.approx(2 * RATE, abs=0.15 * RATE)
    assert np.argmax(np.abs(np.fft.rfft(waveform[:RATE]))) == 200
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=r"[Ii]nstall (ffmpeg|it)"):
        read_audio(path, RATE)


@pytest.mark.usefixtures("no_ffmpeg")
@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_chained_ogg_is_read_to_its_end(tmp_path: Path, subtype: str) -> None:
    first, second = (write(tmp_path / f"{name}.ogg", tone(name), RATE, subtype) for name in (2, 3))
    expected = np.concatenate([heard(first), heard(second), heard(first)])
    path = tmp_path / "chain.ogg"
    path.write_bytes(first.read_bytes() + second.read_bytes() + first.read_bytes())
    np.testing.assert_array_equal(heard(path), expected)
    other = write(tmp_path / "other.ogg", tone(1, channels=2), RATE, subtype)
    path.write_bytes(first.read_bytes() + other.read_bytes())
    with pytest.raises(InputError, match="must keep its sample rate and channels to the end, got streams that differ"):
        read_audio(path, RATE)


@pytest.mark.usefixtures("ffmpeg")
@pytest.mark.parametrize(("name", "options"), [("a.spx", ("-c:a", "libspeex")), ("a.oga", ("-c:a", "flac"))])
def test_a_chain_that_ffmpeg_reads(tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    path = converted(write(tmp_path / "source.wav", tone(2)), name, *options)
    expected = heard(path)
    path.write_bytes(path.read_bytes() * 2)
    np.testing.assert_allclose(heard(path), np.tile(expected, 2), atol=1e-6)


@pytest.mark.usefixtures("ffmpeg")
@pytest.mark.parametrize("name", ["a.raw", "A.RAW"])
def test_samples_without_a_header_are_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(np.random.default_rng(0).bytes(32_000))
    with pytest.raises(InputError, match=rf"{name} must .+"):
        read_audio(path, RATE)


def test_a_header_matters_more_than_the_name(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", tone()).rename(tmp_path / "a.raw")
    assert len(read_audio(tmp_path / "a.raw", RATE)) == 8000


class Bits:
    """Writes numbers as shorten does: `code(n, k)` has n >> k zeros, a one, and the k lowest bits of n."""

    def __init__(self) -> None:
        self.bits = ""

    def code(self, value: int, size: int) -> None:
        self.bits += "0" * (value >> size) + "1" + (f"{value & (1 << size) - 1:0{size}b}" if size else "")

    def number(self, value: int) -> None:
        size = max(1, value.bit_length())
        self.code(size, 2)
        self.code(value, size)

    def signed(self, value: int, size: int) -> None:
        self.code(value << 1 if value >= 0 else ~(value << 1), size)

    def data(self) -> bytes:
        bits = self.bits.ljust(-(-len(self.bits) // 8) * 8, "0")
        return int(bits, 2).to_bytes(len(bits) // 8, "big")


@pytest.mark.usefixtures("ffmpeg")
def test_sphere_packed_with_shorten(tmp_path: Path) -> None:
    samples = (tone(0.25)[:, 0] * 1000).astype(np.int16)
    bits = Bits()
    for value in (5, 1, 256, 0, 0, 0):  # 16 bits little-endian, channels, block, predictor, means, skipped bytes
        bits.number(value)
    for start in range(0, len(samples) // 256 * 256, 256):
        bits.code(0, 2)  # differences of order 0
        bits.code(9, 3)  # bits of a residual
        for value in samples[start : start + 256].tolist():
            bits.signed(value, 10)
    bits.code(4, 2)  # end
    whole = len(samples) // 256 * 256
    path = write_sphere(tmp_path / "a.sph", np.zeros((0, 1)), whole)
    head = path.read_bytes()[:1024].replace(
        b"sample_coding -s3 pcm\n", b"sample_coding -s26 pcm,embedded-shorten-v2.00\n"
    )
    path.write_bytes(head[:1024].ljust(1024)[:1024] + b"ajkg\x02" + bits.data())
    np.testing.assert_allclose(read_audio(path, RATE), samples[:whole] / 2**15, rtol=0, atol=1e-6)
