"""A trained model that transcribes, without TensorFlow."""

import concurrent.futures
import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ds2_jax import parallel, steps
from ds2_jax import run as run_lib
from ds2_jax.alphabet import Alphabet
from ds2_jax.audio import audio_duration, read_audio
from ds2_jax.checkpoint import load_variables
from ds2_jax.compilation import compiler_options
from ds2_jax.config import Config
from ds2_jax.decoding.decoder import make_decoder
from ds2_jax.decoding.hypothesis import Hypothesis, Word
from ds2_jax.errors import InputError, shorten

BATCH_SIZE = 8
BATCH_SECONDS = 300.0  # of audio, padding included; a longer recording is a batch of its own, or memory would not do
FILES_AT_ONCE, SECONDS_AT_ONCE = 64, 3600.0  # read together and sorted by length, so that little is padded


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
        segments: one after another.
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

    Raises:
        InputError: it is no run, or its checkpoint does not fit its configuration.
    """

    def __init__(self, run: Path) -> None:
        self.config: Config = run_lib.load_config(run)
        self._decode = make_decoder(self.config, run)
        mesh = parallel.data_mesh(jax.local_devices()[:1])
        self._variables = load_variables(run, self.config, mesh)
        self._alphabet = Alphabet.of(self.config.data)
        log_probs = functools.partial(_log_probs, config=self.config, num_labels=self._alphabet.size)
        self._log_probs = jax.jit(log_probs, compiler_options=compiler_options())

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[list[Hypothesis]]:
        """Transcribes waveforms, those of similar length together.

        Args:
            waveforms: any number, each [S] float32 in [-1, 1], at the model's sample rate.

        Returns:
            The readings of each, the best first, in the order of the waveforms.
        """
        sample_rate = self.config.features.sample_rate
        results: dict[int, list[Hypothesis]] = {}
        order = sorted(range(len(waveforms)), key=lambda i: -len(waveforms[i]))
        while order:
            padded_samples = _padded_samples(len(waveforms[order[0]]), sample_rate)
            alone = len(order) == 1 or BATCH_SIZE * padded_samples > BATCH_SECONDS * sample_rate
            num_rows = 1 if alone else BATCH_SIZE  # no other numbers: every shape is compiled
            rows, order = order[:num_rows], order[num_rows:]
            for index, log_probs in zip(
                rows, self._outputs([waveforms[i] for i in rows], num_rows, padded_samples), strict=True
            ):
                duration = len(waveforms[index]) / sample_rate
                results[index] = [_until(duration, reading) for reading in self._decode(log_probs)]
        return [results[i] for i in range(len(waveforms))]

    def _outputs(self, waveforms: Sequence[np.ndarray], num_rows: int, padded_samples: int) -> list[np.ndarray]:
        """[T', V] float32 log-probabilities of each waveform, in a batch of `num_rows` by `padded_samples`."""
        batch = np.zeros((num_rows, padded_samples), np.float32)
        num_samples = np.zeros(num_rows, np.int32)
        for row, waveform in enumerate(waveforms):
            num_samples[row] = len(waveform)
            batch[row, : len(waveform)] = waveform
        log_probs, output_lengths = map(np.asarray, self._log_probs(self._variables, batch, num_samples))
        return [log_probs[row, : output_lengths[row]] for row in range(len(waveforms))]

    def align(self, audio: Path, text: str) -> Transcript:
        """Finds when each word of a known text is said.

        Args:
            audio: the file.
            text: what is said in it.

        Raises:
            InputError: the audio cannot be read; the text is empty, has characters outside the alphabet, or cannot be
                aligned with the recording.
        """
        from ds2_jax.decoding.align import align  # Numba comes with it, which greedy decoding does without

        if not self._alphabet.normalise(text):
            raise InputError(f"TEXT must hold at least one word, got {shorten(repr(text))}. Give what is said.")
        if unknown := self._alphabet.unknown(text):
            raise InputError(
                f"TEXT must use the model's alphabet {self._alphabet.characters!r}, got {unknown} in "
                f"{shorten(repr(text))}. Write out or leave out what has no letter of it."
            )
        waveform = read_audio(audio, self.config.features.sample_rate)
        duration = len(waveform) / self.config.features.sample_rate
        [log_probs] = self._outputs([waveform], 1, _padded_samples(len(waveform), self.config.features.sample_rate))
        try:
            spans = align(log_probs, self._alphabet.encode(text))
        except InputError as error:
            raise InputError(f"{audio}: {error}") from error
        reading = _until(duration, self._decode.hypothesis(spans, log_probs))
        return Transcript(audio, duration, [Segment(0.0, duration, [reading])])

    def transcribe_files(self, files: Sequence[Path]) -> Iterator[Transcript | InputError]:
        """Reads and transcribes files; yields, in their order, a transcript or why a file has none."""
        sample_rate = self.config.features.sample_rate
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for paths in _groups(files):
                audio = list(pool.map(lambda path: _read(path, sample_rate), paths))
                readable = [waveform for waveform in audio if isinstance(waveform, np.ndarray)]
                transcribed = iter(self.transcribe(readable))
                for path, waveform in zip(paths, audio, strict=True):
                    if isinstance(waveform, InputError):
                        yield waveform
                    else:
                        duration = len(waveform) / sample_rate
                        yield Transcript(path, duration, [Segment(0.0, duration, next(transcribed))])


def _groups(files: Sequence[Path]) -> Iterator[list[Path]]:
    """The files in their order, in groups that are read together."""
    group: list[Path] = []
    seconds = 0.0
    for path in files:
        try:
            duration = audio_duration(path)
        except InputError:  # told where it is read
            duration = 0.0
        if group and (len(group) == FILES_AT_ONCE or seconds + duration > SECONDS_AT_ONCE):
            yield group
            group, seconds = [], 0.0
        group.append(path)
        seconds += duration
    yield group


def _log_probs(
    variables: Any, waveforms: jax.Array, num_samples: jax.Array, *, config: Config, num_labels: int
) -> tuple[jax.Array, jax.Array]:
    logits, output_lengths = steps.infer(variables, waveforms, num_samples, config=config, num_labels=num_labels)
    return jax.nn.log_softmax(logits), output_lengths


def _until(duration: float, reading: Hypothesis) -> Hypothesis:
    """The reading with no time behind the end of the recording, past which the last output frame may reach."""
    words = []
    for word in reading.words:
        characters = tuple(each._replace(end=min(each.end, duration)) for each in word.characters)
        words.append(word._replace(end=min(word.end, duration), characters=characters))
    return reading._replace(words=tuple(words))


def _read(path: Path, sample_rate: int) -> np.ndarray | InputError:
    try:
        return read_audio(path, sample_rate)
    except InputError as error:
        return error


def _padded_samples(num_samples: int, sample_rate: int) -> int:
    """The next of the lengths 1, 1.25, 1.56, ... seconds: at most a quarter of padding, few shapes to compile."""
    seconds = 1.0
    while seconds * sample_rate < num_samples:
        seconds *= 1.25
    return int(seconds * sample_rate)
