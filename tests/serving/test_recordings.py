"""Recordings that share the model thread get the texts of `transcribe`, and an error fails only its own."""

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from ds2_jax.audio.timeline import Timeline
from ds2_jax.recognition.piece_outputs import NamedBlocks
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.transcript import Segment, Transcript
from ds2_jax.serving.metrics import Metrics
from ds2_jax.serving.model_thread import LiveCommand, ModelThreads
from ds2_jax.serving.recordings import Result, make_job
from ds2_jax.serving.scheduler import READ_AHEAD, SHORT_SECONDS, Job
from ds2_jax.system.errors import InputError
from tests.serving.servers import running, talk
from tests.small_runs import RATE, noise

SECONDS = (1.0, 3.0, 3.1, 3.2, 48.0, 0.4, 90.0, 5.0)


@pytest.fixture
def thread() -> Iterator[ModelThreads]:
    thread = ModelThreads(Metrics())
    yield thread
    thread.close()


def start(
    thread: ModelThreads, recogniser: Recogniser, blocks: Iterator[np.ndarray]
) -> tuple[Job, "queue.Queue[Result]"]:
    results: queue.Queue[Result] = queue.Queue()
    job = make_job(recogniser, NamedBlocks(Path("a"), blocks, Timeline()), results.put, time.monotonic())
    thread.submit(job)
    return job, results


def rest(results: "queue.Queue[Result]") -> tuple[list[Segment], Result]:
    segments: list[Segment] = []
    while isinstance(result := results.get(timeout=60), Segment):
        segments.append(result)
    return segments, result


@pytest.mark.parametrize("name", ["recogniser", "live"])
def test_many_at_once_give_the_texts_of_transcribe(
    thread: ModelThreads, name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    recogniser: Recogniser = request.getfixturevalue(name)
    sounds = [talk(seconds, i) for i, seconds in enumerate(SECONDS)]
    batches: list[float] = []
    monkeypatch.setattr(thread._metrics.batches, "observe", batches.append)
    begun = [start(thread, recogniser, iter(np.array_split(sound, 5)))[1] for sound in sounds]
    for sound, results in zip(sounds, begun, strict=True):
        segments, transcript = rest(results)
        expected = recogniser.transcribe(sound, RATE)
        assert isinstance(transcript, Transcript)
        assert (transcript.text, transcript.duration) == (expected.text, expected.duration)
        assert [each.start for each in transcript.segments] == [each.start for each in expected.segments]
        assert " ".join(each.readings[0].text for each in segments if each.readings[0].text) == expected.text
    assert len({recogniser.transcribe(sound, RATE).text for sound in sounds}) == len(sounds)
    assert max(batches) > 1


def failing(error: Exception) -> Iterator[np.ndarray]:
    yield talk(40.0, 1)
    raise error


def test_errors_of_reading_fail_only_their_recording(thread: ModelThreads, recogniser: Recogniser) -> None:
    good = start(thread, recogniser, iter([talk(3.0, 0)]))[1]
    for error in (InputError("cut short"), ZeroDivisionError("a bug")):
        bad = start(thread, recogniser, failing(error))[1]
        assert rest(bad)[1] is error
    assert isinstance(rest(good)[1], Transcript)
    assert thread.num_waiting == 0


def test_a_piece_on_which_the_model_fails_fails_only_its_recording(
    thread: ModelThreads, recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = recogniser.piece_log_probs

    def fail_on_loud(waveforms: list[np.ndarray]) -> list[np.ndarray]:
        if any(abs(waveform).max() > 0.6 for waveform in waveforms):
            raise MemoryError
        return run(waveforms)

    monkeypatch.setattr(recogniser, "piece_log_probs", fail_on_loud)
    begun = [start(thread, recogniser, iter([scale * talk(3.0, 0)]))[1] for scale in (1.0, 1.5, 1.0)]
    kinds = [type(rest(results)[1]) for results in begun]
    assert kinds == [Transcript, MemoryError, Transcript]


def test_a_client_that_goes_away_drops_its_pieces_and_its_reading(thread: ModelThreads, recogniser: Recogniser) -> None:
    closed = []

    def endless() -> Iterator[np.ndarray]:
        try:
            for i in range(10_000):
                yield talk(40.0, i)
        finally:
            closed.append(True)

    job, results = start(thread, recogniser, endless())
    results.get(timeout=60)
    thread.cancel(job)
    deadline = time.monotonic() + 10
    while not closed or thread.num_waiting:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not job.waiting


def test_little_of_a_long_recording_is_read_ahead(thread: ModelThreads, recogniser: Recogniser) -> None:
    num_read = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal num_read
        for i in range(200):
            num_read += 1
            yield talk(20.0, i)

    recording = NamedBlocks(Path("a"), counted(), Timeline())
    job = make_job(recogniser, recording, lambda _: None, time.monotonic())
    job.reading = True
    thread._read(job)
    assert len(job.waiting) == READ_AHEAD
    assert num_read < 5 * READ_AHEAD


def test_neither_a_short_recording_nor_a_live_stream_waits_for_a_long_piece(
    thread: ModelThreads, recogniser: Recogniser, live: Recogniser, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, blocked, run = threading.Event(), threading.Event(), recogniser.piece_log_probs

    def slow(waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        if max(map(len, waveforms)) > SHORT_SECONDS * RATE:
            begun.set()
            assert blocked.wait(30)
        return run(waveforms)

    monkeypatch.setattr(recogniser, "piece_log_probs", slow)
    long, short = noise(30.0), talk(3.0, 2)
    waiting = start(thread, recogniser, iter([long]))[1]
    assert begun.wait(30)
    for _ in range(3):
        text = rest(start(thread, recogniser, iter([short]))[1])[1]
        assert isinstance(text, Transcript)
        assert text.text == recogniser.transcribe(short, RATE).text
    events: queue.Queue[object] = queue.Queue()
    stream = live.stream(RATE)
    thread.command(LiveCommand(live, stream, "feed", short, events.put))
    assert isinstance(events.get(timeout=30), list)
    assert waiting.empty()
    blocked.set()
    assert isinstance(rest(waiting)[1], Transcript)
    stream.close()


def test_a_file_that_cannot_be_read_has_the_status_of_its_error(recogniser: Recogniser, tmp_path: Path) -> None:
    audio = tmp_path / "a.txt"
    audio.write_text("no audio at all")
    with running({"whole": recogniser}, tmp_path / "uploads") as server:
        for stream in ("true", "false"):
            answer = server.post(audio, stream=stream)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unreadable_audio")
        server.wait_until_idle()
