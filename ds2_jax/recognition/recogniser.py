"""Recognises recordings of any length with a trained model, without TensorFlow."""

import dataclasses
import functools
import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ds2_jax.audio.arrays import array_blocks
from ds2_jax.audio.reading import read_blocks
from ds2_jax.audio.timeline import Timeline
from ds2_jax.audio.waveform import MAX_RATE, MIN_RATE
from ds2_jax.config import Config
from ds2_jax.config.frames import conv_output_lengths, count_frames
from ds2_jax.decoding.decoder import Decoder
from ds2_jax.decoding.hypothesis import Hypothesis
from ds2_jax.decoding.options import GREEDY, Combination, DecodingOptions
from ds2_jax.engines.engine import EngineName
from ds2_jax.recognition.assembly import Assembly, make_transcript
from ds2_jax.recognition.endpoints import ENDPOINTS, Endpoints
from ds2_jax.recognition.piece_outputs import End, NamedBlocks, PieceOutput, join, log_probs_of, piece_outputs
from ds2_jax.recognition.streaming import FinalText, Stream, Streams
from ds2_jax.recognition.transcript import Segment, Transcript
from ds2_jax.runs.ensembles import open_models
from ds2_jax.runs.named import find_model
from ds2_jax.system import packages
from ds2_jax.system.checks import require
from ds2_jax.system.errors import InputError, shorten
from ds2_jax.text.alphabet import Alphabet, is_punctuation

RECORDINGS_AT_ONCE = 16
"""Recordings that a model that can stream recognises together."""

Audio = str | Path | np.ndarray
"""A file, or samples [S] or [S, C]: floats in [-1, 1], or integers over the full range of their type."""


def load(
    run: str | Path,
    *,
    lm: str | Path | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    hot_words: Mapping[str, float] | None = None,
    num_best: int = 1,
    beam_width: int | None = None,
    engine: EngineName | None = None,
    others: Sequence[str | Path] = (),
    combine: Combination = "rover",
) -> "Recogniser":
    """Opens a trained model for recognition.

    The model decodes with beam search if you give `lm`, `hot_words`, `beam_width` or `num_best` above 1, otherwise
    greedily.

    Args:
        run: the folder of a training run, or a folder or file that `export` wrote.
        lm: an n-gram language model: an ARPA file, plain or gzipped, or a KenLM binary.
        alpha: the weight of the language model's log-probabilities; by default the value that `lm tune` found for this
            run and language model, else 0.5.
        beta: nats added for each word, with the same defaults.
        hot_words: words or phrases to favour, and the nats added for each.
        num_best: the number of readings for each segment.
        beam_width: the number of prefixes that beam search keeps; by default 128.
        engine: "onnx" for ONNX Runtime, the fastest on a CPU, or "jax"; by default "jax" if JAX can use an accelerator,
            otherwise "onnx".
        others: other models of the same alphabet, which recognise together with the first.
        combine: "rover" lets each decode alone and vote for words with its confidences. "average" decodes the mean of
            their log-probabilities in each frame.

    Returns:
        A recogniser. You can use it many times, and from several threads.

    Raises:
        InputError: the folder is not a run, its checkpoint is missing or damaged, the language model cannot be read, or
            an option is out of range.

    Example:
        >>> recogniser = ds2_jax.load("runs/an4_cpu", hot_words={"RUBOUT": 3.0}, num_best=2)
        >>> transcript = recogniser.transcribe("talk.wav")
        >>> readings = [reading.text for reading in transcript.segments[0].readings]
    """
    require(isinstance(hot_words, Mapping | None), "hot_words", "map words to nats, as {'RUBOUT': 3.0} does", hot_words)
    boosts = tuple(f"{word}={boost}" for word, boost in (hot_words or {}).items())
    options = DecodingOptions(
        None if lm is None else Path(lm), alpha, beta, hot_word=boosts, num_best=num_best, beam_width=beam_width
    )
    return Recogniser(Path(run), options, engine, list(map(Path, others)), combine)


