"""FLAC files whose header states fewer samples than follow are read to the end."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax.audio import flac
from ds2_jax.audio.reading import read_audio
from tests.audio.recordings import RATE, tone, write
from tests.audio.test_whole_files import heard

pytestmark = pytest.mark.usefixtures("no_ffmpeg")


def state(path: Path, num_samples: int) -> None:
    """Changes the number of samples that the header states."""
    data = bytearray(path.read_bytes())
    place = data.index(b"fLaC") + 8 + flac.TOTAL
    total = int.from_bytes(data[place : place + 5], "big") >> 36 << 36 | num_samples
    data[place : place + 5] = total.to_bytes(5, "big")
    path.write_bytes(data)


@pytest.mark.parametrize("stated", [1, 4096, 29_999])
@pytest.mark.parametrize(("rate", "subtype", "channels"), [(16_000, "PCM_16", 1), (44_100, "PCM_24", 2)])
def test_frames_behind_the_stated_end_are_read(
    tmp_path: Path, stated: int, rate: int, subtype: str, channels: int
) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (30_000, channels))
    path = write(tmp_path / "a.flac", samples, rate, subtype)
    expected = heard(path)
    state(path, stated)
    assert soundfile.info(path).frames == stated
    np.testing.assert_array_equal(heard(path), expected)


@pytest.mark.parametrize(
    ("before", "behind", "lost"),
    [
        (b"ID3\3\0\0\0\0\0\4wxyz", b"TAG".ljust(128), 0),
        (b"", bytes(50), 0),
        (b"", b"of an unknown kind", 48_000 % 4096),  # where the last frame ends is not known then
    ],
)
def test_tags_are_no_frames(tmp_path: Path, before: bytes, behind: bytes, lost: int) -> None:
    path = write(tmp_path / "a.flac", tone(3))
    expected = heard(path)
    state(path, 5)
    path.write_bytes(before + path.read_bytes() + behind)
    np.testing.assert_array_equal(heard(path), expected[: len(expected) - lost])


@pytest.mark.parametrize("length", [1, 255, 256, 4095, 4096, 4097, 70_000])
def test_a_right_header_is_kept(tmp_path: Path, length: int) -> None:
    path = write(tmp_path / "a.flac", np.random.default_rng(length).uniform(-1, 1, (length, 1)), RATE)
    assert flac.with_samples_behind(path) is None


@pytest.mark.parametrize("skipped", [1, 3])
def test_a_part_of_a_stream_keeps_the_numbers_of_its_frames(tmp_path: Path, skipped: int) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (30_000, 1))
    path = write(tmp_path / "a.flac", samples)
    expected = heard(path)[4096 * skipped :]
    data = path.read_bytes()
    start = flac._first_frame(data, 0)
    places = sorted(place for place, _ in flac._last_headers(data, start, 4096))
    path.write_bytes(data[:start] + data[places[skipped] :])
    state(path, len(expected))
    np.testing.assert_array_equal(heard(path), expected)
    state(path, 5)
    np.testing.assert_array_equal(heard(path), expected)


def test_what_looks_like_a_frame_inside_the_last_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.flac", np.random.default_rng(0).uniform(-0.5, 0.5, (30_000, 1)))
    expected = heard(path)
    state(path, 5)
    found = flac._last_headers

    def with_another(data: bytes, start: int, block_size: int) -> Iterator[tuple[int, int]]:
        yield len(data) - 100, 2**30
        yield from found(data, start, block_size)

    monkeypatch.setattr(flac, "_last_headers", with_another)
    np.testing.assert_array_equal(heard(path), expected)


def test_a_hostile_end_takes_no_minutes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", tone(3))
    state(path, 5)
    header = b"\xff\xf8\xc9\x08\xfe\xbf\xbf\xbf\xbf\xbf\xbf"  # of a frame far behind
    header += bytes([flac._crc8(header)])
    path.write_bytes(path.read_bytes() + header.ljust(16, b"\xff") * 2**22)
    began = time.process_time()
    read_audio(path, RATE)
    assert time.process_time() - began < 20
