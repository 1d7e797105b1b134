"""Transcripts of files and folders, whatever they hold."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import soundfile

from ds2_jax import cli
from ds2_jax.audio.timeline import Timeline
from ds2_jax.decoding.hypothesis import Hypothesis
from ds2_jax.decoding.options import DecodingOptions
from ds2_jax.engines.engine import EngineName
from ds2_jax.recognition.piece_outputs import EVENTS_AT_ONCE, NamedBlocks
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.transcribe import transcribe
from ds2_jax.recognition.transcript import Transcript
from ds2_jax.system.errors import InputError
from tests.small_runs import SMALL_CONFIG, noise, write_noise, write_untrained_run
from tests.spoken import spoken_word, transcript_of
from tests.subtitle_parsers import parse_ctm


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_run(tmp_path_factory.mktemp("runs") / "run", SMALL_CONFIG)


@pytest.fixture(scope="module")
def recogniser(run: Path) -> Recogniser:
    return Recogniser(run)


def heard(recogniser: Recogniser, waveforms: Sequence[np.ndarray]) -> list[Transcript]:
    """Transcribes waveforms."""
    results = list(
        recogniser.transcribe_blocks(NamedBlocks(Path(str(i)), [each], Timeline()) for i, each in enumerate(waveforms))
    )
    assert all(isinstance(each, Transcript) for each in results)
    return [each for each in results if isinstance(each, Transcript)]


def test_other_files_are_counted_and_broken_links_fail(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.doc", "b.txt", "c.TXT", "README"):
        (tmp_path / name).touch()
    (tmp_path / "d.wav").symlink_to(tmp_path / "gone.wav")
    (tmp_path / "folder.wav").mkdir()
    assert transcribe(run, [tmp_path]) == 1
    ignored, failed, total = capsys.readouterr().err.splitlines()
    assert ignored == f"{tmp_path}: 4 other files ignored: .doc, .txt, no suffix"
    assert failed.startswith(f"error: {tmp_path}/d.wav must be a readable file, got: No such file or directory.")
    assert total.startswith("0 files, 0.0 s of audio in ")
    assert "real-time factor" not in total


def test_a_process_keeps_odd_names_and_loads_little(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = (
        "import sys; from ds2_jax.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(code or ', '.join({'tensorflow', 'jax', 'numba', 'scipy'} & sys.modules.keys()) or 0)"
    )
    names = [b"caf\xe9.wav", b"line\nbreak\ttab.wav"]
    for name in names:
        write_noise(tmp_path / "new.wav").rename(tmp_path / os.fsdecode(name))
    assert (
        cli.main(["transcribe", str(run), str(tmp_path), "--output-dir", str(tmp_path / "out")]) == 0
    )  # makes the graph
    capsys.readouterr()
    process = subprocess.run(
        [sys.executable, "-c", program, "transcribe", str(run), str(tmp_path)],
        capture_output=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    paths = [os.fsencode(tmp_path) + b"/" + name for name in (names[0], rb"line\nbreak\ttab.wav")]
    assert [line.split(b"\t")[0] for line in process.stdout.splitlines()] == paths
    assert cli.main(["transcribe", str(run), str(tmp_path), "--format", "json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [os.fsencode(Path(json.loads(line)["audio"]).name) for line in lines] == names


def test_bad_files_among_good_ones(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_noise(tmp_path / "1.wav", 0.5)
    (tmp_path / "2.wav").touch()
    truncated = write_noise(tmp_path / "3.wav")
    truncated.write_bytes(truncated.read_bytes()[:1000])
    samples = noise(0.5)
    samples[7] = np.nan
    soundfile.write(tmp_path / "4.wav", samples, 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "5.wav", np.zeros(0, np.float32), 16_000)
    write_noise(tmp_path / "6.wav", 0.8)
    assert transcribe(run, [tmp_path]) == 1
    output = capsys.readouterr()
    lines = output.out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(tmp_path / "1.wav"), str(tmp_path / "6.wav")]
    errors = output.err.splitlines()
    for number, error in zip((2, 3, 4, 5), errors[:-1], strict=True):
        assert error.startswith(f"error: {tmp_path / f'{number}.wav'} must ")
        assert error.endswith(". Replace the recording.")
    assert errors[-1].startswith("2 files, 1.3 s of audio in ")
    assert "real-time factor" in errors[-1]
    assert errors[-1].endswith("; 4 files failed")


def test_one_file_is_printed_without_its_path(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert transcribe(run, [write_noise(tmp_path / "one.wav")]) == 0
    output = capsys.readouterr().out
    assert output.count("\n") == 1
    assert "\t" not in output
    assert "one.wav" not in output


def test_json_holds_the_span_of_every_word(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_noise(tmp_path / "one.wav", 0.9)
    assert transcribe(run, [path], ["json"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line.keys() == {"audio", "duration", "text", "confidence", "words", "segments"}
    assert line["audio"] == str(path)
    assert line["duration"] == 0.9
    assert line["text"], "the drawn weights must write something for this test to show anything"
    assert [word["word"] for word in line["words"]] == line["text"].split()
    times = [time for word in line["words"] for time in (word["start"], word["end"])]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] <= 0.9


class FakeRecogniser:
    """Reads recordings as a recogniser does, and recognises the name of the file."""

    config = SMALL_CONFIG

    def knows(self, word: str) -> bool:
        return True

    def __init__(self, run: Path, decoding: DecodingOptions, engine: EngineName | None, *others: object) -> None:
        pass

    def transcribe_blocks(self, recordings: Iterable[NamedBlocks]) -> Iterator[Transcript | InputError]:
        for recording in recordings:
            try:
                seconds = sum(map(len, recording.blocks)) / SMALL_CONFIG.features.sample_rate
            except InputError as error:
                yield error
            else:
                word = spoken_word(recording.audio.stem, 0.1, 0.3)
                yield transcript_of([word], audio=str(recording.audio), duration=seconds)


@pytest.fixture
def fake_recogniser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ds2_jax.recognition.transcribe.Recogniser", FakeRecogniser)


@pytest.mark.usefixtures("fake_recogniser")
def test_several_formats_into_a_folder_and_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    write_noise(tmp_path / "in/a.wav", 0.5)
    write_noise(tmp_path / "in/deep/a.flac", 0.6)
    (tmp_path / "in/bad.wav").touch()
    command = ["transcribe", "run", str(tmp_path / "in"), "--output-dir", str(out), "--format=srt", "--format=json"]
    assert cli.main(command) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines()[-1].endswith("; 1 file failed")
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == [
        *("a.json", "a.srt", "deep/a.json", "deep/a.srt")
    ]
    written = {path: path.read_bytes() for path in out.rglob("*.*")}
    assert cli.main(command) == 1
    assert capsys.readouterr().err.startswith(
        "error: --output-dir must not hold results of these recordings yet, got 4"
    )
    (out / "deep/a.srt").unlink()
    write_noise(tmp_path / "in/bad.wav", 0.4)
    assert cli.main([*command, "--resume"]) == 0
    first, last = capsys.readouterr().err.splitlines()
    assert first == "1 file already finished"
    assert last.startswith("2 files, 1.0 s of audio in ")
    assert {path: path.read_bytes() for path in written} == written
    assert (out / "bad.srt").exists()
    assert cli.main([*command, "--resume"]) == 0
    assert capsys.readouterr().err == "3 files already finished\n"


def test_ctm_of_several_recordings(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [write_noise(tmp_path / f"{name}.wav", 0.9, seed) for seed, name in enumerate(["b 2", "b 1", "a"])]
    assert transcribe(run, files, ["ctm"]) == 0
    words = parse_ctm(capsys.readouterr().out)
    assert list(dict.fromkeys(word.recording for word in words)) == ["a", "b_1", "b_2"]


def test_standard_input_and_a_pattern(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_noise(tmp_path / "a.wav")
    with path.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert cli.main(["transcribe", str(run), "-", str(tmp_path / "*.wav")]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in lines] == ["-", str(path)]
    assert lines[0][1] == lines[1][1]


@pytest.mark.usefixtures("fake_recogniser")
def test_what_ffmpeg_would_read_is_told_and_the_rest_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    write_noise(tmp_path / "b.wav")
    assert transcribe(Path("run"), [tmp_path]) == 1
    output = capsys.readouterr()
    assert output.out == f"{tmp_path}/b.wav\tb\n"
    assert "got m4a. Install ffmpeg, which reads it, or convert the file." in output.err


@pytest.mark.usefixtures("fake_recogniser")
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "ascii"])
def test_what_is_piped_on_is_utf8_with_lf(tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_noise(tmp_path / "été.wav")
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding=encoding, newline="\r\n"))
    assert transcribe(Path("run"), [path], ["vtt"]) == 0
    assert output.getvalue() == "WEBVTT\n\n00:00:00.100 --> 00:00:00.500\nété\n\n".encode()


@pytest.mark.usefixtures("fake_recogniser")
@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_on_a_terminal_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    files = [write_noise(tmp_path / f"{i}.wav", 0.5, i) for i in range(3)]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert transcribe(Path("run"), files) == 0
    output = capsys.readouterr()
    assert ("transcribing" in output.err) == ("\r" in output.err) == terminal
    assert [line.split("\t")[0] for line in output.out.splitlines()] == [str(path) for path in files]
    assert output.err.splitlines()[-1].startswith("3 files, 1.5 s of audio in ")
    assert transcribe(Path("run"), files[:1]) == 0
    assert "\r" not in capsys.readouterr().err


def test_order_and_text_do_not_depend_on_the_batch(recogniser: Recogniser, tmp_path: Path) -> None:
    seconds = [0.9, 0.3, 0.7, 0.2, 0.5, 0.8, 0.4, 0.6, 0.95, 0.35]
    files = [write_noise(tmp_path / f"{i}.wav", length, i) for i, length in enumerate(seconds)]
    together = list(recogniser.transcribe_files(files))
    assert [each.audio for each in together if isinstance(each, Transcript)] == files
    alone = [heard(recogniser, [noise(length, i)])[0] for i, length in enumerate(seconds)]
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Transcript)
        assert one.text == other.text
        assert [(word.start, word.end) for word in one.words] == [(word.start, word.end) for word in other.words]
    assert len({tuple(each.words) for each in alone}) > 1


@pytest.mark.parametrize(
    ("compiles", "expected"),
    [(True, [(8, 568_434), (8, 16_000), (8, 16_000)]), (False, [(8, 480_000), (8, 13), (4, 5)])],
)
def test_pieces_of_similar_length_are_batches(
    compiles: bool, expected: list[tuple[int, int]], recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only engines that compile take few shapes."""
    shapes = []
    monkeypatch.setattr(recogniser._model, "compiles", compiles)
    monkeypatch.setattr(recogniser._model, "batches_at_once", 1)

    def note(batch: np.ndarray, num_samples: np.ndarray, *, on_one_core: bool) -> tuple[np.ndarray, np.ndarray]:
        assert not on_one_core
        shapes.append(batch.shape)
        blank = np.log(np.eye(29, dtype=np.float32)[np.zeros((len(batch), 30), int)] + 1e-9)
        return blank, np.where(num_samples > 0, num_samples % 29 + 1, 0)

    monkeypatch.setattr(recogniser._model, "log_probs", note)
    monkeypatch.setattr(
        recogniser, "_decode", lambda log_probs, duration: [Hypothesis(str(len(log_probs)), (), 1.0, 0.0)]
    )
    lengths = [16_000, 30 * 16_000, *range(2, 19), 29 * 16_000]
    assert [each.text for each in heard(recogniser, [np.arange(length, dtype=np.float32) for length in lengths])] == [
        str(length % 29 + 1) for length in lengths
    ]
    assert shapes == expected
    assert list(recogniser.transcribe_blocks([])) == []


