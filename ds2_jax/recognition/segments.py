"""Cuts a recording of any length into pieces while it is read, and joins the model's outputs for them.

Pieces end inside pauses; the middle of a long pause belongs to no piece. If there is no pause, pieces overlap, and
their log-probabilities are joined inside the overlap. Positions are counted in output frames, so that all pieces lie on
one grid. Levels are measured relative to the recording, so the gain does not matter.
"""

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ds2_jax.audio.waveform import is_constant
from ds2_jax.config import Config

WHOLE = 35.0  # seconds: a recording of at most this length is one piece, including its silences
LONGEST = 20.0  # seconds: maximum length of a piece of a longer recording
OVERLAP = 4.0  # seconds: overlap of two pieces if there is no pause between them
MARGIN = 0.25  # seconds: the part of a pause that stays with the speech before it, and with the speech after it

# A piece of s seconds ends at the first pause of at least max(0.8 - 0.2 * s, 0.2) seconds. The longer the piece, the
# shorter the pause may be: a short piece lacks context, and a long one is unlike the training data. On AN4's utterances
# joined with pauses of 0.1 to 3 s, fixed values of 0.3, 0.5 and 0.8 s gave more errors.
LONG_PAUSE = 0.8
SHORTER_EACH_SECOND = 0.2
SHORT_PAUSE = 0.2
# If no such pause comes within LONGEST, the piece ends at the longest pause after half that time, else at the longest
# of all. That pause must last at least this many seconds.
SHORTEST_PAUSE = 0.12

# Silence is quiet and steady. A frame is steady if it is hardly louder than the quietest frame within half a second:
# noise is steady, speech is not. So the threshold follows the noise, and quiet speech after loud speech is not silence.
STEADY = 13.0  # dB: a steady frame is at most this much louder than the quietest frame around it
STEADY_AROUND = 0.5  # seconds before and after the frame
QUIET = 20.0  # dB: a frame this far below the loud level is silent if it is steady
SILENT = 50.0  # dB: a frame this far below the loud level is always silent
# Each second gets the 90th percentile of the levels within 5 s. The loud level is the maximum of these over the last
# 300 s, so noise in a long break is not taken for speech.
LOUD_QUANTILE = 0.9
LOUD_AROUND = 5
LOUD_PAST = 300
# A sound shorter than 0.1 s is a click if the 0.2 s before it and the 0.2 s after it are silent. Clicks are silence.
CLICK = 0.1
CLICK_AROUND = 0.2

# A short faint sound, such as a breath, stays in one piece with its nearer neighbour. Features are normalised for each
# piece: in a piece of its own the sound would be as loud as speech, and the model would recognise words in it.
FAINT = 15.0  # dB: a faint frame is at least this far below the loud level
FAINT_LONGEST = 0.5  # seconds: maximum length of a short sound
FAINT_APART = 2.0  # seconds: maximum distance to the neighbour


class Piece(NamedTuple):
    """A part of a recording that goes through the model on its own.

    Attributes:
        start: output frames from the start of the recording.
        overlap: output frames shared with the end of the previous piece; 0 if the piece begins in a pause.
        waveform: [S] float32.
    """

    start: int
    overlap: int
    waveform: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Grid:
    sample_rate: int
    hop: int  # samples between input frames
    frame: int  # samples between output frames

    def frames(self, seconds: float) -> int:
        return max(1, round(seconds * self.sample_rate / self.frame))


