"""Files that ffmpeg would read in part, or cannot read, are refused with an error that says why."""

from pathlib import Path

import pytest

from ds2_jax.audio.reading import read_audio
from tests.audio.recordings import RATE, assert_refused, converted, cut, tone, write

pytestmark = pytest.mark.usefixtures("ffmpeg")


@pytest.mark.parametrize(("name", "options"), [("a.flv", ("-ar", "22050")), ("a.voc", ())])
def test_formats_of_many_blocks_cut_short(tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    path = converted(write(tmp_path / "source.wav", tone(3)), name, *options)
    assert len(read_audio(path, RATE)) == pytest.approx(3 * RATE, abs=0.1 * RATE)
    assert_refused(cut(path, 0.6), r"be complete, got a file that ends \d+ bytes before the end of a block\. Replace")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.m3u", b"#EXTM3U\nb.wav\n"),
        ("a.cue", b'FILE "b.wav" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n'),
        ("a.xspf", b'<?xml version="1.0"?><playlist version="1" xmlns="http://xspf.org/ns/0/"/>'),
        ("a.wav", bytes(range(256)) * 100),
    ],
)
def test_what_is_no_recording_is_told(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert_refused(path, "be a recording in a format that is read, got another format, a playlist, samples without")
