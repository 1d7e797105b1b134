"""Files that differ little from those that are refused are read, and the reverse."""

import struct
from pathlib import Path

import numpy as np
import pytest

from ds2_jax.audio import ogg
from ds2_jax.audio.reading import read_audio
from ds2_jax.system.errors import InputError
from tests.audio.recordings import RATE, assert_refused, converted, mp3, tone, write
from tests.audio.test_whole_files import heard

LETTERS = b"RIFF\x10\0\0\0WAVEfmt OggS\0\x02"
GEOB = b"GEOB\0\0\0" + bytes([len(LETTERS)]) + b"\0\0" + LETTERS
ID3 = b"ID3\4\0\0\0\0\0" + bytes([len(GEOB)]) + GEOB
ITEM = struct.pack("<II", len(LETTERS), 2) + b"Cover Art (Front)\0" + LETTERS
APE = b"".join(
    b"APETAGEX" + struct.pack("<IIIIQ", 2000, 32 + len(ITEM), 1, flags, 0) for flags in (0xA0 << 24, 0x80 << 24)
)


@pytest.mark.usefixtures("no_ffmpeg")
@pytest.mark.parametrize("tag", [ID3, APE[:32] + ITEM + APE[32:]], ids=["ID3", "APE"])
def test_letters_in_a_tag_behind_an_mp3_are_no_recording(tmp_path: Path, tag: bytes) -> None:
    path = mp3(tmp_path / "a.mp3", "CONSTANT")
    expected = heard(path)
    data = path.read_bytes()
    path.write_bytes(data + tag)
    np.testing.assert_array_equal(heard(path), expected)
    path.write_bytes(data + tag + write(tmp_path / "b.wav", tone()).read_bytes())
    with pytest.raises(InputError, match=rf"must hold one recording, got another at byte {len(data + tag)}\."):
        read_audio(path, RATE)


def without_sound(data: bytes) -> bytes:
    """Keeps the headers of an Ogg stream, whose last page then ends it."""
    pages, offset = [], 0
    while offset < len(data):
        end = ogg._end(data, offset)
        pages.append(bytearray(data[offset:end]))
        offset = end
    pages = [page for page in pages if page[6:14] == bytes(8)]
    pages[-1][5] |= ogg.LAST
    pages[-1][22:26] = ogg._checksum(bytes(pages[-1]))
    return b"".join(pages)


@pytest.mark.usefixtures("no_ffmpeg")
@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_links_without_sound_are_left_out(tmp_path: Path, subtype: str) -> None:
    path = write(tmp_path / "a.ogg", tone(2), RATE, subtype)
    data, expected = path.read_bytes(), heard(path)
    empty = without_sound(data)
    for content, times in ((empty + data, 1), (data + empty, 1), (data + empty + data, 2)):
        path.write_bytes(content)
        np.testing.assert_array_equal(heard(path), np.tile(expected, times))
    path.write_bytes(empty + data[:-50])
    assert_refused(path, "hold one undamaged Ogg stream, got a file cut short")


@pytest.mark.usefixtures("no_ffmpeg")
@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_tag_behind_ogg_is_no_damage(tmp_path: Path, subtype: str) -> None:
    path = write(tmp_path / "a.ogg", tone(2), RATE, subtype)
    data, expected = path.read_bytes(), heard(path)
    path.write_bytes(data + b"TAG".ljust(128))
    np.testing.assert_array_equal(heard(path), expected)
    path.write_bytes(data[:-50] + b"TAG".ljust(128))
    assert_refused(path, "hold one undamaged Ogg stream, got a ")


@pytest.mark.usefixtures("no_ffmpeg")
def test_a_further_chunk_of_sound_that_is_cut_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone())
    data = path.read_bytes()
    path.write_bytes(data + data[data.index(b"data") :][:-100])
    assert_refused(path, "hold the 16000 bytes of audio that its header states, got 15900")


@pytest.mark.usefixtures("no_ffmpeg")
def test_a_further_chunk_of_sound_may_be_empty(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone())
    expected = heard(path)
    path.write_bytes(path.read_bytes() + b"data" + bytes(4))
    np.testing.assert_array_equal(heard(path), expected)


@pytest.mark.usefixtures("no_ffmpeg")
def test_letters_in_the_metadata_of_flac_are_no_stream(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", tone())
    data, expected = path.read_bytes(), heard(path)
    letters = b"test" + data[:42]
    block = b"\x02" + len(letters).to_bytes(3, "big") + letters  # of an application
    path.write_bytes(data[:42] + block + data[42:])
    np.testing.assert_array_equal(heard(path), expected)


@pytest.mark.usefixtures("ffmpeg")
def test_flv_without_the_size_behind_its_last_tag_is_whole(tmp_path: Path) -> None:
    path = converted(write(tmp_path / "source.wav", tone()), "a.flv", "-ar", "44100")
    data, expected = path.read_bytes(), heard(path)
    path.write_bytes(data[:-4])
    np.testing.assert_array_equal(heard(path), expected)
    path.write_bytes(data[:-5])
    assert_refused(path, "be complete, got a file that ends 1 bytes before the end of a block", header=False)
