"""The command `live` writes what streams and transcripts give, from files, pipes and a microphone."""

import dataclasses
import io
import itertools
import json
import os
import pty
import queue
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from ds2_jax import cli
from ds2_jax.audio.microphone import Microphone
from ds2_jax.config.live import describe
from ds2_jax.recognition.endpoints import Endpoints
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.streaming import FinalText
from ds2_jax.recognition.transcript import Transcript
from ds2_jax.system import compilation
from ds2_jax.system.errors import InputError
from tests.small_runs import RATE, SMALL_CONFIG, noise, write_untrained_run

ROOT = Path(__file__).parents[2]
CONFIG = dataclasses.replace(
    SMALL_CONFIG,
    features=dataclasses.replace(SMALL_CONFIG.features, normalisation="running"),
    model=dataclasses.replace(SMALL_CONFIG.model, bidirectional=False, lookahead_context=3),
)
HEEDING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""A command that heeds Ctrl-C even if these tests run with it ignored."""
ENDPOINTS = ("--pause", "0.3", "--no-labels", "0.6", "--longest", "2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_run(tmp_path_factory.mktemp("runs") / "live", CONFIG)


@pytest.fixture(scope="module")
def talk(run: Path) -> Path:
    """Writes a recording of several segments."""
    samples = np.concatenate([noise(3.0, 1), np.zeros(RATE), noise(1.5, 2)]).astype(np.float32)
    soundfile.write(run.parent / "talk.wav", samples, RATE, "FLOAT")
    return run.parent / "talk.wav"


@pytest.fixture(scope="module")
def expected(run: Path, talk: Path) -> Transcript:
    return Recogniser(run).transcribe(talk)


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "enable_cache", lambda: None)


class Pipe(io.TextIOWrapper):
    """Makes a standard input that gives `data`."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))


