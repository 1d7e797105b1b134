"""Recordings of any length, alone and together, and recordings that break off."""

import subprocess
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax.audio.reading import read_audio
from ds2_jax.audio.timeline import Timeline
from ds2_jax.recognition import piece_outputs, segments
from ds2_jax.recognition.piece_outputs import NamedBlocks
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.transcript import Transcript
from ds2_jax.system.errors import InputError
from tests.small_runs import RATE, SMALL_CONFIG, noise, write_noise, write_untrained_run

SECONDS_PER_FRAME = SMALL_CONFIG.seconds_per_frame


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Recogniser:
    return Recogniser(write_untrained_run(tmp_path_factory.mktemp("runs") / "run", SMALL_CONFIG))


def bursts(pause: float = 3.0) -> np.ndarray:
    """Makes loud noise of ten seconds, three times, with silence before, between and after, [S] float32."""
    silence = np.zeros(int(pause * RATE), np.float32)
    return np.concatenate([silence, *(part for i in range(3) for part in (noise(10.0, i), silence))])


def transcript(recogniser: Recogniser, waveform: np.ndarray) -> Transcript:
    [result] = recogniser.transcribe_blocks([NamedBlocks(Path("a"), np.array_split(waveform, 7), Timeline())])
    assert isinstance(result, Transcript)
    return result


def test_times_are_those_of_the_whole_recording(recogniser: Recogniser) -> None:
    whole = transcript(recogniser, bursts())
    assert whole.duration == 42.0
    assert len(whole.segments) == 3
    assert whole.text, "the drawn weights must write something for this test to show anything"
    for i, segment in enumerate(whole.segments):
        begin = 3.0 + 13.0 * i
        assert begin - 0.3 <= segment.start <= begin
        assert begin + 10 <= segment.end <= begin + 10.3
        start, end = round(segment.start * RATE), round(segment.end * RATE)
        alone = transcript(recogniser, bursts()[start:end]).segments[0].readings[0]
        [reading] = segment.readings
        assert reading.text == alone.text
        assert len(reading.words) == len(alone.words)
        for word, expected in zip(reading.words, alone.words, strict=True):
            assert word.start == pytest.approx(expected.start + segment.start)
            assert word.end == pytest.approx(expected.end + segment.start)
            assert segment.start <= word.characters[0].start == word.start <= word.end <= segment.end


def test_a_short_recording_is_one_segment_silence_and_all(recogniser: Recogniser) -> None:
    short = transcript(recogniser, bursts(1.0))
    assert [(segment.start, segment.end) for segment in short.segments] == [(0.0, 34.0)]


@pytest.mark.parametrize("seconds", [0.01, 0.5, 5.0, 34.0, 37.0])
@pytest.mark.parametrize(("offset", "rate"), [(0.0, RATE), (0.5, RATE), (-0.25, 44_100)])
def test_constant_sound_has_no_text(recogniser: Recogniser, seconds: float, offset: float, rate: int) -> None:
    samples = np.full(int(seconds * rate), offset, np.float32)
    result = recogniser.transcribe(samples, rate)
    assert (result.text, result.segments) == ("", [])
    assert result.duration == pytest.approx(seconds, abs=0.001)
    with pytest.raises(InputError, match=r"^audio must hold speech, got silence\. Give the recording of this text\.$"):
        recogniser.align(samples, "A", rate)


