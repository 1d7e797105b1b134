"""Audio files -> transcripts, without TensorFlow."""

import concurrent.futures
import functools
import io
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from ds2_jax import parallel, steps
from ds2_jax import run as run_lib
from ds2_jax.alphabet import Alphabet
from ds2_jax.audio import AUDIO_SUFFIXES, audio_duration, read_audio
from ds2_jax.checkpoint import load_variables
from ds2_jax.compilation import compiler_options
from ds2_jax.config import Config
from ds2_jax.decoding.greedy import Word, greedy_decode, transcript_and_words
from ds2_jax.errors import InputError
from ds2_jax.settings import UNPRINTABLE

BATCH_SIZE = 8
BATCH_SECONDS = 300.0  # of audio, padding included; a longer recording is a batch of its own, or memory would not do
FILES_AT_ONCE, SECONDS_AT_ONCE = 64, 3600.0  # read together and sorted by length, so that little is padded


class Transcript(NamedTuple):
    """What was recognised in a file: the text, its words with their times, and the audio's duration in seconds."""

    audio: Path
    text: str
    words: list[Word]
    duration: float


def find_audio(paths: Sequence[Path]) -> list[Path]:
    """The files named, and all audio files below the folders named, sorted within each.

    What else the folders hold is counted on stderr. Broken links are among the files: reading them fails, and is told.

    Raises:
        InputError: no path is given, one does not exist, or a folder holds no audio.
    """
    if not paths:
        raise InputError("AUDIO must name at least one file or folder, got none. Add it behind RUN.")
    files = []
    for path in paths:
        if os.path.isdir(path):  # noqa: PTH112 - Path's methods raise where the name is too long
            below = sorted(each for each in path.rglob("*") if not each.is_dir())
            found = [each for each in below if each.suffix.lower() in AUDIO_SUFFIXES]
            if others := len(below) - len(found):
                suffixes = sorted({each.suffix.lower() or "no suffix" for each in below} - AUDIO_SUFFIXES)
                print(f"{path}: {others} other files ignored: {', '.join(suffixes)}", file=sys.stderr)
            if not found:
                raise InputError(f"{path} must hold audio files ({' '.join(sorted(AUDIO_SUFFIXES))}), got none.")
            files += found
        elif os.path.exists(path):  # noqa: PTH110
            files.append(path)
        else:
            raise InputError(f"AUDIO must be a file or folder, got {path}, which does not exist. Correct the path.")
    return files


class Transcriber:
    """A trained model, ready to transcribe.

    Args:
        run: folder of a training run.

    Raises:
        InputError: it is no run, or its checkpoint does not fit its configuration.
    """

    def __init__(self, run: Path) -> None:
        self.config: Config = run_lib.load_config(run)
        self._alphabet = Alphabet.of(self.config.data)
        mesh = parallel.data_mesh(jax.local_devices()[:1])
        self._variables = load_variables(run, self.config, mesh)
        best_labels = functools.partial(_best_labels, config=self.config, num_labels=self._alphabet.size)
        self._best_labels = jax.jit(best_labels, compiler_options=compiler_options())

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[tuple[str, list[Word]]]:
        """Transcribes waveforms, those of similar length together.

        Args:
            waveforms: any number, each [S] float32 in [-1, 1], at the model's sample rate.

        Returns:
            Text and words of each, in their order.
        """
        sample_rate = self.config.features.sample_rate
        results: dict[int, tuple[str, list[Word]]] = {}
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
            results |= zip(rows, self._transcribe_batch(batch, num_samples), strict=False)  # empty rows come last
        return [results[i] for i in range(len(waveforms))]

    def _transcribe_batch(self, batch: np.ndarray, num_samples: np.ndarray) -> Iterator[tuple[str, list[Word]]]:
        features = self.config.features
        best_labels, output_lengths = map(np.asarray, self._best_labels(self._variables, batch, num_samples))
        seconds_per_frame = self.config.model.time_reduction * features.window_stride
        for spans, duration in zip(
            greedy_decode(best_labels, output_lengths), num_samples / features.sample_rate, strict=True
        ):
            text, words = transcript_and_words(spans, self._alphabet, seconds_per_frame)
            # The last output frame may reach past the end of the recording.
            yield text, [word._replace(end=min(word.end, float(duration))) for word in words]

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
                        yield Transcript(path, *next(transcribed), len(waveform) / sample_rate)


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


def _best_labels(
    variables: Any, waveforms: jax.Array, num_samples: jax.Array, *, config: Config, num_labels: int
) -> tuple[jax.Array, jax.Array]:
    logits, output_lengths = steps.infer(variables, waveforms, num_samples, config=config, num_labels=num_labels)
    return logits.argmax(-1), output_lengths


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


def transcribe(run: Path, audio: Sequence[Path], output_format: Literal["text", "json"]) -> int:
    """Prints the transcripts of files and folders on stdout, the speed on stderr.

    Args:
        run: folder of a training run.
        audio: files and folders.
        output_format: text prints a line a file, with the path and a tab before it where there are several files;
            json prints a JSON object a file, with the span of every word in seconds.

    Returns:
        Exit code: 1 where a file could not be transcribed, else 0.
    """
    files = find_audio(audio)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a file's name need not be UTF-8: its bytes as they are
    write = _write_json if output_format == "json" else functools.partial(_write_text, with_path=len(files) > 1)
    started = time.perf_counter()
    transcriber = Transcriber(run)
    loaded = time.perf_counter()
    seconds, failed = 0.0, 0
    for result in transcriber.transcribe_files(files):
        if isinstance(result, InputError):
            failed += 1
            print(f"error: {result}", file=sys.stderr)
            continue
        seconds += result.duration
        write(result)
    elapsed = time.perf_counter() - loaded
    print(
        f"{len(files) - failed} files, {seconds:.1f} s of audio in {elapsed:.1f} s"
        + (f" (real-time factor {elapsed / seconds:.3f}, compiling included)" if seconds else "")
        + f"; model loaded in {loaded - started:.1f} s"
        + (f"; {failed} files failed" if failed else ""),
        file=sys.stderr,
    )
    return 1 if failed else 0


def _write_text(transcript: Transcript, with_path: bool) -> None:
    path = str(transcript.audio).translate({9: r"\t", 10: r"\n", 13: r"\r"})  # a line stays a line, a tab the only one
    print(f"{path}\t{transcript.text}" if with_path else transcript.text, flush=True)


def _write_json(transcript: Transcript) -> None:
    words = [{"word": w.text, "start": round(w.start, 3), "end": round(w.end, 3)} for w in transcript.words]
    line: dict[str, Any] = {
        "audio": str(transcript.audio),
        "duration": round(transcript.duration, 3),
        "text": transcript.text,
    }
    utf8 = not UNPRINTABLE.search(line["audio"])  # else the name's odd bytes are escaped
    print(json.dumps(line | {"words": words}, ensure_ascii=not utf8), flush=True)
