"""Cuts a recording of any length, as it is read, into pieces for the model, and joins what the model gives for them.

Pieces end inside pauses; the middle of a longer pause belongs to none. Where nothing is silent, pieces overlap, and
their log-probabilities are joined inside the overlap. Everything is counted in output frames, so that all pieces lie
on one grid. Only levels relative to the recording's own matter, never its gain.
"""

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.ndimage

from ds2_jax.config import Config

WHOLE = 35.0  # seconds: a recording up to this long is one piece, silence and all
LONGEST = 20.0  # seconds: of a piece of a longer one
OVERLAP = 4.0  # seconds: between pieces where there is no pause
PAUSE = 0.3  # seconds: a pause that ends a piece
LONG_PAUSE = 0.8
PACE = 0.1
SHORTEST_PAUSE = 0.12  # seconds: the longest pause of at least this ends a piece that would become too long
MARGIN = 0.25  # seconds of a pause that stay with the speech on either side

# Silence is quiet and steady: no more than so many dB above the quietest frame around, and so many below loud frames.
STEADY, STEADY_AROUND = 13.0, 0.5  # dB, seconds before and behind
QUIET, LOUD_QUANTILE = 20.0, 0.9
SHORTEST_SOUND = 0.1  # seconds: what is shorter, between pauses of CLEAR seconds each, is a click
CLEAR = 0.2
SILENT = 50.0  # dB below loud frames: silent, steady or not
AROUND = 5  # seconds before and behind, in which frames count as loud
LOUD_PAST = 300  # seconds that loudness is remembered: the noise of a break is no speech


class Piece(NamedTuple):
    """A part of a recording that the model hears on its own.

    Attributes:
        start: output frames from the start of the recording.
        overlap: output frames at its start that are the last of the piece before; 0: it begins in a pause.
        waveform: [S] float32.
    """

    start: int
    overlap: int
    waveform: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Grid:
    """Lengths in samples and frames."""

    sample_rate: int
    hop: int
    frame: int  # samples of an output frame

    def frames(self, seconds: float) -> int:
        return max(1, round(seconds * self.sample_rate / self.frame))


def cut(blocks: Iterable[np.ndarray], config: Config) -> Iterator[Piece]:
    """Cuts a recording into pieces, reading it at most a minute ahead.

    Args:
        blocks: [S] float32 each, of whatever sizes, at the model's rate; their sizes make no difference.
        config: of the model.

    Yields:
        Pieces in order. Of a recording of at most WHOLE seconds, the whole, even if empty; of a longer one, pieces of
        at most LONGEST seconds that hold every sample that is not in a pause, once, or twice where they overlap; none
        where all is silent.
    """
    hop = config.features.hop_length
    grid = _Grid(config.features.sample_rate, hop, hop * config.model.time_reduction)
    source = _find_silence(blocks, grid)
    samples, silent = np.zeros(0, np.float32), np.zeros(0, bool)
    start, overlap = 0, 0
    ended = False
    while True:
        read = [(samples, silent)]
        num_frames = len(silent)
        while not ended and num_frames <= grid.frames(WHOLE):
            read.append(next(source, (samples[:0], silent[:0])))
            num_frames += len(read[-1][1])
            ended = not len(read[-1][1])
        samples, silent = (np.concatenate(parts) for parts in zip(*read, strict=True))
        silent = _without_clicks(silent, grid)
        if ended and not start and len(samples) <= WHOLE * grid.sample_rate:
            yield Piece(0, 0, samples)
            return
        if not len(silent):
            return
        lead = _leading(silent) - (0 if ended and silent.all() else grid.frames(MARGIN))
        if not overlap and lead > 0:
            end, following, next_overlap = 0, lead, 0
        else:
            end, following, next_overlap = _choose(silent, ended, grid)
            yield Piece(start, overlap, samples[: end * grid.frame])
        start, overlap = start + following, next_overlap
        samples, silent = samples[following * grid.frame :], silent[following:]


