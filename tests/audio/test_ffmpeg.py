"""What libsndfile does not know, through a program that stands for ffmpeg and says what ffmpeg said.

The real one is not needed; the messages were copied from version 5.1.
"""

import json
import re
import struct
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import pytest

from ds2_jax.audio.ffmpeg import MAX_BLOCK, read_blocks
from ds2_jax.audio.reading import BLOCK_SAMPLES, to_waveform
from ds2_jax.system.errors import InputError
from tests.small_runs import RATE, write_noise

FAKE = """\
#!{python}
import json, pathlib, sys, time
folder = pathlib.Path(__file__).parent
(folder / "arguments.json").write_text(json.dumps(sys.argv[1:]))
try:
    sys.stdout.buffer.write((folder / "output").read_bytes())
    sys.stdout.buffer.flush()
    {extra}
except BrokenPipeError:
    (folder / "broken").touch()
sys.stderr.write({said!r})
sys.exit({code})
"""
InstallFake = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InstallFake:
    """Puts a program called ffmpeg, alone, on PATH; gives its folder."""

    def write(output: bytes, said: str = "", code: int = 0, extra: str = "pass") -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "output").write_bytes(output)
        program = folder / "ffmpeg"
        program.write_text(FAKE.format(python=sys.executable, said=said, code=code, extra=extra))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))
        return folder

    return write


def au(samples: np.ndarray, rate: int) -> bytes:
    """[S, C] as Sun and NeXT wrote it: float samples, big-endian, of a length not known, behind 8 bytes of comment."""
    header = struct.pack(">4s5I8s", b".snd", 32, 0xFFFFFFFF, 6, rate, samples.shape[1], b"comment\0")
    return header + samples.astype(">f4").tobytes()


def film(tmp_path: Path, name: str = "film.mp4") -> Path:
    path = tmp_path / name
    path.write_bytes(b"\0\0\0\x20ftypisom" + bytes(100))
    return path


def read(path: Path) -> np.ndarray:
    return np.concatenate(list(read_blocks(path, RATE)))