def cut(blocks: Iterable[np.ndarray], config: Config) -> Iterator[Piece]:
    """Cuts a recording into pieces, reading at most a minute ahead.

    Args:
        blocks: the waveform in blocks [S] float32 at the model's sample rate; their sizes do not change the result.
        config: the model's configuration.

    Yields:
        Pieces in order. A recording of at most WHOLE seconds is one piece, or none if it is constant. A longer one
        gives pieces of at most LONGEST seconds, or none if it is all silent. Every sample outside pauses is in one
        piece, or in two where they overlap.
    """
    hop = config.features.hop_length
    grid = _Grid(config.features.sample_rate, hop, hop * config.model.time_reduction)
    first: list[np.ndarray] = []
    num_samples, blocks = 0, iter(blocks)
    while num_samples <= WHOLE * grid.sample_rate:  # silence matters only in longer recordings
        block = next(blocks, None)
        if block is None:
            if num_samples and not is_constant(whole := np.concatenate(first)):
                yield Piece(0, 0, whole)
            return
        first.append(block)
        num_samples += len(block)
    source = _find_silence(itertools.chain(first, blocks), grid)
    samples, silent, faint = np.zeros(0, np.float32), np.zeros(0, bool), np.zeros(0, bool)
    start, overlap, ended = 0, 0, False
    while True:
        read = [(samples, silent, faint)]
        num_frames = len(silent)
        while not ended and num_frames <= grid.frames(WHOLE):
            read.append(next(source, (samples[:0], silent[:0], faint[:0])))
            num_frames += len(read[-1][1])
            ended = not len(read[-1][1])
        samples, silent, faint = (np.concatenate(parts) for parts in zip(*read, strict=True))
        silent = _without_clicks(silent, grid)
        if ended and silent.all():
            return
        lead = int(silent.argmin()) if not silent.all() else len(silent)
        if not overlap and lead > grid.frames(MARGIN):
            following, next_overlap = lead - grid.frames(MARGIN), 0
        else:
            end, following, next_overlap = _choose(silent, faint, ended, grid)
            waveform = samples[: end * grid.frame].copy()  # a view would keep everything read ahead in memory
            yield Piece(start, overlap, waveform)
        start, overlap = start + following, next_overlap
        samples, silent, faint = samples[following * grid.frame :], silent[following:], faint[following:]