def test_a_file_gives_what_transcribing_it_gives(
    run: Path, talk: Path, expected: Transcript, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["live", str(run), str(talk)]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines() == [segment.readings[0].text for segment in expected.segments]
    assert f"hearing {talk}; text comes " in output.err
    assert "real-time factor" in output.err


@pytest.mark.parametrize("kind", ["header", "samples", "integers"])
def test_a_pipe_gives_what_the_file_gives(
    run: Path,
    talk: Path,
    expected: Transcript,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    samples = soundfile.read(talk, dtype="float32")[0]
    integers = np.round(samples * 2**15).clip(-(2**15), 2**15 - 1).astype("<i2")
    data = {"header": talk.read_bytes(), "samples": samples.astype("<f4").tobytes(), "integers": integers.tobytes()}
    options = {"header": [], "samples": ["--sample-rate", "16000", "--sample-format", "f32le"]}
    monkeypatch.setattr(sys, "stdin", Pipe(data[kind]))
    words = ["live", str(run), "-", "--format", "json", *options.get(kind, ["--sample-rate", "16000"])]
    assert cli.main(words) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == [segment.readings[0].text for segment in expected.segments]
    assert [line["start"] for line in lines] == [round(segment.start, 3) for segment in expected.segments]
    assert [word["start"] for line in lines for word in line["words"]] == [round(w.start, 3) for w in expected.words]


@pytest.mark.parametrize("name", ["srt", "vtt"])
def test_subtitles_follow_one_another(run: Path, talk: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["live", str(run), str(talk), "--format", name, *ENDPOINTS]) == 0
    text = capsys.readouterr().out
    assert text.startswith("WEBVTT\n\n" if name == "vtt" else "1\n00:00:00,")
    times = [line.split(" --> ") for line in text.splitlines() if " --> " in line]
    assert len(times) >= 2
    assert times == sorted(times)
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(times))


def test_words_appear_on_a_terminal_as_they_are_said(run: Path, talk: Path) -> None:
    main, terminal = pty.openpty()
    command = [sys.executable, str(ROOT / "main.py"), "live", str(run), str(talk)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "40"}
    process = subprocess.Popen(command, stdout=terminal, stderr=subprocess.PIPE, env=environment)
    os.close(terminal)
    shown = b""
    try:
        while data := os.read(main, 4096):
            shown += data
    except OSError:  # Linux reports the end of the other side so
        pass
    os.close(main)
    process.communicate(timeout=60)
    assert process.returncode == 0
    partial, _, _ = shown.partition(b"\r\n")
    assert partial.startswith(b"\r\x1b[K")
    assert partial.count(b"\r\x1b[K") >= 2  # the text as it grew, and the final text
    assert b"\x1b[2m" in partial  # what may change is dim
    assert (
        max(len(part) for part in partial.replace(b"\x1b[2m", b"").replace(b"\x1b[0m", b"").split(b"\r\x1b[K")[:-1])
        < 40
    )


def asound(folder: Path, samples: np.ndarray) -> dict[str, str]:
    """Writes a configuration in which ALSA's device `mic` gives samples, as fast as they are read."""
    (folder / "mic.raw").write_bytes(samples.astype("<f4").tobytes())
    (folder / "asound.conf").write_text(
        "</usr/share/alsa/alsa.conf>\n"
        f'pcm.mic {{ type file; slave.pcm "null"; file "/dev/null"; infile "{folder}/mic.raw"; format "raw" }}\n'
    )
    return {"ALSA_CONFIG_PATH": str(folder / "asound.conf")}


@pytest.mark.usefixtures("portaudio")
def test_a_microphone_is_heard_through_portaudio(run: Path, talk: Path, tmp_path: Path) -> None:
    samples = soundfile.read(talk, dtype="float32")[0]
    stream = Recogniser(run).stream(RATE, Endpoints(pause=0.3, no_labels=0.6, longest=1))
    expected = [event for event in stream.feed(samples) if isinstance(event, FinalText)]
    assert len(expected) >= 3
    environment = asound(tmp_path, np.concatenate([samples, np.zeros(600 * RATE)]))
    words = [str(ROOT / "main.py"), "live", str(run), "--device", "mic", "--format", "json"]
    process = subprocess.Popen(
        [sys.executable, "-c", HEEDING, *words, "--pause", "0.3", "--no-labels", "0.6", "--longest", "1"],
        env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        lines = [json.loads(process.stdout.readline()) for _ in expected]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "hearing mic" in errors
    assert "interrupted: finishing the last words" in errors
    assert [(line["start"], line["text"]) for line in lines] == [
        (round(event.segment.start, 3), event.text) for event in expected
    ]


MISSING = """
import sys
from ds2_jax.audio.microphone import Microphone
from ds2_jax.config.live import describe
from ds2_jax.system.errors import InputError
try:
    Microphone(None if sys.argv[1] == "default" else sys.argv[1], 16000)
except InputError as error:
    print(error)
"""


def complaint(device: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", MISSING, device]
    env = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.usefixtures("portaudio")
def test_a_device_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    environment = asound(tmp_path, np.zeros(RATE))
    found = complaint("piano", environment)
    assert found.startswith("--device must be a microphone, got piano: ")
    assert "mic" in found.partition("The devices: ")[2]


def test_a_missing_library_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(
        InputError, match=r"^A microphone needs the package sounddevice, got: .* pip install sounddevice"
    ):
        Microphone(None, RATE)
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    monkeypatch.delitem(sys.modules, "sounddevice")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        InputError, match=r"^A microphone needs PortAudio, got: PortAudio library not found\. Install it"
    ):
        Microphone(None, RATE)


@pytest.mark.usefixtures("portaudio")
def test_a_microphone_that_gives_nothing_any_more_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    microphone = Microphone.__new__(Microphone)
    monkeypatch.setattr("ds2_jax.audio.microphone.SECONDS_OF_SILENCE", 0.1)
    microphone.name, microphone._blocks = "mic", queue.Queue()
    with pytest.raises(InputError, match=r"^mic must give samples, got none for 0 s\. Connect it again"):
        next(microphone.blocks())


def test_what_was_said_before_an_error_is_written(
    run: Path, talk: Path, expected: Transcript, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = soundfile.read(talk, dtype="float32")[0]
    samples[-1] = np.nan
    monkeypatch.setattr(sys, "stdin", Pipe(samples.astype("<f4").tobytes()))
    words = ["live", str(run), "-", "--sample-rate", "16000", "--sample-format", "f32le"]
    assert cli.main(words) == 1
    output = capsys.readouterr()
    assert output.out.splitlines()[0] == expected.segments[0].readings[0].text
    assert "error: The stream must hold samples of at most 1e+06" in output.err


@pytest.mark.usefixtures("ffmpeg")
def test_times_are_those_of_the_film(run: Path, talk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = tmp_path / "film.mkv"
    picture = ["-f", "lavfi", "-i", "color=size=16x16:rate=5:duration=9"]
    sound = ["-itsoffset", "3", "-i", str(talk), "-c:a", "pcm_s16le", str(film)]
    subprocess.run(["ffmpeg", "-nostdin", "-loglevel", "error", *picture, *sound], check=True)
    assert cli.main(["live", str(run), str(film), "--format", "json"]) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["start"] == pytest.approx(Recogniser(run).transcribe(film).segments[0].start, abs=0.001)
    assert first["words"][0]["start"] >= first["start"] - 0.001
    assert first["start"] == pytest.approx(3, abs=0.01)


def test_samples_that_a_microphone_lost_are_told(caplog: pytest.LogCaptureFixture) -> None:
    microphone = Microphone.__new__(Microphone)
    microphone.name, microphone._closed, microphone._lost = "mic", False, 0
    microphone._blocks, microphone._stream = queue.Queue(), SimpleNamespace(close=lambda **_: None)
    microphone._heard(np.zeros((4, 1), np.float32), 4, None, SimpleNamespace(input_overflow=True))
    microphone.close()
    assert "mic: samples were lost 1 times." in caplog.text


def test_what_a_model_costs_is_told() -> None:
    assert describe(CONFIG) == "text comes 290 ms behind the speech; a frame lasts 40 ms"
    assert "recognised again as it grows" in describe(SMALL_CONFIG)


def test_what_is_no_audio_is_told_at_once(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.wav").write_text("no audio")
    assert cli.main(["live", str(run), str(tmp_path / "a.wav")]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/a.wav must be ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.wav", "--device", "3"], "--device must be used without AUDIO, got '3'. Leave out one."),
        (["a.wav", "--sample-rate", "8000"], "--sample-rate must be used with AUDIO -, got 8000. Leave it out."),
        (["-", "--realtime"], "--realtime must be used with a file, got True. Leave it out."),
        (["a.wav", "--lm", "no.arpa"], "The language model must be a readable file, got no.arpa: No such file or "),
    ],
)
def test_options_without_effect_and_a_missing_model_are_refused(
    run: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["live", str(run), *words]) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")