def test_channels_that_cancel_are_told(
    recogniser: Recogniser, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.wav"
    samples = np.random.default_rng(0).integers(-(2**14), 2**14, RATE, np.int16)
    soundfile.write(path, np.stack([samples, -samples], 1), RATE)
    assert recogniser.transcribe(path).text == ""
    assert f"{path}: the channels cancel each other in the mix" in caplog.text
    caplog.clear()
    soundfile.write(path, np.stack([noise(1.0), np.zeros(RATE)], 1), RATE)
    assert recogniser.transcribe(path).segments
    assert "cancel" not in caplog.text


@pytest.mark.usefixtures("ffmpeg")
def test_times_are_those_of_the_film(recogniser: Recogniser, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(2.0), RATE)
    picture = ["-f", "lavfi", "-i", "color=size=16x16:rate=5:duration=9"]
    sound = ["-itsoffset", "3", "-i", str(tmp_path / "a.wav"), "-c:a", "pcm_s16le"]
    film = tmp_path / "a.mkv"
    subprocess.run(["ffmpeg", "-nostdin", "-loglevel", "error", *picture, *sound, str(film)], check=True)
    alone, result = recogniser.transcribe(tmp_path / "a.wav"), recogniser.transcribe(film)
    assert (result.text, result.sound_seconds) == (alone.text, alone.duration)
    assert result.duration == pytest.approx(9, abs=0.2)
    assert [word.start for word in result.words] == pytest.approx([word.start + 3 for word in alone.words], abs=0.002)
    assert [word.end for word in result.words] == pytest.approx([word.end + 3 for word in alone.words], abs=0.002)
    assert result.words[0].characters[0].start == result.words[0].start
    assert (result.segments[0].start, result.segments[0].end) == pytest.approx((3, 5), abs=0.002)
    aligned = recogniser.align(film, "A")
    assert aligned.words[0].start == pytest.approx(
        recogniser.align(tmp_path / "a.wav", "A").words[0].start + 3, abs=0.002
    )


def test_log_probabilities_of_the_whole_lie_on_one_grid(recogniser: Recogniser) -> None:
    waveform = bursts()[: 42 * RATE - 700]
    log_probs = recogniser.log_probs(waveform, RATE)
    assert log_probs.shape == (1049, 29)  # frames of 40 ms: ceil((1 + 671_300 // 160) / 4)
    np.testing.assert_allclose(np.logaddexp.reduce(log_probs, axis=1), 0, atol=1e-5)
    silent = np.r_[:60, 335:385, 1020:1049]
    assert (log_probs[silent, 0] == 0).all()
    for segment in transcript(recogniser, waveform).segments:
        start, end = round(segment.start * RATE), round(segment.end * RATE)
        alone = recogniser.log_probs(waveform[start:end], RATE)
        first = round(segment.start / SECONDS_PER_FRAME)
        np.testing.assert_allclose(log_probs[first : first + len(alone)], alone, atol=1e-4)


def test_overlapping_pieces_are_one_segment(recogniser: Recogniser) -> None:
    waveform = noise(60.0)
    [segment] = transcript(recogniser, waveform).segments
    assert (segment.start, segment.end) == (0.0, 60.0)
    log_probs = recogniser.log_probs(waveform, RATE)
    assert len(log_probs) == 1501
    assert segment.readings[0].score == pytest.approx(float(log_probs.max(1).sum()), rel=1e-5)


def test_silence_has_no_segments(recogniser: Recogniser) -> None:
    silent = transcript(recogniser, np.zeros(100 * RATE, np.float32))
    assert (silent.text, silent.words, silent.segments, silent.duration) == ("", [], [], 100.0)
    log_probs = recogniser.log_probs(np.zeros(100 * RATE, np.float32), RATE)
    assert (log_probs[:, 0] == 0).all()


def test_long_among_short_and_broken_ones_in_order(recogniser: Recogniser, tmp_path: Path) -> None:
    files = [write_noise(tmp_path / f"{i}.wav", 0.5, i) for i in range(20)]
    soundfile.write(tmp_path / "long.flac", bursts(), RATE)
    files[3:3] = [tmp_path / "long.flac"]
    soundfile.write(tmp_path / "cut.flac", noise(120.0), RATE)
    data = (tmp_path / "cut.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(data[: len(data) // 2])
    files[9:9] = [tmp_path / "cut.flac", tmp_path / "missing.wav"]
    results = list(recogniser.transcribe_files(files))
    assert len(results) == len(files)
    for path, result in zip(files, results, strict=True):
        if path.name in ("cut.flac", "missing.wav"):
            assert isinstance(result, InputError)
            assert str(result).startswith(f"{path} must ")
        else:
            assert isinstance(result, Transcript)
            assert result.audio == path
            assert result.text == transcript(recogniser, read_audio(path, RATE)).text
    with pytest.raises(InputError, match="must decode to its end"):
        recogniser.log_probs(tmp_path / "cut.flac")


def test_a_long_recording_is_never_in_memory_as_a_whole(
    recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        piece_outputs,
        "log_probs_of",
        lambda _, waveforms: [np.zeros((len(x) // 640 + 1, 29), np.float32) for x in waveforms],
    )
    monkeypatch.setattr(piece_outputs, "EVENTS_AT_ONCE", 8)

    def blocks() -> Iterator[np.ndarray]:
        for i in range(100):
            yield bursts(1.0) if i % 2 else noise(34.0)

    tracemalloc.start()
    [result] = recogniser.transcribe_blocks([NamedBlocks(Path("a"), blocks(), Timeline())])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(result, Transcript)
    assert result.duration == 3400.0
    assert peak < 3400 * RATE * 4 / 3
    assert peak > segments.LONGEST * RATE * 4 * 8


@pytest.mark.parametrize("number", [8, 9, 23, 31])
def test_batches_that_run_at_once_are_those_of_one_after_the_other(
    recogniser: Recogniser, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[tuple[int, bool]] = []
    model = recogniser._model
    run = model.log_probs

    def noted(*arguments: np.ndarray, on_one_core: bool) -> tuple[np.ndarray, np.ndarray]:
        threads.append((threading.get_ident(), on_one_core))
        return run(*arguments, on_one_core=on_one_core)

    monkeypatch.setattr(model, "log_probs", noted)
    waveforms = [noise(0.1 + 0.05 * (7 * i % number), i) for i in range(number)]
    found = []
    for at_once in (1, 3):
        monkeypatch.setattr(model, "batches_at_once", at_once)
        found.append(recogniser.piece_log_probs(waveforms))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)  # the number of threads decides the order of sums
    num_batches = -(-number // piece_outputs.BATCH_SIZE)
    here = threading.get_ident(), False
    assert threads[:num_batches] == [here] * num_batches
    later = threads[num_batches:]
    assert len(later) == num_batches
    assert all(on_one_core for _, on_one_core in later) if num_batches >= 3 else later == [here] * num_batches
