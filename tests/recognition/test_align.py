"""Alignment of a known text with its recording."""

import io
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from ds2_jax import cli
from ds2_jax.decoding.calibration import Calibration
from ds2_jax.recognition import align as align_lib
from ds2_jax.recognition.piece_outputs import NamedBlocks
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.runs.fitted import write_calibration
from ds2_jax.system import compilation
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet
from tests.small_runs import RATE, SMALL_CONFIG, write_noise, write_untrained_run

ALPHABET = Alphabet.of(SMALL_CONFIG.data)
FRAME = SMALL_CONFIG.seconds_per_frame


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_run(tmp_path_factory.mktemp("runs") / "run", SMALL_CONFIG)


@pytest.fixture(scope="module")
def audio(run: Path) -> Path:
    return write_noise(run.parent / "said.wav", seconds=1.0)


@pytest.fixture(scope="module")
def recogniser(run: Path) -> Recogniser:
    return Recogniser(run)


def aligned(*words: object, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["align", *map(str, words)]) == 0
    return capsys.readouterr().out


@pytest.fixture
def loaded(recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the command a model that is loaded and compiled."""
    monkeypatch.setattr(align_lib, "Recogniser", lambda run, engine: recogniser)
    monkeypatch.setattr(compilation, "enable_cache", lambda: None)  # a change of settings compiles again


def test_every_word_and_character_has_its_time(run: Path, audio: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = json.loads(aligned(run, audio, "go  left", capsys=capsys))
    assert (line["audio"], line["duration"], line["text"]) == (str(audio), 1.0, "GO LEFT")
    assert [word["word"] for word in line["words"]] == ["GO", "LEFT"]
    times = [time for word in line["words"] for _, *span in word["characters"] for time in span]
    assert times == sorted(times)
    assert 0 <= times[0] < times[-1] <= 1.0
    assert all(0 <= word["confidence"] <= 1 for word in line["words"])


@pytest.mark.usefixtures("loaded")
def test_text_may_be_a_file(run: Path, audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("said.txt", "B.TXT", "said", "said.lab"):
        path = tmp_path / name
        path.write_text("\ufeffGo\nleft\n", encoding="utf-8")
        assert aligned(run, audio, path, capsys=capsys) == aligned(run, audio, "GO LEFT", capsys=capsys)


@pytest.mark.usefixtures("loaded")
def test_punctuation_can_be_ignored(run: Path, audio: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "\u201cGo\u201d, left! It\u2019s well\u2014known \u2026"
    assert cli.main(["align", str(run), str(audio), text]) == 1
    assert "Leave them out, or ignore them: --ignore-punctuation." in capsys.readouterr().err
    expected = aligned(run, audio, "GO LEFT IT'S WELL KNOWN", capsys=capsys)
    assert aligned(run, audio, text, "--ignore-punctuation", capsys=capsys) == expected
    assert cli.main(["align", str(run), str(audio), "Go 7 %!", "--ignore-punctuation"]) == 1
    assert "got ['%', '7'] in 'Go 7 %!'. Spell them out" in capsys.readouterr().err


@pytest.mark.parametrize(("probability", "warned"), [(0.09, True), (0.11, False)])
def test_a_text_that_hardly_fits_is_reported(
    probability: float,
    warned: bool,
    recogniser: Recogniser,
    audio: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    g, o = ALPHABET.encode("GO")
    probs = np.full((9, ALPHABET.size), 0.001, np.float32)
    probs[:, 0] = 1 - 0.001 * (ALPHABET.size - 1)
    for frame, label in ((3, g), (6, o)):
        probs[frame, [0, label]] = [1 - 0.001 * (ALPHABET.size - 2) - probability, probability]
    monkeypatch.setattr(recogniser, "_log_probs", lambda recording: (np.log(probs), 1.0))
    monkeypatch.setattr(align_lib, "Recogniser", lambda run, engine: recogniser)
    assert align_lib.print_alignment(Path(), audio, "go", "json", ignore_punctuation=False) == 0
    printed = capsys.readouterr()
    assert f'"confidence": {probability}' in printed.out
    assert printed.err.startswith(f"warning: {audio}: the text may not be what is said") is warned
    assert ("its mean confidence is 0.0900 a character" in printed.err) is warned


@pytest.mark.usefixtures("loaded")
def test_formats_are_those_of_transcribe(run: Path, audio: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = aligned(run, audio, "GO LEFT", "--format", "ctm", capsys=capsys).splitlines()
    assert [line.split()[4] for line in lines] == ["GO", "LEFT"]
    assert aligned(run, audio, "GO LEFT", "--format", "vtt", capsys=capsys).startswith("WEBVTT\n")


def test_calibration_moves_the_times_alone(run: Path, audio: Path, recogniser: Recogniser) -> None:
    before = recogniser.align(audio, "GO LEFT")
    write_calibration(run, Calibration(1.0, -0.01, 0.0))
    after = Recogniser(run).align(audio, "GO LEFT")
    (run / "calibration.json").unlink()
    assert after.text == before.text
    starts = [np.array([word.start for word in each.words]) for each in (before, after)]
    np.testing.assert_allclose(starts[1], np.maximum(starts[0] - 0.01, 0))
    assert starts[0][1] > 0.01


def test_planted_letters_are_found_to_the_frame(
    recogniser: Recogniser, audio: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    g, o, space, n = ALPHABET.encode("GO N")
    path = [0, 0, g, g, 0, o, 0, space, 0, n, n, n, o, 0, 0]
    probs = np.full((len(path), ALPHABET.size), 0.1 / (ALPHABET.size - 1), np.float32)
    probs[np.arange(len(path)), path] = 0.9

    def heard(recording: NamedBlocks) -> tuple[np.ndarray, float]:
        assert sum(map(len, recording.blocks)) == RATE
        return np.log(probs), 1.0

    monkeypatch.setattr(recogniser, "_log_probs", heard)
    transcript = recogniser.align(audio, "go no")
    frames = [
        (each.text, round(each.start / FRAME), round(each.end / FRAME))
        for word in transcript.words
        for each in word.characters
    ]
    assert frames == [("G", 2, 4), ("O", 5, 6), ("N", 9, 12), ("O", 12, 13)]
    np.testing.assert_allclose([word.confidence for word in transcript.words], 0.9, rtol=1e-5)
    assert transcript.confidence == pytest.approx(0.9)


@pytest.mark.usefixtures("loaded")
def test_what_is_piped_on_is_utf8_with_lf(
    run: Path, audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = Path(shutil.copy(audio, tmp_path / "été.wav"))
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, encoding="ascii", newline="\r\n"))
    assert cli.main(["align", str(run), str(named), "go", "--format", "ctm"]) == 0
    assert output.getvalue().startswith("été 1 ".encode())
    assert output.getvalue().endswith(b"\n")
    assert b"\r" not in output.getvalue()


def fails(recogniser: Recogniser, audio: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        recogniser.align(audio, text)


def test_text_that_cannot_be_aligned_is_refused(recogniser: Recogniser, audio: Path) -> None:
    fails(recogniser, audio, " \n", "TEXT must hold at least one word, got ' \\n'. Give what is said.")
    fails(
        recogniser,
        audio,
        "Go 7!",
        f"TEXT must use the model's alphabet {ALPHABET.characters!r}, got ['!', '7'] in 'Go 7!'. "
        "Spell them out or leave them out.",
    )
    fails(
        recogniser,
        audio,
        "NONE " * 20,
        f"{audio}: A text of 99 labels must have at least 99 output frames, got 26. "
        "Give the text of this recording, or the whole recording.",
    )


def test_missing_files_are_named(run: Path, audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["align", str(run), str(tmp_path / "no.wav"), "GO"]) == 1
    assert f"error: {tmp_path}/no.wav must be a readable file, got: No such file" in capsys.readouterr().err
    assert cli.main(["align", str(run), str(audio), str(tmp_path / "no.txt")]) == 1
    assert f"error: {tmp_path}/no.txt must be a readable file, got: No such file" in capsys.readouterr().err
