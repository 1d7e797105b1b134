"""Streams give the same texts whatever the sizes of their parts, alone or together: those of the whole recording."""

import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

import ds2_jax
from ds2_jax.decoding.options import DecodingOptions
from ds2_jax.engines.engine import EngineName
from ds2_jax.engines.jax import JaxSteps
from ds2_jax.engines.onnx import STATISTICS, OnnxSteps
from ds2_jax.model.features import RunningSums, log_spectrogram, normalise_running
from ds2_jax.model.inference import infer, make_model, statistics_of
from ds2_jax.recognition.endpoints import Endpoints
from ds2_jax.recognition.recogniser import Recogniser
from ds2_jax.recognition.stream_parts import StepwisePart
from ds2_jax.recognition.stream_steps import StepInput, StreamSteps
from ds2_jax.recognition.streaming import Event, FinalText, PartialText, Streams
from ds2_jax.runs.model import read_variables
from ds2_jax.system.errors import InputError
from tests.small_runs import RATE, SMALL_CONFIG, noise, some_state, write_untrained_run

CONFIG = dataclasses.replace(
    SMALL_CONFIG,
    features=dataclasses.replace(SMALL_CONFIG.features, normalisation="running"),
    model=dataclasses.replace(SMALL_CONFIG.model, bidirectional=False, lookahead_context=3),
)
NO_ENDPOINTS = Endpoints(*[1e9] * 4)
SHORT = Endpoints(no_speech=0.5, pause=0.2, no_labels=0.4, longest=1.5)


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Recogniser:
    state = some_state(CONFIG)
    params = jax.tree.map(lambda leaf: 4 * leaf, state.params)  # drawn weights alone hardly depend on their input
    state = dataclasses.replace(state, params=params)
    return Recogniser(write_untrained_run(tmp_path_factory.mktemp("runs") / "live", CONFIG, state))


@pytest.fixture(scope="module")
def with_jax(recogniser: Recogniser) -> Recogniser:
    return Recogniser(path_of(recogniser), engine="jax")


def path_of(recogniser: Recogniser) -> Path:
    assert recogniser._model.path is not None
    return recogniser._model.path


def variables_of(recogniser: Recogniser) -> Any:
    return read_variables(path_of(recogniser), recogniser.config)


@pytest.fixture(scope="module")
def bidirectional(tmp_path_factory: pytest.TempPathFactory) -> Recogniser:
    return Recogniser(write_untrained_run(tmp_path_factory.mktemp("runs") / "run", SMALL_CONFIG))