def _choose(silent: np.ndarray, ended: bool, grid: _Grid) -> tuple[int, int, int]:
    """Where the piece that begins here ends, where the next one begins, and by how much they overlap, in frames."""
    longest, margin = grid.frames(LONGEST), grid.frames(MARGIN)
    pauses = _pauses(silent)
    lengths = pauses[:, 1] - pauses[:, 0]
    middles = pauses.sum(1) // 2
    ends = np.minimum(pauses[:, 0] + margin, middles)
    starts = np.maximum(pauses[:, 1] - margin, middles)
    inside = (pauses[:, 0] > 0) & (ends <= longest)
    seconds = ends * grid.frame / grid.sample_rate
    enough = np.clip(LONG_PAUSE - PACE * seconds, PAUSE, LONG_PAUSE) * grid.sample_rate / grid.frame
    found = np.flatnonzero(inside & (lengths >= enough))
    if found.size:
        return ends[found[0]], starts[found[0]], 0
    if ended and len(silent) <= longest:
        return len(silent), len(silent), 0
    usable = inside & (lengths >= grid.frames(SHORTEST_PAUSE))
    if (usable & (ends > longest // 2)).any():
        usable &= ends > longest // 2
    if usable.any():
        best = np.where(usable, lengths, 0).argmax()
        return ends[best], starts[best], 0
    overlap = grid.frames(OVERLAP)
    return longest, longest - overlap, overlap


def _pauses(silent: np.ndarray) -> np.ndarray:
    """[n, 2] int: first silent frame and first frame behind, of every run."""
    edges = np.diff(silent.astype(np.int8), prepend=0, append=0)
    return np.stack([np.flatnonzero(edges > 0), np.flatnonzero(edges < 0)], axis=1)


def _without_clicks(silent: np.ndarray, grid: _Grid) -> np.ndarray:
    sounds, clear = _pauses(~silent), grid.frames(CLEAR)
    silent = silent.copy()
    for first, behind in sounds:
        if (
            behind - first < grid.frames(SHORTEST_SOUND)
            and first >= clear
            and behind + clear <= len(silent)
            and silent[first - clear : first].all()
            and silent[behind : behind + clear].all()
        ):
            silent[first:behind] = True
    return silent


def _leading(silent: np.ndarray) -> int:
    return len(silent) if silent.all() else int(silent.argmin())


def _find_silence(blocks: Iterable[np.ndarray], grid: _Grid) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields about a second at a time: samples [S] and whether each frame of them is silent [ceil(S / frame)] bool."""
    second = grid.frames(1.0) * grid.frame
    waiting: deque[np.ndarray] = deque()
    around: deque[np.ndarray] = deque([np.zeros(0)] * AROUND)  # levels of AROUND chunks before, and of those that wait
    loudness: deque[float] = deque(maxlen=LOUD_PAST)
    for chunk in itertools.chain(_rechunk(blocks, second), [None] * AROUND):
        if chunk is not None:
            waiting.append(chunk)
            around.append(_levels(chunk, grid))
        if waiting and (chunk is None or len(waiting) > AROUND):
            first = sum(map(len, itertools.islice(around, AROUND)))
            silent = _silent(np.concatenate(around), loudness, grid)
            yield waiting.popleft(), silent[first : first + len(around[AROUND])]
            around.popleft()


def _silent(levels: np.ndarray, loudness: deque[float], grid: _Grid) -> np.ndarray:
    """[n] bool of frames; adds to the remembered loudness."""
    sounding = levels > -np.inf
    if sounding.any():
        loudness.append(float(np.quantile(levels[sounding], LOUD_QUANTILE)))
    loud = max(loudness, default=-np.inf)
    floor = np.where(sounding, np.maximum(levels, loud - SILENT - STEADY), np.inf)
    quietest = scipy.ndimage.minimum_filter1d(floor, 2 * grid.frames(STEADY_AROUND) + 1)
    silent: np.ndarray = ~sounding | (levels <= np.minimum(quietest + STEADY, loud - QUIET))
    return silent


def _levels(samples: np.ndarray, grid: _Grid) -> np.ndarray:
    """dB of every frame's loudest hop, its mean taken away; -inf where constant, which to the features is silence."""
    num_frames = -(-len(samples) // grid.frame)
    padded = np.pad(samples.astype(np.float64), (0, num_frames * grid.frame - len(samples)), mode="edge")
    power = padded.reshape(-1, grid.hop).var(axis=1).reshape(num_frames, -1).mean(axis=1)
    with np.errstate(divide="ignore"):
        levels: np.ndarray = 10 * np.log10(power)
    return levels


def _rechunk(blocks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same samples in chunks of `size`, the last one shorter."""
    parts: list[np.ndarray] = []
    held = 0
    for block in blocks:
        parts.append(block)
        held += len(block)
        if held >= size:
            samples = np.concatenate(parts)
            whole = held // size * size
            yield from samples[:whole].reshape(-1, size)
            parts, held = [samples[whole:]], held - whole
    if held:
        yield np.concatenate(parts)


def join(pieces: Sequence[Piece], log_probs: Sequence[np.ndarray]) -> np.ndarray:
    """Joins the log-probabilities of pieces that overlap, so that no label is lost or doubled.

    Each seam lies in the middle half of the overlap, where both sides are surest of blanks: there neither is in the
    midst of a label, which the two may place a frame apart.

    Args:
        pieces: each but the first overlapping the one before.
        log_probs: [T', V] float32 of each.

    Returns:
        [T', V] float32, from the first piece's start to the last one's end.
    """
    parts, begin = [], 0
    for i, (piece, following) in enumerate(itertools.pairwise(pieces)):
        offset = following.start - piece.start  # of the next piece's first frame in this one
        quarter = following.overlap // 4
        shared = slice(quarter, following.overlap - quarter)
        blank = log_probs[i][offset:][shared, 0] + log_probs[i + 1][shared, 0]
        blank = np.minimum(blank, np.append(blank[:1], blank[:-1]))  # the frame before the seam, too
        distance = np.abs(np.arange(len(blank)) - len(blank) // 2)
        seam = quarter + int((blank - 1e-3 * distance).argmax())
        parts.append(log_probs[i][begin : offset + seam])
        begin = seam
    parts.append(log_probs[-1][begin:])
    return np.concatenate(parts)