def test_warm_process_answers_an_utterance_of_about_the_same_length_without_compiling(run: Path) -> None:
    recogniser = Recogniser(run, engine="jax")
    compiled: list[str] = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(str(kwargs["fun_name"]))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        heard(recogniser, [noise(5.0)])
        assert compiled == ["jit(_log_probs)"]
        heard(recogniser, [noise(5.2, seed=1)])
        assert compiled == ["jit(_log_probs)"]
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_more_files_than_are_read_at_once(recogniser: Recogniser, tmp_path: Path) -> None:
    files = [write_noise(tmp_path / f"{i}.wav", 0.1 + 0.01 * i, i) for i in range(5)] * (EVENTS_AT_ONCE // 5)
    results = list(recogniser.transcribe_files(files))
    assert [each.audio for each in results if isinstance(each, Transcript)] == files


def test_decoding_options_decide_what_is_heard(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_noise(tmp_path / "one.wav", 0.9)
    arguments = ["transcribe", str(run), str(path), "--format", "json"]

    def heard(*options: str) -> dict[str, Any]:
        assert cli.main([*arguments, *options]) == 0
        line: dict[str, Any] = json.loads(capsys.readouterr().out)
        return line

    greedy, searched, hot = heard(), heard("--num-best", "3"), heard("--hot-word", "JAX=50")
    assert "readings" not in greedy["segments"][0]
    readings = searched["segments"][0]["readings"]
    assert len({each["text"] for each in readings}) == 3
    assert readings[0]["text"] == searched["text"]
    assert "JAX" in hot["text"].split()
    assert "JAX" not in greedy["text"].split()
