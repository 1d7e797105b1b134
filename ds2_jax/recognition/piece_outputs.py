"""Runs a model over recordings of any length.

Recordings are read block by block and cut into pieces. Pieces of similar length form a batch, even those of different
recordings. The results come back in the order of the recordings.
"""

import concurrent.futures
import itertools
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ds2_jax.audio.timeline import Timeline
from ds2_jax.config import Config
from ds2_jax.recognition import segments
from ds2_jax.recognition.segments import Piece
from ds2_jax.runs.model import Model
from ds2_jax.system.errors import InputError

BATCH_SIZE = 8
BATCH_SECONDS = 300.0  # audio in a batch with padding; if 8 pieces exceed it, the longest runs alone, to save memory
EVENTS_AT_ONCE = 128  # pieces and ends of recordings in a group; sorting its pieces by length reduces the padding
RECORDINGS_AHEAD = 16  # recordings whose first piece is read in advance


class NamedBlocks(NamedTuple):
    """A recording to recognise.

    Attributes:
        audio: the file, or the name of the recording.
        blocks: the waveform in parts of any size, each [S] float32 in [-1, 1] at the model's sample rate. They are read
            when needed, in another thread, and may raise InputError at any time.
        timeline: the file's times of the sound, which are known when the blocks have been read.
    """

    audio: Path
    blocks: Iterable[np.ndarray]
    timeline: Timeline


class PieceOutput(NamedTuple):
    """A piece of a recording, and the model's log-probabilities for it, [T', V] float32."""

    piece: Piece
    log_probs: np.ndarray


class End(NamedTuple):
    """The end of a recording: all of it has been read, or an error has stopped the reading."""

    num_samples: int
    error: InputError | None = None


def piece_outputs(model: Model, recordings: Iterable[NamedBlocks]) -> Iterator[tuple[NamedBlocks, PieceOutput | End]]:
    """Runs a model over recordings.

    Yields:
        For each recording in order: its pieces in order, then its end, each with the recording.
    """
    events = _read_ahead((recording, cut_recording(recording, model.config)) for recording in recordings)
    while group := list(itertools.islice(events, EVENTS_AT_ONCE)):
        log_probs = iter(log_probs_of(model, [event.waveform for _, event in group if isinstance(event, Piece)]))
        for recording, event in group:
            yield recording, PieceOutput(event, next(log_probs)) if isinstance(event, Piece) else event


def join(outputs: Sequence[PieceOutput]) -> np.ndarray:
    """Joins the log-probabilities of overlapping pieces into one array [T', V]."""
    return segments.join(*zip(*outputs, strict=True))


def log_probs_of(model: Model, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Computes the log-probabilities [T', V] float32 of waveforms [S] float32, in batches of similar length."""
    plan = list(_plan(model, [len(each) for each in waveforms]))
    at_once = model.batches_at_once if len(plan) >= model.batches_at_once else 1
    results: dict[int, np.ndarray] = {}

    def run(batch: _Batch) -> None:
        values = np.zeros((batch.num_rows, batch.num_samples), np.float32)
        num_samples = np.zeros(batch.num_rows, np.int32)
        for row, index in enumerate(batch.indices):
            num_samples[row] = len(waveforms[index])
            values[row, : num_samples[row]] = waveforms[index]
        log_probs, output_lengths = model.log_probs(values, num_samples, on_one_core=at_once > 1)
        # Empty rows come last.
        for index, row_log_probs, num_frames in zip(batch.indices, log_probs, output_lengths, strict=False):
            results[index] = row_log_probs[:num_frames]

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        for _ in pool.map(run, plan) if at_once > 1 else map(run, plan):
            pass
    return [results[i] for i in range(len(waveforms))]


class _Batch(NamedTuple):
    indices: list[int]
    num_rows: int
    num_samples: int


def _plan(model: Model, lengths: Sequence[int]) -> Iterator[_Batch]:
    """Forms batches of waveforms of similar length, the longest first."""
    sample_rate = model.config.features.sample_rate
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        longest = lengths[order[0]]
        padded_samples = _padded_samples(longest, sample_rate) if model.compiles else longest
        alone = len(order) == 1 or BATCH_SIZE * padded_samples > BATCH_SECONDS * sample_rate
        num_rows = 1 if alone else BATCH_SIZE if model.compiles else min(BATCH_SIZE, len(order))
        yield _Batch(order[:num_rows], num_rows, padded_samples)
        order = order[num_rows:]


def cut_recording(recording: NamedBlocks, config: Config) -> Generator[Piece | End, None, None]:
    """Reads a recording and yields its pieces, then its end."""
    num_samples = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal num_samples
        for block in recording.blocks:
            num_samples += len(block)
            yield block

    try:
        yield from segments.cut(counted(), config)
    except InputError as error:
        yield End(num_samples, error)
    else:
        yield End(num_samples)


def _read_ahead(
    recordings: Iterable[tuple[NamedBlocks, Iterator[Piece | End]]],
) -> Iterator[tuple[NamedBlocks, Piece | End]]:
    """Yields the events of all recordings in order; other threads read the first event of the next recordings."""
    begun: deque[tuple[NamedBlocks, concurrent.futures.Future[Piece | End], Iterator[Piece | End]]] = deque()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for following in itertools.chain(recordings, [None] * RECORDINGS_AHEAD):
            if following:
                recording, events = following
                begun.append((recording, pool.submit(next, events), events))
            if begun and (not following or len(begun) > RECORDINGS_AHEAD):
                recording, first, events = begun.popleft()
                yield recording, first.result()
                yield from ((recording, event) for event in events)


def _padded_samples(num_samples: int, sample_rate: int) -> int:
    """Rounds up to the next length of 1, 1.25, 1.56, ... seconds, for little padding and few compiled shapes."""
    seconds = 1.0
    while seconds * sample_rate < num_samples:
        seconds *= 1.25
    return int(seconds * sample_rate)
