"""The batch plan: which utterances form each batch of an epoch, and to which length they are padded.

Pure NumPy on the numbers of samples. No audio is read, so any position in an epoch is reached by slicing its list of
batches, and a run that continues, or another process, makes the same list.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ds2_jax.config.frames import count_frames

MAX_STARTS = 1024
"""Places in the sorted utterances at which a bucket may begin: each of the first thousand utterances, every 293rd of
300,000, where they move a bucket's edge by 0.1 % of the utterances and planning takes 0.4 s (16 buckets)."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """One batch of the plan.

    Attributes:
        padded_samples: length of every waveform of the batch (S): T * hop_length - 1, the longest that gives T frames.
        indices: [B] int32, positions in the list of utterances, then -1 for each empty row.
    """

    padded_samples: int
    indices: np.ndarray


class Bucket(NamedTuple):
    """Batches of one shape: `num_batches` of `num_rows` (B) x `num_frames` (T)."""

    num_frames: int
    num_rows: int
    num_batches: int


@dataclasses.dataclass(frozen=True)
class PlanSummary:
    """What an epoch costs; printed as one line.

    Attributes:
        buckets: the batches of each shape, rising in length; each shape is compiled once.
        padding: share of the frames that is padding, in rows that hold an utterance.
        num_empty_rows: rows that hold none.
        empty_frames: share of all frames that lies in empty rows.
    """

    buckets: tuple[Bucket, ...]
    padding: float
    num_empty_rows: int
    empty_frames: float

    def __str__(self) -> str:
        shapes = ", ".join(f"{bucket.num_rows} x {bucket.num_frames}" for bucket in self.buckets)
        return (
            f"{sum(bucket.num_batches for bucket in self.buckets)} batches of {shapes} frames; "
            f"padding {self.padding:.1%}; empty rows {self.num_empty_rows} ({self.empty_frames:.1%} of the frames)"
        )


def plan_epoch(
    num_samples: np.ndarray,
    *,
    batch_size: int,
    num_buckets: int,
    hop_length: int,
    seed: int,
    epoch: int,
    batch_samples: int = 0,
    sortagrad: bool = False,
    envelope: np.ndarray | None = None,
) -> list[Batch]:
    """Plans one epoch of training: every utterance once, in the same shapes and as many batches of each every epoch.

    Which utterances share a batch, which leftovers move to the next longer bucket and the order of the batches are
    drawn anew from (seed, epoch). Empty rows lie in the shortest bucket, spread over its batches, where they cost least
    and no step rests on a single utterance.

    Args:
        num_samples: [U] int, samples of every utterance in this epoch. A file may hold up to hop_length - 1 more and
            still fits.
        batch_size: rows of a batch (B), if batch_samples is 0.
        num_buckets: most lengths to which batches are padded.
        hop_length: samples between frames.
        seed: of the run.
        epoch: counted from 0.
        batch_samples: most samples of a batch, padding included; the rows follow from the bucket's length (`_rows`).
            A longer utterance is a batch of its own. 0: every batch has batch_size rows.
        sortagrad: epoch 0 goes from short to long utterances instead.
        envelope: [U] int, rising: what `envelope_of` makes of all epochs where their lengths differ; the shapes follow
            from it. None: they do not differ.

    Differs: deepspeech.pytorch's bins are fixed slices of the manifest, whose members never change.
    """
    rng = None if sortagrad and epoch == 0 else np.random.default_rng([seed, epoch])
    batches = _fill_buckets(num_samples, envelope, batch_size, num_buckets, hop_length, batch_samples, rng)
    return batches if rng is None else [batches[position] for position in rng.permutation(len(batches))]


def plan_evaluation(
    num_samples: np.ndarray, *, batch_size: int, num_buckets: int, hop_length: int, batch_samples: int = 0
) -> list[Batch]:
    """Plans one pass from short to long utterances, nothing drawn; otherwise as `plan_epoch`."""
    return _fill_buckets(num_samples, None, batch_size, num_buckets, hop_length, batch_samples, None)


def envelope_of(num_samples: Iterable[np.ndarray]) -> np.ndarray:
    """The length that the shortest, the second shortest, ... utterance never exceeds.

    Batches made for these lengths hold the utterances of every epoch. An utterance's speed changes, the shares of fast
    and slow hardly do: 2,000 utterances at 0.7 to 1.4 times their speed take 2.6 % more room than in plans that fit
    each epoch alone, and 44 % more in plans for the slowest speed.

    Args:
        num_samples: [U] int of every epoch.

    Returns:
        [U] int, rising.
    """
    return functools.reduce(np.maximum, map(np.sort, num_samples))


def summarise(batches: Sequence[Batch], num_samples: np.ndarray, *, hop_length: int) -> PlanSummary:
    """Counts the shapes, the padding and the empty rows of an epoch's batches; arguments as for `plan_epoch`."""
    shapes = Counter((count_frames(batch.padded_samples, hop_length), len(batch.indices)) for batch in batches)
    all_frames = sum(frames * rows * count for (frames, rows), count in shapes.items())
    empty = [int((batch.indices < 0).sum()) for batch in batches]
    empty_frames = sum(
        count * count_frames(batch.padded_samples, hop_length) for count, batch in zip(empty, batches, strict=True)
    )
    indices = np.concatenate([batch.indices for batch in batches])
    valid_frames = int(count_frames(num_samples[indices[indices >= 0]], hop_length).sum())
    return PlanSummary(
        buckets=tuple(Bucket(*shape, count) for shape, count in sorted(shapes.items())),
        padding=1 - valid_frames / (all_frames - empty_frames),
        num_empty_rows=sum(empty),
        empty_frames=empty_frames / all_frames,
    )