class Recogniser:
    """A trained model, ready to recognise speech.

    You can call its methods from several threads at once.

    Args:
        run: the folder of a training run, or a folder or file that `export` wrote.
        decoding: the decoding options.
        engine: what runs the model; see `load`.
        others: other models; see `load`.
        combine: how they recognise together; see `load`.

    Raises:
        InputError: see `load`.
    """

    @packages.explained()
    def __init__(
        self,
        run: Path,
        decoding: DecodingOptions = GREEDY,
        engine: EngineName | None = None,
        others: Sequence[Path] = (),
        combine: Combination = "rover",
    ) -> None:
        self._model = open_models(find_model(run), others, engine, combine)
        self.config: Config = self._model.config
        self._decoding_options = decoding
        self._decode = self._model.decoder(decoding)
        self._decoding = threading.Lock()  # language models keep state between frames

    def transcribe(self, audio: Audio, sample_rate: int | None = None) -> Transcript:
        """Recognises a recording of any length.

        Args:
            audio: a file, or an array of samples.
            sample_rate: sample rate of an array in Hz; leave it out for a file.

        Returns:
            The text, the words with times and confidences, and the segments that were decoded separately.

        Raises:
            InputError: the audio cannot be read, the array has a wrong shape or type, its sample rate is missing, or a
                sample rate is given for a file.

        Example:
            >>> recogniser = ds2_jax.load("runs/an4_cpu")
            >>> transcript = recogniser.transcribe("talk.wav")
            >>> transcript.duration
            1.5
            >>> times = [(word.text, word.start, word.end, word.confidence) for word in transcript.words]
            >>> samples = np.zeros((44_100, 2), np.int16)  # a second of stereo
            >>> recogniser.transcribe(samples, sample_rate=44_100).duration
            1.0
        """
        [result] = self.transcribe_blocks([self._named_blocks(audio, sample_rate)])
        if isinstance(result, InputError):
            raise result
        return result

    def transcribe_files(self, files: Iterable[str | Path]) -> Iterator[Transcript | InputError]:
        """Recognises many files, short ones in batches; yields a transcript or an error for each, in order."""
        return self.transcribe_blocks(self._named_blocks(path, None) for path in files)

    def transcribe_blocks(self, recordings: Iterable[NamedBlocks]) -> Iterator[Transcript | InputError]:
        """Recognises recordings that come in blocks; yields a transcript or an error for each, in order."""
        if self.streams.steps:
            yield from self._transcribe_streams(recordings)
            return
        assembly = None
        for recording, event in piece_outputs(self._model, recordings):
            assembly = assembly or Assembly(recording, self.config, self.decode_segment)
            assembly.add(event)
            if isinstance(event, End):
                yield event.error or assembly.transcript(event)
                assembly = None

    def stream(self, sample_rate: int | None = None, endpoints: Endpoints = ENDPOINTS) -> Stream:
        """Opens a stream that is recognised while its samples come.

        Any model can do it. One that runs forward only, with running or global normalisation, computes each sample
        once; another recognises the open segment again as it grows.

        Args:
            sample_rate: sample rate of the samples to come, in Hz; by default the model's.
            endpoints: when a segment ends.

        Raises:
            InputError: the sample rate is out of range.

        Example:
            >>> stream = ds2_jax.load("runs/an4_cpu").stream(sample_rate=44_100)
            >>> for block in np.split(np.zeros(44_100, np.int16), 10):  # as a microphone gives it
            ...     for event in stream.feed(block):
            ...         print(event)
            >>> rest = stream.finish()
        """
        rate = self.config.features.sample_rate if sample_rate is None else sample_rate
        rule = f"be a whole number of Hz, {MIN_RATE} to {MAX_RATE}"
        require(MIN_RATE <= rate <= MAX_RATE and int(rate) == rate, "sample_rate", rule, rate)
        return self.streams.open(int(rate), endpoints)

    @property
    def compiles(self) -> bool:
        """Whether each new shape takes a compilation; see `engines.engine.Engine`."""
        return self._model.compiles

    @functools.cached_property
    def streams(self) -> Streams:
        """The streams of this model, for a caller that feeds many of them together."""
        return Streams(self._model, self._decode)

    def piece_log_probs(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs the model on pieces of recordings; see `log_probs_of`."""
        return log_probs_of(self._model, waveforms)

    def decoder(self, hot_words: Mapping[str, float]) -> Decoder:
        """Makes a decoder like that of this recogniser, with more hot words and their boosts in nats.

        Raises:
            InputError: a hot word is empty, is named twice, or needs characters that the alphabet lacks.
        """
        options = self._decoding_options
        more = (f"{word}={boost}" for word, boost in hot_words.items() if word not in options.hot_words)
        return self._model.decoder(dataclasses.replace(options, hot_word=(*options.hot_word, *more)))

    def knows(self, word: str) -> bool:
        """Whether the language model knows a word; True without a language model of words."""
        return self._decode.knows(word)

    def log_probs(self, audio: Audio, sample_rate: int | None = None) -> np.ndarray:
        """Computes the model's log-probabilities for a recording of any length, on one grid of frames.

        Args:
            audio: a file, or an array of samples.
            sample_rate: sample rate of an array in Hz.

        Returns:
            [T', V] float32, natural logarithms; column 0 is the CTC blank. Long silences do not go through the model:
            there the blank has probability 1.

        Raises:
            InputError: see `transcribe`.

        Example:
            >>> recogniser = ds2_jax.load("runs/an4_cpu")
            >>> recogniser.log_probs("talk.wav").shape  # 1.5 s in frames of 40 ms
            (38, 29)
        """
        return self._log_probs(self._named_blocks(audio, sample_rate))[0]

    @packages.explained()
    def align(
        self, audio: Audio, text: str, sample_rate: int | None = None, *, ignore_punctuation: bool = False
    ) -> Transcript:
        """Finds when each word and each character of a known text is said.

        Args:
            audio: a file, or an array of samples.
            text: what is said in it; case and punctuation are changed to fit the model's alphabet, as in training.
            sample_rate: sample rate of an array in Hz.
            ignore_punctuation: whether to leave out punctuation that the alphabet lacks. Characters that are read
                aloud, such as digits and %, are still refused.

        Returns:
            One segment with the text. A confidence is the geometric mean of the model's probabilities for the
            characters at these places.

        Raises:
            InputError: see `transcribe`; or the text is empty, has characters outside the alphabet, or is too long for
                the recording.

        Example:
            >>> recogniser = ds2_jax.load("runs/an4_cpu")
            >>> [word.text for word in recogniser.align("talk.wav", "go left").words]
            ['GO', 'LEFT']
        """
        from ds2_jax.decoding.alignment import align_labels  # this import loads Numba

        alphabet = self._model.alphabet
        if ignore_punctuation:
            alphabet = alphabet.without_punctuation(text)
        if not alphabet.normalise(text):
            raise InputError(f"TEXT must hold at least one word, got {shorten(repr(text))}. Give what is said.")
        if unknown := alphabet.unknown(text):
            advice = "Spell them out or leave them out."
            if all(map(is_punctuation, unknown)):
                advice = "Leave them out, or ignore them: --ignore-punctuation."
            raise InputError(
                f"TEXT must use the model's alphabet {alphabet.characters!r}, got {unknown} in {shorten(repr(text))}. "
                f"{advice}"
            )
        recording = self._named_blocks(audio, sample_rate)
        log_probs, duration = self._log_probs(recording)
        if np.isneginf(log_probs[:, 1:]).all():
            raise InputError(f"{recording.audio} must hold speech, got silence. Give the recording of this text.")
        try:
            spans = align_labels(log_probs, alphabet.encode(text))
        except InputError as error:
            raise InputError(f"{recording.audio}: {error}") from error
        reading = self._decode.hypothesis(spans, log_probs, duration, a_character=True)
        return make_transcript(recording, duration, [Segment(0.0, duration, [reading])])

    def _transcribe_streams(self, recordings: Iterable[NamedBlocks]) -> Iterator[Transcript | InputError]:
        """Recognises recordings as streams, several at once."""
        rest = iter(recordings)
        while group := list(itertools.islice(rest, RECORDINGS_AT_ONCE)):
            streams = [self.stream() for _ in group]
            blocks = {stream: iter(recording.blocks) for stream, recording in zip(streams, group, strict=True)}
            found: dict[Stream, list[Segment]] = {stream: [] for stream in streams}
            errors: dict[Stream, InputError] = {}
            while blocks:
                fed: dict[Stream, np.ndarray] = {}
                for stream, own in blocks.items():
                    try:
                        if (block := next(own, None)) is not None:
                            fed[stream] = block
                    except InputError as error:
                        errors[stream] = error
                        stream.close()
                ended = [stream for stream in blocks if stream not in fed]
                events = self.streams.feed(fed) | self.streams.finish([each for each in ended if each not in errors])
                for stream, own_events in events.items():
                    found[stream] += (event.segment for event in own_events if isinstance(event, FinalText))
                blocks = {stream: blocks[stream] for stream in fed}
            for stream, recording in zip(streams, group, strict=True):
                yield errors.get(stream) or make_transcript(recording, stream.seconds, found[stream])

    def _named_blocks(self, audio: Audio, sample_rate: int | None) -> NamedBlocks:
        rate = self.config.features.sample_rate
        if isinstance(audio, str | Path):
            if sample_rate is not None:
                raise InputError(f"sample_rate must be left out for a file, got {sample_rate}. The file has its own.")
            timeline = Timeline()
            return NamedBlocks(Path(audio), read_blocks(audio, rate, timeline), timeline)
        return NamedBlocks(Path("audio"), array_blocks(np.asarray(audio), sample_rate, rate), Timeline())

    def _log_probs(self, recording: NamedBlocks) -> tuple[np.ndarray, float]:
        """Computes the log-probabilities of a recording, and its duration in seconds."""
        *outputs, end = (event for _, event in piece_outputs(self._model, [recording]))
        assert isinstance(end, End)
        if end.error:
            raise end.error
        num_frames = count_frames(end.num_samples, self.config.features.hop_length)
        num_frames = conv_output_lengths(num_frames, self.config.model.time_reduction)
        log_probs = np.full((num_frames, self._model.alphabet.size), -np.inf, np.float32)
        log_probs[:, Alphabet.blank_index] = 0.0
        stretches: list[list[PieceOutput]] = []
        for each in outputs:
            assert isinstance(each, PieceOutput)
            if not each.piece.overlap:
                stretches.append([])
            stretches[-1].append(each)
        for stretch in stretches:
            joined = join(stretch)
            start = stretch[0].piece.start
            log_probs[start : start + len(joined)] = joined[:, : self._model.alphabet.size]  # of several, the first's
        return log_probs, self._seconds(end)

    def decode_segment(self, log_probs: np.ndarray, seconds: float) -> Sequence[Hypothesis]:
        """Decodes log-probabilities [T', V] float32 of a segment of so many seconds; the best reading comes first."""
        with self._decoding:
            return self._decode(log_probs, seconds)

    def _seconds(self, end: End) -> float:
        return end.num_samples / self.config.features.sample_rate
