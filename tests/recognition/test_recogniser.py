"""Recordings of any length, in any company, and what one that breaks off does."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ds2_jax.audio.reading import read_audio, read_blocks
from ds2_jax.recognition import segments
from ds2_jax.recognition.recogniser import Recording, Transcriber, Transcript
from ds2_jax.system.errors import InputError
from tests.small_runs import RATE, SMALL_CONFIG, noise, write_noise, write_untrained_run

SECONDS_PER_FRAME = SMALL_CONFIG.seconds_per_frame


@pytest.fixture(scope="module")
def transcriber(tmp_path_factory: pytest.TempPathFactory) -> Transcriber:
    return Transcriber(write_untrained_run(tmp_path_factory.mktemp("runs") / "run", SMALL_CONFIG))


def bursts(pause: float = 3.0) -> np.ndarray:
    """Three times ten seconds of loud noise, with silence before, between and behind, [S] float32."""
    silence = np.zeros(int(pause * RATE), np.float32)
    return np.concatenate([silence, *(part for i in range(3) for part in (noise(10.0, i), silence))])


def transcript(transcriber: Transcriber, waveform: np.ndarray) -> Transcript:
    [result] = transcriber.transcribe([Recording(Path("a"), np.array_split(waveform, 7))])
    assert isinstance(result, Transcript)
    return result


def test_times_are_those_of_the_whole_recording(transcriber: Transcriber) -> None:
    whole = transcript(transcriber, bursts())
    assert whole.duration == 42.0
    assert len(whole.segments) == 3
    assert whole.text, "the drawn weights must write something for this test to show anything"
    for i, segment in enumerate(whole.segments):
        begin = 3.0 + 13.0 * i
        assert begin - 0.3 <= segment.start <= begin
        assert begin + 10 <= segment.end <= begin + 10.3
        start, end = round(segment.start * RATE), round(segment.end * RATE)
        alone = transcript(transcriber, bursts()[start:end]).segments[0].readings[0]
        [reading] = segment.readings
        assert reading.text == alone.text
        assert len(reading.words) == len(alone.words)
        for word, expected in zip(reading.words, alone.words, strict=True):
            assert word.start == pytest.approx(expected.start + segment.start)
            assert word.end == pytest.approx(expected.end + segment.start)
            assert segment.start <= word.characters[0].start == word.start <= word.end <= segment.end


def test_a_short_recording_is_one_segment_silence_and_all(transcriber: Transcriber) -> None:
    short = transcript(transcriber, bursts(1.0))
    assert [(segment.start, segment.end) for segment in short.segments] == [(0.0, 34.0)]


def test_log_probabilities_of_the_whole_lie_on_one_grid(transcriber: Transcriber) -> None:
    waveform = bursts()[: 42 * RATE - 700]
    log_probs, duration = transcriber.log_probs(Recording(Path("a"), [waveform]))
    assert duration == len(waveform) / RATE
    assert log_probs.shape == (1049, 29)  # frames of 40 ms: ceil((1 + 671_300 // 160) / 4)
    np.testing.assert_allclose(np.logaddexp.reduce(log_probs, axis=1), 0, atol=1e-5)
    silent = np.r_[:60, 335:385, 1020:1049]
    assert (log_probs[silent, 0] == 0).all()
    for segment in transcript(transcriber, waveform).segments:
        start, end = round(segment.start * RATE), round(segment.end * RATE)
        alone, _ = transcriber.log_probs(Recording(Path("a"), [waveform[start:end]]))
        first = round(segment.start / SECONDS_PER_FRAME)
        np.testing.assert_allclose(log_probs[first : first + len(alone)], alone, atol=1e-4)


def test_overlapping_pieces_are_one_segment(transcriber: Transcriber) -> None:
    waveform = noise(60.0)
    [segment] = transcript(transcriber, waveform).segments
    assert (segment.start, segment.end) == (0.0, 60.0)
    log_probs, _ = transcriber.log_probs(Recording(Path("a"), [waveform]))
    assert len(log_probs) == 1501
    assert segment.readings[0].score == pytest.approx(float(log_probs.max(1).sum()), rel=1e-5)


def test_silence_has_no_segments(transcriber: Transcriber) -> None:
    silent = transcript(transcriber, np.zeros(100 * RATE, np.float32))
    assert (silent.text, silent.words, silent.segments, silent.duration) == ("", [], [], 100.0)
    log_probs, _ = transcriber.log_probs(Recording(Path("a"), [np.zeros(100 * RATE, np.float32)]))
    assert (log_probs[:, 0] == 0).all()


def test_long_among_short_and_broken_ones_in_order(transcriber: Transcriber, tmp_path: Path) -> None:
    files = [write_noise(tmp_path / f"{i}.wav", 0.5, i) for i in range(20)]
    soundfile.write(tmp_path / "long.flac", bursts(), RATE)
    files[3:3] = [tmp_path / "long.flac"]
    soundfile.write(tmp_path / "cut.flac", noise(120.0), RATE)
    data = (tmp_path / "cut.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(data[: len(data) // 2])
    files[9:9] = [tmp_path / "cut.flac", tmp_path / "missing.wav"]
    results = list(transcriber.transcribe_files(files))
    assert len(results) == len(files)
    for path, result in zip(files, results, strict=True):
        if path.name in ("cut.flac", "missing.wav"):
            assert isinstance(result, InputError)
            assert str(result).startswith(f"{path} must ")
        else:
            assert isinstance(result, Transcript)
            assert result.audio == path
            assert result.text == transcript(transcriber, read_audio(path, RATE)).text
    with pytest.raises(InputError, match="must decode to its end"):
        transcriber.log_probs(Recording(Path("a"), read_blocks(tmp_path / "cut.flac", RATE)))


def test_a_long_recording_is_never_in_memory_as_a_whole(
    transcriber: Transcriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        transcriber, "_run", lambda waveforms: [np.zeros((len(each) // 640 + 1, 29), np.float32) for each in waveforms]
    )
    monkeypatch.setattr("ds2_jax.recognition.recogniser.EVENTS_AT_ONCE", 8)

    def blocks() -> Iterator[np.ndarray]:
        for i in range(100):
            yield bursts(1.0) if i % 2 else noise(34.0)

    tracemalloc.start()
    [result] = transcriber.transcribe([Recording(Path("a"), blocks())])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(result, Transcript)
    assert result.duration == 3400.0
    assert peak < 3400 * RATE * 4 / 3
    assert peak > segments.LONGEST * RATE * 4 * 8
