"""Plans the batches of an epoch: which utterances each batch contains, and to which length they are padded.

The plan is computed in NumPy from the numbers of samples, without reading audio. So a resumed run or another
process computes the same list of batches, and can start at any position in it.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ds2_jax.config.frames import count_frames

MAX_STARTS = 1024
"""The number of positions in the sorted utterances at which a bucket may begin. With at most 1,024 utterances, a bucket
may begin at each utterance. With 300,000, it may begin at every 293rd. This moves a bucket's edge by at most 0.1 % of
the utterances, and planning needs 0.4 s (16 buckets)."""


@dataclasses.dataclass(frozen=True)
class PlannedBatch:
    """One batch of the plan.

    Attributes:
        padded_samples: length S of every waveform in the batch: T * hop_length - 1, the longest that gives T frames.
        indices: [B] int32, indices of the utterances, then -1 for each empty row.
    """

    padded_samples: int
    indices: np.ndarray


class Bucket(NamedTuple):
    """Batches of one shape: `num_batches` batches of `num_rows` (B) x `num_frames` (T)."""

    num_frames: int
    num_rows: int
    num_batches: int


@dataclasses.dataclass(frozen=True)
class PlanSummary:
    """The cost of an epoch; `str` formats it as one line.

    Attributes:
        buckets: the buckets by increasing length; each shape is compiled once.
        padding: fraction of padding in the frames of rows with an utterance.
        num_empty_rows: number of rows without an utterance.
        empty_frames: fraction of all frames that lies in empty rows.
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
) -> list[PlannedBatch]:
    """Plans one epoch of training with every utterance once.

    Every epoch has the same shapes, and the same number of batches of each shape. A generator with the seed
    (seed, epoch) draws which utterances share a batch, which utterances move to the next longer bucket because they do
    not fill a batch, and the order of the batches. Empty rows lie in the shortest bucket, where they cost least. They
    are spread over its batches, so that these have about the same number of utterances.

    Args:
        num_samples: [U] int, the number of samples of every utterance in this epoch. The true number may be up to
            hop_length - 1 larger. The plan leaves room for that.
        batch_size: rows of a batch (B), if batch_samples is 0.
        num_buckets: the largest number of lengths to which batches are padded.
        hop_length: samples between frames.
        seed: seed of the run.
        epoch: the epoch, counted from 0.
        batch_samples: the most samples in a batch, padding included; the number of rows follows from the bucket's
            length (`_rows`). An utterance of more samples is a batch of its own. With 0, every batch has
            batch_size rows.
        sortagrad: sorts epoch 0 from short to long utterances.
        envelope: [U] int, increasing: the result of `envelope_of` over all epochs. The batch shapes follow from it.
            None if lengths do not differ between epochs.

    Differs: deepspeech.pytorch's bins are fixed slices of the manifest, whose members never change.
    """
    rng = None if sortagrad and epoch == 0 else np.random.default_rng([seed, epoch])
    batches = _fill_buckets(num_samples, envelope, batch_size, num_buckets, hop_length, batch_samples, rng)
    return batches if rng is None else [batches[position] for position in rng.permutation(len(batches))]


def plan_evaluation(
    num_samples: np.ndarray, *, batch_size: int, num_buckets: int, hop_length: int, batch_samples: int = 0
) -> list[PlannedBatch]:
    """Plans one pass from short to long utterances without random draws; otherwise as `plan_epoch`."""
    return _fill_buckets(num_samples, None, batch_size, num_buckets, hop_length, batch_samples, None)


def envelope_of(num_samples: Iterable[np.ndarray]) -> np.ndarray:
    """Sorts the lengths of each epoch. For each rank, returns the maximum over all epochs.

    Batches of these lengths fit the utterances of every epoch. With 2,000 utterances and speeds of 0.7 to 1.4, they
    need 2.6 % more frames than a separate plan for each epoch. A plan for the slowest speed needs 44 % more.

    Args:
        num_samples: [U] int for every epoch, the number of samples of every utterance.

    Returns:
        [U] int, increasing.
    """
    return functools.reduce(np.maximum, map(np.sort, num_samples))