@pytest.mark.parametrize(("rate", "channels"), [(RATE, 1), (44_100, 2), (48_000, 6)])
def test_the_sound_of_a_film_becomes_what_that_of_a_file_does(
    tmp_path: Path, install: InstallFake, rate: int, channels: int
) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (rate * 5, channels)).astype(np.float32)
    assert rate == RATE or len(samples) > BLOCK_SAMPLES  # several blocks
    install(au(samples, rate))
    waveform = read(film(tmp_path))
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform, to_waveform(samples, rate, RATE, "film"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["film.mp4", "-i.mp4", "concat:a|b.mp4", "http:x.m4a", "two words.mp4", "100%d.mp4"])
def test_no_name_is_an_option_or_an_address(
    tmp_path: Path, install: InstallFake, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = install(au(np.zeros((10, 1)), RATE))
    film(tmp_path, name)
    monkeypatch.chdir(tmp_path)
    read(Path(name))
    arguments = json.loads((folder / "arguments.json").read_text())
    place = arguments.index("-i")
    assert arguments[place + 1] == f"file:{name}"
    assert arguments[arguments.index("-protocol_whitelist") + 1] == "file"
    assert arguments.index("-protocol_whitelist") < place  # which makes it the input's
    assert "-nostdin" in arguments
    assert int(arguments[arguments.index("-max_alloc") + 1]) == MAX_BLOCK


def test_what_libsndfile_reads_is_not_given_to_ffmpeg(tmp_path: Path, install: InstallFake) -> None:
    folder = install(b"", "should not run", 1)
    assert read(write_noise(tmp_path / "a.wav")).shape == (RATE // 2,)
    assert not (folder / "arguments.json").exists()


def test_damage_that_libsndfile_sees_is_not_given_to_ffmpeg(tmp_path: Path, install: InstallFake) -> None:
    install(au(np.zeros((10, 1)), RATE))
    path = write_noise(tmp_path / "a.wav")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="must hold the 16000 bytes of audio its header promises, got 956"):
        read(path)


def test_a_stream_without_its_length_is_read_through_ffmpeg(tmp_path: Path, install: InstallFake) -> None:
    install(au(np.zeros((10, 1)), RATE))
    path = write_noise(tmp_path / "a.flac")
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # of STREAMINFO: 36 bits of the number of samples
    data[22:26] = bytes(4)
    path.write_bytes(data)
    assert read(path).shape == (10,)


def test_without_ffmpeg_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = film(tmp_path, "talk.M4A")
    message = (
        f"{path} must be WAV, FLAC, Ogg, MP3 or another format that libsndfile reads, got m4a. "
        "Install ffmpeg, which reads it, or convert the file."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        read(path)
    message = r"talk must be whole WAV, .*, got a file libsndfile cannot open .* Or install ffmpeg, which reads more\.$"
    with pytest.raises(InputError, match=message):
        read(film(tmp_path, "talk"))


@pytest.mark.parametrize(
    ("said", "code", "message"),
    [
        ("Stream map '0:a:0' matches no streams.\nTo ignore this, ...\n", 1, "hold sound, got none. Replace the file."),
        (
            "[mov,mp4,m4a,3gp,3g2,mj2 @ 0x555b84980] moov atom not found\nfile:{path}: Invalid data found\n",
            1,
            "be whole audio or video, got from ffmpeg: moov atom not found. Replace the file, or mend it: ffmpeg",
        ),
        (
            "file:{path}: Invalid data found when processing input\n",
            1,
            "be whole audio or video, got from ffmpeg: Invalid data found when processing input. Replace the file",
        ),
        (
            "[matroska,webm @ 0x56dd980] File ended prematurely\n",
            0,
            "be whole audio or video, got from ffmpeg: File ended",
        ),
        ("", 139, "be whole audio or video, got from ffmpeg: exit code 139. Replace"),
    ],
)
@pytest.mark.parametrize("decoded", [True, False])
def test_what_ffmpeg_complains_of_is_refused(
    tmp_path: Path, install: InstallFake, said: str, code: int, message: str, decoded: bool
) -> None:
    path = film(tmp_path)
    install(au(np.zeros((10, 1)), RATE) if decoded else b"", said.replace("{path}", str(path)), code)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))} must {re.escape(message)}"):
        read(path)


def test_no_sound_and_no_complaint(tmp_path: Path, install: InstallFake) -> None:
    install(b"")
    with pytest.raises(InputError, match=r"film\.mp4 must hold sound, got none\. Replace the file\."):
        read(film(tmp_path))
    install(au(np.zeros((0, 1)), RATE))
    with pytest.raises(InputError, match=r"film\.mp4 must last at least one sample of 16000 Hz, got 0 of 16000 Hz"):
        read(film(tmp_path))


def test_a_rate_that_speech_has_not(tmp_path: Path, install: InstallFake) -> None:
    install(au(np.zeros((10, 1)), 100))
    with pytest.raises(InputError, match=r"film\.mp4 must have a rate of 4000 to 768000 Hz, got 100 Hz"):
        read(film(tmp_path))


@pytest.mark.parametrize("extra", ["[sys.stdout.buffer.write(bytes(1 << 16)) for _ in iter(int, 1)]", "time.sleep(60)"])
def test_a_program_without_end_is_read_as_it_writes_and_ends_with_its_reader(
    tmp_path: Path, install: InstallFake, extra: str
) -> None:
    folder = install(au(np.zeros((BLOCK_SAMPLES, 1)), RATE), extra=extra)
    blocks = read_blocks(film(tmp_path), RATE)
    assert isinstance(blocks, Generator)
    assert len(next(blocks)) == BLOCK_SAMPLES
    closing = threading.Thread(target=blocks.close)
    closing.start()
    closing.join(timeout=30)
    assert not closing.is_alive()
    assert (folder / "arguments.json").exists()
