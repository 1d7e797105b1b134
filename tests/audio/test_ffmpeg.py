"""ffmpeg reads what libsndfile cannot read. A fake program stands in for an ffmpeg that misbehaves."""

import json
import re
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax.audio.ffmpeg import MAX_BLOCK
from ds2_jax.audio.reading import read_blocks
from ds2_jax.audio.waveform import BLOCK_SAMPLES, to_waveform
from ds2_jax.system.errors import InputError
from tests.small_runs import RATE, noise, write_noise

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
    """Puts a program called ffmpeg, and no other, on PATH. Returns its folder."""

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
    """Encodes [S, C] in the AU format: big-endian floats of unknown length, after a comment of 8 bytes."""
    header = struct.pack(">4s5I8s", b".snd", 32, 0xFFFFFFFF, 6, rate, samples.shape[1], b"comment\0")
    return header + samples.astype(">f4").tobytes()


def film(tmp_path: Path, name: str = "film.mp4") -> Path:
    """Writes a file that no program can read."""
    path = tmp_path / name
    path.write_bytes(b"\0\0\0\x20ftypisom" + bytes(100))
    return path


def make(path: Path, samples: np.ndarray, rate: int = RATE, *options: str) -> Path:
    """Lets ffmpeg write [S, C] float32 into the container of the suffix, with a picture if `options` ask for it."""
    source = path.parent / "source.wav"
    soundfile.write(source, samples, rate, subtype="FLOAT")
    command = ["ffmpeg", "-nostdin", "-loglevel", "error", "-i", f"file:{source}", *options, f"file:{path}"]
    subprocess.run(command, check=True)
    source.unlink()
    return path


PICTURE = ("-f", "lavfi", "-i", "color=size=16x16:duration=2:rate=5", "-map", "0:a", "-map", "1:v")


def read(path: Path) -> np.ndarray:
    return np.concatenate(list(read_blocks(path, RATE)))


@pytest.mark.usefixtures("ffmpeg")
@pytest.mark.parametrize(("rate", "channels"), [(RATE, 1), (44_100, 2), (48_000, 6)])
def test_the_sound_of_a_film_becomes_what_that_of_a_file_does(tmp_path: Path, rate: int, channels: int) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (rate * 5, channels)).astype(np.float32)
    assert rate == RATE or len(samples) > BLOCK_SAMPLES  # several blocks
    waveform = read(make(tmp_path / "film.mkv", samples, rate, *PICTURE, "-c:a", "pcm_f32le"))
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform, to_waveform(samples, rate, RATE, "film"), rtol=0, atol=1e-6)


@pytest.mark.usefixtures("ffmpeg")
@pytest.mark.parametrize(
    "name", ["a.m4a", "a.mp4", "a.mov", "a.webm", "a.mkv", "a.wma", "a.ac3", "a.avi", "a.ts", "A.M4A"]
)
def test_a_tone_is_heard_in_every_container(tmp_path: Path, name: str) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)
    options = ("-ar", "48000") if name == "a.ac3" else ()
    waveform = read(make(tmp_path / name, tone[:, None].astype(np.float32), RATE, *options))
    assert len(waveform) == pytest.approx(2 * RATE, abs=0.1 * RATE)
    spectrum = np.abs(np.fft.rfft(waveform[: 2 * RATE]))
    assert np.argmax(spectrum) * RATE / min(len(waveform), 2 * RATE) == pytest.approx(440, abs=2)


@pytest.mark.usefixtures("ffmpeg")
@pytest.mark.parametrize("name", ["-i.mkv", "concat:a|b.mkv", "http:x.mkv", "two words.mkv", "100%d.mkv", "é.mkv"])
def test_no_name_is_an_option_or_an_address(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "film.mkv", noise(0.5)[:, None], RATE, "-c:a", "pcm_f32le").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert read(Path(name)).shape == (RATE // 2,)


def test_ffmpeg_may_open_files_alone_and_ask_for_little_memory(tmp_path: Path, install: InstallFake) -> None:
    folder = install(au(np.zeros((10, 1)), RATE))
    read(film(tmp_path))
    arguments = json.loads((folder / "arguments.json").read_text())
    assert arguments[arguments.index("-protocol_whitelist") + 1] == "file"
    assert arguments.index("-protocol_whitelist") < arguments.index("-i")  # so that it applies to the input
    assert arguments.index("-format_whitelist") < arguments.index("-i")
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
    with pytest.raises(InputError, match="must hold the 16000 bytes of audio that its header states, got 956"):
        read(path)


@pytest.mark.usefixtures("ffmpeg")
def test_a_stream_without_its_length_is_read_through_ffmpeg(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "a.flac")
    expected = soundfile.read(path, dtype="float32")[0]
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # of STREAMINFO: 36 bits of the number of samples
    data[22:26] = bytes(4)
    path.write_bytes(data)
    np.testing.assert_array_equal(read(path), expected)


def test_without_ffmpeg_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    path = film(tmp_path, "talk.M4A")
    message = (
        f"{path} must be WAV, FLAC, Ogg, MP3 or another format that libsndfile reads, got m4a. "
        "Install ffmpeg, which reads it, or convert the file."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        read(path)
    message = r"talk must be WAV, .* that libsndfile reads, got: .+\. ffmpeg reads more formats: install it, or convert"
    with pytest.raises(InputError, match=message):
        read(film(tmp_path, "talk"))


def refused(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(str(path))} must {message}"):
        read(path)


@pytest.mark.usefixtures("ffmpeg")
def test_what_ffmpeg_complains_of_is_refused(tmp_path: Path) -> None:
    whole = "be undamaged audio or video, got an ffmpeg error: "
    sound = noise(2.0)[:, None]
    for name, message in {"film.mp4": "moov atom not found", "film.mkv": "File ended prematurely"}.items():
        path = make(tmp_path / name, sound, RATE, *PICTURE)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        refused(path, rf"{whole}{message}\. Replace the file, or repair it: ffmpeg")
    refused(film(tmp_path), whole)


@pytest.mark.usefixtures("ffmpeg")
def test_a_film_without_sound_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "film.mp4", noise(1.0)[:, None], RATE, *PICTURE[:4], "-map", "1:v")
    refused(path, r"hold sound, got none\. Replace the file\.$")


@pytest.mark.usefixtures("ffmpeg")
def test_a_rate_that_speech_has_not(tmp_path: Path) -> None:
    path = make(tmp_path / "film.mkv", noise(1.0)[:, None], 2000, "-c:a", "pcm_f32le")
    refused(path, "have a rate of 4000 to 768000 Hz, got 2000 Hz")


def test_a_program_that_fails_without_a_word(tmp_path: Path, install: InstallFake) -> None:
    install(au(np.zeros((10, 1)), RATE), code=139)
    refused(film(tmp_path), r"be undamaged audio or video, got an ffmpeg error: exit code 139\. Replace")
    install(b"")
    refused(film(tmp_path), r"hold sound, got none\. Replace the file\.")
    install(au(np.zeros((0, 1)), RATE))
    refused(film(tmp_path), r"have at least one sample at 16000 Hz, got none \(0 at 16000 Hz\)")


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