def summarise(batches: Sequence[PlannedBatch], num_samples: np.ndarray, *, hop_length: int) -> PlanSummary:
    """Counts the shapes, padding and empty rows of an epoch's batches; arguments as for `plan_epoch`."""
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
) -> list[PlannedBatch]:
    """Fills batches from the shortest bucket to the longest, sorted by length or shuffled by `rng`."""
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
            batches.append(PlannedBatch(bucket.num_frames * hop_length - 1, indices))
        begin, num_empty = end, 0
    return batches


def _rows(frames: np.ndarray, batch_frames: int) -> np.ndarray:
    """Computes the number of rows that fill `batch_frames` at each length, at least 1.

    The number is rounded down to three significant bits: 1 to 8, 10, 12, 14, 16, 20, ... So if each of 2, 4 or 8
    devices gets at least four rows, all devices get the same number. The plan itself does not know the number of
    devices. On AN4, with 104 s per batch and 8 devices, 13.5 % of the frames are padding or in empty rows. Without the
    rounding, the share is 22.7 %.
    """
    rows: np.ndarray = np.maximum(batch_frames // frames, 1)
    rows -= rows % 2 ** np.maximum(np.frexp(rows)[1] - 3, 0)
    return rows


def _choose_buckets(frames: np.ndarray, rows: np.ndarray, num_buckets: int) -> list[Bucket]:
    """Chooses the buckets with the fewest frames, padding and empty rows included, by dynamic programming.

    Each bucket takes its length from the longest unassigned utterance. Its batches are filled with the next shorter
    utterances, even if these would fit a shorter bucket. So the state of the search is only the number of assigned
    utterances, and only the shortest bucket has empty rows. The cost is exact: it includes the padding of the
    utterances that moved to a longer bucket, and the empty rows.

    Args:
        frames: [U] int, the number of frames that every utterance needs, increasing.
        rows: [U] int, the number of rows in a batch of that length.
        num_buckets: the largest number of buckets.

    Returns:
        The buckets by increasing length.
    """
    frames, rows = frames[::-1].astype(np.int64), rows[::-1].astype(np.int64)
    spacing = -(-len(frames) // MAX_STARTS)
    # [state]: the smallest number of assigned utterances in each state. In the last state all are assigned.
    goals = np.append(np.arange(0, len(frames), spacing), len(frames))
    # [state]: the fewest frames of buckets that lead to the state.
    least = np.where(goals == 0, 0.0, np.inf)
    # [state]: the number of utterances assigned to these buckets. In the last state, empty rows are counted too.
    placed = np.zeros(len(goals), np.int64)
    steps = []
    for _ in range(min(num_buckets, len(np.unique(frames)))):
        totals, ends, origins = np.full(len(goals), np.inf), np.zeros_like(placed), np.zeros_like(placed)
        for state in np.flatnonzero(np.isfinite(least[:-1])).tolist():
            start = placed[state]
            end = start - (start - goals[state + 1 :]) // rows[start] * rows[start]  # full batches that reach a goal
            total = least[state] + (end - start) * frames[start]
            reached = np.where(end < len(frames), end // spacing, len(goals) - 1)
            better = total < totals[reached]
            totals[reached[better]] = total[better]
            ends[reached[better]] = end[better]
            origins[reached[better]] = state
        steps.append((totals[-1], placed, ends, origins))
        least, placed = totals, ends
    num_steps = 1 + int(np.argmin([total for total, *_ in steps]))  # no more buckets than are useful
    buckets, state = [], len(goals) - 1
    for _, starts, ends, origins in reversed(steps[:num_steps]):
        origin = origins[state]
        start = starts[origin]
        size = int(rows[start])
        buckets.append(Bucket(int(frames[start]), size, int(ends[state] - start) // size))
        state = origin
    return buckets
