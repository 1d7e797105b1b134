"""FLAC files whose header states fewer samples than follow are read to the end."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax.audio import flac
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
