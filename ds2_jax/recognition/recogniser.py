"""A trained model that transcribes recordings of any length, without TensorFlow.

Recordings are read block by block and cut into pieces (segments.py). Pieces of similar length, of whatever recordings,
go through the model together; what it gives is put together again, in order.
"""

import concurrent.futures
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from ds2_jax.audio.reading import read_blocks
from ds2_jax.config import Config
from ds2_jax.config.frames import conv_output_lengths, count_frames
from ds2_jax.decoding.hypothesis import Hypothesis, Word
from ds2_jax.decoding.options import GREEDY, DecodingOptions
from ds2_jax.parallel.mesh import data_mesh
from ds2_jax.recognition import segments
from ds2_jax.recognition.segments import Piece
from ds2_jax.runs import run_folder
from ds2_jax.runs.fitted import run_decoder
from ds2_jax.runs.trained import TrainedModel
from ds2_jax.system.errors import InputError
from ds2_jax.text.alphabet import Alphabet

BATCH_SIZE = 8
BATCH_SECONDS = 300.0  # of audio, padding included; a longer piece is a batch of its own, or memory would not do
EVENTS_AT_ONCE = 128  # pieces and ends of recordings: sorted by length, so that little is padded
RECORDINGS_AHEAD = 16  # whose first pieces are read meanwhile


class Recording(NamedTuple):
    """Audio to transcribe.

    Attributes:
        audio: the file, or what it is called.
        blocks: one after another, [S] float32 in [-1, 1] each, of whatever sizes, at the model's sample rate. They are
            asked for when needed, from another thread; they may raise InputError at any time.
    """

    audio: Path
    blocks: Iterable[np.ndarray]


class Segment(NamedTuple):
    """A part of a recording that was decoded on its own.

    Attributes:
        start: seconds from the start of the recording.
        end: likewise.
        readings: the best first; their times are those of the recording.
    """

    start: float
    end: float
    readings: Sequence[Hypothesis]


class Transcript(NamedTuple):
    """What was recognised in a file.

    Attributes:
        audio: the file.
        duration: seconds.
        segments: one after another; none in a long recording that is silent.
    """

    audio: Path
    duration: float
    segments: Sequence[Segment]

    @property
    def text(self) -> str:
        """The best readings, joined by single spaces."""
        return " ".join(segment.readings[0].text for segment in self.segments if segment.readings[0].text)

    @property
    def words(self) -> list[Word]:
        """Of the best readings."""
        return list(itertools.chain.from_iterable(segment.readings[0].words for segment in self.segments))