def _fill_buckets(
    num_samples: np.ndarray,
    envelope: np.ndarray | None,
    batch_size: int,
    num_buckets: int,
    hop_length: int,
    batch_samples: int,
    rng: np.random.Generator | None,
) -> list[Batch]:
    """The batches from the shortest bucket to the longest, members by length or drawn by `rng`."""
    frames = count_frames(num_samples + hop_length - 1, hop_length)
    order = np.argsort(frames, kind="stable")
    most = frames[order] if envelope is None else count_frames(envelope + hop_length - 1, hop_length)
    assert np.all(frames[order] <= most)
    rows = _rows(most, batch_samples // hop_length) if batch_samples else np.full(len(frames), batch_size)
    buckets = _choose_buckets(most, rows, num_buckets)
    num_empty = sum(bucket.num_rows * bucket.num_batches for bucket in buckets) - len(frames)
    waiting, begin = order[:0], 0
    batches = []
    for bucket in buckets:
        end = int(np.searchsorted(frames[order], bucket.num_frames, side="right"))
        members = np.concatenate([waiting, order[begin:end]])
        if rng is not None:
            rng.shuffle(members)
        used, waiting = np.split(members, [bucket.num_rows * bucket.num_batches - num_empty])
        for utterances in np.array_split(used, bucket.num_batches):
            indices = np.full(bucket.num_rows, -1, np.int32)
            indices[: len(utterances)] = utterances
            batches.append(Batch(bucket.num_frames * hop_length - 1, indices))
        begin, num_empty = end, 0
    return batches


def _rows(frames: np.ndarray, batch_frames: int) -> np.ndarray:
    """Rows that fill `batch_frames` at each length, at least 1, of 3 binary digits: 1 to 8, 10, 12, 14, 16, 20, ...

    So batches of four rows a device or more divide among 2, 4 or 8 devices, without a plan that depends on them. On
    AN4, 104 s a batch, 8 devices: 13.5 % of the frames lost to padding and empty rows instead of 22.7 %.
    """
    rows: np.ndarray = np.maximum(batch_frames // frames, 1)
    rows -= rows % 2 ** np.maximum(np.frexp(rows)[1] - 3, 0)
    return rows


def _choose_buckets(frames: np.ndarray, rows: np.ndarray, num_buckets: int) -> list[Bucket]:
    """Chooses the buckets with the fewest frames, padding and empty rows included, by dynamic programming.

    Taken from the longest utterance down: a bucket is as long as the longest utterance that has no place yet, and its
    batches are filled with the next shorter ones, so leftovers move up. How many utterances have a place is then all
    that the shorter buckets need to know, and only the shortest bucket has empty rows. The sum is exact: it holds the
    leftovers and the empty rows.

    Args:
        frames: [U] int, frames that every utterance needs, rising.
        rows: [U] int, rows of a batch of that length.
        num_buckets: most buckets.

    Returns:
        The buckets, rising in length.
    """
    frames, rows = frames[::-1].astype(np.int64), rows[::-1].astype(np.int64)
    spacing = -(-len(frames) // MAX_STARTS)
    goals = np.append(np.arange(0, len(frames), spacing), len(frames))  # one state from each to the next; the end
    least = np.where(goals == 0, 0.0, np.inf)  # [state], frames of the buckets so far
    placed = np.zeros(len(goals), np.int64)  # [state], utterances (at the end, rows) that these hold
    steps = []
    for _ in range(min(num_buckets, len(np.unique(frames)))):
        totals, ends, origins = np.full(len(goals), np.inf), np.zeros_like(placed), np.zeros_like(placed)
        for state in np.flatnonzero(np.isfinite(least[:-1])).tolist():
            start = placed[state]
            end = start - (start - goals[state + 1 :]) // rows[start] * rows[start]  # whole batches that reach a goal
            total = least[state] + (end - start) * frames[start]
            reached = np.where(end < len(frames), end // spacing, len(goals) - 1)
            better = total < totals[reached]
            totals[reached[better]] = total[better]
            ends[reached[better]] = end[better]
            origins[reached[better]] = state
        steps.append((totals[-1], placed, ends, origins))
        least, placed = totals, ends
    num_steps = 1 + int(np.argmin([total for total, *_ in steps]))  # no more buckets than help
    buckets, state = [], len(goals) - 1
    for _, starts, ends, origins in reversed(steps[:num_steps]):
        origin = origins[state]
        start = starts[origin]
        size = int(rows[start])
        buckets.append(Bucket(int(frames[start]), size, int(ends[state] - start) // size))
        state = origin
    return buckets