def talk() -> np.ndarray:
    """Makes noise with pauses, 4.1 s."""
    pause = np.zeros(RATE // 2, np.float32)
    return np.concatenate([noise(1.2, 1), pause, noise(0.7, 2), pause, 0.3 * noise(1.2, 3)]).astype(np.float32)


def events_of(
    recogniser: Recogniser, parts: Sequence[np.ndarray], endpoints: Endpoints = SHORT, rate: int = RATE
) -> list[Event]:
    stream = recogniser.stream(rate, endpoints)
    events = [event for part in parts for event in stream.feed(part)]
    return events + stream.finish()


def finals(events: Sequence[Event]) -> list[FinalText]:
    return [event for event in events if isinstance(event, FinalText)]


@settings(max_examples=10)
@given(st.lists(st.integers(0, 4 * RATE), max_size=8), st.integers(0, 60))
def test_sizes_of_parts_make_no_difference(edges: list[int], singles: int) -> None:
    """Some parts are empty, and some are single samples."""
    recogniser = RECOGNISERS[0]
    cuts = sorted([*edges, *range(100, 100 + singles)])
    found = events_of(recogniser, np.split(talk(), cuts))
    assert found == events_of(recogniser, [talk()])
    assert len(finals(found)) >= 2


RECOGNISERS: list[Recogniser] = []


@pytest.fixture(scope="module", autouse=True)
def _shared(recogniser: Recogniser) -> None:
    RECOGNISERS.append(recogniser)


def test_without_endpoints_a_stream_is_the_whole(recogniser: Recogniser) -> None:
    waveform = talk()
    [final] = finals(events_of(recogniser, np.array_split(waveform, 9), NO_ENDPOINTS))
    model = recogniser._model
    log_probs = whole(recogniser, waveform)
    [expected] = model.decoder()(log_probs, len(waveform) / RATE)
    [reading] = final.segment.readings
    assert reading.text == expected.text
    assert [(word.text, word.start) for word in reading.words] == [(word.text, word.start) for word in expected.words]
    assert (final.segment.start, final.segment.end) == (0.0, len(waveform) / RATE)
    assert final.confidence == pytest.approx(expected.confidence, abs=1e-4)


def whole(recogniser: Recogniser, waveform: np.ndarray) -> np.ndarray:
    config = recogniser.config
    labels = recogniser._model.alphabet.size
    logits, _ = infer(
        variables_of(recogniser),
        jnp.asarray(waveform[None]),
        jnp.array([len(waveform)]),
        config=config,
        num_labels=labels,
    )
    return np.asarray(jax.nn.log_softmax(logits))[0]


@pytest.mark.parametrize("engine", get_args(EngineName))
def test_both_engines_give_the_same(engine: EngineName, recogniser: Recogniser, with_jax: Recogniser) -> None:
    own = recogniser if engine == "onnx" else with_jax
    found, expected = finals(events_of(own, [talk()])), finals(events_of(recogniser, [talk()]))
    assert len(found) >= 2
    assert [(each.text, each.time) for each in found] == [(each.text, each.time) for each in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.confidence == pytest.approx(other.confidence, abs=1e-4)
        assert [(word.start, word.end) for word in one.words] == [(word.start, word.end) for word in other.words]


@pytest.mark.parametrize("engine", get_args(EngineName))
def test_a_segment_is_one_pass_begun_with_the_statistics_of_the_stream(
    engine: EngineName, recogniser: Recogniser, with_jax: Recogniser
) -> None:
    variables = variables_of(recogniser)
    steps = (recogniser if engine == "onnx" else with_jax).streams.steps
    assert steps is not None
    first, second = noise(1.0, 1), 0.2 * noise(0.9, 2)
    slot = steps.open()
    alone = np.concatenate(passed(steps, slot, second))
    steps.close(slot)
    slot = steps.open()
    passed(steps, slot, first)
    sums = sums_of(steps, slot)
    found = np.concatenate(passed(steps, slot, second))
    config, statistics = recogniser.config, statistics_of(variables["batch_stats"])
    assert statistics is not None
    num_samples = jnp.array([len(second)])
    spectrograms, num_frames = log_spectrogram(jnp.asarray(second[None], jnp.float32), num_samples, config.features)
    mask = jnp.ones(spectrograms.shape[:2], bool)
    normalised, _ = normalise_running(spectrograms, mask, statistics, sums, config.features)
    model = make_model(config, recogniser._model.alphabet.size)
    logits: Any = model.apply(variables, normalised, num_frames)[0]
    expected = np.asarray(jax.nn.log_softmax(logits))[0, : steps.num_frames(len(second))]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.abs(alone - expected).max() > 1e-3, "the statistics must matter here"


def sums_of(steps: StreamSteps, slot: int) -> RunningSums:
    """Reads the statistics of a stream."""
    own = steps._steps
    if isinstance(own, JaxSteps):
        found: RunningSums = jax.tree.map(lambda each: each[slot : slot + 1], own._states.sums)
        return found
    assert isinstance(own, OnnxSteps)
    frames, sums, squares = (own._state[name][slot : slot + 1] for name in STATISTICS)
    pairs = (np.stack([each, np.zeros_like(each)], axis=1).astype(np.float32) for each in (sums, squares))
    return RunningSums(jnp.asarray(frames, jnp.int32), *map(jnp.asarray, pairs))


def passed(steps: StreamSteps, slot: int, waveform: np.ndarray) -> list[np.ndarray]:
    """Gives a recording to a place. Returns the log-probabilities of its frames."""
    outputs = []
    for i in range(steps.num_steps(len(waveform))):
        samples = np.zeros(steps.samples, np.float32)
        own = waveform[i * steps.samples : (i + 1) * steps.samples]
        samples[: len(own)] = own
        known = len(waveform) if (i + 1) * steps.samples >= len(waveform) else -1
        outputs.extend(steps.run([StepInput(slot, samples, known, i == 0)]))
    return [np.concatenate(outputs)[steps.delay :][: steps.num_frames(len(waveform))]]


def test_transcribing_a_file_is_streaming_it(recogniser: Recogniser, tmp_path: Path) -> None:
    waveform = np.concatenate([noise(3.0, 1), np.zeros(2 * RATE), noise(2.0, 2)]).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", waveform, RATE, "FLOAT")
    soundfile.write(tmp_path / "b.wav", waveform[: 2 * RATE], RATE, "FLOAT")
    (tmp_path / "c.wav").write_bytes(b"")
    paths = [tmp_path / name for name in ("a.wav", "b.wav", "c.wav", "a.wav")]
    results = list(recogniser.transcribe_files(paths))
    assert isinstance(results[2], InputError)
    for result, own in ((results[0], waveform), (results[1], waveform[: 2 * RATE]), (results[3], waveform)):
        assert isinstance(result, ds2_jax.Transcript)
        streamed = finals(events_of(recogniser, np.array_split(own, 5), Endpoints()))
        assert [(each.start, each.end) for each in result.segments] == [
            (final.segment.start, final.segment.end) for final in streamed
        ]
        assert [each.readings[0].text for each in result.segments] == [final.text for final in streamed]
        assert [word.start for word in result.words] == [word.start for final in streamed for word in final.words]
        assert result.duration == result.sound_seconds == len(own) / RATE


def test_streams_together_are_each_alone(recogniser: Recogniser) -> None:
    waveforms = [np.roll(talk(), 1000 * i)[: 3 * RATE - 5_000 * i] for i in range(6)]
    together = Streams(recogniser._model, recogniser._decode)
    streams = [together.open(RATE, SHORT) for _ in waveforms]
    found: dict[int, list[Event]] = {i: [] for i in range(len(streams))}
    rng = np.random.default_rng(0)
    places = [0] * len(streams)
    while any(place < len(waveform) for place, waveform in zip(places, waveforms, strict=True)):
        fed = {}
        for i in rng.permutation(len(streams))[:4].tolist():  # the others have nothing new
            size = int(rng.integers(0, 9_000))
            fed[streams[i]] = waveforms[i][places[i] : places[i] + size]
            places[i] += size
        for stream, events in together.feed(fed).items():
            found[streams.index(stream)] += events
    for stream, events in together.finish(streams).items():
        found[streams.index(stream)] += events
    for i, waveform in enumerate(waveforms):
        alone = finals(events_of(recogniser, [waveform]))
        own = finals(found[i])
        assert [(each.segment.start, each.segment.end, each.text) for each in own] == [
            (each.segment.start, each.segment.end, each.text) for each in alone
        ]


def test_more_streams_than_there_are_places(recogniser: Recogniser) -> None:
    streams = Streams(recogniser._model, recogniser._decode)
    assert streams.steps is not None
    many = [streams.open(RATE, NO_ENDPOINTS) for _ in range(streams.steps.capacity + 3)]
    first = many[0]
    first.feed(noise(0.5, 1))
    late = streams.open(RATE, NO_ENDPOINTS)
    late.feed(noise(0.5, 1))
    assert finals(first.finish()) == finals(late.finish())
    again = streams.open(RATE, NO_ENDPOINTS)  # a place that was used
    again.feed(noise(0.5, 1))
    assert finals(again.finish()) == finals(events_of(recogniser, [noise(0.5, 1)], NO_ENDPOINTS))


def test_final_text_never_changes(recogniser: Recogniser) -> None:
    for options in (DecodingOptions(), DecodingOptions(beam_width=8)):
        own = Recogniser(path_of(recogniser), options) if options.beam else recogniser
        shown = ""
        events = events_of(own, np.array_split(talk(), 60))
        assert any(isinstance(event, PartialText) for event in events)
        for event in events:
            if isinstance(event, PartialText):
                assert event.final.startswith(shown)
                shown = event.final
            else:
                assert event.text.startswith(shown)
                shown = ""


def test_endpoints(recogniser: Recogniser) -> None:
    silence = np.zeros(RATE, np.float32)
    starts = [each.segment.start for each in finals(events_of(recogniser, [talk()]))]
    assert len(starts) >= 2
    longest = finals(events_of(recogniser, [noise(4.0, 1)], dataclasses.replace(NO_ENDPOINTS, longest=0.96)))
    assert [each.segment.end - each.segment.start for each in longest[:-1]] == pytest.approx([0.96] * 4)
    assert events_of(recogniser, [silence]) == []
    with pytest.raises(InputError, match=r"^pause must be a positive number of seconds, got 0"):
        Endpoints(pause=0)


def test_a_segment_without_text_does_not_end_in_a_word(recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model writes nothing here, so the signal alone decides."""
    monkeypatch.setattr(StepwisePart, "has_text", property(lambda _: False))
    begun: list[float] = []
    begin = StepwisePart.begin

    def noted(part: StepwisePart) -> None:
        begun.append(0.0)
        begin(part)

    monkeypatch.setattr(StepwisePart, "begin", noted)
    rules = dataclasses.replace(NO_ENDPOINTS, no_speech=1.0)
    for waveform, ends in (
        (np.concatenate([noise(1.9, 1), 0.01 * noise(2.0, 2)]), True),  # speech, then a pause
        (noise(3.9, 1), False),
        (np.concatenate([0.01 * noise(0.8, 2), noise(1.2, 1)]), False),  # speech begins before the time is over
    ):
        stream = recogniser.stream(RATE, rules)
        begun.clear()
        stream.feed(waveform.astype(np.float32))
        assert bool(begun) == ends


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_other_rates_are_resampled_without_clicks(recogniser: Recogniser, rate: int) -> None:
    samples = soxr.resample(talk(), RATE, rate)
    integers = np.round(samples * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
    parts = np.array_split(integers, 77)
    found = events_of(recogniser, parts, NO_ENDPOINTS, rate)
    [final], [expected] = finals(found), finals(events_of(recogniser, [integers], NO_ENDPOINTS, rate))
    assert final == expected
    assert final.segment.end == pytest.approx(len(talk()) / RATE, abs=0.001)
    stereo = np.stack([integers, integers], 1)
    assert finals(events_of(recogniser, [stereo], NO_ENDPOINTS, rate)) == [expected]


def test_a_model_that_needs_the_whole_segment(bidirectional: Recogniser) -> None:
    waveform = talk()
    events = events_of(bidirectional, np.array_split(waveform, 11), NO_ENDPOINTS)
    [final] = finals(events)
    assert final.text == bidirectional.transcribe(waveform, RATE).text
    partial = [event for event in events if isinstance(event, PartialText)]
    assert partial
    assert not any(event.final for event in partial)
    assert finals(events_of(bidirectional, [waveform], SHORT))


def test_what_a_stream_refuses(recogniser: Recogniser) -> None:
    stream = recogniser.stream()
    assert stream.feed(np.zeros(0, np.float32)) == []
    for samples, message in (
        (np.array([0.1, np.nan], np.float32), r"^The stream must hold samples of at most 1e\+06 .*got nan at sample 1"),
        (np.array(["a"]), "^audio must hold floats or integers"),
        (np.zeros((2, 3, 4)), "^audio must have the shape"),
    ):
        with pytest.raises(InputError, match=message):
            stream.feed(samples)
    for rate in (100, 16_000.5):
        with pytest.raises(InputError, match=r"^sample_rate must be a whole number of Hz, 4000 to 768000"):
            recogniser.stream(rate)  # type: ignore[arg-type]
    stream.finish()
    assert stream.finish() == []
    with pytest.raises(InputError, match=r"^A stream must be fed before it is finished"):
        stream.feed(np.zeros(10, np.float32))


def test_two_threads_on_one_stream_are_told(recogniser: Recogniser) -> None:
    stream = recogniser.stream()
    with stream._lock:
        errors: list[str] = []

        def feed() -> None:
            try:
                stream.feed(np.zeros(10, np.float32))
            except InputError as error:
                errors.append(str(error))

        thread = threading.Thread(target=feed)
        thread.start()
        thread.join()
    assert errors == ["A stream must be used by one thread at a time, got a second one. Open more streams."]


def test_streams_of_several_threads_do_not_mix(recogniser: Recogniser) -> None:
    waveforms = [np.roll(talk(), 3000 * i) for i in range(4)]
    expected = [finals(events_of(recogniser, [waveform])) for waveform in waveforms]
    found: dict[int, list[FinalText]] = {}

    def run(i: int) -> None:
        found[i] = finals(events_of(recogniser, np.array_split(waveforms[i], 20)))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(4)] == expected