class Transcriber:
    """A trained model, ready to transcribe.

    Args:
        run: folder of a training run.
        decoding: how to decode.

    Raises:
        InputError: it is no run, its checkpoint does not fit its configuration, or as `make_decoder`.
    """

    def __init__(self, run: Path, decoding: DecodingOptions = GREEDY) -> None:
        self.config: Config = run_folder.load_config(run)
        self._decode = run_decoder(self.config, run, decoding)
        self._model = TrainedModel.load(run, data_mesh(jax.local_devices()[:1]))

    def transcribe_files(self, files: Iterable[Path]) -> Iterator[Transcript | InputError]:
        """Reads and transcribes files; yields, in their order, a transcript or why a file has none."""
        sample_rate = self.config.features.sample_rate
        return self.transcribe(Recording(path, read_blocks(path, sample_rate)) for path in files)

    def transcribe(self, recordings: Iterable[Recording]) -> Iterator[Transcript | InputError]:
        """Transcribes recordings; yields, in their order, a transcript or why a recording has none."""
        decoded: list[Segment] = []
        stretch: list[_Heard] = []
        for audio, event in self._listen(recordings):
            if isinstance(event, _Heard) and event.piece.overlap:
                stretch.append(event)
                continue
            if stretch:
                decoded.append(self._segment(stretch))
            stretch = [event] if isinstance(event, _Heard) else []
            if isinstance(event, _End):
                yield event.error or Transcript(audio, event.num_samples / self.config.features.sample_rate, decoded)
                decoded = []

    def log_probs(self, recording: Recording) -> tuple[np.ndarray, float]:
        """What the model gives for a recording of any length, on one grid of frames.

        Returns:
            [T', V] float32, natural logarithms; T' as for the whole waveform. Where silence was left out, the blank
            has probability 1. And the recording's duration in seconds.

        Raises:
            InputError: the recording's own.
        """
        *heard, end = (event for _, event in self._listen([recording]))
        assert isinstance(end, _End)
        if end.error:
            raise end.error
        num_frames = count_frames(end.num_samples, self.config.features.hop_length)
        num_frames = conv_output_lengths(num_frames, self.config.model.time_reduction)
        log_probs = np.full((num_frames, self._model.alphabet.size), -np.inf, np.float32)
        log_probs[:, Alphabet.blank_index] = 0.0
        stretches: list[list[_Heard]] = []
        for each in heard:
            assert isinstance(each, _Heard)
            if not each.piece.overlap:
                stretches.append([])
            stretches[-1].append(each)
        for stretch in stretches:
            joined = segments.join(*zip(*stretch, strict=True))
            start = stretch[0].piece.start
            log_probs[start : start + len(joined)] = joined
        return log_probs, end.num_samples / self.config.features.sample_rate

    def _segment(self, stretch: "Sequence[_Heard]") -> Segment:
        """Decodes pieces that overlap as one."""
        first, last = stretch[0].piece, stretch[-1].piece
        sample_rate, seconds_per_frame = self.config.features.sample_rate, self.config.seconds_per_frame
        start = first.start * seconds_per_frame
        end = last.start * seconds_per_frame + len(last.waveform) / sample_rate
        readings = self._decode(segments.join(*zip(*stretch, strict=True)), end - start)
        return Segment(start, end, [_shifted(reading, start, end) for reading in readings])

    def _listen(self, recordings: Iterable[Recording]) -> "Iterator[tuple[Path, _Heard | _End]]":
        """Every recording's pieces, with what the model gives for them, and its end."""
        events = _read_ahead((recording.audio, _pieces(recording, self.config)) for recording in recordings)
        while group := list(itertools.islice(events, EVENTS_AT_ONCE)):
            log_probs = iter(self._run([event.waveform for _, event in group if isinstance(event, Piece)]))
            for audio, event in group:
                yield audio, _Heard(event, next(log_probs)) if isinstance(event, Piece) else event

    def _run(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Log-probabilities [T', V] float32 of waveforms [S] float32, those of similar length together."""
        sample_rate = self.config.features.sample_rate
        results: dict[int, np.ndarray] = {}
        order = sorted(range(len(waveforms)), key=lambda i: -len(waveforms[i]))
        while order:
            padded_samples = _padded_samples(len(waveforms[order[0]]), sample_rate)
            alone = len(order) == 1 or BATCH_SIZE * padded_samples > BATCH_SECONDS * sample_rate
            num_rows = 1 if alone else BATCH_SIZE  # no other numbers: every shape is compiled
            rows, order = order[:num_rows], order[num_rows:]
            batch = np.zeros((num_rows, padded_samples), np.float32)
            num_samples = np.zeros(num_rows, np.int32)
            for row, index in enumerate(rows):
                num_samples[row] = len(waveforms[index])
                batch[row, : num_samples[row]] = waveforms[index]
            log_probs, output_lengths = self._model.log_probs(batch, num_samples)
            for index, row, num_frames in zip(rows, log_probs, output_lengths, strict=False):  # empty rows come last
                results[index] = row[:num_frames]
        return [results[i] for i in range(len(waveforms))]


class _Heard(NamedTuple):
    piece: Piece
    log_probs: np.ndarray  # [T', V]


class _End(NamedTuple):
    """Of a recording: all is read, or cannot be."""

    num_samples: int
    error: InputError | None = None


def _pieces(recording: Recording, config: Config) -> Iterator[Piece | _End]:
    num_samples = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal num_samples
        for block in recording.blocks:
            num_samples += len(block)
            yield block

    try:
        yield from segments.cut(counted(), config)
    except InputError as error:
        yield _End(num_samples, error)
    else:
        yield _End(num_samples)


def _read_ahead(recordings: Iterable[tuple[Path, Iterator[Piece | _End]]]) -> Iterator[tuple[Path, Piece | _End]]:
    """Every recording's events in order; other threads read the first one of those that follow."""
    begun: deque[tuple[Path, concurrent.futures.Future[Piece | _End], Iterator[Piece | _End]]] = deque()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for following in itertools.chain(recordings, [None] * RECORDINGS_AHEAD):
            if following:
                audio, events = following
                begun.append((audio, pool.submit(next, events), events))
            if begun and (not following or len(begun) > RECORDINGS_AHEAD):
                audio, first, events = begun.popleft()
                yield audio, first.result()
                yield from ((audio, event) for event in events)


def _shifted(reading: Hypothesis, start: float, end: float) -> Hypothesis:
    """The reading as one of the recording: `start` seconds later, and no time behind `end`.

    The last output frame may reach past the end of the audio.
    """
    words = []
    for word in reading.words:
        characters = tuple(
            each._replace(start=each.start + start, end=min(each.end + start, end)) for each in word.characters
        )
        words.append(word._replace(start=word.start + start, end=min(word.end + start, end), characters=characters))
    return reading._replace(words=tuple(words))


def _padded_samples(num_samples: int, sample_rate: int) -> int:
    """The next of the lengths 1, 1.25, 1.56, ... seconds: at most a quarter of padding, few shapes to compile."""
    seconds = 1.0
    while seconds * sample_rate < num_samples:
        seconds *= 1.25
    return int(seconds * sample_rate)