def _choose(silent: np.ndarray, faint: np.ndarray, ended: bool, grid: _Grid) -> tuple[int, int, int]:
    """Chooses the end of this piece, the start of the next one, and their overlap, in frames."""
    longest, margin = grid.frames(LONGEST), grid.frames(MARGIN)
    pauses = _runs(silent)
    lengths, middles = pauses[:, 1] - pauses[:, 0], pauses.sum(1) // 2
    ends = np.minimum(pauses[:, 0] + margin, middles)
    starts = np.maximum(pauses[:, 1] - margin, middles)
    inside = (pauses[:, 0] > 0) & (ends <= longest)
    seconds = ends * grid.frame / grid.sample_rate
    enough = np.maximum(LONG_PAUSE - SHORTER_EACH_SECOND * seconds, SHORT_PAUSE)
    long = inside & (lengths * grid.frame >= enough * grid.sample_rate)
    boundaries = np.flatnonzero(long | (pauses[:, 0] == 0))
    long[boundaries[_beside_faint(pauses[boundaries], faint, grid)]] = False
    short = inside & (lengths >= grid.frames(SHORTEST_PAUSE))
    if long.any():
        chosen = int(long.argmax())
    elif ended and len(silent) <= longest:
        return len(silent), len(silent), 0
    elif short.any():
        late = short & (ends > longest // 2)
        chosen = int(np.where(late if late.any() else short, lengths, 0).argmax())
    else:
        overlap = grid.frames(OVERLAP)
        return longest, longest - overlap, overlap
    return int(ends[chosen]), int(starts[chosen]), 0


def _beside_faint(pauses: np.ndarray, faint: np.ndarray, grid: _Grid) -> np.ndarray:
    """Finds the pauses between a short faint sound and its nearer neighbour; [n] bool, one for each pause."""
    # The pause at the start is already a boundary, so it counts as the longest.
    lengths = np.where(pauses[:, 0] > 0, pauses[:, 1] - pauses[:, 0], len(faint))
    beside = np.zeros(len(pauses), bool)
    for i, ((_, first), (behind, _)) in enumerate(itertools.pairwise(pauses)):
        nearer = i + int(lengths[i + 1] < lengths[i])
        if behind - first <= grid.frames(FAINT_LONGEST) and faint[first:behind].all():
            beside[nearer] |= lengths[nearer] <= grid.frames(FAINT_APART)
    return beside


def _runs(flags: np.ndarray) -> np.ndarray:
    """Finds the runs of True in `flags`: [n, 2] int, the first frame of each and the first frame after it."""
    edges = np.diff(flags.astype(np.int8), prepend=0, append=0)
    return np.stack([np.flatnonzero(edges > 0), np.flatnonzero(edges < 0)], axis=1)


def _without_clicks(silent: np.ndarray, grid: _Grid) -> np.ndarray:
    silent, around = silent.copy(), grid.frames(CLICK_AROUND)
    for first, behind in _runs(~silent):
        before, after = silent[max(first - around, 0) : first], silent[behind : behind + around]
        clear = len(before) == len(after) == around and before.all() and after.all()
        if clear and (behind - first) * grid.frame < CLICK * grid.sample_rate:
            silent[first:behind] = True
    return silent


def _find_silence(blocks: Iterable[np.ndarray], grid: _Grid) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Marks silent and faint frames.

    Yields:
        For each chunk of about a second: the samples [S]; whether each of their frames is silent, and whether it is
        faint, both [ceil(S / frame)] bool.
    """
    second = grid.frames(1.0) * grid.frame
    waiting: deque[np.ndarray] = deque()
    # Levels of the LOUD_AROUND chunks before the waiting ones, and of the waiting ones.
    around: deque[np.ndarray] = deque([np.zeros(0)] * LOUD_AROUND)
    loudness: deque[float] = deque(maxlen=LOUD_PAST)
    for chunk in itertools.chain(_rechunk(blocks, second), [None] * LOUD_AROUND):
        if chunk is not None:
            waiting.append(chunk)
            around.append(_levels(chunk, grid))
        if waiting and (chunk is None or len(waiting) > LOUD_AROUND):
            first = sum(map(len, itertools.islice(around, LOUD_AROUND)))
            silent, faint = _silent(np.concatenate(around), loudness, grid)
            inside = slice(first, first + len(around[LOUD_AROUND]))
            yield waiting.popleft(), silent[inside], faint[inside]
            around.popleft()


def _silent(levels: np.ndarray, loudness: deque[float], grid: _Grid) -> tuple[np.ndarray, np.ndarray]:
    """Finds silent frames and faint frames, [n] bool each; appends to `loudness`."""
    sounding = levels > -np.inf
    if sounding.any():
        loudness.append(float(np.quantile(levels[sounding], LOUD_QUANTILE)))
    loud = max(loudness, default=-np.inf)
    floor = np.where(sounding, np.maximum(levels, loud - SILENT - STEADY), np.inf)
    around = grid.frames(STEADY_AROUND)
    padded = np.pad(floor, around, constant_values=np.inf)
    quietest = np.lib.stride_tricks.sliding_window_view(padded, 2 * around + 1).min(axis=1)
    silent: np.ndarray = ~sounding | (levels <= np.minimum(quietest + STEADY, loud - QUIET))
    return silent, levels <= loud - FAINT


def _levels(samples: np.ndarray, grid: _Grid) -> np.ndarray:
    """Computes the level of every frame in dB, after subtracting the mean of each hop.

    Constant frames get -inf: for the features, they are silence.
    """
    num_frames = -(-len(samples) // grid.frame)
    padded = np.pad(samples.astype(np.float64), (0, num_frames * grid.frame - len(samples)), mode="edge")
    power = padded.reshape(-1, grid.hop).var(axis=1).reshape(num_frames, -1).mean(axis=1)
    with np.errstate(divide="ignore"):
        levels: np.ndarray = 10 * np.log10(power)
    return levels


def _rechunk(blocks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Regroups the samples into chunks of `size`; the last one may be shorter."""
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
    """Joins the log-probabilities of overlapping pieces, so that no label is lost or doubled.

    Each seam lies in the middle half of the overlap, where blanks are most probable in both pieces. The two pieces may
    place a label one frame apart. A seam between blanks neither drops nor doubles the label.

    Args:
        pieces: the pieces; each overlaps the one before.
        log_probs: the log-probabilities of each piece, [T', V] float32.

    Returns:
        [T', V] float32, from the first piece's start to the last one's end.
    """
    parts, begin = [], 0
    for i, (piece, following) in enumerate(itertools.pairwise(pieces)):
        offset = following.start - piece.start  # frame of this piece at which the next one starts
        quarter = following.overlap // 4
        shared = slice(quarter, following.overlap - quarter)
        blank = log_probs[i][offset:][shared, 0] + log_probs[i + 1][shared, 0]
        blank = np.minimum(blank, np.append(blank[:1], blank[:-1]))  # so that the frame before the seam counts too
        distance = np.abs(np.arange(len(blank)) - len(blank) // 2)
        seam = quarter + int((blank - 1e-3 * distance).argmax())
        parts.append(log_probs[i][begin : offset + seam])
        begin = seam
    parts.append(log_probs[-1][begin:])
    return np.concatenate(parts)
